//! The expressions that rules are made of, as nf_tables takes them (linux/netfilter/nf_tables.h).
//!
//! They are the ones that nft itself generates, so that a listing by nft reads like the dry run.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

use crate::config::types::Id;
use crate::ruleset::{
    Action, Addresses, ConntrackState, Family, GidMatch, Match, PortMatch, Protocol, Rule, UidMatch, Zone,
};

/// An expression as an element of a rule's list.
pub type Element = ListAttribute<ExpressionAttribute>;

pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;
pub(super) const IPPROTO_TCP: u8 = 6;
pub(super) const IPPROTO_UDP: u8 = 17;

/// Length of an interface name with its terminating zero (`IFNAMSIZ` in linux/if.h).
const INTERFACE_NAME_LENGTH: usize = 16;

/// `enum nft_payload_bases`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// `enum nft_byteorder_ops` and `enum nft_byteorder_attributes`.
const BYTEORDER_HTON: u32 = 1;
const BYTEORDER_SREG: u16 = 1;
const BYTEORDER_DREG: u16 = 2;
const BYTEORDER_OP: u16 = 3;
const BYTEORDER_LEN: u16 = 4;
const BYTEORDER_SIZE: u16 = 5;

/// `enum nft_tproxy_attributes`.
const TPROXY_FAMILY: u16 = 1;
const TPROXY_REG_PORT: u16 = 3;
const NFPROTO_UNSPEC: u32 = 0;

/// `enum nft_ct_attributes` and `enum nft_ct_keys`.
const CT_DREG: u16 = 1;
const CT_KEY: u16 = 2;
const CT_SREG: u16 = 4;
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_MARK: u32 = 3;
pub(super) const CT_ZONE: u32 = 17;

/// `enum ip_conntrack_info` as bits (`NF_CT_STATE_BIT`, linux/netfilter/nf_conntrack_common.h).
pub(super) const STATE_INVALID: u32 = 1;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;

/// `enum nft_redir_attributes`, and the flag that says that a port is given (`NF_NAT_RANGE_PROTO_SPECIFIED`).
const REDIR_REG_PROTO_MIN: u16 = 1;
const REDIR_REG_PROTO_MAX: u16 = 2;
const REDIR_FLAGS: u16 = 3;
const RANGE_PROTO_SPECIFIED: u32 = 2;

/// The expressions of a rule: its matches, then its action.
pub fn of_rule(rule: &Rule) -> Vec<Element> {
    let mut expressions = Vec::new();
    for matcher in &rule.matches {
        push_match(&mut expressions, matcher);
    }
    push_action(&mut expressions, &rule.action);
    expressions.into_iter().map(element).collect()
}

/// `enum nft_expr_attributes`.
const NFTA_EXPR_DATA: u16 = 2;

/// An expression with its attributes in bytes. The netlink crate counts what is inside an attribute anew for each
/// level of attributes around it; it need not count bytes.
fn element(expression: Expressions) -> Element {
    let data = DefaultNla::new(NFTA_EXPR_DATA | NLA_F_NESTED, bytes_of(&expression));
    let mut element = Element::from(expression);
    if let ListAttribute::Element(attributes) = &mut element {
        attributes.retain(|attribute| !matches!(attribute, ExpressionAttribute::Data(_)));
        attributes.push(ExpressionAttribute::Other(data));
    }
    element
}

/// Attributes in bytes.
pub fn bytes_of(attributes: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn push_match(expressions: &mut Vec<Expressions>, matcher: &Match) {
    match matcher {
        Match::Family(family) => expressions.extend(family_is(*family)),
        Match::Protocol(protocol) => expressions.extend(protocol_is(*protocol)),
        Match::InInterface(name) => expressions.extend(interface_is(MetaKey::Iifname, name.as_str())),
        Match::OutInterface(name) => expressions.extend(interface_is(MetaKey::Oifname, name.as_str())),
        Match::Source(addresses) => push_addresses(expressions, addresses, Side::Source),
        Match::Destination(addresses) => push_addresses(expressions, addresses, Side::Destination),
        Match::SourcePort(protocol, ports) => push_ports(expressions, *protocol, ports, 0),
        Match::DestinationPort(protocol, ports) => push_ports(expressions, *protocol, ports, 2),
        Match::Uid(UidMatch::Uid(uid)) => push_owner(expressions, MetaKey::SocketUserId, *uid),
        Match::Uid(UidMatch::Set(set)) => push_owner_set(expressions, MetaKey::SocketUserId, set),
        Match::Gid(GidMatch::Gid(gid)) => push_owner(expressions, MetaKey::SocketGroupId, *gid),
        Match::Gid(GidMatch::Set(set)) => push_owner_set(expressions, MetaKey::SocketGroupId, set),
        Match::Mark(mark) => expressions.extend([meta(MetaKey::Mark), equals(host_order(mark.get()))]),
        Match::MarkIsNot(mark) => expressions.extend([meta(MetaKey::Mark), differs(host_order(mark.get()))]),
        Match::ConntrackMark(mark) => expressions.extend([conntrack(CT_MARK), equals(host_order(mark.get()))]),
        Match::ConntrackState(ConntrackState::Invalid) => expressions.extend(conntrack_state(STATE_INVALID)),
        Match::ConntrackState(ConntrackState::Established) => {
            expressions.extend(conntrack_state(STATE_ESTABLISHED | STATE_RELATED));
        }
    }
}

/// Both protocols have the source port first in their header, and then the destination port.
fn push_ports(expressions: &mut Vec<Expressions>, protocol: Protocol, ports: &PortMatch, offset: u32) {
    expressions.extend(protocol_is(protocol));
    expressions.push(payload(TRANSPORT_HEADER, offset, 2));
    expressions.push(match ports {
        PortMatch::Port(port) => equals(port.get().to_be_bytes().to_vec()),
        PortMatch::Set(set) => is_in(set),
    });
}

fn push_action(expressions: &mut Vec<Expressions>, action: &Action) {
    match action {
        Action::Return => expressions.push(verdict(vec![VerdictAttribute::Code(Verdict::Return)])),
        Action::Jump(chain) => expressions.push(verdict(vec![
            VerdictAttribute::Code(Verdict::Jump),
            VerdictAttribute::Chain(chain.to_string()),
        ])),
        Action::Accept => expressions.push(code(NF_ACCEPT)),
        Action::Drop => expressions.push(code(NF_DROP)),
        Action::Redirect(port) => {
            expressions.extend([immediate(port.get().to_be_bytes().to_vec()), redirect()]);
        }
        Action::Tproxy { port, mark } => {
            expressions.extend([immediate(port.get().to_be_bytes().to_vec()), tproxy()]);
            expressions.extend([immediate(host_order(mark.get())), set_mark(), code(NF_ACCEPT)]);
        }
        Action::SetMark(mark) => expressions.extend([immediate(host_order(mark.get())), set_mark()]),
        Action::SaveMark => expressions.extend([meta(MetaKey::Mark), set_conntrack(CT_MARK)]),
        Action::RestoreMark => expressions.extend([conntrack(CT_MARK), set_mark()]),
        Action::SetZone(Zone(zone)) => {
            expressions.extend([immediate(zone.to_ne_bytes().to_vec()), set_conntrack(CT_ZONE)]);
        }
    }
}

/// Verdicts of linux/netfilter.h.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

fn code(code: u32) -> Expressions {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(code))])
}

fn host_order(number: u32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn push_addresses(expressions: &mut Vec<Expressions>, addresses: &Addresses, side: Side) {
    let family = addresses.family();
    expressions.extend(family_is(family));
    // Offsets of the address in the IPv4 (RFC 791) and IPv6 (RFC 8200) headers.
    expressions.push(match (family, side) {
        (Family::V4, Side::Source) => payload(NETWORK_HEADER, 12, 4),
        (Family::V4, Side::Destination) => payload(NETWORK_HEADER, 16, 4),
        (Family::V6, Side::Source) => payload(NETWORK_HEADER, 8, 16),
        (Family::V6, Side::Destination) => payload(NETWORK_HEADER, 24, 16),
    });
    expressions.push(match addresses {
        Addresses::Ip(IpAddr::V4(ip)) => equals(ip.octets().to_vec()),
        Addresses::Ip(IpAddr::V6(ip)) => equals(ip.octets().to_vec()),
        Addresses::Set(_, set) => is_in(set),
    });
}

fn push_owner(expressions: &mut Vec<Expressions>, key: MetaKey, id: impl Id) {
    expressions.push(meta(key));
    expressions.push(equals(id.get().to_ne_bytes().to_vec()));
}

/// Interval sets compare bytes from the left, so IDs are big-endian there; the packet's is in the host's order.
fn push_owner_set(expressions: &mut Vec<Expressions>, key: MetaKey, set: &str) {
    expressions.push(meta(key));
    expressions.push(host_to_network_order());
    expressions.push(is_in(set));
}

fn family_is(family: Family) -> [Expressions; 2] {
    let number = match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    };
    [meta(MetaKey::Nfproto), equals(vec![number])]
}

fn protocol_is(protocol: Protocol) -> [Expressions; 2] {
    let number = match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    };
    [meta(MetaKey::L4Proto), equals(vec![number])]
}

fn interface_is(key: MetaKey, name: &str) -> [Expressions; 2] {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(INTERFACE_NAME_LENGTH, 0);
    [meta(key), equals(padded)]
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)])
}

fn payload(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn set_mark() -> Expressions {
    Expressions::Meta(vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(Register::Reg1)])
}

fn conntrack(key: u32) -> Expressions {
    other("ct", &[(CT_DREG, Register::Reg1.into()), (CT_KEY, key)])
}

fn set_conntrack(key: u32) -> Expressions {
    other("ct", &[(CT_KEY, key), (CT_SREG, Register::Reg1.into())])
}

/// Any of these bits is set in the connection's state.
fn conntrack_state(bits: u32) -> [Expressions; 3] {
    let masked = Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(host_order(bits))),
        Bitwise::Xor(DataAttribute::Value(host_order(0))),
    ]);
    [conntrack(CT_STATE), masked, differs(host_order(0))]
}

fn equals(value: Vec<u8>) -> Expressions {
    compare(Operator::Equal, value)
}

fn differs(value: Vec<u8>) -> Expressions {
    compare(Operator::NotEqual, value)
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn immediate(value: Vec<u8>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Reg1),
        Immediate::Data(DataAttribute::Value(value)),
    ])
}

fn is_in(set: &str) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
    ])
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

fn host_to_network_order() -> Expressions {
    other(
        "byteorder",
        &[
            (BYTEORDER_SREG, Register::Reg1.into()),
            (BYTEORDER_DREG, Register::Reg1.into()),
            (BYTEORDER_OP, BYTEORDER_HTON),
            (BYTEORDER_LEN, 4),
            (BYTEORDER_SIZE, 4),
        ],
    )
}

fn tproxy() -> Expressions {
    // Of whichever family the packet is.
    let family = NFPROTO_UNSPEC;
    other(
        "tproxy",
        &[(TPROXY_FAMILY, family), (TPROXY_REG_PORT, Register::Reg1.into())],
    )
}

fn redirect() -> Expressions {
    other(
        "redir",
        &[
            (REDIR_REG_PROTO_MIN, Register::Reg1.into()),
            (REDIR_REG_PROTO_MAX, Register::Reg1.into()),
            (REDIR_FLAGS, RANGE_PROTO_SPECIFIED),
        ],
    )
}

/// An expression that the netlink crate has no type for. All the ones we need have 32-bit attributes alone.
fn other(name: &str, attributes: &[(u16, u32)]) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes: attributes
            .iter()
            .map(|(kind, value)| DefaultNla::new(*kind, value.to_be_bytes().to_vec()))
            .collect(),
    }
}
