//! Decodes the kernel's messages about traced packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::{ARPHRD_LOOPBACK, NFT_MSG_TRACE};

use super::super::Message;
use super::super::attributes::{Malformed, find, number, read, text};
use super::super::foreign_tables::table_name;
use super::super::uapi::*;
use crate::ruleset::Protocol;
use crate::trace::{ChainId, Event, Headers, Message as Trace, Verdict};

/// A message about a traced packet; `None` for other messages.
///
/// # Errors
/// An attribute is missing or truncated.
pub fn decode(message: &Message) -> Result<Option<Trace>, Malformed> {
    if message.kind != NFT_MSG_TRACE {
        return Ok(None);
    }
    let (mut table, mut chain, mut id, mut kind, mut handle) = (None, None, None, 0, None);
    let (mut verdict, mut policy) = (Verdict::Other, Verdict::Other);
    let (mut network, mut transport, mut leaves_by_loopback) = (None, None, false);
    for attribute in read(&message.attributes) {
        match attribute? {
            (NFTA_TRACE_TABLE, value) => table = Some(text(value)),
            (NFTA_TRACE_CHAIN, value) => chain = Some(text(value)),
            (NFTA_TRACE_ID, value) => id = Some(number(value)?),
            (NFTA_TRACE_TYPE, value) => kind = number(value)?,
            (NFTA_TRACE_RULE_HANDLE, value) => {
                handle = Some(u64::from_be_bytes(*value.as_array().ok_or(Malformed)?));
            }
            (NFTA_TRACE_VERDICT, value) => {
                verdict = self::verdict(number(find(value, NFTA_VERDICT_CODE).ok_or(Malformed)?)?);
            }
            (NFTA_TRACE_POLICY, value) => policy = self::verdict(number(value)?),
            (NFTA_TRACE_NETWORK_HEADER, value) => network = Some(value),
            (NFTA_TRACE_TRANSPORT_HEADER, value) => transport = Some(value),
            (NFTA_TRACE_OIFTYPE, value) => {
                leaves_by_loopback = u16::from_be_bytes(*value.as_array().ok_or(Malformed)?) == ARPHRD_LOOPBACK;
            }
            _ => {}
        }
    }
    let event = match (kind, handle) {
        (NFT_TRACETYPE_RULE, Some(handle)) => Event::Rule { handle, verdict },
        // A rule that returns. Newer kernels report it as a rule, too.
        (NFT_TRACETYPE_RETURN, Some(handle)) if verdict == Verdict::Return => Event::Rule { handle, verdict },
        (NFT_TRACETYPE_RULE | NFT_TRACETYPE_RETURN, _) => Event::Return,
        (NFT_TRACETYPE_POLICY, _) => Event::Policy(policy),
        _ => return Ok(None),
    };
    Ok(Some(Trace {
        id: id.ok_or(Malformed)?,
        chain: ChainId {
            table: table_name(message.family, &table.ok_or(Malformed)?),
            chain: chain.ok_or(Malformed)?,
        },
        event,
        headers: network
            .zip(transport)
            .and_then(|(network, transport)| headers(network, transport)),
        leaves_by_loopback,
    }))
}

fn verdict(code: u32) -> Verdict {
    match code {
        NF_ACCEPT => Verdict::Accept,
        NF_DROP => Verdict::Drop,
        NFT_RETURN => Verdict::Return,
        _ => Verdict::Other,
    }
}

/// Reads the headers of a packet, of which the kernel reports the first 40 and 20 bytes (`nf_trace_fill_pkt_info`,
/// net/netfilter/nf_tables_trace.c).
fn headers(network: &[u8], transport: &[u8]) -> Option<Headers> {
    let v4 = |at: usize| Some(IpAddr::from(Ipv4Addr::from(*network.get(at..)?.first_chunk::<4>()?)));
    let v6 = |at: usize| Some(IpAddr::from(Ipv6Addr::from(*network.get(at..)?.first_chunk::<16>()?)));
    let (protocol, source, destination) = match network.first()? >> 4 {
        4 => (*network.get(9)?, v4(12)?, v4(16)?),
        6 => (*network.get(6)?, v6(8)?, v6(24)?),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(*transport.get(at..)?.first_chunk()?));
    // An extension header of IPv6 hides the protocol; such packets are not traced unless they are TCP's.
    let protocol = if protocol == IPPROTO_UDP {
        Protocol::Udp
    } else {
        Protocol::Tcp
    };
    let sequence = match protocol {
        Protocol::Tcp => u32::from_be_bytes(*transport.get(4..)?.first_chunk()?),
        Protocol::Udp => 0,
    };
    Some(Headers {
        protocol,
        source: SocketAddr::new(source, port(0)?),
        destination: SocketAddr::new(destination, port(2)?),
        sequence,
    })
}
