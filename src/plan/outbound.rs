//! Connections from the pod.

use super::context::{Context, Lookups, from_passthrough, leave_alone, over_loopback, rule, tcp};
use super::{dns, inbound, istio, kuma};
use crate::mesh::Delivery;
use crate::options::Dialect;
use crate::ruleset::{Action, Chain, Match, Protocol, Rule};
use crate::types::InboundMode;

/// The chain that decides about a connection from the pod.
pub const CHAIN: &str = "outbound";
/// The chain for what the proxy sends over loopback.
const SELF_CALLS: &str = "self_calls";
/// The chain for traffic of the only groups that are captured.
const INCLUDED_GROUPS: &str = "included_groups";
/// The chain for what arrives on interfaces behind which there are processes of the pod.
const REROUTED: &str = "rerouted";

/// The rules that lead to the chain for connections from the pod.
pub fn entries(context: &Context) -> Vec<Rule> {
    let entry = |matched, comment| rule([matched], Action::Jump(CHAIN.into()), comment);
    let lookups = context
        .dns
        .is_some()
        .then(|| entry(dns::query(Protocol::Udp), "DNS queries over UDP"));
    [entry(tcp(), "locally generated TCP")]
        .into_iter()
        .chain(lookups)
        .collect()
}

/// The chains that decide about a connection from the pod.
pub fn chains(context: &mut Context) -> Vec<Chain> {
    if let Dialect::Kuma(kuma) = &context.config.dialect {
        return kuma::chains(context, kuma);
    }
    let mut rules = dns::of_everybody(context);
    rules.extend(excluded_ports(context));
    let mut chains = Vec::new();
    match context.config.dialect.clone() {
        Dialect::Sidetrack | Dialect::Kuma(_) => {
            rules.extend(excluded_owners(context));
            if context.delivery() == Delivery::FromPassthrough {
                rules.extend(passthrough(context));
            }
            rules.extend(proxy(context));
            chains.extend(redirects_self_calls(context).then(|| self_calls(context)));
        }
        Dialect::Istio(order) => {
            rules.extend(passthrough(context));
            rules.extend(istio::proxy(context, &order));
            rules.extend(excluded_groups(context));
            chains.extend(istio::chains(context));
        }
    }
    let groups = &context.config.outbound.include_gids;
    if groups.is_everything() {
        rules.extend(captured(context));
    } else {
        let included = context.sets.gid("include_gids", groups).map(|groups| {
            rule(
                [groups],
                Action::Jump(INCLUDED_GROUPS.into()),
                "only these groups are captured",
            )
        });
        if included.is_some() {
            chains.push(chain(INCLUDED_GROUPS, captured(context)));
        }
        rules.extend(included);
    }
    [chain(CHAIN, rules)].into_iter().chain(chains).collect()
}

pub fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.into(),
        hook: None,
        rules,
    }
}

/// Whether the proxy's inbound port takes what the proxy sends to the pod's own address.
fn redirects_self_calls(context: &Context) -> bool {
    context.delivery() == Delivery::FromPassthrough && !context.config.inbound.include_ports.is_empty()
}

/// Excluded ports are those of TCP, and where lookups are captured those of UDP as well.
fn excluded_ports(context: &mut Context) -> Vec<Rule> {
    let ports = &context.config.outbound.exclude_ports;
    protocols(context)
        .into_iter()
        .filter_map(|protocol| context.sets.destination_port("exclude_outbound_ports", protocol, ports))
        .map(|ports| leave_alone([ports], "excluded outbound ports"))
        .collect()
}

/// The protocols of which anything is captured.
fn protocols(context: &Context) -> Vec<Protocol> {
    // What is captured of everybody comes before all exclusions.
    let excludes_lookups = context
        .dns
        .as_ref()
        .is_some_and(|lookups| !matches!(lookups, Lookups::OfEverybody(_)));
    let udp = excludes_lookups.then_some(Protocol::Udp);
    [Protocol::Tcp].into_iter().chain(udp).collect()
}

fn excluded_owners(context: &mut Context) -> Vec<Rule> {
    let outbound = &context.config.outbound;
    let uids = context.sets.uid("exclude_uids", &outbound.exclude_uids);
    let mut rules: Vec<Rule> = uids
        .map(|uids| leave_alone([uids], "excluded users"))
        .into_iter()
        .collect();
    rules.extend(excluded_groups(context));
    rules.extend(excluded_ports_for_uids(context));
    rules
}

/// Ports that are left alone for some users.
pub fn excluded_ports_for_uids(context: &mut Context) -> Vec<Rule> {
    let outbound = &context.config.outbound;
    let protocols = protocols(context);
    let mut rules = Vec::new();
    for (number, entry) in outbound.exclude_ports_for_uids.iter().enumerate() {
        let Some(uids) = context.sets.uid(format!("exclude_for_uids_{number}"), &entry.uids) else {
            continue;
        };
        for protocol in &protocols {
            let meant = match protocol {
                Protocol::Tcp => entry.tcp,
                Protocol::Udp => entry.udp,
            };
            let name = format!("exclude_ports_for_uids_{number}");
            let ports = meant
                .then(|| context.sets.destination_port(name, *protocol, &entry.ports))
                .flatten();
            rules.extend(ports.map(|ports| leave_alone([uids.clone(), ports], "ports excluded for these users")));
        }
    }
    rules
}

fn excluded_groups(context: &mut Context) -> Option<Rule> {
    let gids = context.sets.gid("exclude_gids", &context.config.outbound.exclude_gids);
    gids.map(|gids| leave_alone([gids], "excluded groups"))
}

fn passthrough(context: &Context) -> Vec<Rule> {
    let rule = |family| {
        leave_alone(
            [over_loopback(), from_passthrough(family)],
            "from the proxy to the application",
        )
    };
    context.families.iter().map(rule).collect()
}

/// The proxy's own traffic: left alone, but for what it sends to the pod's own address, which is inbound.
fn proxy(context: &mut Context) -> Vec<Rule> {
    let owners = context.proxy_owners();
    let mut rules = Vec::new();
    if redirects_self_calls(context) {
        if context.config.inbound.mode == InboundMode::Tproxy {
            rules.push(leave_alone(
                [over_loopback(), Match::Mark(context.config.inbound.tproxy_mark)],
                "from the proxy to the application, with the client's address",
            ));
        }
        rules.extend(owners.iter().map(|owner| {
            rule(
                [over_loopback(), owner.clone()],
                Action::Jump(SELF_CALLS.into()),
                "from the proxy to the pod's own address",
            )
        }));
    }
    rules.extend(
        owners
            .into_iter()
            .map(|owner| leave_alone([owner], "the proxy's own traffic")),
    );
    rules
}

/// What the proxy sends to the pod's own address goes the way of any inbound connection.
fn self_calls(context: &mut Context) -> Chain {
    let mut rules = context.leave_loopback_alone();
    if context.dns.is_some() {
        rules.push(leave_alone(
            [dns::query(Protocol::Tcp)],
            "the proxy's DNS query to a server in the pod",
        ));
        rules.push(leave_alone(
            [dns::query(Protocol::Udp)],
            "the proxy's DNS query to a server in the pod",
        ));
    }
    rules.push(rule(
        [tcp()],
        Action::Jump(inbound::CHAIN.into()),
        "the pod's own address, handled as inbound",
    ));
    chain(SELF_CALLS, rules)
}

/// What is captured, once ports and owners have been looked at.
fn captured(context: &mut Context) -> Vec<Rule> {
    let mut rules = dns::of_applications(context);
    rules.extend(context.leave_loopback_alone());
    rules.extend(excluded_destinations(context));
    if context.config.dialect == Dialect::Sidetrack {
        rules.extend(included_loopback(context));
        rules.push(leave_alone([over_loopback()], "traffic within the pod"));
    }
    rules.extend(included_destinations(context));
    rules
}

pub fn excluded_destinations(context: &mut Context) -> Vec<Rule> {
    let cidrs = &context.config.outbound.exclude_cidrs;
    let excluded = context
        .sets
        .addresses("exclude_outbound", cidrs, context.families, Match::Destination);
    let alone = |destination| leave_alone([destination], "excluded outbound destinations");
    excluded.into_iter().map(alone).collect()
}

fn to_proxy(context: &Context, matches: impl IntoIterator<Item = Match>, comment: &'static str) -> Rule {
    rule(matches, Action::Redirect(context.config.proxy.outbound_port), comment)
}

fn included_loopback(context: &mut Context) -> Vec<Rule> {
    let cidrs = context.config.outbound.include_cidrs.loopback();
    let included = context
        .sets
        .addresses("include_loopback", &cidrs, context.families, Match::Destination);
    let captured = |destination| {
        let matches = [over_loopback(), tcp(), destination];
        to_proxy(context, matches, "included loopback destinations, to the proxy")
    };
    included.into_iter().map(captured).collect()
}

pub fn included_destinations(context: &mut Context) -> Vec<Rule> {
    let outbound = &context.config.outbound;
    let ports = context
        .sets
        .destination_port("include_outbound_ports", Protocol::Tcp, &outbound.include_ports);
    let ports = ports.map(|ports| to_proxy(context, [ports], "included outbound ports, to the proxy"));
    ports.into_iter().chain(included_addresses(context)).collect()
}

fn included_addresses(context: &mut Context) -> Vec<Rule> {
    let cidrs = &context.config.outbound.include_cidrs;
    if cidrs.is_everything() {
        return vec![to_proxy(context, [tcp()], "outbound, to the proxy")];
    }
    let included = context
        .sets
        .addresses("include_outbound", cidrs, context.families, Match::Destination);
    let captured = |destination| {
        to_proxy(
            context,
            [tcp(), destination],
            "included outbound destinations, to the proxy",
        )
    };
    included.into_iter().map(captured).collect()
}

/// What arrives on rerouted interfaces is outbound traffic, of processes behind them.
pub fn rerouted(context: &Context) -> Vec<Rule> {
    if let Dialect::Kuma(kuma) = &context.config.dialect {
        return kuma::rerouted(context, &kuma.networks);
    }
    let outbound = context.config.general.reroute_interfaces.iter().map(|name| {
        rule(
            [Match::InInterface(name.clone())],
            Action::Jump(REROUTED.into()),
            "outbound from a rerouted interface",
        )
    });
    outbound.chain(not_inbound(context)).collect()
}

/// What arrives on rerouted interfaces is not inbound.
pub fn not_inbound(context: &Context) -> Vec<Rule> {
    let interfaces = context.config.general.reroute_interfaces.iter().cloned();
    interfaces
        .map(|name| leave_alone([Match::InInterface(name)], "rerouted interface: not inbound"))
        .collect()
}

/// The chains for what arrives on rerouted interfaces. Nothing tells the owners of its sockets.
pub fn rerouted_chains(context: &mut Context) -> Vec<Chain> {
    if let Dialect::Kuma(kuma) = &context.config.dialect {
        return kuma::network_chains(context, &kuma.networks);
    }
    if context.config.general.reroute_interfaces.is_empty() {
        return Vec::new();
    }
    let rules = match context.config.dialect {
        Dialect::Sidetrack | Dialect::Kuma(_) => {
            let mut rules = excluded_ports(context);
            rules.extend(dns::of_applications(context));
            rules.extend(excluded_destinations(context));
            rules.extend(included_destinations(context));
            rules
        }
        // Istio's rules know no exclusions here.
        Dialect::Istio(_) => included_addresses(context),
    };
    vec![chain(REROUTED, rules)]
}
