//! The result of a simulation: trace, verdict, final destination.

use std::net::SocketAddr;

use crate::ruleset::{BaseHook, Match, Name, Rule, Unreadable, Zone};
use crate::types::{InterfaceName, Port};

/// The path of a packet through the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course<'r> {
    /// Every rule that was evaluated, in order.
    pub trace: Vec<Entry<'r>>,
    /// What the rules do with the connection.
    pub verdict: Verdict,
    /// The packet's final destination.
    pub end: End,
    /// The packet's final mark; 0 for none.
    pub mark: u32,
    /// The conntrack zone of its connection, if a rule sets one.
    pub zone: Option<Zone>,
    /// The conntrack mark; 0 for none.
    pub connection_mark: u32,
    /// False if the result depends on a rule or set that could not be read.
    pub certain: bool,
}

/// What the rules do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Translated to this port of the pod.
    Redirect(Port),
    /// Passed unchanged to the transparent socket on this port of the pod.
    Tproxy(Port),
    /// Not redirected.
    Accept,
    /// Dropped.
    Drop,
}

/// The final destination of a packet.
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
}

/// One step of a trace, and where it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'r> {
    /// The hook, type and priority of the base chain.
    pub base: BaseHook,
    /// The interface that the packet arrived on or leaves by there.
    pub interface: InterfaceName,
    /// The chain.
    pub chain: &'r Name,
    /// The number of jumps from the base chain.
    pub depth: usize,
    /// The rule, and its result.
    pub step: Step<'r>,
}

/// A rule evaluated in a chain, and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'r> {
    /// A rule that does not match, and its first match that fails.
    NoMatch(&'r Rule, &'r Match),
    /// A rule that refers to a set that could not be read. The simulation assumes that it does not match.
    Unknown(&'r Rule),
    /// A rule that could not be read. The simulation assumes that it does not match.
    Unreadable(&'r Unreadable),
    /// A rule that matches.
    Taken(&'r Rule),
    /// A redirect on an interface that has no address: the kernel drops the packet.
    NowhereToRedirect(&'r Rule),
    /// The end of the chain.
    End,
    /// A NAT chain is skipped: the translation of the connection is already decided.
    Decided,
    /// A NAT chain is skipped: the packet is in conntrack state invalid.
    Untracked,
}

impl<'r> Step<'r> {
    /// The rule, if it could be read.
    pub fn rule(&self) -> Option<&'r Rule> {
        match self {
            Self::NoMatch(rule, _) | Self::Unknown(rule) | Self::Taken(rule) | Self::NowhereToRedirect(rule) => {
                Some(rule)
            }
            Self::Unreadable(_) | Self::End | Self::Decided | Self::Untracked => None,
        }
    }
}
