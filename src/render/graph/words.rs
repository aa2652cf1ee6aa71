//! Rules as text for readers who do not know nftables.

use super::Effect;
use crate::render::nft;
use crate::ruleset::{
    Action, Addresses, BaseHook, Chain, ConntrackState, Elements, GidMatch, Match, Name, PortMatch, Protocol,
    Rejection, Rule, Ruleset, UidMatch, Zone,
};
use crate::types::Family;

/// The most elements of a set that are shown.
const MAX_SHOWN_ELEMENTS: usize = 4;

/// Type and priority of a base chain.
pub fn base(chain: &Chain, base: &BaseHook) -> String {
    format!("{}, priority {}", nft::chain_type(chain, base), base.priority)
}

/// The condition of a rule.
pub fn condition(ruleset: &Ruleset, rule: &Rule) -> String {
    let words: Vec<String> = rule
        .matches
        .iter()
        .map(|matched| self::matched(ruleset, matched))
        .collect();
    match words.is_empty() {
        true => "always".to_owned(),
        false => words.join(", "),
    }
}

fn matched(ruleset: &Ruleset, matched: &Match) -> String {
    let set = |name: &Name| self::set(ruleset, name);
    let addresses = |addresses: &Addresses| match addresses {
        Addresses::Ip(ip) => ip.to_string(),
        Addresses::Set(_, name) => set(name),
    };
    let ports = |ports: &PortMatch| match ports {
        PortMatch::Port(port) => port.to_string(),
        PortMatch::Set(name) => set(name),
    };
    match matched {
        Match::Family(Family::V4) => "IPv4".to_owned(),
        Match::Family(Family::V6) => "IPv6".to_owned(),
        Match::Protocol(protocol) => self::protocol(*protocol).to_owned(),
        Match::InInterface(name) => format!("arrives on {name}"),
        Match::OutInterface(name) => format!("leaves on {name}"),
        Match::Source(from) => format!("from {}", addresses(from)),
        Match::Destination(to) => format!("to {}", addresses(to)),
        Match::SourcePort(of, from) => format!("from {} port {}", protocol(*of), ports(from)),
        Match::DestinationPort(of, to) => format!("to {} port {}", protocol(*of), ports(to)),
        Match::Uid(UidMatch::Uid(uid)) => format!("user {uid}"),
        Match::Uid(UidMatch::Set(name)) => format!("user {}", set(name)),
        Match::Gid(GidMatch::Gid(gid)) => format!("group {gid}"),
        Match::Gid(GidMatch::Set(name)) => format!("group {}", set(name)),
        Match::Cgroup(cgroup) => format!("cgroup {}", cgroup.name()),
        Match::Mark(mark) => format!("mark {mark}"),
        Match::MarkIsNot(mark) => format!("mark not {mark}"),
        Match::ConntrackMark(mark) => format!("connection mark {mark}"),
        Match::ConntrackState(ConntrackState::Invalid) => "invalid connection state".to_owned(),
        Match::ConntrackState(ConntrackState::New) => "first packet of a connection".to_owned(),
        Match::ConntrackState(ConntrackState::Related) => "related connection".to_owned(),
        Match::Reply => "reply direction".to_owned(),
        Match::DestinationTranslated => "translated destination".to_owned(),
        Match::SourceIsLocal => "from this host".to_owned(),
        Match::NoReversePath => "from an address not behind its interface".to_owned(),
        Match::DestinationIsLocal => "to this host".to_owned(),
        Match::HasOwner => "any user".to_owned(),
        Match::TcpNotSyn => "TCP other than SYN".to_owned(),
        Match::Icmpv6Type(number) => format!("ICMPv6 type {number}"),
        Match::ConntrackState(ConntrackState::Established) => "established or related connection".to_owned(),
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

/// The first elements of a set.
fn set(ruleset: &Ruleset, name: &str) -> String {
    let Some(set) = ruleset.set(name) else {
        return name.to_owned();
    };
    let texts: Vec<String> = match &set.elements {
        Elements::Ipv4(nets) => nets.iter().take(MAX_SHOWN_ELEMENTS).map(ToString::to_string).collect(),
        Elements::Ipv6(nets) => nets.iter().take(MAX_SHOWN_ELEMENTS).map(ToString::to_string).collect(),
        Elements::Ports(ports) => ports.iter().take(MAX_SHOWN_ELEMENTS).map(ToString::to_string).collect(),
        Elements::Uids(uids) => uids.iter().take(MAX_SHOWN_ELEMENTS).map(ToString::to_string).collect(),
        Elements::Gids(gids) => gids.iter().take(MAX_SHOWN_ELEMENTS).map(ToString::to_string).collect(),
    };
    match set.elements.len().checked_sub(MAX_SHOWN_ELEMENTS) {
        None | Some(0) => texts.join(" "),
        Some(more) => format!("{} and {more} more", texts.join(" ")),
    }
}

/// The action of a rule as text, and its effect on the packet.
pub fn action(action: &Action) -> (String, Effect) {
    match action {
        Action::Return => ("return".to_owned(), Effect::Leaves),
        Action::Jump(chain) => (format!("jump {chain}"), Effect::Jumps),
        Action::Accept => ("accept".to_owned(), Effect::Leaves),
        Action::Drop => ("drop".to_owned(), Effect::Drops),
        Action::Reject(Rejection::TcpReset) => ("reject with TCP reset".to_owned(), Effect::Drops),
        Action::Reject(Rejection::AdminProhibited) => ("reject with ICMP error".to_owned(), Effect::Drops),
        Action::Redirect(port) => (format!("redirect to {port}"), Effect::Proxy),
        Action::Tproxy { port, mark } => (format!("tproxy to {port}, mark {mark}"), Effect::Proxy),
        Action::SetMark(mark) => (format!("set mark {mark}"), Effect::GoesOn),
        Action::SaveMark => ("save mark to connection".to_owned(), Effect::GoesOn),
        Action::RestoreMark => ("restore mark from connection".to_owned(), Effect::GoesOn),
        Action::SetZone(Zone(zone)) => (format!("conntrack zone {zone}"), Effect::GoesOn),
        Action::SetTimeouts => ("set timeouts".to_owned(), Effect::GoesOn),
    }
}
