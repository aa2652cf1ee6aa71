//! What becomes of a packet: the rules followed hook by hook, without a kernel.
//!
//! The model is that of netfilter for one network namespace, as far as our rules reach: at each hook the chains in the
//! order of their priorities; connection tracking between raw and mangle; translation decided once, by the first packet
//! of a connection; routing by destination and mark; the way back in by the loopback interface. Tests compare it with
//! kernels, packet by packet.

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

/// All that is told of a packet's way.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'e> {
    /// Whose rules were followed: a phrase.
    pub rules: &'e str,
    /// What becomes of the pod, where one was described.
    pub pod: Option<&'e verdict::Verdict>,
    /// The rules.
    pub ruleset: &'e Ruleset,
    /// What could not be read of them.
    pub unreadable: &'e [Unreadable],
    /// The packet.
    pub packet: &'e Packet,
    /// Its way.
    pub course: &'e Course<'e>,
}
