//! The words of iptables for matches and actions.

use ipnet::IpNet;

use super::super::tables::chain_name;
use crate::ruleset::{
    Action, Addresses, Cgroup, ConntrackState, Elements, GidMatch, Match, PortMatch, Protocol, Rejection, Ruleset,
    UidMatch, Zone,
};
use crate::types::{Family, Gid, Mark, Number, Port, Ports, Range, Ranges, Uid};

/// The most ports in a `multiport` match; a range counts as two (iptables-extensions(8)).
const MAX_MULTIPORT_PORTS: usize = 15;

/// Every user that a socket can have.
pub const ANY_UID: &str = "0-4294967294";

pub fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// The position of a part of a rule. `iptables-save` prints these first, in this order, then the extensions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Source,
    Destination,
    InInterface,
    OutInterface,
    Protocol,
    Extension,
}

/// The words of one match.
pub type Part = (Place, Vec<String>);

/// The words of an action for the families of a rule; once for both if they are the same.
pub fn targets(action: &Action, families: &[Family]) -> Vec<(Option<Family>, Vec<String>)> {
    const ALL_BITS: &str = "0xffffffff";
    let marked = |mark: &Mark| format!("{}/{ALL_BITS}", hexadecimal(*mark));
    let of_any_family = match action {
        Action::Return => words(["-j", "RETURN"]),
        Action::Jump(chain) => words(["-j", &chain_name(chain)]),
        Action::Accept => words(["-j", "ACCEPT"]),
        Action::Drop => words(["-j", "DROP"]),
        Action::Reject(Rejection::TcpReset) => words(["-j", "REJECT", "--reject-with", "tcp-reset"]),
        Action::Reject(Rejection::AdminProhibited) => {
            let error = |family| match family {
                Family::V4 => "icmp-admin-prohibited",
                Family::V6 => "icmp6-adm-prohibited",
            };
            let target = |family| words(["-j", "REJECT", "--reject-with", error(family)]);
            return families.iter().map(|family| (Some(*family), target(*family))).collect();
        }
        Action::Redirect(port) => words(["-j", "REDIRECT", "--to-ports", &port.to_string()]),
        Action::Tproxy { port, mark } => {
            let target = |family| {
                let any = match family {
                    Family::V4 => "0.0.0.0",
                    Family::V6 => "::",
                };
                let (port, mark) = (port.to_string(), marked(mark));
                words([
                    "-j",
                    "TPROXY",
                    "--on-port",
                    &port,
                    "--on-ip",
                    any,
                    "--tproxy-mark",
                    &mark,
                ])
            };
            return families.iter().map(|family| (Some(*family), target(*family))).collect();
        }
        Action::SetMark(mark) => words(["-j", "MARK", "--set-xmark", &marked(mark)]),
        Action::SaveMark => words([
            "-j",
            "CONNMARK",
            "--save-mark",
            "--nfmask",
            ALL_BITS,
            "--ctmask",
            ALL_BITS,
        ]),
        Action::RestoreMark => words([
            "-j",
            "CONNMARK",
            "--restore-mark",
            "--nfmask",
            ALL_BITS,
            "--ctmask",
            ALL_BITS,
        ]),
        Action::SetZone(Zone(zone)) => words(["-j", "CT", "--zone", &zone.to_string()]),
        // The target CT takes the name of a timeout policy that another program has to create (iptables-extensions(8)).
        Action::SetTimeouts => return Vec::new(),
    };
    let family = match families {
        [] => return Vec::new(),
        [only] => Some(*only),
        _ => None,
    };
    vec![(family, of_any_family)]
}

fn hexadecimal(mark: Mark) -> String {
    format!("{:#x}", mark.get())
}

/// The alternatives that a match becomes; none if its set is missing or of another type.
pub fn alternatives(ruleset: &Ruleset, matched: &Match) -> Vec<Vec<Part>> {
    let part = |place, words| vec![(place, words)];
    match matched {
        // Only the program of that family gets the rule.
        Match::Family(_) => vec![Vec::new()],
        Match::Protocol(protocol) => vec![vec![transport(*protocol)]],
        Match::InInterface(name) => vec![part(Place::InInterface, words(["-i", name.as_str()]))],
        Match::OutInterface(name) => vec![part(Place::OutInterface, words(["-o", name.as_str()]))],
        Match::Source(addresses) => networks(ruleset, addresses, Place::Source, "-s"),
        Match::Destination(addresses) => networks(ruleset, addresses, Place::Destination, "-d"),
        Match::SourcePort(protocol, from) => ports(ruleset, *protocol, from, "--sport"),
        Match::DestinationPort(protocol, to) => ports(ruleset, *protocol, to, "--dport"),
        Match::Uid(uids) => owners("--uid-owner", &users(ruleset, uids)),
        Match::Gid(gids) => owners("--gid-owner", &groups(ruleset, gids)),
        Match::Cgroup(Cgroup { path, .. }) => match path {
            Some(path) => extension(words(["-m", "cgroup", "--path", path.as_str()])),
            // Read from nftables, so that no plan has it.
            None => Vec::new(),
        },
        Match::Mark(mark) => extension(words(["-m", "mark", "--mark", &hexadecimal(*mark)])),
        Match::MarkIsNot(mark) => extension(words(["-m", "mark", "!", "--mark", &hexadecimal(*mark)])),
        Match::ConntrackMark(mark) => extension(words(["-m", "connmark", "--mark", &hexadecimal(*mark)])),
        Match::ConntrackState(state) => {
            let states = match state {
                ConntrackState::Invalid => "INVALID",
                ConntrackState::New => "NEW",
                ConntrackState::Related => "RELATED",
                ConntrackState::Established => "RELATED,ESTABLISHED",
            };
            extension(words(["-m", "conntrack", "--ctstate", states]))
        }
        Match::Reply => extension(words(["-m", "conntrack", "--ctdir", "REPLY"])),
        Match::DestinationTranslated => extension(words(["-m", "conntrack", "--ctstate", "DNAT"])),
        Match::SourceIsLocal => extension(words(["-m", "addrtype", "--src-type", "LOCAL"])),
        Match::NoReversePath => extension(words(["-m", "rpfilter", "--invert"])),
        Match::DestinationIsLocal => extension(words(["-m", "addrtype", "--dst-type", "LOCAL"])),
        Match::HasOwner => extension(words(["-m", "owner", "--uid-owner", ANY_UID])),
        Match::TcpNotSyn => {
            let not_syn = words(["-m", "tcp", "!", "--tcp-flags", "FIN,SYN,RST,ACK", "SYN"]);
            vec![vec![transport(Protocol::Tcp), (Place::Extension, not_syn)]]
        }
        Match::Icmpv6Type(number) => {
            let kind = words(["-m", "icmp6", "--icmpv6-type", &number.to_string()]);
            vec![vec![
                (Place::Protocol, words(["-p", "ipv6-icmp"])),
                (Place::Extension, kind),
            ]]
        }
    }
}

fn extension(words: Vec<String>) -> Vec<Vec<Part>> {
    vec![vec![(Place::Extension, words)]]
}

fn transport(protocol: Protocol) -> Part {
    (Place::Protocol, words(["-p", protocol_name(protocol)]))
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn networks(ruleset: &Ruleset, addresses: &Addresses, place: Place, option: &str) -> Vec<Vec<Part>> {
    let networks = match addresses {
        Addresses::Ip(address) => vec![IpNet::from(*address)],
        Addresses::Set(_, name) => elements(ruleset, name).and_then(Elements::networks).unwrap_or_default(),
    };
    let part = |network: IpNet| match network.prefix_len() {
        0 => Vec::new(), // A match of every address is not printed.
        _ => vec![(place, words([option, &network.to_string()]))],
    };
    networks.into_iter().map(part).collect()
}

fn ports(ruleset: &Ruleset, protocol: Protocol, ports: &PortMatch, option: &str) -> Vec<Vec<Part>> {
    let extensions: Vec<Vec<String>> = match ports {
        PortMatch::Port(port) => vec![words(["-m", protocol_name(protocol), option, &port.to_string()])],
        PortMatch::Set(name) => {
            let lists = elements(ruleset, name).and_then(Elements::ports).map(multiport);
            let lists = lists.unwrap_or_default().into_iter();
            lists
                .map(|ports| words(["-m", "multiport", &format!("{option}s"), &ports]))
                .collect()
        }
    };
    extensions
        .into_iter()
        .map(|words| vec![transport(protocol), (Place::Extension, words)])
        .collect()
}

/// The ports, split into lists that fit a `multiport` match.
fn multiport(ports: &Ports) -> Vec<String> {
    let mut lists: Vec<(usize, String)> = Vec::new();
    for range in ports {
        let (size, text) = port_range(range);
        match lists.last_mut() {
            Some((filled, list)) if *filled + size <= MAX_MULTIPORT_PORTS => {
                *filled += size;
                list.push(',');
                list.push_str(&text);
            }
            _ => lists.push((size, text)),
        }
    }
    lists.into_iter().map(|(_, list)| list).collect()
}

fn port_range(range: &Range<Port>) -> (usize, String) {
    if range.first() == range.last() {
        (1, range.first().to_string())
    } else {
        (2, format!("{}:{}", range.first(), range.last()))
    }
}

fn owners<N: Number>(option: &str, ranges: &Ranges<N>) -> Vec<Vec<Part>> {
    ranges
        .iter()
        .map(|range| vec![(Place::Extension, words(["-m", "owner", option, &range.to_string()]))])
        .collect()
}

fn users(ruleset: &Ruleset, uids: &UidMatch) -> Ranges<Uid> {
    match uids {
        UidMatch::Uid(uid) => [*uid].into_iter().collect(),
        UidMatch::Set(name) => elements(ruleset, name)
            .and_then(Elements::uids)
            .cloned()
            .unwrap_or_default(),
    }
}

fn groups(ruleset: &Ruleset, gids: &GidMatch) -> Ranges<Gid> {
    match gids {
        GidMatch::Gid(gid) => [*gid].into_iter().collect(),
        GidMatch::Set(name) => elements(ruleset, name)
            .and_then(Elements::gids)
            .cloned()
            .unwrap_or_default(),
    }
}

fn elements<'r>(ruleset: &'r Ruleset, name: &str) -> Option<&'r Elements> {
    ruleset.set(name).map(|set| &set.elements)
}
