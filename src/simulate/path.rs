//! The result of a simulation: trace, verdict, final destination.

use std::net::{IpAddr, SocketAddr};

use crate::ruleset::Zone;
use crate::ruleset::netfilter::{Base, Chain, Match, Rule, Table};
use crate::types::{InterfaceName, Port};

/// The path of a packet through the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketPath<'r> {
    /// The interface by which the packet arrived, if the kernel drops it there since its destination was translated to a
    /// loopback address (sysctl route_localnet).
    pub refused_on: Option<InterfaceName>,
    /// Every rule that was evaluated, in order.
    pub trace: Vec<TraceEntry<'r>>,
    /// What the rules do with the connection.
    pub verdict: Verdict,
    /// The packet's final destination.
    pub end: End,
    /// The destination to which rules translated the packet, or the port of the transparent socket it was handed to.
    pub redirected_to: Option<SocketAddr>,
    /// The packet's final source address, if it is known.
    pub source: Option<IpAddr>,
    /// The packet's final mark; 0 for none.
    pub mark: u32,
    /// The conntrack zone of its connection, if a rule sets one.
    pub zone: Option<Zone>,
    /// The conntrack mark; 0 for none.
    pub connection_mark: u32,
    /// False if the packet may take another path: something that the result depends on is unknown.
    pub certain: bool,
    /// What the result depends on and is unknown, in order: phrases.
    pub doubts: Vec<String>,
}

/// What the rules do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Translated to this port of the pod.
    Redirect(Port),
    /// Passed unchanged to the transparent socket on this port of the pod.
    Tproxy(Port),
    /// Translated to an address of another host.
    Dnat(SocketAddr),
    /// Not redirected.
    Accept,
    /// Dropped.
    Drop,
    /// Refused, and the sender is notified.
    Reject,
}

/// The final destination of a packet. The port is 0 if the protocol has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A socket of the pod, at this address.
    Delivered(SocketAddr),
    /// Another host.
    Sent {
        /// The address.
        to: SocketAddr,
        /// The interface that it leaves by.
        interface: InterfaceName,
    },
    /// Another host, if the pod forwards packets.
    PassedThrough(SocketAddr),
    /// The packet is dropped.
    Dropped,
    /// The packet is refused.
    Rejected,
}

/// One step of a trace, and its place in the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry<'r> {
    /// The hook, purpose and priority of the base chain.
    pub base: Base,
    /// The interface that the packet arrived on or leaves by there.
    pub interface: InterfaceName,
    /// The table.
    pub table: &'r Table,
    /// The chain.
    pub chain: &'r Chain,
    /// The number of jumps from the base chain.
    pub depth: usize,
    /// The rule, and its result.
    pub step: Step<'r>,
}

/// A rule evaluated in a chain, and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'r> {
    /// A rule that does not match, and its first match that fails; none for a map without an entry for the packet.
    NoMatch(&'r Rule, Option<&'r Match>),
    /// A rule of which it is unknown whether it matches. The simulation assumes that it does not.
    Unknown(&'r Rule),
    /// A rule that matches.
    Taken(&'r Rule),
    /// A redirect on an interface that has no address: the kernel drops the packet.
    NowhereToRedirect(&'r Rule),
    /// The end of the chain.
    End,
    /// The policy of the chain drops the packet.
    PolicyDrop,
    /// A NAT chain is skipped: the translation of the connection is already decided.
    Decided,
    /// A NAT chain is skipped: the packet is in conntrack state invalid.
    Untracked,
    /// A NAT chain is skipped: a rule excluded the packet from connection tracking.
    Excluded,
}

impl<'r> Step<'r> {
    /// The rule, if the step is about one.
    pub fn rule(&self) -> Option<&'r Rule> {
        match self {
            Self::NoMatch(rule, _) | Self::Unknown(rule) | Self::Taken(rule) | Self::NowhereToRedirect(rule) => {
                Some(rule)
            }
            Self::End | Self::PolicyDrop | Self::Decided | Self::Untracked | Self::Excluded => None,
        }
    }
}
