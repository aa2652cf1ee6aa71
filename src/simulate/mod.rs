//! Simulation of a packet's path through the rules, hook by hook, without a kernel.
//!
//! The model covers the part of netfilter that our rules use, in one network namespace: base chains in the order of their
//! priorities; connection tracking between raw and mangle; NAT decided once, by the first packet of a connection; routing
//! by destination and mark; re-entry by the loopback interface. Tests compare it with real kernels, packet by packet.

mod course;
mod journey;
pub mod json;
mod packet;
mod phrase;
mod scene;
pub mod text;
pub mod words;

pub use course::{Course, End, Entry, Step, Verdict};
pub use journey::{Endless, simulate, simulate_later};
pub use packet::{Origin, Packet, Pod};
pub use scene::Scene;

use crate::mesh::verdict;
use crate::ruleset::{Ruleset, Unreadable};

/// Everything that a report about a packet shows.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'e> {
    /// The source of the rules: a phrase.
    pub rules: &'e str,
    /// Whether the pod is redirected, if a pod was described.
    pub pod: Option<&'e verdict::Verdict>,
    /// The rules.
    pub ruleset: &'e Ruleset,
    /// The rules and sets that could not be read.
    pub unreadable: &'e [Unreadable],
    /// The packet.
    pub packet: &'e Packet,
    /// Its path.
    pub course: &'e Course<'e>,
}
