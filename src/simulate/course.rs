//! What is told of a packet's way.

use std::net::SocketAddr;

use crate::ruleset::{BaseHook, Match, Name, Rule, Unreadable, Zone};
use crate::types::{InterfaceName, Port};

/// The way of a packet, to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course<'r> {
    /// Every rule that was looked at, in order.
    pub trace: Vec<Entry<'r>>,
    /// What the rules do about the connection.
    pub verdict: Verdict,
    /// Where the packet gets in the end.
    pub end: End,
    /// The packet's mark in the end; 0 for none.
    pub mark: u32,
    /// The conntrack zone of its connection, where rules have named one.
    pub zone: Option<Zone>,
    /// The mark of its connection; 0 for none.
    pub connection_mark: u32,
    /// Whether the answer depends on nothing that could not be read.
    pub certain: bool,
}

/// What the rules do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is translated to this port of the pod.
    Redirect(Port),
    /// It is handed, as it is, to the transparent socket on this port of the pod.
    Tproxy(Port),
    /// It is left alone.
    Accept,
    /// The packet is thrown away.
    Drop,
}

/// Where a packet gets in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// To a socket of the pod, by this address of it.
    Delivered(SocketAddr),
    /// To another host.
    Sent {
        /// The address.
        to: SocketAddr,
        /// The interface that it leaves by.
        interface: InterfaceName,
    },
    /// To another host, through the pod, which may or may not forward it.
    PassedThrough(SocketAddr),
    /// Nowhere.
    Dropped,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'r> {
    /// Where the base chain is called.
    pub base: BaseHook,
    /// The interface that the packet arrived on or leaves by there.
    pub interface: InterfaceName,
    /// The chain.
    pub chain: &'r Name,
    /// How many jumps lead there.
    pub depth: usize,
    /// What was looked at, and what came of it.
    pub step: Step<'r>,
}

/// What was looked at in a chain, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'r> {
    /// A rule that does not apply, and the match that does not hold.
    NoMatch(&'r Rule, &'r Match),
    /// A rule that may apply or not: a set that it looks into could not be read. It was taken not to.
    Unknown(&'r Rule),
    /// A rule that could not be read. It was taken not to apply.
    Unreadable(&'r Unreadable),
    /// A rule whose action was taken.
    Taken(&'r Rule),
    /// A rule that redirects, on an interface without an address to redirect to: the packet is dropped.
    NowhereToRedirect(&'r Rule),
    /// The end of the chain.
    End,
    /// Nothing: a chain for translation, and the way of the connection was decided before.
    Decided,
    /// Nothing: a chain for translation, and the packet belongs to no connection.
    Untracked,
}

impl<'r> Step<'r> {
    /// The rule that was looked at, where it could be read.
    pub fn rule(&self) -> Option<&'r Rule> {
        match self {
            Self::NoMatch(rule, _) | Self::Unknown(rule) | Self::Taken(rule) | Self::NowhereToRedirect(rule) => {
                Some(rule)
            }
            Self::Unreadable(_) | Self::End | Self::Decided | Self::Untracked => None,
        }
    }
}
