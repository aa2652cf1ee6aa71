//! Decodes the expressions of a rule.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::attributes::{self, Attributes, find};
use super::super::encode::RULE_COMMENT;
use super::super::expression;
use super::super::listing::{self, Expression};
use super::super::uapi::*;
use super::printable;
use crate::render::nft;
use crate::ruleset::{
    Action, Addresses, Cgroup, ConntrackState, GidMatch, Match, PortMatch, Protocol, Rejection, Rule, TIMEOUTS,
    TableFamily, UidMatch, Zone,
};
use crate::types::{Family, Id, InterfaceName, Mark, Port};

/// The comment of a rule, or an empty string.
pub fn comment(user_data: &[u8]) -> String {
    let text = match user_data {
        [RULE_COMMENT, length, rest @ ..] => rest.get(..usize::from(*length)).unwrap_or_default(),
        _ => &[],
    };
    printable(String::from_utf8_lossy(text).trim_end_matches('\0'))
}

/// The meaning of an expression. Its registers are verified by encoding it again.
#[derive(Debug)]
enum Term {
    Meta(u32),
    SetMeta(u32),
    Conntrack(u32),
    SetConntrack(u32),
    /// An address of the IP header.
    Network(u32),
    /// A field of the transport header.
    Transport(u32),
    Fib(u32),
    Reject(u32),
    SocketCgroup(u32),
    Timeouts,
    Is(Vec<u8>),
    IsNot(Vec<u8>),
    Masked(Vec<u8>),
    HostToNetworkOrder,
    In(String),
    Immediate(Vec<u8>),
    Verdict {
        code: u32,
        chain: String,
    },
    Counter,
    Redirect,
    Tproxy,
}

/// Reads an expression by its name and the numbers of its attributes.
fn term((name, attributes): &Expression) -> Option<Term> {
    let number = |attribute: u16| number(attributes, attribute);
    let data = |attribute: u16| nested(attributes.get(&attribute)?, NFTA_DATA_VALUE);
    Some(match name.as_str() {
        "meta" if attributes.contains_key(&NFTA_META_SREG) => Term::SetMeta(number(NFTA_META_KEY)?),
        "meta" => Term::Meta(number(NFTA_META_KEY)?),
        "ct" if attributes.contains_key(&NFTA_CT_SREG) => Term::SetConntrack(number(NFTA_CT_KEY)?),
        "ct" => Term::Conntrack(number(NFTA_CT_KEY)?),
        "payload" => match number(NFTA_PAYLOAD_BASE)? {
            NFT_PAYLOAD_NETWORK_HEADER => Term::Network(number(NFTA_PAYLOAD_OFFSET)?),
            NFT_PAYLOAD_TRANSPORT_HEADER => Term::Transport(number(NFTA_PAYLOAD_OFFSET)?),
            _ => return None,
        },
        "socket" => match number(NFTA_SOCKET_KEY)? {
            NFT_SOCKET_CGROUPV2 => Term::SocketCgroup(number(NFTA_SOCKET_LEVEL)?),
            _ => return None,
        },
        "cmp" => match number(NFTA_CMP_OP)? {
            NFT_CMP_EQ => Term::Is(data(NFTA_CMP_DATA)?),
            NFT_CMP_NEQ => Term::IsNot(data(NFTA_CMP_DATA)?),
            _ => return None,
        },
        "bitwise" => Term::Masked(data(NFTA_BITWISE_MASK)?),
        "byteorder" => Term::HostToNetworkOrder,
        "lookup" => Term::In(text(attributes.get(&NFTA_LOOKUP_SET)?)?),
        "immediate" => match nested(attributes.get(&NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT) {
            None => Term::Immediate(data(NFTA_IMMEDIATE_DATA)?),
            Some(verdict) => Term::Verdict {
                code: u32::from_be_bytes(*nested(&verdict, NFTA_VERDICT_CODE)?.as_array()?),
                chain: nested(&verdict, NFTA_VERDICT_CHAIN)
                    .and_then(|name| text(&name))
                    .unwrap_or_default(),
            },
        },
        "objref" => {
            let is_own_timeouts = number(NFTA_OBJREF_IMM_TYPE)? == NFT_OBJECT_CT_TIMEOUT
                && text(attributes.get(&NFTA_OBJREF_IMM_NAME)?)? == TIMEOUTS;
            is_own_timeouts.then_some(Term::Timeouts)?
        }
        "fib" => Term::Fib(number(NFTA_FIB_FLAGS)?),
        "reject" => Term::Reject(number(NFTA_REJECT_TYPE)?),
        "counter" => Term::Counter,
        "redir" => Term::Redirect,
        "tproxy" => Term::Tproxy,
        _ => return None,
    })
}

pub fn nested(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    find(attributes, kind).map(<[u8]>::to_vec)
}

/// The value of a numeric attribute of an expression. A zero is not listed.
pub fn number(attributes: &BTreeMap<u16, Vec<u8>>, attribute: u16) -> Option<u32> {
    match attributes.get(&attribute) {
        None => Some(0),
        Some(bytes) => attributes::number(bytes).ok(),
    }
}

pub fn text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8(bytes.to_vec()).ok()
}

/// The rule of a table of this family, if every part of it can be decoded.
pub fn rule(family: TableFamily, listed: &listing::Rule) -> Option<Rule> {
    let mut terms: Vec<Term> = listed.expressions.iter().map(term).collect::<Option<_>>()?;
    let counter = terms.iter().position(|term| matches!(term, Term::Counter));
    let has_counter = counter.map(|at| terms.remove(at)).is_some();
    let (mut rest, mut matches) = (terms.as_slice(), Vec::new());
    let action = loop {
        match action(rest) {
            Some(action) => break action,
            None => {
                let (matched, length) = matcher(family, rest)?;
                matches.push(matched);
                rest = &rest[length..];
            }
        }
    };
    let rule = Rule {
        matches,
        action,
        has_counter,
        comment: comment(&listed.user_data).into(),
    };
    let mut encoded = Attributes::default();
    expression::write_rule(&mut encoded, family, &rule, 0);
    (listing::expressions(&encoded) == listed.expressions).then_some(rule)
}

/// The rule in nft syntax; a part that cannot be decoded is its expression's name in brackets.
pub fn words(family: TableFamily, listed: &listing::Rule) -> String {
    let mut words = Vec::new();
    let mut rest = listed.expressions.as_slice();
    while let [first, after @ ..] = rest {
        let terms: Vec<Term> = rest.iter().map_while(term).collect();
        let action = action(&terms).filter(|_| terms.len() == rest.len());
        if let Some(action) = action {
            words.push(nft::action(family, &action));
            break;
        }
        rest = match matcher(family, &terms) {
            Some((matched, length)) => {
                words.push(nft::matcher(&matched));
                &rest[length..]
            }
            None => {
                words.push(format!("[{}]", first.0));
                after
            }
        };
    }
    words.join(" ")
}

/// The match at the beginning of these terms, and the number of terms it takes.
fn matcher(table: TableFamily, terms: &[Term]) -> Option<(Match, usize)> {
    use Term::{Conntrack, Fib, HostToNetworkOrder, In, Is, IsNot, Masked, Meta, Network, SocketCgroup, Transport};
    if let TableFamily::Only(family) = table
        && let [Network(offset), value, ..] = terms
    {
        let addresses = match value {
            Is(address) => Addresses::Ip(self::address(address)?),
            In(set) => Addresses::Set(family, set.clone().into()),
            _ => return None,
        };
        return Some((side(family, *offset)?(addresses), 2));
    }
    Some(match terms {
        [Meta(NFT_META_NFPROTO), Is(family), Network(offset), Is(address), ..] => (
            side(self::family(family)?, *offset)?(Addresses::Ip(self::address(address)?)),
            4,
        ),
        [Meta(NFT_META_NFPROTO), Is(family), Network(offset), In(set), ..] => {
            let family = self::family(family)?;
            (side(family, *offset)?(Addresses::Set(family, set.clone().into())), 4)
        }
        [
            Meta(NFT_META_NFPROTO),
            Is(_),
            Meta(NFT_META_L4PROTO),
            Is(protocol),
            Transport(_),
            Is(kind),
            ..,
        ] if *protocol == [IPPROTO_ICMPV6] => (Match::Icmpv6Type(*kind.first()?), 6),
        [Meta(NFT_META_NFPROTO), Is(family), ..] => (Match::Family(self::family(family)?), 2),
        [Meta(NFT_META_L4PROTO), Is(protocol), Transport(_), Is(kind), ..] if *protocol == [IPPROTO_ICMPV6] => {
            (Match::Icmpv6Type(*kind.first()?), 4)
        }
        [Meta(NFT_META_L4PROTO), Is(_), Transport(_), Masked(_), IsNot(_), ..] => (Match::TcpNotSyn, 5),
        [Meta(NFT_META_L4PROTO), Is(protocol), Transport(offset), Is(port), ..] => {
            (port_of(protocol, *offset, PortMatch::Port(self::port(port)?))?, 4)
        }
        [Meta(NFT_META_L4PROTO), Is(protocol), Transport(offset), In(set), ..] => {
            (port_of(protocol, *offset, PortMatch::Set(set.clone().into()))?, 4)
        }
        [Meta(NFT_META_L4PROTO), Is(protocol), ..] => (Match::Protocol(self::protocol(protocol)?), 2),
        [Meta(NFT_META_IIF), Is(index), ..] => (Match::InInterface(by_index(index)?), 2),
        [Meta(NFT_META_OIF), Is(index), ..] => (Match::OutInterface(by_index(index)?), 2),
        [Meta(NFT_META_IIFNAME), Is(name), ..] => (Match::InInterface(interface(name)?), 2),
        [Meta(NFT_META_OIFNAME), Is(name), ..] => (Match::OutInterface(interface(name)?), 2),
        [Meta(NFT_META_SKUID), IsNot(_), ..] => (Match::HasOwner, 2),
        [Meta(NFT_META_SKUID), Is(id), ..] => (Match::Uid(UidMatch::Uid(self::id(id)?)), 2),
        [Meta(NFT_META_SKUID), HostToNetworkOrder, In(set), ..] => (Match::Uid(UidMatch::Set(set.clone().into())), 3),
        [Meta(NFT_META_SKGID), Is(id), ..] => (Match::Gid(GidMatch::Gid(self::id(id)?)), 2),
        [Meta(NFT_META_SKGID), HostToNetworkOrder, In(set), ..] => (Match::Gid(GidMatch::Set(set.clone().into())), 3),
        [SocketCgroup(level), Is(id), ..] => {
            let id = u64::from_ne_bytes(*id.as_array()?);
            let cgroup = Cgroup {
                path: None,
                level: *level,
                id: Some(id),
            };
            (Match::Cgroup(cgroup), 2)
        }
        [Meta(NFT_META_MARK), Is(mark), ..] => (Match::Mark(self::mark(mark)?), 2),
        [Meta(NFT_META_MARK), IsNot(mark), ..] => (Match::MarkIsNot(self::mark(mark)?), 2),
        [Conntrack(NFT_CT_MARK), Is(mark), ..] => (Match::ConntrackMark(self::mark(mark)?), 2),
        [Conntrack(NFT_CT_STATE), Masked(states), IsNot(_), ..] => {
            let state = match host_order(states)? {
                NF_CT_STATE_INVALID => ConntrackState::Invalid,
                NF_CT_STATE_NEW => ConntrackState::New,
                NF_CT_STATE_RELATED => ConntrackState::Related,
                _ => ConntrackState::Established,
            };
            (Match::ConntrackState(state), 3)
        }
        [Conntrack(NFT_CT_STATUS), Masked(_), IsNot(_), ..] => (Match::DestinationTranslated, 3),
        [Conntrack(NFT_CT_DIRECTION), Is(_), ..] => (Match::Reply, 2),
        [Fib(NFTA_FIB_F_SADDR), Is(_), ..] => (Match::SourceIsLocal, 2),
        [Fib(expression::REVERSE_PATH), Is(_), ..] => (Match::NoReversePath, 2),
        [Fib(NFTA_FIB_F_DADDR), Is(_), ..] => (Match::DestinationIsLocal, 2),
        _ => return None,
    })
}

/// The action that all these terms make up.
fn action(terms: &[Term]) -> Option<Action> {
    use Term::{Conntrack, Immediate, Meta, Redirect, Reject, SetConntrack, SetMeta, Timeouts, Tproxy, Verdict};
    Some(match terms {
        [Verdict { code: NFT_RETURN, .. }] => Action::Return,
        [Verdict { code: NFT_JUMP, chain }] => Action::Jump(chain.clone().into()),
        [Verdict { code: NF_ACCEPT, .. }] => Action::Accept,
        [Verdict { code: NF_DROP, .. }] => Action::Drop,
        [Reject(NFT_REJECT_TCP_RST)] => Action::Reject(Rejection::TcpReset),
        [Reject(_)] => Action::Reject(Rejection::AdminProhibited),
        [Immediate(port), Redirect] => Action::Redirect(self::port(port)?),
        [
            Immediate(port),
            Tproxy,
            Immediate(mark),
            SetMeta(NFT_META_MARK),
            Verdict { .. },
        ] => Action::Tproxy {
            port: self::port(port)?,
            mark: self::mark(mark)?,
        },
        [Immediate(mark), SetMeta(NFT_META_MARK)] => Action::SetMark(self::mark(mark)?),
        [Meta(NFT_META_MARK), SetConntrack(NFT_CT_MARK)] => Action::SaveMark,
        [Conntrack(NFT_CT_MARK), SetMeta(NFT_META_MARK)] => Action::RestoreMark,
        [Timeouts] => Action::SetTimeouts,
        [Immediate(zone), SetConntrack(NFT_CT_ZONE)] => Action::SetZone(Zone(u16::from_ne_bytes(*zone.as_array()?))),
        _ => return None,
    })
}

/// Which address is at this byte offset of the header.
fn side(family: Family, offset: u32) -> Option<fn(Addresses) -> Match> {
    match (family, offset) {
        (Family::V4, 12) | (Family::V6, 8) => Some(Match::Source),
        (Family::V4, 16) | (Family::V6, 24) => Some(Match::Destination),
        _ => None,
    }
}

fn port_of(protocol: &[u8], offset: u32, ports: PortMatch) -> Option<Match> {
    let protocol = self::protocol(protocol)?;
    match offset {
        0 => Some(Match::SourcePort(protocol, ports)),
        2 => Some(Match::DestinationPort(protocol, ports)),
        _ => None,
    }
}

fn family(number: &[u8]) -> Option<Family> {
    match number {
        [NFPROTO_IPV4] => Some(Family::V4),
        [NFPROTO_IPV6] => Some(Family::V6),
        _ => None,
    }
}

fn protocol(number: &[u8]) -> Option<Protocol> {
    match number {
        [IPPROTO_TCP] => Some(Protocol::Tcp),
        [IPPROTO_UDP] => Some(Protocol::Udp),
        _ => None,
    }
}

pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = bytes.as_array().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes).into());
    v4.or_else(|| bytes.as_array().map(|bytes: &[u8; 16]| Ipv6Addr::from(*bytes).into()))
}

fn by_index(index: &[u8]) -> Option<InterfaceName> {
    (host_order(index)? == LOOPBACK_IFINDEX).then(InterfaceName::loopback)
}

fn interface(padded: &[u8]) -> Option<InterfaceName> {
    let name = padded.split(|byte| *byte == 0).next()?;
    InterfaceName::parse(std::str::from_utf8(name).ok()?).ok()
}

fn port(bytes: &[u8]) -> Option<Port> {
    Port::new(u16::from_be_bytes(*bytes.as_array()?))
}

fn host_order(bytes: &[u8]) -> Option<u32> {
    bytes.as_array().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn id<I: Id>(bytes: &[u8]) -> Option<I> {
    I::new(host_order(bytes)?)
}

fn mark(bytes: &[u8]) -> Option<Mark> {
    Mark::new(host_order(bytes)?)
}
