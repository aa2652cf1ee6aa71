//! Matches: `struct xt_…` of linux/netfilter.

use super::{Extension, number_of, span};
use crate::ruleset::netfilter::{Field, Lookup, Match, state};
use crate::ruleset::{self, Cgroup};
use crate::types::CgroupPath;

/// The conditions of a match, all of which must hold; or its comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The conditions.
    Matches(Vec<Match>),
    /// The text of a `comment` match, which always holds.
    Comment(String),
}

/// Decodes a match.
pub fn decode(extension: &Extension) -> Decoded {
    if extension.name == "comment" {
        let end = extension.data.iter().position(|byte| *byte == 0);
        let text = &extension.data[..end.unwrap_or(extension.data.len())];
        return Decoded::Comment(String::from_utf8_lossy(text).replace(char::is_control, "\u{fffd}"));
    }
    if let ("cgroup", 1 | 2) = (extension.name, extension.revision)
        && let Some(cgroup) = cgroup(extension)
    {
        return Decoded::Matches(vec![Match::Planned(cgroup)]);
    }
    let lookups = match (extension.name, extension.revision) {
        ("tcp", 0) => tcp(extension),
        ("udp", 0) => udp(extension),
        ("multiport", 1) => multiport(extension),
        ("owner", 1) => owner(extension),
        ("mark", 1) => mark(extension, Field::Mark),
        ("connmark", 1) => mark(extension, Field::ConntrackMark),
        ("conntrack", 1..=3) => conntrack(extension),
        ("state", 0) => extension
            .number(0)
            .map(|states| vec![any_state(xt_states(states), false)]),
        ("addrtype", 0 | 1) => address_type(extension),
        ("rpfilter", 0) => reverse_path(extension),
        ("iprange", 1) => address_range(extension),
        _ => None,
    };
    let name = printable(extension.name);
    Decoded::Matches(match lookups {
        Some(lookups) => lookups.into_iter().map(Match::Lookup).collect(),
        None => vec![Match::Unreadable(format!("match {name}"))],
    })
}

pub(super) fn printable(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

/// A range of ports, unless it is the range of all.
fn ports(extension: &Extension, field: Field, at: usize, is_inverted: bool) -> Option<Option<Lookup>> {
    let (first, last) = (extension.short(at)?, extension.short(at + 2)?);
    let is_all = (first, last) == (0, u16::MAX);
    let lookup = Lookup::one_of(field, [span(first, last)]).negated_if(is_inverted);
    Some((!is_all || is_inverted).then_some(lookup))
}

/// `struct xt_tcp`.
fn tcp(extension: &Extension) -> Option<Vec<Lookup>> {
    const SOURCE: u8 = 1;
    const DESTINATION: u8 = 2;
    const FLAGS: u8 = 4;
    let (option, mask, flags) = (extension.byte(8)?, extension.byte(9)?, extension.byte(10)?);
    let inverted = extension.byte(11)?;
    if option != 0 {
        return None;
    }
    let flags = Lookup::masked(Field::TcpFlags, mask.into(), flags.into()).negated_if(inverted & FLAGS != 0);
    let flags = (mask != 0 || inverted & FLAGS != 0).then_some(flags);
    let source = ports(extension, Field::SourcePort, 0, inverted & SOURCE != 0)?;
    let destination = ports(extension, Field::DestinationPort, 4, inverted & DESTINATION != 0)?;
    Some([source, destination, flags].into_iter().flatten().collect())
}

/// `struct xt_udp`.
fn udp(extension: &Extension) -> Option<Vec<Lookup>> {
    let inverted = extension.byte(8)?;
    let source = ports(extension, Field::SourcePort, 0, inverted & 1 != 0)?;
    let destination = ports(extension, Field::DestinationPort, 4, inverted & 2 != 0)?;
    Some([source, destination].into_iter().flatten().collect())
}

/// `struct xt_multiport_v1`: the last port of a range comes after one with a flag.
fn multiport(extension: &Extension) -> Option<Vec<Lookup>> {
    const PORTS: usize = 2;
    const RANGE_FLAGS: usize = 32;
    const INVERT: usize = 47;
    const MAX_PORTS: usize = 15;
    let field = match extension.byte(0)? {
        0 => Field::SourcePort,
        1 => Field::DestinationPort,
        _ => return None, // Either.
    };
    let count = usize::from(extension.byte(1)?).min(MAX_PORTS);
    let port = |index: usize| extension.short(PORTS + 2 * index);
    let (mut spans, mut index) = (Vec::new(), 0);
    while index < count {
        let first = port(index)?;
        if extension.byte(RANGE_FLAGS + index)? != 0 {
            index += 1;
        }
        spans.push(span(first, port(index)?));
        index += 1;
    }
    let is_inverted = extension.byte(INVERT)? != 0;
    Some(vec![Lookup::one_of(field, spans).negated_if(is_inverted)])
}

/// `struct xt_owner_match_info`. Without a socket, a condition holds if it is inverted (`owner_mt`, net/netfilter/xt_owner.c).
fn owner(extension: &Extension) -> Option<Vec<Lookup>> {
    const UID: u8 = 1;
    const GID: u8 = 2;
    const SOCKET: u8 = 4;
    const SUPPLEMENTARY_GROUPS: u8 = 8;
    let (flags, inverted) = (extension.byte(16)?, extension.byte(17)?);
    if flags & SUPPLEMENTARY_GROUPS != 0 {
        return None;
    }
    let condition = |flag: u8, field: Field, first: u32, last: u32| {
        let is_inverted = inverted & flag != 0;
        (flags & flag != 0).then(|| Lookup {
            if_missing: is_inverted,
            ..Lookup::one_of(field, [span(first, last)]).negated_if(is_inverted)
        })
    };
    let uid = condition(UID, Field::Uid, extension.number(0)?, extension.number(4)?);
    let gid = condition(GID, Field::Gid, extension.number(8)?, extension.number(12)?);
    let socket = condition(SOCKET, Field::Uid, 0, u32::MAX);
    Some([uid, gid, socket].into_iter().flatten().collect())
}

/// The path of `struct xt_cgroup_info_v1` and `struct xt_cgroup_info_v2`.
fn cgroup(extension: &Extension) -> Option<ruleset::Match> {
    const HAS_PATH: [u8; 4] = [1, 0, 0, 0];
    let path = extension.data.strip_prefix(&HAS_PATH)?;
    let path = std::str::from_utf8(path.split(|byte| *byte == 0).next()?).ok()?;
    let path = CgroupPath::parse(path).ok()?;
    Some(ruleset::Match::Cgroup(Cgroup {
        level: path.level(),
        path: Some(path),
        id: None,
    }))
}

/// `struct xt_mark_mtinfo1` and `struct xt_connmark_mtinfo1`.
fn mark(extension: &Extension, field: Field) -> Option<Vec<Lookup>> {
    let (mark, mask) = (extension.number(0)?, extension.number(4)?);
    let is_inverted = extension.byte(8)? != 0;
    Some(vec![
        Lookup::masked(field, mask.into(), mark.into()).negated_if(is_inverted),
    ])
}

/// The states of iptables in terms of [`state`] (`XT_CONNTRACK_STATE_…`, linux/netfilter/xt_conntrack.h).
fn xt_states(states: u32) -> u32 {
    const SNAT: u32 = 1 << 6;
    const DNAT: u32 = 1 << 7;
    const UNTRACKED: u32 = 1 << 8;
    let other = [(SNAT, state::SNAT), (DNAT, state::DNAT), (UNTRACKED, state::UNTRACKED)];
    let same = states & (state::INVALID | state::ESTABLISHED | state::RELATED | state::NEW);
    let other = other.into_iter().filter(|(bit, _)| states & bit != 0);
    other.fold(same, |all, (_, bit)| all | bit)
}

/// The condition that any of these states applies.
fn any_state(states: u32, is_inverted: bool) -> Lookup {
    Lookup::masked(Field::ConntrackState, states.into(), 0).negated_if(!is_inverted)
}

/// `struct xt_conntrack_mtinfo1` to `3`.
fn conntrack(extension: &Extension) -> Option<Vec<Lookup>> {
    const STATE: u16 = 1;
    const STATUS: u16 = 1 << 6;
    const DIRECTION: u16 = 1 << 12;
    const STATE_ALIAS: u16 = 1 << 13;
    const PROTOCOL: u16 = 1 << 1;
    const FLAGS: usize = 146;
    let (flags, inverted) = (extension.short(FLAGS)?, extension.short(FLAGS + 2)?);
    let (states, statuses) = match extension.revision {
        1 => (extension.byte(150)?.into(), extension.byte(151)?.into()),
        _ => (extension.short(150)?, extension.short(152)?),
    };
    let known = STATE | STATUS | DIRECTION | STATE_ALIAS | PROTOCOL;
    if flags & !known != 0 {
        return None;
    }
    let is_inverted = |flag: u16| inverted & flag != 0;
    let state = (flags & STATE != 0).then(|| any_state(xt_states(states.into()), is_inverted(STATE)));
    let status = (flags & STATUS != 0)
        .then(|| Lookup::masked(Field::ConntrackStatus, statuses.into(), 0).negated_if(!is_inverted(STATUS)));
    // The direction is original unless inverted.
    let direction = (flags & DIRECTION != 0)
        .then(|| Lookup::one_of(Field::ConntrackDirection, [span(0_u8, 0_u8)]).negated_if(is_inverted(DIRECTION)));
    let protocol = extension.short(136)?;
    let protocol = (flags & PROTOCOL != 0)
        .then(|| Lookup::one_of(Field::Protocol, [span(protocol, protocol)]).negated_if(is_inverted(PROTOCOL)));
    Some([state, status, direction, protocol].into_iter().flatten().collect())
}

/// `struct xt_addrtype_info` and `struct xt_addrtype_info_v1`.
fn address_type(extension: &Extension) -> Option<Vec<Lookup>> {
    const INVERT_SOURCE: u32 = 1;
    const INVERT_DESTINATION: u32 = 2;
    let (source, destination) = (extension.short(0)?, extension.short(2)?);
    let (source_inverted, destination_inverted) = match extension.revision {
        0 => (extension.number(4)? != 0, extension.number(8)? != 0),
        _ => {
            let flags = extension.number(4)?;
            if flags & !(INVERT_SOURCE | INVERT_DESTINATION) != 0 {
                return None; // Types as seen by one interface.
            }
            (flags & INVERT_SOURCE != 0, flags & INVERT_DESTINATION != 0)
        }
    };
    let condition = |field: Field, types: u16, is_inverted: bool| {
        let types = (0..u16::BITS).filter(move |bit| types & 1 << bit != 0);
        let spans: Vec<_> = types.map(|number| span(number, number)).collect();
        (!spans.is_empty()).then(|| Lookup::one_of(field, spans).negated_if(is_inverted))
    };
    let source = condition(Field::SourceType, source, source_inverted);
    let destination = condition(Field::DestinationType, destination, destination_inverted);
    Some([source, destination].into_iter().flatten().collect())
}

/// `struct xt_rpfilter_info`.
fn reverse_path(extension: &Extension) -> Option<Vec<Lookup>> {
    const INVERT: u8 = 8;
    let flags = extension.byte(0)?;
    // The others are about routes by any interface, marks and sources of this host.
    let is_strict = flags & !INVERT == 0;
    is_strict.then(|| vec![Lookup::one_of(Field::ReversePath, [span(1u8, 1u8)]).negated_if(flags & INVERT != 0)])
}

/// `struct xt_iprange_mtinfo`.
fn address_range(extension: &Extension) -> Option<Vec<Lookup>> {
    const FLAGS: usize = 64;
    let flags = extension.byte(FLAGS)?;
    let mut lookups = Vec::new();
    for (is_source, used, inverted, at) in [(true, 1, 1 << 4, 0), (false, 2, 1 << 5, 32)] {
        if flags & used != 0 {
            let (first, last) = (extension.address(at)?, extension.address(at + 16)?);
            let field = match is_source {
                true => Field::Source(extension.family),
                false => Field::Destination(extension.family),
            };
            let lookup = Lookup::one_of(field, [(number_of(first), number_of(last))]);
            lookups.push(lookup.negated_if(flags & inverted != 0));
        }
    }
    Some(lookups)
}
