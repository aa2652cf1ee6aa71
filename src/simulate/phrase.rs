//! Matches and actions in plain words.

use std::fmt::Display;

use crate::ruleset::{
    Action, Addresses, ConntrackState, Elements, GidMatch, Match, PortMatch, Protocol, Ruleset, UidMatch, Zone,
};

/// How many elements of a set are named.
const NAMED: usize = 4;

/// What a match lets through: `TCP to port 53`.
pub fn matching(ruleset: &Ruleset, matcher: &Match) -> String {
    match matcher {
        Match::Family(family) => family.to_string(),
        Match::Protocol(of) => protocol(*of).to_owned(),
        Match::InInterface(name) => format!("what arrives on {name}"),
        Match::OutInterface(name) => format!("what leaves by {name}"),
        Match::Source(from) => format!("what comes from {}", addresses(ruleset, from)),
        Match::Destination(to) => format!("what goes to {}", addresses(ruleset, to)),
        Match::SourcePort(of, from) => format!("{} from port {}", protocol(*of), ports(ruleset, from)),
        Match::DestinationPort(of, to) => format!("{} to port {}", protocol(*of), ports(ruleset, to)),
        Match::Uid(UidMatch::Uid(uid)) => format!("what user {uid} sends"),
        Match::Uid(UidMatch::Set(name)) => format!("what user {} sends", set(ruleset, name)),
        Match::Gid(GidMatch::Gid(gid)) => format!("what group {gid} sends"),
        Match::Gid(GidMatch::Set(name)) => format!("what group {} sends", set(ruleset, name)),
        Match::Mark(mark) => format!("what has the mark {mark}"),
        Match::MarkIsNot(mark) => format!("what has not the mark {mark}"),
        Match::ConntrackMark(mark) => format!("what belongs to a connection with the mark {mark}"),
        Match::ConntrackState(ConntrackState::Invalid) => "what belongs to no known connection".to_owned(),
        Match::ConntrackState(ConntrackState::Established) => "what belongs to an established connection".to_owned(),
    }
}

/// What an action does, in a base chain or in one that was jumped to.
pub fn acting(action: &Action, in_base_chain: bool) -> String {
    match action {
        Action::Return if in_base_chain => "left alone".to_owned(),
        Action::Return => "back from this chain".to_owned(),
        Action::Jump(chain) => format!("on to chain {chain}"),
        Action::Accept => "let through".to_owned(),
        Action::Drop => "dropped".to_owned(),
        Action::Redirect(port) => format!("redirected to port {port} of the pod"),
        Action::Tproxy { port, mark } => {
            format!("handed to the transparent socket on port {port} of the pod, with the mark {mark}")
        }
        Action::SetMark(mark) => format!("gets the mark {mark}"),
        Action::SaveMark => "its connection gets its mark".to_owned(),
        Action::RestoreMark => "gets the mark of its connection".to_owned(),
        Action::SetZone(Zone(zone)) => format!("its connection is looked for in zone {zone}"),
        Action::SetTimeouts => "its connection gets timeouts".to_owned(),
    }
}

/// The name of a protocol, as people write it.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn addresses(ruleset: &Ruleset, addresses: &Addresses) -> String {
    match addresses {
        Addresses::Ip(ip) => ip.to_string(),
        Addresses::Set(_, name) => set(ruleset, name),
    }
}

fn ports(ruleset: &Ruleset, ports: &PortMatch) -> String {
    match ports {
        PortMatch::Port(port) => port.to_string(),
        PortMatch::Set(name) => set(ruleset, name),
    }
}

/// The elements of a set, or as many of them as can be read at a glance.
fn set(ruleset: &Ruleset, name: &str) -> String {
    match ruleset.set(name).map(|set| &set.elements) {
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
    let more = elements.len().saturating_sub(NAMED);
    if more > 0 {
        elements.truncate(NAMED);
        elements.push(format!("{more} more"));
    }
    match elements.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}
