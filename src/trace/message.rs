//! A message of the kernel about one step of a packet (`enum nft_trace_attributes`, linux/netfilter/nf_tables.h).

use std::net::SocketAddr;

use crate::ruleset::Protocol;

/// A chain of nf_tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainId {
    /// Its table with the family, as nft names it: `inet sidetrack`.
    pub table: String,
    /// Its name.
    pub chain: String,
}

/// One step of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of the packet. The kernel reuses numbers, and changes them when a packet crosses the loopback
    /// interface.
    pub id: u32,
    /// The chain.
    pub chain: ChainId,
    /// The step.
    pub event: Event,
    /// The packet's headers, in the first message about each base chain.
    pub headers: Option<Headers>,
    /// Whether the packet leaves by the loopback interface; false unless the message has headers.
    pub leaves_by_loopback: bool,
}

/// A step in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A rule matched.
    Rule {
        /// Its number, unique in its table.
        handle: u64,
        /// Its verdict.
        verdict: Verdict,
    },
    /// The chain that a rule jumped to ended.
    Return,
    /// The base chain ended, with its policy.
    Policy(Verdict),
}

/// The verdict of a rule or policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No further rule of this base chain is evaluated.
    Accept,
    /// The packet is dropped.
    Drop,
    /// Back to the calling chain; the end of a base chain.
    Return,
    /// The next rule, a jump, or a queue.
    Other,
}

/// The headers of a packet that decide where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Headers {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The source.
    pub source: SocketAddr,
    /// The destination.
    pub destination: SocketAddr,
    /// TCP's sequence number, which a retransmitted packet has too; 0 for UDP.
    pub sequence: u32,
}
