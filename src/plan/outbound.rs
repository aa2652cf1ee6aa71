//! Connections from the pod.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::Config;
use crate::config::types::{Cidrs, InterfaceName};
use crate::ruleset::{Action, Addresses, Chain, Families, Match, Rule};

use super::sets::Sets;
use super::{inbound, passthrough, rule, tcp};

/// The chain that decides about a connection from the pod.
const CHAIN: &str = "outbound";
/// The chain for what the proxy sends over loopback.
const SELF_CALLS: &str = "self_calls";

/// The rule that leads to the chain for connections from the pod.
pub fn entry() -> Rule {
    rule([tcp()], Action::Jump(CHAIN.into()), "TCP that local processes send")
}

/// The chains that decide about a connection from the pod.
pub fn chains(config: &Config, families: Families, sets: &mut Sets) -> Vec<Chain> {
    let captures_inbound = !config.inbound.include_ports.is_empty();
    let mut rules = Vec::new();
    rules.extend(excluded_ports_and_owners(config, sets));
    rules.extend(proxy(config, families, sets, captures_inbound));
    rules.extend(destinations(config, families, sets));
    let outbound = Chain {
        name: CHAIN.into(),
        hook: None,
        rules,
    };
    let self_calls = captures_inbound.then(|| self_calls(config, families, sets));
    [Some(outbound), self_calls].into_iter().flatten().collect()
}

fn leave_alone(matches: impl IntoIterator<Item = Match>, comment: &'static str) -> Rule {
    rule(matches, Action::Return, comment)
}

fn over_loopback() -> Match {
    Match::OutInterface(InterfaceName::loopback())
}

fn excluded_ports_and_owners(config: &Config, sets: &mut Sets) -> Vec<Rule> {
    let outbound = &config.outbound;
    let ports = sets
        .destination_port("exclude_outbound_ports", &outbound.exclude_ports)
        .map(|ports| leave_alone([ports], "excluded outbound ports"));
    let uids = sets
        .uid("exclude_uids", &outbound.exclude_uids)
        .map(|uids| leave_alone([uids], "excluded users"));
    let gids = sets
        .gid("exclude_gids", &outbound.exclude_gids)
        .map(|gids| leave_alone([gids], "excluded groups"));
    let mut rules: Vec<Rule> = ports.into_iter().chain(uids).chain(gids).collect();
    for (number, entry) in outbound.exclude_ports_for_uids.iter().enumerate() {
        if !entry.tcp {
            continue; // Only TCP is captured, so UDP needs no exception.
        }
        let uids = sets.uid(format!("exclude_for_uids_{number}"), &entry.uids);
        let ports = sets.destination_port(format!("exclude_ports_for_uids_{number}"), &entry.ports);
        if let (Some(uids), Some(ports)) = (uids, ports) {
            rules.push(leave_alone([uids, ports], "ports excluded for these users"));
        }
    }
    rules
}

/// The proxy's own traffic: left alone, but for what it sends to the pod's own address, which is inbound.
fn proxy(config: &Config, families: Families, sets: &mut Sets, captures_inbound: bool) -> Vec<Rule> {
    let owners: Vec<Match> = [
        sets.uid("proxy_uids", &config.proxy.uids),
        sets.gid("proxy_gids", &config.proxy.gids),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut rules: Vec<Rule> = families
        .iter()
        .map(|family| {
            let source = Match::Source(Addresses::Ip(passthrough(family)));
            leave_alone(
                [over_loopback(), source],
                "the proxy passes inbound traffic on to the app",
            )
        })
        .collect();
    if captures_inbound {
        rules.extend(owners.iter().map(|owner| {
            rule(
                [over_loopback(), owner.clone()],
                Action::Jump(SELF_CALLS.into()),
                "the proxy calls the pod itself",
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

/// Which destinations are captured, once ports and owners have been looked at.
fn destinations(config: &Config, families: Families, sets: &mut Sets) -> Vec<Rule> {
    let outbound = &config.outbound;
    let to_proxy = |matches: Vec<Match>, comment| rule(matches, Action::Redirect(config.proxy.outbound_port), comment);
    let mut rules = to_loopback(config, families, sets, "loopback");
    rules.extend(
        sets.addresses(
            "exclude_outbound",
            &outbound.exclude_cidrs,
            families,
            Match::Destination,
        )
        .into_iter()
        .map(|destination| leave_alone([destination], "excluded outbound destinations")),
    );
    rules.extend(
        sets.addresses(
            "include_loopback",
            &outbound.include_cidrs.loopback(),
            families,
            Match::Destination,
        )
        .into_iter()
        .map(|destination| {
            to_proxy(
                vec![over_loopback(), tcp(), destination],
                "included loopback destinations, to the proxy",
            )
        }),
    );
    rules.push(leave_alone([over_loopback()], "the pod calls itself"));
    rules.extend(
        sets.destination_port("include_outbound_ports", &outbound.include_ports)
            .map(|ports| to_proxy(vec![ports], "included outbound ports, to the proxy")),
    );
    if outbound.include_cidrs.is_everything() {
        rules.push(to_proxy(vec![tcp()], "outbound, to the proxy"));
    } else {
        rules.extend(
            sets.addresses(
                "include_outbound",
                &outbound.include_cidrs,
                families,
                Match::Destination,
            )
            .into_iter()
            .map(|destination| to_proxy(vec![tcp(), destination], "included outbound destinations, to the proxy")),
        );
    }
    rules
}

/// What the proxy sends to the pod's own address goes the way of any inbound connection.
fn self_calls(config: &Config, families: Families, sets: &mut Sets) -> Chain {
    let mut rules = to_loopback(config, families, sets, "loopback");
    rules.push(rule(
        [tcp()],
        Action::Jump(inbound::CHAIN.into()),
        "the pod's own address: as if it came from outside",
    ));
    Chain {
        name: SELF_CALLS.into(),
        hook: None,
        rules,
    }
}

fn to_loopback(config: &Config, families: Families, sets: &mut Sets, comment: &'static str) -> Vec<Rule> {
    let v4 = IpNet::from(config.loopback_cidr.net());
    let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
    let loopback: Cidrs = [v4, v6].into_iter().collect();
    sets.addresses("loopback", &loopback, families, Match::Destination)
        .into_iter()
        .map(|destination| leave_alone([destination], comment))
        .collect()
}
