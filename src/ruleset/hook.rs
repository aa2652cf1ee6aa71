//! Where the kernel calls base chains.

use super::priority;

/// The hook at which the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseHook {
    /// Type.
    pub kind: ChainType,
    /// Netfilter hook.
    pub hook: Hook,
    /// Priority among chains at one hook: lower is earlier. A number, since names differ between versions of nft.
    pub priority: i32,
}

/// The type of a base chain. It determines the useful matches and actions, and when the kernel calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainType {
    /// Sees each packet before connection tracking, and may set the conntrack zone.
    Raw,
    /// Sees each packet after connection tracking, and may mark, drop, or hand it to a socket. At the output hook, a
    /// packet whose mark has changed is rerouted.
    Mangle,
    /// Sees the first packet of a connection and may translate its addresses.
    Nat,
    /// Sees each packet, after translation of its destination, and may reject it. It sees packets of both families,
    /// whatever [`Ruleset::families`] says.
    Filter,
}

/// A hook that base chains are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Inbound packets.
    Prerouting,
    /// Inbound packets for this host.
    Input,
    /// Inbound packets for another host.
    Forward,
    /// Locally generated packets.
    Output,
    /// Packets that leave, after routing.
    Postrouting,
}

impl ChainType {
    /// Its name: the table of iptables that has such chains.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

impl Hook {
    /// All hooks, in the order of `enum nf_inet_hooks` (linux/netfilter.h).
    pub const ALL: [Self; 5] = [
        Self::Prerouting,
        Self::Input,
        Self::Forward,
        Self::Output,
        Self::Postrouting,
    ];

    /// Its number in `enum nf_inet_hooks`.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The hook with this number.
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// Its name in nft and, in capitals, the name of its chains in iptables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }

    /// The priority at which the kernel translates addresses.
    pub fn nat_priority(self) -> i32 {
        match self {
            Self::Prerouting | Self::Output => priority::NAT,
            Self::Input | Self::Forward | Self::Postrouting => priority::NAT_SOURCE,
        }
    }
}
