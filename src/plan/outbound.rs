//! Connections from the pod.

use super::context::{Context, Lookups, from_passthrough, over_loopback, rule, skip, tcp};
use super::{dns, inbound, istio, kuma};
use crate::mesh::Delivery;
use crate::options::Dialect;
use crate::ruleset::{Action, Chain, Match, Protocol, Rule};
use crate::types::{Families, InboundMode, Policy};

/// The chain for connections from the pod.
pub const CHAIN: &str = "outbound";
/// The chain for connections of the proxy over loopback.
const SELF_CALLS: &str = "self_calls";
/// The chain for traffic of the included groups.
const INCLUDED_GROUPS: &str = "included_groups";
/// The chain for packets from rerouted interfaces, behind which processes of the pod run.
const REROUTED: &str = "rerouted";

/// The rules that jump to the chain for connections from the pod.
pub fn entries(context: &Context) -> Vec<Rule> {
    let is_locked = context.config.outbound.policy == Policy::ProxyOnly;
    // The proxy's answer to a forged source address would leave.
    let source = is_locked.then_some(Match::SourceIsLocal);
    let entry = |matched, comment| {
        let matches = [matched].into_iter().chain(source.clone());
        rule(matches, Action::Jump(CHAIN.into()), comment)
    };
    let lookups = context
        .dns
        .is_some()
        .then(|| entry(dns::query(Protocol::Udp), "DNS queries over UDP"));
    [entry(tcp(), "locally generated TCP")]
        .into_iter()
        .chain(lookups)
        .collect()
}

/// The chains for connections from the pod.
pub fn chains(context: &mut Context) -> Vec<Chain> {
    if let Dialect::Kuma(kuma) = &context.config.dialect {
        return kuma::chains(context, kuma);
    }
    let mut rules = dns::from_all_senders(context);
    let protocols = captured_protocols(context);
    rules.extend(excluded_ports(context, &protocols));
    let mut chains = Vec::new();
    match context.config.dialect.clone() {
        Dialect::Sidetrack | Dialect::Kuma(_) => {
            rules.extend(excluded_owners(context, &protocols));
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

/// Whether connections of the proxy to the pod's own address go to its inbound port.
fn redirects_self_calls(context: &Context) -> bool {
    context.delivery() == Delivery::FromPassthrough && !context.config.inbound.include_ports.is_empty()
}

/// Skips the excluded ports of these protocols.
pub fn excluded_ports(context: &mut Context, protocols: &[Protocol]) -> Vec<Rule> {
    let ports = &context.config.outbound.exclude_ports;
    protocols
        .iter()
        .filter_map(|protocol| {
            context
                .sets
                .destination_port("exclude_outbound_ports", *protocol, ports)
        })
        .map(|ports| skip([ports], "excluded outbound ports"))
        .collect()
}

/// The protocols of which anything is captured. Excluded ports are those of TCP, and where lookups are captured those of
/// UDP as well.
pub fn captured_protocols(context: &Context) -> Vec<Protocol> {
    // Lookups of all senders are captured before all exclusions.
    let excludes_lookups = context
        .dns
        .as_ref()
        .is_some_and(|lookups| !matches!(lookups, Lookups::FromAllSenders(_)));
    let udp = excludes_lookups.then_some(Protocol::Udp);
    [Protocol::Tcp].into_iter().chain(udp).collect()
}

/// Skips excluded users and groups, and the ports that are excluded for some users.
pub fn excluded_owners(context: &mut Context, protocols: &[Protocol]) -> Vec<Rule> {
    let outbound = &context.config.outbound;
    let uids = context.sets.uid("exclude_uids", &outbound.exclude_uids);
    let mut rules: Vec<Rule> = uids.map(|uids| skip([uids], "excluded users")).into_iter().collect();
    rules.extend(excluded_groups(context));
    rules.extend(excluded_ports_for_uids(context, protocols));
    rules
}

/// Skips the ports that are excluded for some users.
pub fn excluded_ports_for_uids(context: &mut Context, protocols: &[Protocol]) -> Vec<Rule> {
    let outbound = &context.config.outbound;
    let mut rules = Vec::new();
    for (number, entry) in outbound.exclude_ports_for_uids.iter().enumerate() {
        let Some(uids) = context.sets.uid(format!("exclude_for_uids_{number}"), &entry.uids) else {
            continue;
        };
        for protocol in protocols {
            let meant = match protocol {
                Protocol::Tcp => entry.tcp,
                Protocol::Udp => entry.udp,
            };
            let name = format!("exclude_ports_for_uids_{number}");
            let ports = meant
                .then(|| context.sets.destination_port(name, *protocol, &entry.ports))
                .flatten();
            rules.extend(ports.map(|ports| skip([uids.clone(), ports], "ports excluded for these users")));
        }
    }
    rules
}

fn excluded_groups(context: &mut Context) -> Option<Rule> {
    let gids = context.sets.gid("exclude_gids", &context.config.outbound.exclude_gids);
    gids.map(|gids| skip([gids], "excluded groups"))
}

fn passthrough(context: &Context) -> Vec<Rule> {
    let rule = |family| {
        skip(
            [over_loopback(), from_passthrough(family)],
            "from the proxy to the application",
        )
    };
    context.families.iter().map(rule).collect()
}

/// The proxy's own traffic: skipped, except its connections to the pod's own address, which are inbound.
fn proxy(context: &mut Context) -> Vec<Rule> {
    let senders = context.proxy_senders();
    let mut rules = Vec::new();
    if redirects_self_calls(context) {
        if context.config.inbound.mode == InboundMode::Tproxy {
            rules.push(skip(
                [over_loopback(), Match::Mark(context.config.inbound.tproxy_mark)],
                "from the proxy to the application, with the client's address",
            ));
        }
        rules.extend(senders.iter().map(|sender| {
            rule(
                [over_loopback()].into_iter().chain(sender.clone()),
                Action::Jump(SELF_CALLS.into()),
                "from the proxy to the pod's own address",
            )
        }));
    }
    rules.extend(skip_senders(senders));
    rules
}

/// The proxy's own traffic, wherever it goes.
pub fn proxy_senders(context: &mut Context) -> impl Iterator<Item = Rule> + use<> {
    skip_senders(context.proxy_senders())
}

fn skip_senders(senders: Vec<Vec<Match>>) -> impl Iterator<Item = Rule> {
    senders
        .into_iter()
        .map(|sender| skip(sender, "the proxy's own traffic"))
}

/// The chain for connections of the proxy to the pod's own address: handled like inbound connections.
fn self_calls(context: &mut Context) -> Chain {
    let mut rules = context.skip_loopback();
    if context.dns.is_some() {
        rules.push(skip(
            [dns::query(Protocol::Tcp)],
            "the proxy's DNS query to a server in the pod",
        ));
        rules.push(skip(
            [dns::query(Protocol::Udp)],
            "the proxy's DNS query to a server in the pod",
        ));
    }
    if context.config.general.counters {
        // In the shared chain, a counter would not tell these connections from those of other hosts.
        rules.extend(inbound::rules(context));
    } else {
        rules.push(rule(
            [tcp()],
            Action::Jump(inbound::CHAIN.into()),
            "the pod's own address, handled as inbound",
        ));
    }
    chain(SELF_CALLS, rules)
}

/// Captured traffic, after the rules for ports and owners.
fn captured(context: &mut Context) -> Vec<Rule> {
    let mut rules = dns::from_applications(context);
    rules.extend(context.skip_loopback());
    rules.extend(excluded_destinations(context, context.families));
    if context.config.dialect == Dialect::Sidetrack {
        rules.extend(included_loopback(context));
        rules.push(skip([over_loopback()], "traffic within the pod"));
    }
    rules.extend(included_destinations(context));
    rules
}

pub fn excluded_destinations(context: &mut Context, families: Families) -> Vec<Rule> {
    let cidrs = &context.config.outbound.exclude_cidrs;
    let excluded = context
        .sets
        .addresses("exclude_outbound", cidrs, families, Match::Destination);
    let alone = |destination| skip([destination], "excluded outbound destinations");
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

/// Packets from rerouted interfaces are outbound traffic of the processes behind them.
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

/// Packets from rerouted interfaces are not inbound.
pub fn not_inbound(context: &Context) -> Vec<Rule> {
    let interfaces = context.config.general.reroute_interfaces.iter().cloned();
    interfaces
        .map(|name| skip([Match::InInterface(name)], "rerouted interface: not inbound"))
        .collect()
}

/// The chains for packets from rerouted interfaces. The owners of their sockets are not known.
pub fn rerouted_chains(context: &mut Context) -> Vec<Chain> {
    if let Dialect::Kuma(kuma) = &context.config.dialect {
        return kuma::network_chains(context, &kuma.networks);
    }
    if context.config.general.reroute_interfaces.is_empty() {
        return Vec::new();
    }
    let rules = match context.config.dialect {
        Dialect::Sidetrack | Dialect::Kuma(_) => {
            let protocols = captured_protocols(context);
            let mut rules = excluded_ports(context, &protocols);
            rules.extend(dns::from_applications(context));
            rules.extend(excluded_destinations(context, context.families));
            rules.extend(included_destinations(context));
            rules
        }
        // Istio's rules have no exclusions here.
        Dialect::Istio(_) => included_addresses(context),
    };
    vec![chain(REROUTED, rules)]
}
