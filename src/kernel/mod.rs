//! The only room with effects: netlink, programs, namespaces, capabilities, the clock and the file system.

pub mod iptables;

/// What applying a ruleset did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was nothing of ours, and now there is.
    Created,
    /// Other rules of ours were there; the new ones took their place at one instant.
    Replaced,
    /// The same rules were there already. Nothing was sent.
    Unchanged,
}
