//! The policies of the node, which a pod's annotations may make stricter but not laxer.

use crate::options::problem::{Problem, Source};
use crate::options::{Layer, Settings};
use crate::types::{Cidrs, Number, Policy, Ports, Ranges};

/// Whether these options of the node set a policy that pods must keep.
pub fn has_floor(node: &Layer) -> bool {
    let policies = [node.outbound_policy, node.inbound_policy];
    policies.contains(&Some(Policy::ProxyOnly))
}

/// Whether these settings have the policies that the node sets.
pub fn keeps(node: &Layer, settings: &Settings) -> bool {
    let config = &settings.config;
    let policies = [
        (node.outbound_policy, config.outbound.policy),
        (node.inbound_policy, config.inbound.policy),
    ];
    policies
        .iter()
        .all(|(of_node, own)| *of_node != Some(Policy::ProxyOnly) || *own == Policy::ProxyOnly)
}

/// Checks that the options of a pod are not laxer than those of the node.
///
/// # Errors
/// Every option that is.
pub fn check(node: &Layer, pod: &Layer) -> Result<(), Vec<Problem>> {
    let problems: Vec<Problem> = laxer(node, pod).into_iter().map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn problem((policy, option): (&str, &str)) -> Problem {
    Problem::Source {
        source: Source::Annotation,
        reason: format!(
            "{option} would make the {policy} of the node laxer: remove the annotation that sets it, or set {option} in \
             the NetConf for all pods"
        ),
    }
}

/// Whether a pod's list has entries, and is another one than that of the node.
fn names_others<T: PartialEq>(pod: Option<&T>, node: Option<&T>, is_empty: impl Fn(&T) -> bool) -> bool {
    pod.is_some_and(|own| !is_empty(own)) && pod != node
}

/// The options of a pod that are laxer than those of the node, each with the policy that it concerns.
fn laxer(node: &Layer, pod: &Layer) -> Vec<(&'static str, &'static str)> {
    const OUTBOUND: &str = "outbound policy";
    const INBOUND: &str = "inbound policy";
    let is_locked = |policy: Option<Policy>| policy == Some(Policy::ProxyOnly);
    let (outbound, inbound) = (is_locked(node.outbound_policy), is_locked(node.inbound_policy));
    let mut laxer = Vec::new();
    let mut check = |policy, option, is_laxer: bool| {
        if is_laxer {
            laxer.push((policy, option));
        }
    };
    if outbound {
        check(OUTBOUND, "outbound-policy", !is_locked(pod.outbound_policy));
        check(
            OUTBOUND,
            "allow-dns",
            pod.allow_dns == Some(true) && node.allow_dns != Some(true),
        );
        let names_servers = pod.allow_dns == Some(true) && pod.dns_servers != node.dns_servers;
        check(OUTBOUND, "dns-servers", names_servers);
        check(
            OUTBOUND,
            "exclude-outbound-ports",
            has_more(
                pod.exclude_outbound_ports.as_ref(),
                node.exclude_outbound_ports.as_ref(),
            ),
        );
        check(
            OUTBOUND,
            "exclude-uids",
            has_more(pod.exclude_uids.as_ref(), node.exclude_uids.as_ref()),
        );
        check(
            OUTBOUND,
            "exclude-gids",
            has_more(pod.exclude_gids.as_ref(), node.exclude_gids.as_ref()),
        );
        let (own, of_node) = (&pod.exclude_outbound_cidrs, &node.exclude_outbound_cidrs);
        check(
            OUTBOUND,
            "exclude-outbound-cidrs",
            names_others(own.as_ref(), of_node.as_ref(), Cidrs::is_empty),
        );
        let (own, of_node) = (
            &pod.exclude_outbound_ports_for_uids,
            &node.exclude_outbound_ports_for_uids,
        );
        check(
            OUTBOUND,
            "exclude-outbound-ports-for-uids",
            names_others(own.as_ref(), of_node.as_ref(), Vec::is_empty),
        );
        check(
            OUTBOUND,
            "proxy-uid",
            pod.proxy_uid.is_some() && pod.proxy_uid != node.proxy_uid,
        );
        check(
            OUTBOUND,
            "proxy-gid",
            pod.proxy_gid.is_some() && pod.proxy_gid != node.proxy_gid,
        );
        check(
            OUTBOUND,
            "proxy-mark",
            node.proxy_mark.is_some() && pod.proxy_mark != node.proxy_mark,
        );
    }
    if inbound {
        check(INBOUND, "inbound-policy", !is_locked(pod.inbound_policy));
        // Injectors also exclude the ports that the mesh serves itself.
        let served = served(node);
        let allowed = node.exclude_inbound_ports.clone().unwrap_or_default().union(&served);
        check(
            INBOUND,
            "exclude-inbound-ports",
            has_more(pod.exclude_inbound_ports.as_ref(), Some(&allowed)),
        );
        check(INBOUND, "mesh-ports", has_more(pod.mesh_ports.as_ref(), Some(&served)));
        let (own, of_node) = (&pod.exclude_inbound_cidrs, &node.exclude_inbound_cidrs);
        check(
            INBOUND,
            "exclude-inbound-cidrs",
            names_others(own.as_ref(), of_node.as_ref(), Cidrs::is_empty),
        );
    }
    let (own, of_node) = (&pod.exclude_interfaces, &node.exclude_interfaces);
    let interfaces = names_others(own.as_ref(), of_node.as_ref(), Vec::is_empty);
    check(
        if outbound { OUTBOUND } else { INBOUND },
        "exclude-interfaces",
        (outbound || inbound) && interfaces,
    );
    laxer
}

/// The ports that the mesh serves itself, unless the node says otherwise.
fn served(node: &Layer) -> Ports {
    let default = || {
        let of_mesh = node.mesh.and_then(crate::mesh::named);
        let of_mesh = of_mesh.and_then(|mesh| mesh.layer().mesh_ports);
        of_mesh.unwrap_or_else(|| Settings::default().config.proxy.mesh_ports)
    };
    node.mesh_ports.clone().unwrap_or_else(default)
}

/// Whether the pod names a number that the node does not.
fn has_more<N: Number>(pod: Option<&Ranges<N>>, node: Option<&Ranges<N>>) -> bool {
    let Some(pod) = pod.filter(|pod| !pod.is_empty()) else {
        return false;
    };
    node.is_none_or(|node| node.union(pod) != *node)
}
