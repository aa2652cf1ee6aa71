//! The table of a trace: its rules count the first packet of each connection, and mark it so that the kernel reports
//! each step of it.

use std::net::IpAddr;

use ipnet::IpNet;
use libc::{ARPHRD_LOOPBACK, NFT_MSG_DELRULE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWTABLE};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};

use super::super::attributes::Attributes;
use super::super::encode::{Object, Step};
use super::super::expression::{
    compare, expression, immediate, masked, meta, owner_is, payload, protocol_is, set_meta, verdict,
};
use super::super::uapi::*;
use crate::ruleset::{Hook, Protocol};
use crate::trace::{ARRIVES, DNS_PORT, Direction, Filter, LEAVES};
use crate::types::Port;

/// The priority of the chains that mark packets: before all others (`NF_IP_PRI_FIRST`, linux/netfilter_ipv4.h).
const FIRST: i32 = i32::MIN;
/// The priority of the chains that packets reach at the end: just before conntrack confirms the connection
/// (`NF_IP_PRI_CONNTRACK_CONFIRM`).
const LAST: i32 = i32::MAX - 1;

/// The attempts to begin a connection that a trace reports.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'f> {
    /// The connections.
    pub filter: &'f Filter,
    /// Whether packets to the DNS port are traced without a filter for UDP.
    pub traces_dns: bool,
    /// Connections a second that are traced at most.
    pub rate: u32,
}

impl Wanted<'_> {
    fn protocols(&self) -> Vec<Protocol> {
        match self.filter.protocol {
            Some(protocol) => vec![protocol],
            None if self.traces_dns => vec![Protocol::Tcp, Protocol::Udp],
            None => vec![Protocol::Tcp],
        }
    }
}

/// The base chain that sends packets of a direction to its marking chain.
fn base_chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "output",
        Direction::Inbound => "prerouting",
    }
}

/// The steps that create the table. `flags`: `NFT_TABLE_F_…`.
pub fn create(table: &str, flags: u32, wanted: &Wanted<'_>) -> Vec<Step> {
    let mut steps = vec![step(table, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, |attributes| {
        attributes.text(NFTA_TABLE_NAME, table);
        attributes.number(NFTA_TABLE_FLAGS, flags);
    })];
    steps.push(chain(table, LEAVES, Some((Hook::Postrouting, LAST))));
    steps.push(chain(table, ARRIVES, Some((Hook::Input, LAST))));
    for direction in Direction::BOTH
        .into_iter()
        .filter(|direction| wanted.filter.includes(*direction))
    {
        steps.push(chain(table, direction.name(), None));
        steps.push(rule(table, direction.name(), |list| {
            expression(list, "counter", |_| {})
        }));
        steps.push(rule(table, direction.name(), |list| {
            limit(list, wanted.rate);
            expression(list, "counter", |_| {});
            mark(list);
        }));
        steps.push(chain(
            table,
            base_chain(direction),
            Some((direction.first_hook(), FIRST)),
        ));
        for protocol in wanted.protocols() {
            steps.push(rule(table, base_chain(direction), |list| {
                matches(list, direction, protocol, wanted.filter);
                verdict(list, NFT_JUMP, Some(direction.name()));
            }));
        }
    }
    steps
}

/// The steps that end the marking of packets; the counters stay.
pub fn stop(table: &str, filter: &Filter) -> Vec<Step> {
    let directions = Direction::BOTH
        .into_iter()
        .filter(|direction| filter.includes(*direction));
    let flush = |direction| {
        step(table, NFT_MSG_DELRULE, 0, |rules| {
            rules.text(NFTA_RULE_TABLE, table);
            rules.text(NFTA_RULE_CHAIN, base_chain(direction));
        })
    };
    directions.map(flush).collect()
}

/// The step that deletes the table.
pub fn remove(table: &str) -> Step {
    step(table, NFT_MSG_DELTABLE, 0, |attributes| {
        attributes.text(NFTA_TABLE_NAME, table)
    })
}

/// The steps that create the table in the place of one of this name, if there is one.
pub fn replace(table: &str, flags: u32, wanted: &Wanted<'_>) -> Vec<Step> {
    let any = step(table, NFT_MSG_NEWTABLE, NLM_F_CREATE, |attributes| {
        attributes.text(NFTA_TABLE_NAME, table);
    });
    let mut steps = vec![any, remove(table)];
    steps.extend(create(table, flags, wanted));
    steps
}

fn step(table: &str, kind: i32, flags: u16, write: impl FnOnce(&mut Attributes)) -> Step {
    Step::new(Object::TraceTable(table.to_owned()), kind, flags, write)
}

fn chain(table: &str, name: &str, hook: Option<(Hook, i32)>) -> Step {
    step(table, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |attributes| {
        attributes.text(NFTA_CHAIN_TABLE, table);
        attributes.text(NFTA_CHAIN_NAME, name);
        if let Some((hook, priority)) = hook {
            attributes.nest(NFTA_CHAIN_HOOK, |base| {
                base.number(NFTA_HOOK_HOOKNUM, hook.number());
                base.number(NFTA_HOOK_PRIORITY, priority.cast_unsigned());
            });
            attributes.number(NFTA_CHAIN_POLICY, NF_ACCEPT);
            attributes.text(NFTA_CHAIN_TYPE, "filter");
        }
    })
}

fn rule(table: &str, chain: &str, write: impl FnOnce(&mut Attributes)) -> Step {
    step(table, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |attributes| {
        attributes.text(NFTA_RULE_TABLE, table);
        attributes.text(NFTA_RULE_CHAIN, chain);
        attributes.nest(NFTA_RULE_EXPRESSIONS, write);
    })
}

/// The first packets of connections. Connection tracking would recognize them too, but matching its state would enable
/// it in namespaces that do not use it.
fn matches(list: &mut Attributes, direction: Direction, protocol: Protocol, filter: &Filter) {
    /// Offset of the byte of flags in the TCP header; FIN, SYN, RST and ACK in it, and SYN alone (RFC 9293).
    const FLAGS_AT: u32 = 13;
    const FIN_SYN_RST_ACK: [u8; 1] = [0x17];
    const SYN: [u8; 1] = [0x02];
    if direction == Direction::Inbound {
        // Packets over loopback were traced when they were sent.
        meta(list, NFT_META_IIFTYPE);
        compare(list, NFT_CMP_NEQ, &ARPHRD_LOOPBACK.to_ne_bytes());
    }
    if let Some(uid) = filter.uid {
        owner_is(list, NFT_META_SKUID, uid);
    }
    if let Some(source) = filter.source {
        network_is(list, source, (12, 8));
    }
    if let Some(destination) = filter.destination {
        network_is(list, destination, (16, 24));
    }
    protocol_is(list, protocol);
    let port = match protocol {
        Protocol::Tcp => filter.port,
        Protocol::Udp => Some(filter.port.unwrap_or(DNS_PORT)),
    };
    if let Some(port) = port {
        destination_port_is(list, port);
    }
    if protocol == Protocol::Tcp {
        payload(list, NFT_PAYLOAD_TRANSPORT_HEADER, FLAGS_AT, 1);
        masked(list, &FIN_SYN_RST_ACK);
        compare(list, NFT_CMP_EQ, &SYN);
    }
}

fn destination_port_is(list: &mut Attributes, port: Port) {
    payload(list, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
    compare(list, NFT_CMP_EQ, &port.get().to_be_bytes());
}

/// The address at these offsets in the IPv4 and IPv6 header is in this network.
fn network_is(list: &mut Attributes, network: IpNet, (v4_at, v6_at): (u32, u32)) {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (family, at) = match network {
        IpNet::V4(_) => (NFPROTO_IPV4, v4_at),
        IpNet::V6(_) => (NFPROTO_IPV6, v6_at),
    };
    let (address, mask) = (bytes(network.network()), bytes(network.netmask()));
    meta(list, NFT_META_NFPROTO);
    compare(list, NFT_CMP_EQ, &[family]);
    payload(list, NFT_PAYLOAD_NETWORK_HEADER, at, address.len() as u32);
    masked(list, &mask);
    compare(list, NFT_CMP_EQ, &address);
}

/// At most this many packets a second, and as many at once.
fn limit(list: &mut Attributes, rate: u32) {
    const SECOND: u64 = 1;
    expression(list, "limit", |data| {
        data.bytes(NFTA_LIMIT_RATE, &u64::from(rate).to_be_bytes());
        data.bytes(NFTA_LIMIT_UNIT, &SECOND.to_be_bytes());
        data.number(NFTA_LIMIT_BURST, rate);
    });
}

/// Makes the kernel report each further step of the packet.
fn mark(list: &mut Attributes) {
    immediate(list, &[1]);
    set_meta(list, NFT_META_NFTRACE);
}
