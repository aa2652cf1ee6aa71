//! Simulation of a packet's path through the rules, hook by hook, without a kernel.
//!
//! The model covers the hooks of IPv4 and IPv6 in one network namespace: base chains in the order of their priorities;
//! connection tracking between raw and mangle; NAT decided once, by the first packet of a connection; routing by destination
//! and mark; re-entry by the loopback interface. Where something is unknown, it follows every possibility, and says whether
//! they lead to the same place. Tests compare it with real kernels, packet by packet.

mod choices;
mod describe;
pub mod effect;
pub mod json;
mod packet;
pub mod packet_args;
mod path;
mod run;
mod simulation;
pub mod text;

pub use packet::{LocalMark, Origin, Packet, Pod};
pub use path::{End, PacketPath, Step, TraceEntry, Verdict};
pub use run::{TooComplex, simulate, simulate_later};
pub use simulation::Simulation;

use crate::mesh::verdict;
use crate::render;
use crate::ruleset::netfilter::Netfilter;

/// Everything that a report about a packet shows.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'e> {
    /// The source of the rules: a phrase.
    pub source: &'e str,
    /// Whether the pod is redirected, if a pod was described.
    pub pod: Option<&'e verdict::Verdict>,
    /// The rules.
    pub rules: &'e Netfilter,
    /// The packet.
    pub packet: &'e Packet,
    /// Its path.
    pub path: &'e PacketPath<'e>,
}

impl Explanation<'_> {
    /// What could not be read, as text.
    fn unreadable(&self) -> Vec<String> {
        let mut unreadable = self.rules.unreadable.clone();
        for table in &self.rules.tables {
            for chain in &table.chains {
                let rules = chain.rules.iter().zip(1..).filter(|(rule, _)| rule.is_unreadable());
                unreadable.extend(rules.map(|(rule, number)| {
                    let (chain, table) = (&chain.name, &table.name);
                    format!(
                        "rule {number} of chain {chain} of table {table}: {}",
                        render::netfilter::rule(rule)
                    )
                }));
            }
        }
        unreadable
    }
}
