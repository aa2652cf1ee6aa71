//! Live traces: what the kernel reports of the first packet of each connection on its way through the rules
//! (`NFT_MSG_TRACE` of nf_tables), as one verdict for each connection.
//!
//! [`Filter`] selects the connections. [`Tracer`] turns the kernel's messages into [`Connection`]s; [`text`] and [`json`]
//! write them. The backend encodes the rules that mark packets and decodes the messages.

mod connection;
mod filter;
pub mod json;
mod message;
mod rules;
#[cfg(test)]
mod tests;
pub mod text;
mod tracer;

use crate::ruleset::Hook;
use crate::types::Uid;

pub use connection::{Action, Connection, Decider, Decision, Doubt, End};
pub use filter::{DNS_PORT, Filter, read};
pub use message::{ChainId, Event, Headers, Message, Verdict};
pub use rules::{BaseChain, Rule, Rules};
pub use tracer::{Counts, Tracer};

/// How the names of the tables begin that mark packets. Each trace has a table of its own.
pub const TABLE_PREFIX: &str = "sidetrack-trace";
/// The chains that mark the first packet of an outbound and of an inbound connection.
pub const OUTBOUND: &str = "outbound";
/// See [`OUTBOUND`].
pub const INBOUND: &str = "inbound";
/// The base chains after all others: a packet that reaches one leaves the network namespace, or reaches its socket.
pub const LEAVES: &str = "leaves";
/// See [`LEAVES`].
pub const ARRIVES: &str = "arrives";

/// The direction of a connection, seen from the network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// A process inside begins it.
    Outbound,
    /// Its first packet comes from an interface other than loopback.
    Inbound,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// The name of the direction, which is also that of the chain that marks its packets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => OUTBOUND,
            Self::Inbound => INBOUND,
        }
    }

    /// The hook that its packets pass first.
    pub fn first_hook(self) -> Hook {
        match self {
            Self::Outbound => Hook::Output,
            Self::Inbound => Hook::Prerouting,
        }
    }
}

/// The owner of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The process, if it was found: its PID and its name.
    pub process: Option<(u32, String)>,
}

/// Connections that have no line, since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Connections above the rate limit. Repeated first packets count too.
    pub above_rate: u64,
    /// Connections whose messages the kernel discarded, since the socket's buffer was full.
    pub discarded: u64,
}

impl Losses {
    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
