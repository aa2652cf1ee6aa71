//! Matches and actions as English phrases.

use std::fmt::Display;

use crate::ruleset::{
    Action, Addresses, ConntrackState, Elements, GidMatch, Match, PortMatch, Protocol, Ruleset, UidMatch, Zone,
};

/// How many elements of a set a phrase lists.
const MAX_LISTED_ELEMENTS: usize = 4;

/// The packets that match: `TCP to port 53`.
pub fn matching(ruleset: &Ruleset, matcher: &Match) -> String {
    match matcher {
        Match::Family(family) => family.to_string(),
        Match::Protocol(of) => protocol(*of).to_owned(),
        Match::InInterface(name) => format!("packets arriving on {name}"),
        Match::OutInterface(name) => format!("packets leaving by {name}"),
        Match::Source(from) => format!("packets from {}", addresses(ruleset, from)),
        Match::Destination(to) => format!("packets to {}", addresses(ruleset, to)),
        Match::SourcePort(of, from) => format!("{} from port {}", protocol(*of), ports(ruleset, from)),
        Match::DestinationPort(of, to) => format!("{} to port {}", protocol(*of), ports(ruleset, to)),
        Match::Uid(UidMatch::Uid(uid)) => format!("packets of user {uid}"),
        Match::Uid(UidMatch::Set(name)) => format!("packets of user {}", set(ruleset, name)),
        Match::Gid(GidMatch::Gid(gid)) => format!("packets of group {gid}"),
        Match::Gid(GidMatch::Set(name)) => format!("packets of group {}", set(ruleset, name)),
        Match::Mark(mark) => format!("packets with mark {mark}"),
        Match::MarkIsNot(mark) => format!("packets without mark {mark}"),
        Match::ConntrackMark(mark) => format!("packets of connections with mark {mark}"),
        Match::ConntrackState(ConntrackState::Invalid) => "packets in conntrack state invalid".to_owned(),
        Match::ConntrackState(ConntrackState::Established) => "packets of established connections".to_owned(),
    }
}

/// The effect of an action, in a base chain or in a chain that a rule jumps to.
pub fn acting(action: &Action, in_base_chain: bool) -> String {
    match action {
        Action::Return if in_base_chain => "continues after this chain".to_owned(),
        Action::Return => "returns to the calling chain".to_owned(),
        Action::Jump(chain) => format!("jumps to chain {chain}"),
        Action::Accept => "accepted".to_owned(),
        Action::Drop => "dropped".to_owned(),
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

/// The elements of a set; a long set is cut after [`MAX_LISTED_ELEMENTS`].
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
