//! Evaluates matches for a packet whose properties are all or partly known.

use std::net::IpAddr;

use super::netfilter::status;
use super::{Addresses, ConntrackState, Elements, GidMatch, Match, Name, PortMatch, Protocol, Rule, Set, UidMatch};
use crate::types::{CgroupPath, Family, Gid, InterfaceName, IpProtocol, Port, Uid};

/// The type of an address of this host (`RTN_LOCAL`, linux/rtnetlink.h).
pub const RTN_LOCAL: u8 = 2;
/// The flag of a TCP segment that begins a connection, alone among [`OPENING_FLAGS`] (RFC 9293, 3.1).
pub const TCP_SYN: u8 = 2;
/// FIN, SYN, RST and ACK.
pub const OPENING_FLAGS: u8 = 1 | TCP_SYN | 4 | 16;

/// The knowledge of a packet's property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<T> {
    /// This value.
    Is(T),
    /// Any value but this.
    IsNot(T),
    /// The packet does not have the property, so no match on it holds.
    Missing,
    /// Any value.
    Unknown,
}

impl<T> Value<T> {
    /// The same knowledge in other terms, in which different values stay different.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Value<U> {
        match self {
            Self::Is(value) => Value::Is(convert(value)),
            Self::IsNot(value) => Value::IsNot(convert(value)),
            Self::Missing => Value::Missing,
            Self::Unknown => Value::Unknown,
        }
    }
}

/// The properties of a packet that matches test, at one hook.
#[derive(Clone, Copy, Debug)]
pub struct View<'p> {
    /// The address family.
    pub family: Value<Family>,
    /// The transport protocol.
    pub protocol: Value<IpProtocol>,
    /// The type of its ICMP or ICMPv6 message.
    pub icmp_type: Value<u8>,
    /// The interface that it arrived on.
    pub in_interface: Value<&'p InterfaceName>,
    /// The interface that it leaves by.
    pub out_interface: Value<&'p InterfaceName>,
    /// The source address.
    pub source: Value<IpAddr>,
    /// The destination address.
    pub destination: Value<IpAddr>,
    /// The source port.
    pub source_port: Value<Port>,
    /// The destination port.
    pub destination_port: Value<Port>,
    /// The user that owns its socket.
    pub uid: Value<Uid>,
    /// The group that owns its socket.
    pub gid: Value<Gid>,
    /// The cgroup of the process that created its socket; `None` for one that no rule names.
    pub cgroup: Value<Option<&'p CgroupPath>>,
    /// Its mark; 0 for none.
    pub mark: Value<u32>,
    /// The mark of its connection; 0 for none.
    pub conntrack_mark: Value<u32>,
    /// Conntrack state.
    pub tracking: Value<Tracking>,
    /// The flags of its TCP header.
    pub tcp_flags: Value<u8>,
    /// Conntrack state and translations, as [bits](super::netfilter::state).
    pub conntrack_state: Value<u32>,
    /// Conntrack status, as [bits](super::netfilter::status).
    pub conntrack_status: Value<u32>,
    /// Direction: 0 if it goes the same way as the first packet of its connection.
    pub conntrack_direction: Value<u8>,
    /// The type of the source address (`RTN_…`, linux/rtnetlink.h).
    pub source_type: Value<u8>,
    /// The type of the destination address.
    pub destination_type: Value<u8>,
    /// Whether the source address is reached by the interface that the packet arrived on: 1 if it is.
    pub reverse_path: Value<u8>,
}

impl View<'_> {
    /// A packet of which nothing is known.
    pub const UNKNOWN: Self = Self {
        family: Value::Unknown,
        protocol: Value::Unknown,
        icmp_type: Value::Unknown,
        in_interface: Value::Unknown,
        out_interface: Value::Unknown,
        source: Value::Unknown,
        destination: Value::Unknown,
        source_port: Value::Unknown,
        destination_port: Value::Unknown,
        uid: Value::Unknown,
        gid: Value::Unknown,
        cgroup: Value::Unknown,
        mark: Value::Unknown,
        conntrack_mark: Value::Unknown,
        tracking: Value::Unknown,
        tcp_flags: Value::Unknown,
        conntrack_state: Value::Unknown,
        conntrack_status: Value::Unknown,
        conntrack_direction: Value::Unknown,
        source_type: Value::Unknown,
        destination_type: Value::Unknown,
        reverse_path: Value::Unknown,
    };
}

/// The conntrack state of a packet (nf_conntrack; conntrack(8), "ctstate").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// It is the first one of its connection.
    New,
    /// Packets of its connection have gone through in both directions.
    Established,
    /// It begins a connection that another one announced (RELATED).
    Related,
    /// It belongs to no connection and cannot begin one.
    Invalid,
}

/// A truth value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// True.
    Yes,
    /// False.
    No,
    /// Unknown.
    Perhaps,
}

impl Known {
    /// Whether both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Yes | Self::Perhaps, Self::Yes | Self::Perhaps) => Self::Perhaps,
        }
    }

    /// Whether one of them holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.negated().and(other.negated()).negated()
    }

    /// Whether it does not hold.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Perhaps => Self::Perhaps,
        }
    }
}

impl From<bool> for Known {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// Whether every match of a rule holds.
pub fn applies(sets: &[Set], rule: &Rule, packet: &View) -> Known {
    let matches = rule.matches.iter();
    matches.fold(Known::Yes, |all, matcher| all.and(holds(sets, matcher, packet)))
}

/// Whether a match holds. A set that is not among `sets` may hold any element.
pub fn holds(sets: &[Set], matcher: &Match, packet: &View) -> Known {
    let family_and = |family: Family, rest: Known| is(packet.family, family).and(rest);
    let protocol_and = |protocol: Protocol, rest: Known| is(packet.protocol, protocol.into()).and(rest);
    match matcher {
        Match::Family(family) => is(packet.family, *family),
        Match::Protocol(protocol) => is(packet.protocol, (*protocol).into()),
        Match::InInterface(name) => is(packet.in_interface, name),
        Match::OutInterface(name) => is(packet.out_interface, name),
        Match::Source(addresses) => family_and(addresses.family(), is_address(sets, packet.source, addresses)),
        Match::Destination(addresses) => {
            family_and(addresses.family(), is_address(sets, packet.destination, addresses))
        }
        Match::SourcePort(protocol, ports) => protocol_and(*protocol, is_port(sets, packet.source_port, ports)),
        Match::DestinationPort(protocol, ports) => {
            protocol_and(*protocol, is_port(sets, packet.destination_port, ports))
        }
        Match::Uid(UidMatch::Uid(uid)) => is(packet.uid, *uid),
        Match::Uid(UidMatch::Set(set)) => is_in(sets, set, packet.uid, |elements, uid| {
            Some(elements.uids()?.contains(uid))
        }),
        Match::Gid(GidMatch::Gid(gid)) => is(packet.gid, *gid),
        Match::Gid(GidMatch::Set(set)) => is_in(sets, set, packet.gid, |elements, gid| {
            Some(elements.gids()?.contains(gid))
        }),
        Match::Cgroup(cgroup) => test(packet.cgroup, |of| match (of, &cgroup.path) {
            (None, _) => Some(false),
            (Some(of), Some(path)) => Some(path.contains(of)),
            (Some(_), None) => None,
        }),
        Match::Mark(mark) => is(packet.mark, mark.get()),
        Match::MarkIsNot(mark) => is(packet.mark, mark.get()).negated(),
        Match::ConntrackMark(mark) => is(packet.conntrack_mark, mark.get()),
        Match::ConntrackState(ConntrackState::Invalid) => is(packet.tracking, Tracking::Invalid),
        Match::ConntrackState(ConntrackState::Related) => is(packet.tracking, Tracking::Related),
        Match::ConntrackState(ConntrackState::New) => is(packet.tracking, Tracking::New),
        Match::ConntrackState(ConntrackState::Established) => test(packet.tracking, |tracking| {
            Some(matches!(tracking, Tracking::Established | Tracking::Related))
        }),
        Match::Reply => test(packet.conntrack_direction, |direction| Some(direction != 0)),
        Match::DestinationTranslated => test(packet.conntrack_status, |bits| Some(bits & status::DST_NAT != 0)),
        Match::SourceIsLocal => is(packet.source_type, RTN_LOCAL),
        Match::NoReversePath => is(packet.reverse_path, 0),
        Match::DestinationIsLocal => is(packet.destination_type, RTN_LOCAL),
        Match::HasOwner => match packet.uid {
            Value::Is(_) | Value::IsNot(_) => Known::Yes,
            Value::Missing => Known::No,
            Value::Unknown => Known::Perhaps,
        },
        Match::TcpNotSyn => protocol_and(
            Protocol::Tcp,
            test(packet.tcp_flags, |flags| Some(flags & OPENING_FLAGS != TCP_SYN)),
        ),
        Match::Icmpv6Type(number) => {
            let is_icmpv6 = is(packet.protocol, IpProtocol::ICMPV6).and(is(packet.icmp_type, *number));
            is(packet.family, Family::V6).and(is_icmpv6)
        }
    }
}

fn is<T: Copy + PartialEq>(value: Value<T>, wanted: T) -> Known {
    match value {
        Value::IsNot(other) if other == wanted => Known::No,
        value => test(value, |value| Some(value == wanted)),
    }
}

/// Whether a value passes a test, which returns `None` if it cannot decide.
fn test<T>(value: Value<T>, passes: impl FnOnce(T) -> Option<bool>) -> Known {
    match value {
        Value::Is(value) => passes(value).map_or(Known::Perhaps, Known::from),
        Value::Missing => Known::No,
        Value::IsNot(_) | Value::Unknown => Known::Perhaps,
    }
}

/// Whether a value is in a set; `contains` returns `None` for elements of another type.
fn is_in<T>(sets: &[Set], set: &Name, value: Value<T>, contains: impl FnOnce(&Elements, T) -> Option<bool>) -> Known {
    test(value, |value| {
        contains(&sets.iter().find(|known| known.name == *set)?.elements, value)
    })
}

fn is_address(sets: &[Set], value: Value<IpAddr>, addresses: &Addresses) -> Known {
    match addresses {
        Addresses::Ip(ip) => is(value, *ip),
        Addresses::Set(_, set) => is_in(sets, set, value, |elements, ip| match (elements, ip) {
            (Elements::Ipv4(nets), IpAddr::V4(ip)) => Some(nets.iter().any(|net| net.contains(&ip))),
            (Elements::Ipv6(nets), IpAddr::V6(ip)) => Some(nets.iter().any(|net| net.contains(&ip))),
            (Elements::Ipv4(_), IpAddr::V6(_)) | (Elements::Ipv6(_), IpAddr::V4(_)) => Some(false),
            (Elements::Ports(_) | Elements::Uids(_) | Elements::Gids(_), _) => None,
        }),
    }
}

fn is_port(sets: &[Set], value: Value<Port>, ports: &PortMatch) -> Known {
    match ports {
        PortMatch::Port(port) => is(value, *port),
        PortMatch::Set(set) => is_in(sets, set, value, |elements, port| {
            Some(elements.ports()?.contains(port))
        }),
    }
}
