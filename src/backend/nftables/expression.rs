//! Encodes rules as nf_tables expressions.
//!
//! The expressions are the same as nft generates, so a listing by nft reads like the dry run.

use std::net::IpAddr;

use super::attributes::Attributes;
use super::uapi::*;
use crate::ruleset::{
    Action, Addresses, Cgroup, ConntrackState, GidMatch, Match, OPENING_FLAGS, PortMatch, Protocol, RTN_LOCAL,
    Rejection, Rule, TCP_SYN, TIMEOUTS, TableFamily, UidMatch, Zone,
};
use crate::types::{Family, Id, InterfaceName};

/// Offset of the flags in the TCP header (RFC 9293, 3.1).
const TCP_FLAGS_OFFSET: u32 = 13;

/// Length of an interface name with its terminating zero (`IFNAMSIZ` in linux/if.h).
const INTERFACE_NAME_LENGTH: usize = 16;

/// Writes the list of a rule's expressions, in a table of this family: its matches, then its counter and its action.
/// `packets` is the value that its counter begins with.
pub fn write_rule(list: &mut Attributes, family: TableFamily, rule: &Rule, packets: u64) {
    for matcher in &rule.matches {
        write_match(list, family, matcher);
    }
    write_action(list, family, rule, packets);
}

pub(super) fn expression(list: &mut Attributes, name: &str, write_data: impl FnOnce(&mut Attributes)) {
    list.nest(NFTA_LIST_ELEM, |element| {
        element.text(NFTA_EXPR_NAME, name);
        element.nest(NFTA_EXPR_DATA, write_data);
    });
}

fn write_match(list: &mut Attributes, table: TableFamily, matcher: &Match) {
    match matcher {
        Match::Family(family) => family_is(list, *family),
        Match::Protocol(protocol) => protocol_is(list, *protocol),
        Match::InInterface(name) => interface_is(list, NFT_META_IIF, NFT_META_IIFNAME, name),
        Match::OutInterface(name) => interface_is(list, NFT_META_OIF, NFT_META_OIFNAME, name),
        Match::Source(addresses) => addresses_are(list, table, addresses, Side::Source),
        Match::Destination(addresses) => addresses_are(list, table, addresses, Side::Destination),
        Match::SourcePort(protocol, ports) => port_is(list, *protocol, ports, 0),
        Match::DestinationPort(protocol, ports) => port_is(list, *protocol, ports, 2),
        Match::Uid(UidMatch::Uid(uid)) => owner_is(list, NFT_META_SKUID, *uid),
        Match::Uid(UidMatch::Set(set)) => owner_is_in(list, NFT_META_SKUID, set),
        Match::Gid(GidMatch::Gid(gid)) => owner_is(list, NFT_META_SKGID, *gid),
        Match::Gid(GidMatch::Set(set)) => owner_is_in(list, NFT_META_SKGID, set),
        Match::Cgroup(Cgroup { level, id, .. }) => {
            socket_cgroup(list, *level);
            // No cgroup has the ID 0.
            compare(list, NFT_CMP_EQ, &id.unwrap_or_default().to_ne_bytes());
        }
        Match::Mark(mark) => {
            meta(list, NFT_META_MARK);
            compare(list, NFT_CMP_EQ, &mark.get().to_ne_bytes());
        }
        Match::MarkIsNot(mark) => {
            meta(list, NFT_META_MARK);
            compare(list, NFT_CMP_NEQ, &mark.get().to_ne_bytes());
        }
        Match::ConntrackMark(mark) => {
            conntrack(list, NFT_CT_MARK);
            compare(list, NFT_CMP_EQ, &mark.get().to_ne_bytes());
        }
        Match::ConntrackState(state) => conntrack_bits(list, NFT_CT_STATE, state_bits(*state)),
        Match::Reply => {
            conntrack(list, NFT_CT_DIRECTION);
            compare(list, NFT_CMP_EQ, &[IP_CT_DIR_REPLY]);
        }
        Match::DestinationTranslated => conntrack_bits(list, NFT_CT_STATUS, IPS_DST_NAT),
        Match::SourceIsLocal => address_is_local(list, NFTA_FIB_F_SADDR),
        Match::DestinationIsLocal => address_is_local(list, NFTA_FIB_F_DADDR),
        Match::NoReversePath => {
            fib(list, NFT_FIB_RESULT_OIF, REVERSE_PATH);
            compare(list, NFT_CMP_EQ, &0_u32.to_ne_bytes());
        }
        Match::HasOwner => {
            meta(list, NFT_META_SKUID);
            compare(list, NFT_CMP_NEQ, &u32::MAX.to_ne_bytes());
        }
        Match::TcpNotSyn => {
            protocol_is(list, Protocol::Tcp);
            payload(list, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS_OFFSET, 1);
            masked(list, &[OPENING_FLAGS]);
            compare(list, NFT_CMP_NEQ, &[TCP_SYN]);
        }
        Match::Icmpv6Type(number) => {
            match table {
                TableFamily::Inet => family_is(list, Family::V6),
                TableFamily::Only(_) => {}
            }
            meta(list, NFT_META_L4PROTO);
            compare(list, NFT_CMP_EQ, &[IPPROTO_ICMPV6]);
            payload(list, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
            compare(list, NFT_CMP_EQ, &[*number]);
        }
    }
}

fn write_action(list: &mut Attributes, table: TableFamily, rule: &Rule, packets: u64) {
    // The expression for the socket may end the rule, which then does not count.
    if let Action::Tproxy { port, mark } = &rule.action {
        immediate(list, &port.get().to_be_bytes());
        tproxy(list, table);
        immediate(list, &mark.get().to_ne_bytes());
        set_meta(list, NFT_META_MARK);
    }
    if rule.has_counter {
        counter(list, packets);
    }
    match &rule.action {
        Action::Return => verdict(list, NFT_RETURN, None),
        Action::Jump(chain) => verdict(list, NFT_JUMP, Some(chain)),
        Action::Accept | Action::Tproxy { .. } => verdict(list, NF_ACCEPT, None),
        Action::Drop => verdict(list, NF_DROP, None),
        Action::Reject(Rejection::TcpReset) => reject(list, NFT_REJECT_TCP_RST, 0),
        Action::Reject(Rejection::AdminProhibited) => {
            // Tables of one family have its own codes alone (`nft_reject_init`, net/netfilter/nft_reject.c).
            match table {
                TableFamily::Inet => reject(list, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED),
                TableFamily::Only(Family::V4) => reject(list, NFT_REJECT_ICMP_UNREACH, ICMP_PKT_FILTERED),
                TableFamily::Only(Family::V6) => reject(list, NFT_REJECT_ICMP_UNREACH, ICMPV6_ADM_PROHIBITED),
            }
        }
        Action::Redirect(port) => {
            immediate(list, &port.get().to_be_bytes());
            redirect(list);
        }
        Action::SetMark(mark) => {
            immediate(list, &mark.get().to_ne_bytes());
            set_meta(list, NFT_META_MARK);
        }
        Action::SaveMark => {
            meta(list, NFT_META_MARK);
            set_conntrack(list, NFT_CT_MARK);
        }
        Action::RestoreMark => {
            conntrack(list, NFT_CT_MARK);
            set_meta(list, NFT_META_MARK);
        }
        Action::SetZone(Zone(zone)) => {
            immediate(list, &zone.to_ne_bytes());
            set_conntrack(list, NFT_CT_ZONE);
        }
        Action::SetTimeouts => set_timeouts(list),
    }
}

fn counter(list: &mut Attributes, packets: u64) {
    expression(list, "counter", |data| {
        if packets > 0 {
            data.bytes(NFTA_COUNTER_PACKETS, &packets.to_be_bytes());
        }
    });
}

fn family_is(list: &mut Attributes, family: Family) {
    let number = match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    };
    meta(list, NFT_META_NFPROTO);
    compare(list, NFT_CMP_EQ, &[number]);
}

pub(super) fn protocol_is(list: &mut Attributes, protocol: Protocol) {
    let number = match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    };
    meta(list, NFT_META_L4PROTO);
    compare(list, NFT_CMP_EQ, &[number]);
}

/// Loopback is known by its index, which is faster to compare: most packets that are redirected pass it.
fn interface_is(list: &mut Attributes, index: u32, name: u32, interface: &InterfaceName) {
    if *interface == InterfaceName::loopback() {
        meta(list, index);
        return compare(list, NFT_CMP_EQ, &LOOPBACK_IFINDEX.to_ne_bytes());
    }
    let interface = interface.as_str();
    let mut padded = [0; INTERFACE_NAME_LENGTH];
    padded[..interface.len()].copy_from_slice(interface.as_bytes());
    meta(list, name);
    compare(list, NFT_CMP_EQ, &padded);
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn addresses_are(list: &mut Attributes, table: TableFamily, addresses: &Addresses, side: Side) {
    let family = addresses.family();
    match table {
        TableFamily::Inet => family_is(list, family),
        TableFamily::Only(_) => {}
    }
    // Offsets of the address in the IPv4 (RFC 791) and IPv6 (RFC 8200) headers.
    let (offset, length) = match (family, side) {
        (Family::V4, Side::Source) => (12, 4),
        (Family::V4, Side::Destination) => (16, 4),
        (Family::V6, Side::Source) => (8, 16),
        (Family::V6, Side::Destination) => (24, 16),
    };
    payload(list, NFT_PAYLOAD_NETWORK_HEADER, offset, length);
    match addresses {
        Addresses::Ip(IpAddr::V4(ip)) => compare(list, NFT_CMP_EQ, &ip.octets()),
        Addresses::Ip(IpAddr::V6(ip)) => compare(list, NFT_CMP_EQ, &ip.octets()),
        Addresses::Set(_, set) => is_in(list, set),
    }
}

/// Both protocols have the source port first in their header, and then the destination port.
fn port_is(list: &mut Attributes, protocol: Protocol, ports: &PortMatch, offset: u32) {
    protocol_is(list, protocol);
    payload(list, NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2);
    match ports {
        PortMatch::Port(port) => compare(list, NFT_CMP_EQ, &port.get().to_be_bytes()),
        PortMatch::Set(set) => is_in(list, set),
    }
}

pub(super) fn owner_is(list: &mut Attributes, key: u32, id: impl Id) {
    meta(list, key);
    compare(list, NFT_CMP_EQ, &id.get().to_ne_bytes());
}

/// Interval sets compare keys bytewise, so their IDs are big-endian; the packet's ID is in host byte order.
fn owner_is_in(list: &mut Attributes, key: u32, set: &str) {
    meta(list, key);
    host_to_network_order(list);
    is_in(list, set);
}

/// The bits of conntrack states that match.
pub(super) fn state_bits(state: ConntrackState) -> u32 {
    match state {
        ConntrackState::Invalid => NF_CT_STATE_INVALID,
        ConntrackState::New => NF_CT_STATE_NEW,
        ConntrackState::Related => NF_CT_STATE_RELATED,
        ConntrackState::Established => NF_CT_STATE_ESTABLISHED | NF_CT_STATE_RELATED,
    }
}

/// Matches if any of these bits of a property of the connection is set.
fn conntrack_bits(list: &mut Attributes, key: u32, bits: u32) {
    conntrack(list, key);
    masked(list, &bits.to_ne_bytes());
    compare(list, NFT_CMP_NEQ, &[0; 4]);
}

pub(super) fn masked(list: &mut Attributes, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        data.number(NFTA_BITWISE_SREG, NFT_REG_1);
        data.number(NFTA_BITWISE_DREG, NFT_REG_1);
        data.number(NFTA_BITWISE_LEN, mask.len() as u32);
        value(data, NFTA_BITWISE_MASK, mask);
        value(data, NFTA_BITWISE_XOR, &vec![0; mask.len()]);
    });
}

/// What nft calls `fib saddr . iif oif`, reduced to whether there is one.
pub(super) const REVERSE_PATH: u32 = NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT;

/// Looks up `result` of the route to an address, which `flags` say (`NFTA_FIB_F_…`).
fn fib(list: &mut Attributes, result: u32, flags: u32) {
    expression(list, "fib", |data| {
        data.number(NFTA_FIB_DREG, NFT_REG_1);
        data.number(NFTA_FIB_RESULT, result);
        data.number(NFTA_FIB_FLAGS, flags);
    });
}

/// `flags`: which address, as `NFTA_FIB_F_…`.
fn address_is_local(list: &mut Attributes, flags: u32) {
    fib(list, NFT_FIB_RESULT_ADDRTYPE, flags);
    compare(list, NFT_CMP_EQ, &u32::from(RTN_LOCAL).to_ne_bytes());
}

fn reject(list: &mut Attributes, kind: u32, code: u8) {
    expression(list, "reject", |data| {
        data.number(NFTA_REJECT_TYPE, kind);
        data.bytes(NFTA_REJECT_ICMP_CODE, &[code]);
    });
}

pub(super) fn meta(list: &mut Attributes, key: u32) {
    expression(list, "meta", |data| {
        data.number(NFTA_META_DREG, NFT_REG_1);
        data.number(NFTA_META_KEY, key);
    });
}

/// Since Linux 5.13.
fn socket_cgroup(list: &mut Attributes, level: u32) {
    expression(list, "socket", |data| {
        data.number(NFTA_SOCKET_KEY, NFT_SOCKET_CGROUPV2);
        data.number(NFTA_SOCKET_DREG, NFT_REG_1);
        data.number(NFTA_SOCKET_LEVEL, level);
    });
}

pub(super) fn set_meta(list: &mut Attributes, key: u32) {
    expression(list, "meta", |data| {
        data.number(NFTA_META_KEY, key);
        data.number(NFTA_META_SREG, NFT_REG_1);
    });
}

fn conntrack(list: &mut Attributes, key: u32) {
    expression(list, "ct", |data| {
        data.number(NFTA_CT_DREG, NFT_REG_1);
        data.number(NFTA_CT_KEY, key);
    });
}

fn set_conntrack(list: &mut Attributes, key: u32) {
    expression(list, "ct", |data| {
        data.number(NFTA_CT_KEY, key);
        data.number(NFTA_CT_SREG, NFT_REG_1);
    });
}

/// The kernel itself skips everything but new TCP connections (`nft_ct_timeout_obj_eval`, net/netfilter/nft_ct.c).
fn set_timeouts(list: &mut Attributes) {
    expression(list, "objref", |data| {
        data.number(NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_CT_TIMEOUT);
        data.text(NFTA_OBJREF_IMM_NAME, TIMEOUTS);
    });
}

pub(super) fn payload(list: &mut Attributes, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |data| {
        data.number(NFTA_PAYLOAD_DREG, NFT_REG_1);
        data.number(NFTA_PAYLOAD_BASE, base);
        data.number(NFTA_PAYLOAD_OFFSET, offset);
        data.number(NFTA_PAYLOAD_LEN, length);
    });
}

pub(super) fn compare(list: &mut Attributes, operator: u32, with: &[u8]) {
    expression(list, "cmp", |data| {
        data.number(NFTA_CMP_SREG, NFT_REG_1);
        data.number(NFTA_CMP_OP, operator);
        value(data, NFTA_CMP_DATA, with);
    });
}

fn is_in(list: &mut Attributes, set: &str) {
    expression(list, "lookup", |data| {
        data.text(NFTA_LOOKUP_SET, set);
        data.number(NFTA_LOOKUP_SREG, NFT_REG_1);
    });
}

pub(super) fn immediate(list: &mut Attributes, bytes: &[u8]) {
    expression(list, "immediate", |data| {
        data.number(NFTA_IMMEDIATE_DREG, NFT_REG_1);
        value(data, NFTA_IMMEDIATE_DATA, bytes);
    });
}

pub(super) fn verdict(list: &mut Attributes, code: u32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        data.nest(NFTA_IMMEDIATE_DATA, |data| {
            data.nest(NFTA_DATA_VERDICT, |verdict| {
                verdict.number(NFTA_VERDICT_CODE, code);
                if let Some(chain) = chain {
                    verdict.text(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    });
}

fn host_to_network_order(list: &mut Attributes) {
    expression(list, "byteorder", |data| {
        data.number(NFTA_BYTEORDER_SREG, NFT_REG_1);
        data.number(NFTA_BYTEORDER_DREG, NFT_REG_1);
        data.number(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON);
        data.number(NFTA_BYTEORDER_LEN, 4);
        data.number(NFTA_BYTEORDER_SIZE, 4);
    });
}

fn tproxy(list: &mut Attributes, table: TableFamily) {
    // That of the packet; a table of one family requires its own (`nft_tproxy_init`, net/netfilter/nft_tproxy.c).
    let family = match table {
        TableFamily::Inet => NFPROTO_UNSPEC,
        TableFamily::Only(Family::V4) => NFPROTO_IPV4,
        TableFamily::Only(Family::V6) => NFPROTO_IPV6,
    };
    expression(list, "tproxy", |data| {
        data.number(NFTA_TPROXY_FAMILY, family.into());
        data.number(NFTA_TPROXY_REG_PORT, NFT_REG_1);
    });
}

fn redirect(list: &mut Attributes) {
    expression(list, "redir", |data| {
        data.number(NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1);
        data.number(NFTA_REDIR_REG_PROTO_MAX, NFT_REG_1);
        data.number(NFTA_REDIR_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED);
    });
}

/// A value in the kind of attribute that can also hold a verdict.
pub(super) fn value(data: &mut Attributes, kind: u16, bytes: &[u8]) {
    data.nest(kind, |data| data.bytes(NFTA_DATA_VALUE, bytes));
}
