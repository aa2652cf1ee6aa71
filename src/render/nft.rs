//! A plan as a script for `nft -f` (nft(8)).

use std::fmt::Write as _;

use crate::plan::Plan;
use crate::ruleset::{
    Action, Addresses, BaseHook, Chain, ChainType, Elements, Family, GidMatch, Hook, Match, PortMatch, Protocol, Rule,
    Set, TABLE, UidMatch,
};

/// Elements on one line of a set, as nft itself breaks them for reading.
const ELEMENTS_A_LINE: usize = 8;

/// The whole plan. What nft cannot do, the loopback addresses, stands there as a command in a comment.
///
/// Loading the script replaces our table, and nothing else, at one instant.
pub fn script(plan: &Plan) -> String {
    let mut text = String::from("#!/usr/sbin/nft -f\n");
    for command in super::address_commands(plan) {
        text += &format!("# Not for nft to do, but part of the plan: {command}\n");
    }
    // Adding first makes the deletion succeed where there is no table yet; the script is one transaction.
    text += &format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
    text += &format!("table inet {TABLE} {{\n");
    let sets = plan.ruleset.sets.iter().map(set);
    let chains = plan.ruleset.chains.iter().map(chain);
    text += &sets.chain(chains).collect::<Vec<_>>().join("\n");
    text + "}\n"
}

fn set(set: &Set) -> String {
    let (kind, elements) = match &set.elements {
        Elements::Ipv4(nets) => ("ipv4_addr", nets.iter().map(ToString::to_string).collect()),
        Elements::Ipv6(nets) => ("ipv6_addr", nets.iter().map(ToString::to_string).collect()),
        Elements::Ports(ports) => ("inet_service", ports.iter().map(ToString::to_string).collect()),
        Elements::Uids(uids) => ("uid", uids.iter().map(ToString::to_string).collect()),
        Elements::Gids(gids) => ("gid", gids.iter().map(ToString::to_string).collect::<Vec<_>>()),
    };
    let lines: Vec<String> = elements.chunks(ELEMENTS_A_LINE).map(|line| line.join(", ")).collect();
    format!(
        "\tset {} {{\n\t\ttype {kind}\n\t\tflags interval\n\t\telements = {{ {} }}\n\t}}\n",
        set.name,
        lines.join(",\n\t\t\t     ")
    )
}

fn chain(chain: &Chain) -> String {
    let mut text = format!("\tchain {} {{\n", chain.name);
    if let Some(base) = &chain.hook {
        text += &format!("\t\t{}\n", base_hook(base));
    }
    for rule in &chain.rules {
        text += &format!("\t\t{}\n", self::rule(rule));
    }
    text + "\t}\n"
}

fn base_hook(base: &BaseHook) -> String {
    let kind = match base.kind {
        ChainType::Nat => "nat",
    };
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
    };
    format!("type {kind} hook {hook} priority {}; policy accept;", base.priority)
}

/// One rule, as a line of a chain.
pub fn rule(rule: &Rule) -> String {
    let mut text = String::new();
    for matcher in &rule.matches {
        text += &self::matcher(matcher);
        text.push(' ');
    }
    text += &action(&rule.action);
    let _ = write!(text, " comment \"{}\"", rule.comment);
    text
}

fn matcher(matcher: &Match) -> String {
    match matcher {
        Match::Family(Family::V4) => "meta nfproto ipv4".to_owned(),
        Match::Family(Family::V6) => "meta nfproto ipv6".to_owned(),
        Match::Protocol(Protocol::Tcp) => "meta l4proto tcp".to_owned(),
        Match::InInterface(name) => format!("iifname \"{name}\""),
        Match::OutInterface(name) => format!("oifname \"{name}\""),
        Match::Source(addresses) => self::addresses(addresses, "saddr"),
        Match::Destination(addresses) => self::addresses(addresses, "daddr"),
        Match::DestinationPort(Protocol::Tcp, PortMatch::Port(port)) => format!("tcp dport {port}"),
        Match::DestinationPort(Protocol::Tcp, PortMatch::Set(set)) => format!("tcp dport @{set}"),
        Match::Uid(UidMatch::Uid(uid)) => format!("meta skuid {uid}"),
        Match::Uid(UidMatch::Set(set)) => format!("meta skuid @{set}"),
        Match::Gid(GidMatch::Gid(gid)) => format!("meta skgid {gid}"),
        Match::Gid(GidMatch::Set(set)) => format!("meta skgid @{set}"),
    }
}

fn addresses(addresses: &Addresses, side: &str) -> String {
    let protocol = match addresses.family() {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match addresses {
        Addresses::Ip(ip) => format!("{protocol} {side} {ip}"),
        Addresses::Set(_, set) => format!("{protocol} {side} @{set}"),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Return => "return".to_owned(),
        Action::Jump(chain) => format!("jump {chain}"),
        Action::Redirect(port) => format!("redirect to :{port}"),
    }
}
