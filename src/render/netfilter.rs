//! Installed rules in nft syntax (nft(8)), for people: also those of iptables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nft;
use crate::ruleset::TableFamily;
use crate::ruleset::netfilter::{
    Action, Choice, Entry, Field, Key, Lookup, MarkChange, Match, Rule, Span, Statement, state, status,
};
use crate::types::{Family, Port};

/// How many elements of a set a text lists.
const MAX_LISTED_ELEMENTS: usize = 8;

/// A rule, as a line of a chain.
pub fn rule(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.statements.iter().map(statement).collect();
    if !rule.comment.is_empty() {
        words.push(format!("comment \"{}\"", rule.comment));
    }
    words.join(" ")
}

fn statement(statement: &Statement) -> String {
    match statement {
        Statement::Match(matcher) => self::matcher(matcher),
        Statement::Action(action) => self::action(action),
    }
}

/// A match.
pub fn matcher(matcher: &Match) -> String {
    match matcher {
        Match::Planned(planned) => nft::matcher(planned),
        Match::Lookup(found) => lookup(found),
        Match::Unreadable(text) => format!("[{text}]"),
    }
}

fn lookup(lookup: &Lookup) -> String {
    if let Some((is_any, names)) = any_bits(lookup) {
        let (field, operator) = match lookup.keys[0].field {
            Field::ConntrackState => ("ct state", is_any),
            _ => ("ct status", is_any),
        };
        let operator = if operator { "" } else { "!= " };
        return format!("{field} {operator}{}", names.join(","));
    }
    let keys: Vec<String> = lookup.keys.iter().map(|key| self::key(*key)).collect();
    let is_masked = keys.iter().any(|key| key.contains('&'));
    let operator = match (lookup.is_negated, is_masked) {
        (true, _) => "!= ",
        (false, true) => "== ",
        (false, false) => "",
    };
    format!("{} {operator}{}", keys.join(" . "), elements(lookup))
}

/// The elements of a lookup; a single one without braces, a long list cut.
pub fn elements(lookup: &Lookup) -> String {
    let mut texts: Vec<String> = lookup
        .elements
        .iter()
        .take(MAX_LISTED_ELEMENTS)
        .map(|spans| self::spans(&lookup.keys, spans))
        .collect();
    let more = lookup.elements.len().saturating_sub(texts.len());
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    match texts.as_slice() {
        [only] => only.clone(),
        texts => format!("{{ {} }}", texts.join(", ")),
    }
}

fn spans(keys: &[Key], spans: &[Span]) -> String {
    let parts: Vec<String> = keys
        .iter()
        .zip(spans)
        .map(|(key, span)| self::span(*key, *span))
        .collect();
    parts.join(" . ")
}

fn key(key: Key) -> String {
    let name = match key.field {
        Field::Family => "meta nfproto",
        Field::Protocol => "meta l4proto",
        Field::InInterface => "iifname",
        Field::OutInterface => "oifname",
        Field::InIndex => "iif",
        Field::OutIndex => "oif",
        Field::Source(Family::V4) => "ip saddr",
        Field::Source(Family::V6) => "ip6 saddr",
        Field::Destination(Family::V4) => "ip daddr",
        Field::Destination(Family::V6) => "ip6 daddr",
        Field::SourcePort => "th sport",
        Field::DestinationPort => "th dport",
        Field::TcpFlags => "tcp flags",
        Field::Uid => "meta skuid",
        Field::Gid => "meta skgid",
        Field::Mark => "meta mark",
        Field::ConntrackMark => "ct mark",
        Field::ConntrackState => "ct state",
        Field::ConntrackStatus => "ct status",
        Field::ConntrackDirection => "ct direction",
        Field::SourceType => "fib saddr type",
        Field::DestinationType => "fib daddr type",
        Field::ReversePath => "fib saddr . iif oif",
    };
    let has_own_notation = matches!(
        key.field,
        Field::Source(_) | Field::Destination(_) | Field::InInterface | Field::OutInterface
    );
    let is_whole = match key.field {
        Field::ConntrackState => key.mask == 0xff,
        field => key.mask == field.largest(),
    };
    match is_whole || has_own_notation {
        true => name.to_owned(),
        false => format!("{name} & {:#x}", key.mask),
    }
}

/// The values of a field.
fn span(key: Key, (first, last): Span) -> String {
    let number = |value: u128| value_of(key.field, value);
    let is_network = matches!(key.field, Field::Source(_) | Field::Destination(_));
    if is_network {
        let bits = 8 * key.field.length() as u32;
        let free = key.field.largest() & !key.mask | (first ^ last);
        let length = bits - free.count_ones();
        let is_prefix = free.checked_add(1).is_none_or(|next| next & free == 0) && first & free == 0;
        return match (is_prefix, length == bits) {
            (true, true) => number(first),
            (true, false) => format!("{}/{length}", number(first)),
            (false, _) if first == last => format!("{} & {}", number(first), number(key.mask)),
            (false, _) => format!("{}-{}", number(first), number(last)),
        };
    }
    if matches!(key.field, Field::InInterface | Field::OutInterface) {
        let is_whole = first == last && key.mask == key.field.largest();
        let wildcard = if is_whole { "" } else { "*" };
        return format!("\"{}{wildcard}\"", number(first));
    }
    match first == last {
        true => number(first),
        false => format!("{}-{}", number(first), number(last)),
    }
}

fn value_of(field: Field, value: u128) -> String {
    let of_names = |names: &[(u128, &'static str)]| {
        let name = names.iter().find(|(known, _)| *known == value);
        name.map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned())
    };
    match field {
        Field::Source(Family::V4) | Field::Destination(Family::V4) => {
            Ipv4Addr::from(u32::try_from(value).unwrap_or_default()).to_string()
        }
        Field::Source(Family::V6) | Field::Destination(Family::V6) => Ipv6Addr::from(value).to_string(),
        Field::InInterface | Field::OutInterface => {
            let bytes = value.to_be_bytes();
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).replace(char::is_control, "\u{fffd}")
        }
        Field::Family => of_names(&[(2, "ipv4"), (10, "ipv6")]),
        Field::Protocol => of_names(&[(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "icmpv6"), (132, "sctp")]),
        Field::SourceType | Field::DestinationType => of_names(&[
            (1, "unicast"),
            (2, "local"),
            (3, "broadcast"),
            (4, "anycast"),
            (5, "multicast"),
        ]),
        Field::ReversePath => of_names(&[(0, "missing"), (1, "exists")]),
        Field::ConntrackDirection => of_names(&[(0, "original"), (1, "reply")]),
        Field::ConntrackState => match bits(field, value).as_slice() {
            [only] => (*only).to_owned(),
            _ => format!("{value:#x}"),
        },
        Field::Mark | Field::ConntrackMark | Field::ConntrackStatus | Field::TcpFlags => format!("{value:#x}"),
        Field::InIndex | Field::OutIndex => of_names(&[(1, "\"lo\"")]),
        Field::SourcePort | Field::DestinationPort | Field::Uid | Field::Gid => value.to_string(),
    }
}

/// The names of the bits, if the condition is that any of them, or none, is set in a conntrack state or status.
pub fn any_bits(lookup: &Lookup) -> Option<(bool, Vec<&'static str>)> {
    let ([key], [spans]) = (lookup.keys.as_slice(), lookup.elements.as_slice()) else {
        return None;
    };
    let names = bits(key.field, key.mask);
    let is_known = !names.is_empty() && key.mask != key.field.largest();
    (is_known && *spans == [(0, 0)]).then_some((lookup.is_negated, names))
}

/// The names of the bits of a conntrack state or status.
fn bits(field: Field, value: u128) -> Vec<&'static str> {
    let names: &[(u32, &'static str)] = match field {
        Field::ConntrackState => &[
            (state::INVALID, "invalid"),
            (state::ESTABLISHED, "established"),
            (state::RELATED, "related"),
            (state::NEW, "new"),
            (state::UNTRACKED, "untracked"),
            (state::SNAT, "snat"),
            (state::DNAT, "dnat"),
        ],
        Field::ConntrackStatus => &[
            (status::CONFIRMED, "confirmed"),
            (status::SRC_NAT, "snat"),
            (status::DST_NAT, "dnat"),
        ],
        _ => &[],
    };
    let set = names.iter().filter(|(bit, _)| value & u128::from(*bit) != 0);
    set.map(|(_, name)| *name).collect()
}

/// An action.
pub fn action(action: &Action) -> String {
    match action {
        Action::Planned(planned) => nft::action(TableFamily::Inet, planned),
        Action::Goto(chain) => format!("goto {chain}"),
        Action::Reject => "reject".to_owned(),
        Action::Queue => "queue".to_owned(),
        Action::Untrack => "notrack".to_owned(),
        Action::Mark(change) => mark(*change),
        Action::Redirect(port) => format!("redirect{}", to(Choice::Keep, *port)),
        Action::Dnat(address, port) => format!("dnat{}", to(*address, *port)),
        Action::Snat(Choice::Any, Choice::Keep) => "masquerade".to_owned(),
        Action::Snat(address, port) => format!("snat{}", to(*address, *port)),
        Action::Tproxy { port, mark, is_final } => {
            let end = if *is_final { " accept" } else { "" };
            let mark = match (mark.keep, mark.xor) {
                (u32::MAX, 0) => String::new(),
                _ => format!(" {}", self::mark(*mark)),
            };
            format!("tproxy{}{mark}{end}", to(Choice::Keep, *port))
        }
        Action::Map(keys, entries) => {
            let names: Vec<String> = keys.iter().map(|key| self::key(*key)).collect();
            format!("{} vmap {{ {} }}", names.join(" . "), map(keys, entries))
        }
        Action::Nothing(text) => text.clone(),
        Action::Unreadable(text) => format!("[{text}]"),
    }
}

fn map(keys: &[Key], entries: &[Entry]) -> String {
    let shown = entries.iter().take(MAX_LISTED_ELEMENTS);
    let mut texts: Vec<String> = shown
        .map(|entry| format!("{} : {}", spans(keys, &entry.spans), action(&entry.action)))
        .collect();
    if entries.len() > texts.len() {
        texts.push(format!("{} more", entries.len() - texts.len()));
    }
    texts.join(", ")
}

fn to(address: Choice<IpAddr>, port: Choice<Port>) -> String {
    let address = match address {
        Choice::Keep => String::new(),
        Choice::One(IpAddr::V6(address)) => format!("[{address}]"),
        Choice::One(address) => address.to_string(),
        Choice::Any => "*".to_owned(),
    };
    let port = match port {
        Choice::Keep => String::new(),
        Choice::One(port) => format!(":{port}"),
        Choice::Any => ":*".to_owned(),
    };
    match address.is_empty() && port.is_empty() {
        true => String::new(),
        false => format!(" to {address}{port}"),
    }
}

fn mark(change: MarkChange) -> String {
    let (own, other) = match change.of_connection {
        true => ("ct mark", "meta mark"),
        false => ("meta mark", "ct mark"),
    };
    let masked = |name: &str, mask: u32| match mask {
        0 => None,
        u32::MAX => Some(name.to_owned()),
        mask => Some(format!("({name} & {mask:#x})")),
    };
    let constant = (change.xor != 0).then(|| format!("{:#x}", change.xor));
    let parts: Vec<String> = [masked(own, change.keep), masked(other, change.copy), constant]
        .into_iter()
        .flatten()
        .collect();
    match parts.is_empty() {
        true => format!("{own} set 0"),
        false => format!("{own} set {}", parts.join(" ^ ")),
    }
}
