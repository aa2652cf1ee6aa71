//! Matches and actions as English phrases.

use std::fmt::Display;

use crate::render;
use crate::ruleset::netfilter::{self, Choice, Field, Lookup, MarkChange, Table};
use crate::ruleset::{
    Action, Addresses, ConntrackState, Elements, GidMatch, Match, PortMatch, Protocol, Rejection, Set, UidMatch, Zone,
};
use crate::types::Family;

/// How many elements of a set a phrase lists.
const MAX_LISTED_ELEMENTS: usize = 4;

/// The packets that match: `TCP to port 53`.
pub fn matched_packets(table: &Table, matcher: &netfilter::Match) -> String {
    match matcher {
        netfilter::Match::Planned(planned) => matched_by_plan(&table.sets, planned),
        netfilter::Match::Lookup(lookup) => found_packets(lookup),
        netfilter::Match::Unreadable(text) => format!("packets that match [{text}]"),
    }
}

fn found_packets(lookup: &Lookup) -> String {
    let not = if lookup.is_negated { "not " } else { "" };
    let elements = render::netfilter::elements(lookup);
    let elements = elements
        .trim_start_matches("{ ")
        .trim_end_matches(" }")
        .replace('"', "");
    let [key] = lookup.keys.as_slice() else {
        return format!(
            "packets with {}",
            render::netfilter::matcher(&netfilter::Match::Lookup(lookup.clone()))
        );
    };
    match (key.field, render::netfilter::any_bits(lookup)) {
        (Field::ConntrackState, Some((true, names))) => format!("packets in conntrack state {}", list(names)),
        (Field::ConntrackState, Some((false, names))) => format!("packets not in conntrack state {}", list(names)),
        (Field::Family, _) if elements == "ipv4" => format!("{not}{}", Family::V4),
        (Field::Family, _) if elements == "ipv6" => format!("{not}{}", Family::V6),
        (Field::Protocol, _) => format!("{not}{}", elements.to_uppercase()),
        (Field::InInterface, _) => format!("packets {not}arriving on {elements}"),
        (Field::OutInterface, _) => format!("packets {not}leaving by {elements}"),
        (Field::Source(_), _) => format!("packets {not}from {elements}"),
        (Field::Destination(_), _) => format!("packets {not}to {elements}"),
        (Field::SourcePort, _) => format!("packets {not}from port {elements}"),
        (Field::DestinationPort, _) => format!("packets {not}to port {elements}"),
        (Field::Uid, _) => format!("packets {not}of user {elements}"),
        (Field::Gid, _) => format!("packets {not}of group {elements}"),
        _ => format!(
            "packets with {}",
            render::netfilter::matcher(&netfilter::Match::Lookup(lookup.clone()))
        ),
    }
}

fn matched_by_plan(sets: &[Set], matcher: &Match) -> String {
    match matcher {
        Match::Family(family) => family.to_string(),
        Match::Protocol(of) => protocol(*of).to_owned(),
        Match::InInterface(name) => format!("packets arriving on {name}"),
        Match::OutInterface(name) => format!("packets leaving by {name}"),
        Match::Source(from) => format!("packets from {}", addresses(sets, from)),
        Match::Destination(to) => format!("packets to {}", addresses(sets, to)),
        Match::SourcePort(of, from) => format!("{} from port {}", protocol(*of), ports(sets, from)),
        Match::DestinationPort(of, to) => format!("{} to port {}", protocol(*of), ports(sets, to)),
        Match::Uid(UidMatch::Uid(uid)) => format!("packets of user {uid}"),
        Match::Uid(UidMatch::Set(name)) => format!("packets of user {}", set(sets, name)),
        Match::Gid(GidMatch::Gid(gid)) => format!("packets of group {gid}"),
        Match::Gid(GidMatch::Set(name)) => format!("packets of group {}", set(sets, name)),
        Match::Cgroup(cgroup) => format!("packets of cgroup {}", cgroup.name()),
        Match::Mark(mark) => format!("packets with mark {mark}"),
        Match::MarkIsNot(mark) => format!("packets without mark {mark}"),
        Match::ConntrackMark(mark) => format!("packets of connections with mark {mark}"),
        Match::ConntrackState(ConntrackState::Invalid) => "packets in conntrack state invalid".to_owned(),
        Match::ConntrackState(ConntrackState::New) => "the first packet of a connection".to_owned(),
        Match::ConntrackState(ConntrackState::Related) => "packets that another connection announced".to_owned(),
        Match::Reply => "packets in the reply direction of their connection".to_owned(),
        Match::DestinationTranslated => "packets whose destination is translated".to_owned(),
        Match::SourceIsLocal => "packets from an address of the pod".to_owned(),
        Match::NoReversePath => "packets from an address that is not behind their interface".to_owned(),
        Match::DestinationIsLocal => "packets to an address of the pod".to_owned(),
        Match::HasOwner => "packets of any user".to_owned(),
        Match::TcpNotSyn => "TCP segments other than SYN".to_owned(),
        Match::Icmpv6Type(number) => format!("ICMPv6 messages of type {number}"),
        Match::ConntrackState(ConntrackState::Established) => "packets of established connections".to_owned(),
    }
}

/// The effect of a rule's actions, in a base chain or in a chain that a rule jumps to.
pub fn effects(rule: &netfilter::Rule, in_base_chain: bool) -> String {
    let effects: Vec<String> = rule.actions().map(|action| effect(action, in_base_chain)).collect();
    match effects.is_empty() {
        true => "no effect".to_owned(),
        false => effects.join(", "),
    }
}

fn effect(action: &netfilter::Action, in_base_chain: bool) -> String {
    use netfilter::Action as Installed;
    let port = |port: &Choice<crate::types::Port>| match port {
        Choice::Keep => "the same port".to_owned(),
        Choice::One(port) => format!("port {port}"),
        Choice::Any => "one of several ports".to_owned(),
    };
    match action {
        Installed::Planned(planned) => planned_effect(planned, in_base_chain),
        Installed::Goto(chain) => format!("continues in chain {chain}"),
        Installed::Reject => "rejected".to_owned(),
        Installed::Queue => "handed to a program, which decides".to_owned(),
        Installed::Untrack => "excluded from connection tracking".to_owned(),
        Installed::Mark(MarkChange {
            of_connection: true, ..
        }) => {
            format!("connection's mark changed ({})", render::netfilter::action(action))
        }
        Installed::Mark(_) => format!("mark changed ({})", render::netfilter::action(action)),
        Installed::Redirect(to) => format!("redirected to {} of the pod", port(to)),
        Installed::Dnat(..) => format!("destination translated ({})", render::netfilter::action(action)),
        Installed::Snat(..) => format!("source translated ({})", render::netfilter::action(action)),
        Installed::Tproxy { port: to, .. } => {
            format!("passed unchanged to the transparent socket on {} of the pod", port(to))
        }
        Installed::Map(..) => format!("as its map says ({})", render::netfilter::action(action)),
        Installed::Nothing(text) => format!("no effect on the path ({text})"),
        Installed::Unreadable(text) => format!("unknown ({text})"),
    }
}

fn planned_effect(action: &Action, in_base_chain: bool) -> String {
    match action {
        Action::Return if in_base_chain => "continues after this chain".to_owned(),
        Action::Return => "returns to the calling chain".to_owned(),
        Action::Jump(chain) => format!("jumps to chain {chain}"),
        Action::Accept => "accepted".to_owned(),
        Action::Drop => "dropped".to_owned(),
        Action::Reject(Rejection::TcpReset) => "rejected with a TCP reset".to_owned(),
        Action::Reject(Rejection::AdminProhibited) => "rejected with an ICMP error".to_owned(),
        Action::Redirect(port) => format!("redirected to port {port} of the pod"),
        Action::Tproxy { port, mark } => {
            format!("passed unchanged to the transparent socket on port {port} of the pod, with mark {mark}")
        }
        Action::SetMark(mark) => format!("mark set to {mark}"),
        Action::SaveMark => "mark saved to its connection".to_owned(),
        Action::RestoreMark => "mark restored from its connection".to_owned(),
        Action::SetZone(Zone(zone)) => format!("conntrack zone set to {zone}"),
        Action::SetTimeouts => "conntrack timeouts set".to_owned(),
    }
}

/// The name of a protocol, in capitals.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn addresses(sets: &[Set], addresses: &Addresses) -> String {
    match addresses {
        Addresses::Ip(ip) => ip.to_string(),
        Addresses::Set(_, name) => set(sets, name),
    }
}

fn ports(sets: &[Set], ports: &PortMatch) -> String {
    match ports {
        PortMatch::Port(port) => port.to_string(),
        PortMatch::Set(name) => set(sets, name),
    }
}

/// The elements of a set; a long set is cut after [`MAX_LISTED_ELEMENTS`].
fn set(sets: &[Set], name: &str) -> String {
    match sets.iter().find(|set| set.name == name).map(|set| &set.elements) {
        Some(Elements::Ipv4(nets)) => list(nets),
        Some(Elements::Ipv6(nets)) => list(nets),
        Some(Elements::Ports(ports)) => list(ports),
        Some(Elements::Uids(uids)) => list(uids),
        Some(Elements::Gids(gids)) => list(gids),
        None => format!("of the unreadable set {name}"),
    }
}

fn list<T: Display>(elements: impl IntoIterator<Item = T>) -> String {
    let mut elements: Vec<String> = elements.into_iter().map(|element| element.to_string()).collect();
    let more = elements.len().saturating_sub(MAX_LISTED_ELEMENTS);
    if more > 0 {
        elements.truncate(MAX_LISTED_ELEMENTS);
        elements.push(format!("{more} more"));
    }
    match elements.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}
