//! What was observed of the network namespace: plain data, which a test can write down.

use std::net::IpAddr;

/// Everything that a plan depends on besides the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the namespace can do with IPv6.
    pub ipv6: Ipv6,
    /// Which families the namespace has addresses of.
    pub addresses: UsableAddresses,
    /// The name servers of `/etc/resolv.conf`.
    pub resolvers: Vec<IpAddr>,
}

/// The facts of an ordinary pod; what a dry run assumes where it can observe nothing.
impl Default for Facts {
    fn default() -> Self {
        Self {
            ipv6: Ipv6::Usable,
            addresses: UsableAddresses {
                v4: true,
                v6: true,
                v6_link_local: true,
            },
            resolvers: Vec::new(),
        }
    }
}

/// Whether there are addresses that other hosts could reach: no loopback ones, and link-local ones apart. Where there is no
/// other, `::6` on the loopback interface counts for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsableAddresses {
    /// IPv4 addresses.
    pub v4: bool,
    /// IPv6 addresses.
    pub v6: bool,
    /// IPv6 addresses of the link, which only its neighbours could reach.
    pub v6_link_local: bool,
}

/// What a network namespace can do with IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// The loopback interface takes IPv6 addresses.
    Usable,
    /// Switched off on the loopback interface (`net.ipv6.conf.lo.disable_ipv6`).
    OffOnLoopback {
        /// Whether another interface has an IPv6 address all the same.
        used_elsewhere: bool,
    },
    /// The kernel has no IPv6 (`ipv6.disable=1`, or not built in).
    Absent,
}

/// A chain that is installed in the namespace, ours or another tool's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledChain {
    /// Its table, as a person would write it: `ip nat`, `inet sidetrack`, or `nat (legacy iptables)`.
    pub table: String,
    /// Its name.
    pub chain: String,
}
