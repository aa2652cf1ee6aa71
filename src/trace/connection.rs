//! A traced connection, and what the rules did with it.

use std::net::SocketAddr;
use std::time::Duration;

use super::Direction;
use super::message::{ChainId, Headers};
use super::rules::Rule;

/// A connection whose first packet was traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// When its first packet was seen, since the epoch.
    pub at: Duration,
    /// Its direction.
    pub direction: Direction,
    /// The packet's headers before any rule changed them.
    pub headers: Headers,
    /// What the rules did.
    pub action: Action,
    /// The rule or policy that decided, if one did.
    pub decision: Option<Decision>,
    /// Where the packet went.
    pub end: End,
    /// Why the above is not the whole truth, if it is not.
    pub doubt: Option<Doubt>,
}

/// What the rules did with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Translated to this address of the network namespace.
    Redirect(SocketAddr),
    /// Translated to this address of another one.
    Translate(SocketAddr),
    /// Passed unchanged to the transparent socket on this port.
    Tproxy(u16),
    /// Not redirected.
    Accept,
    /// Dropped or rejected.
    Drop,
}

/// The rule or policy that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The chain.
    pub chain: ChainId,
    /// The rule; `None` for the policy of the chain.
    pub rule: Option<Decider>,
}

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decider {
    /// Its handle.
    pub handle: u64,
    /// The rule; `None` if it was deleted before it was read.
    pub rule: Option<Rule>,
}

/// Where a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// To a socket, at this address.
    Delivered(SocketAddr),
    /// To another host, at this address.
    Sent(SocketAddr),
    /// From another host to another host.
    PassedThrough(SocketAddr),
    /// It was dropped.
    Dropped,
    /// It did not reach the last hook.
    Unknown,
}

/// Why a line is not the whole truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The kernel discarded messages about this packet.
    Discarded,
    /// No NAT chain saw the packet, although there are some.
    NotFirst,
    /// No traced rule translated the packet, but something did.
    Untraced,
    /// The packet did not reach the last hook.
    NoEnd,
}
