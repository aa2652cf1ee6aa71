//! A filter on packets that arrive on an interface: TCP, UDP and echo requests with a source arrive on another one instead
//! (tc-u32(8), tc-mirred(8)). The kernel removes it with the interface.

use std::net::IpAddr;

use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL};
use nix::errno::Errno;

use super::link::{Change, attribute};
use super::{Route, RouteError};

/// `TC_H_INGRESS`, and the handle of the queue discipline there (linux/pkt_sched.h).
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;

/// Attributes of a queue discipline or a filter, of u32 and of its actions (linux/rtnetlink.h, linux/pkt_cls.h).
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
/// The first action of a filter.
const FIRST_ACTION: u16 = 1;

/// `TCA_MIRRED_PARMS`, `TCA_INGRESS_REDIR` (linux/tc_act/tc_mirred.h), `TC_ACT_STOLEN` (linux/pkt_cls.h).
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_INGRESS_REDIR: u32 = 3;
const TC_ACT_STOLEN: u32 = 4;

/// `TC_U32_TERMINAL`.
const TERMINAL: u8 = 1;

/// A message about traffic control: `struct tcmsg` and attributes.
struct Request(Vec<u8>);

impl Request {
    fn new(index: u32, handle: u32, parent: u32, info: u32) -> Self {
        const FAMILY: u32 = 0;
        let fields = [FAMILY, index, handle, parent, info];
        Self(fields.iter().flat_map(|field| field.to_ne_bytes()).collect())
    }
}

impl Emitable for Request {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.0.len()].copy_from_slice(&self.0);
    }
}

/// A comparison of a word of the packet: mask, value, and offset in bytes from the IP header.
type Key = (u32, u32, u32);

impl Route {
    /// Lets TCP, UDP and echo requests from `source` that arrive on the interface with the index `on` arrive on that with
    /// the index `instead`. Neighbour discovery stays with the interface.
    ///
    /// # Errors
    /// The netlink exchange failed; inner error: the kernel refused.
    pub fn enter_by(&mut self, on: u32, source: IpAddr, instead: u32) -> Change {
        let mut discipline = Request::new(on, INGRESS_HANDLE, INGRESS, 0);
        attribute(&mut discipline.0, TCA_KIND, b"ingress\0")?;
        match self.change(libc::RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &discipline)? {
            Err(refusal) if refusal.errno != Errno::EEXIST => return Ok(Err(refusal)),
            // It is there for another source.
            Ok(()) | Err(_) => {}
        }
        for keys in kinds(source) {
            let filter = filter(on, source, &keys, instead)?;
            if let Err(refusal) = self.change(libc::RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &filter)? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    }
}

/// The comparisons for each kind of packet.
fn kinds(source: IpAddr) -> [Vec<Key>; 3] {
    let (tcp, udp) = (libc::IPPROTO_TCP as u32, libc::IPPROTO_UDP as u32);
    match source {
        // The protocol is the 10th byte.
        IpAddr::V4(_) => [tcp, udp, libc::IPPROTO_ICMP as u32].map(|protocol| vec![(0x00ff_0000, protocol << 16, 8)]),
        // The next header is the 7th byte; the type of an ICMPv6 message, the first one after 40.
        IpAddr::V6(_) => {
            const ECHO_REQUEST: u32 = 128;
            let next = |protocol: u32| (0x0000_ff00, protocol << 8, 4);
            let echo = (0xff00_0000, ECHO_REQUEST << 24, 40);
            [
                vec![next(tcp)],
                vec![next(udp)],
                vec![next(libc::IPPROTO_ICMPV6 as u32), echo],
            ]
        }
    }
}

fn filter(on: u32, source: IpAddr, kind: &[Key], instead: u32) -> Result<Request, RouteError> {
    let (protocol, priority, source): (libc::c_int, u32, Vec<Key>) = match source {
        // The source begins at the 13th byte.
        IpAddr::V4(source) => (libc::ETH_P_IP, 1, vec![(u32::MAX, source.into(), 12)]),
        // The source begins at the 9th byte.
        IpAddr::V6(source) => {
            let words = source.octets();
            let words = words
                .chunks_exact(4)
                .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
            let words = words
                .zip([8, 12, 16, 20])
                .map(|(word, offset)| (u32::MAX, word, offset));
            (libc::ETH_P_IPV6, 2, words.collect())
        }
    };
    let keys = [kind, &source].concat();
    let protocol = u32::from((protocol as u16).to_be());
    let mut action = Vec::new();
    attribute(&mut action, TCA_ACT_KIND, b"mirred\0")?;
    // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
    let fields = [0, 0, TC_ACT_STOLEN, 0, 0, TCA_INGRESS_REDIR, instead];
    let fields: Vec<u8> = fields.iter().flat_map(|field: &u32| field.to_ne_bytes()).collect();
    let mut parameters = Vec::new();
    attribute(&mut parameters, TCA_MIRRED_PARMS, &fields)?;
    attribute(&mut action, TCA_ACT_OPTIONS, &parameters)?;
    let mut actions = Vec::new();
    attribute(&mut actions, FIRST_ACTION, &action)?;
    let mut options = Vec::new();
    attribute(&mut options, TCA_U32_SEL, &selector(&keys))?;
    attribute(&mut options, TCA_U32_ACT, &actions)?;
    let mut filter = Request::new(on, 0, INGRESS_HANDLE, priority << 16 | protocol);
    attribute(&mut filter.0, TCA_KIND, b"u32\0")?;
    attribute(&mut filter.0, TCA_OPTIONS, &options)?;
    Ok(filter)
}

/// `struct tc_u32_sel` and its keys.
fn selector(keys: &[Key]) -> Vec<u8> {
    const HEADER: usize = 16;
    // flags, offshift, nkeys, padding; the rest is about headers at variable offsets.
    let mut bytes = vec![TERMINAL, 0, keys.len() as u8, 0];
    bytes.resize(HEADER, 0);
    for (mask, value, offset) in keys {
        bytes.extend(mask.to_be_bytes());
        bytes.extend(value.to_be_bytes());
        bytes.extend(offset.to_ne_bytes());
        bytes.extend([0; 4]); // offmask
    }
    bytes
}
