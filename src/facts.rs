//! Facts observed in the network namespace, as plain data that a test can write down.

use std::net::IpAddr;

/// The inputs of a plan besides the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The IPv6 support of the namespace.
    pub ipv6: Ipv6,
    /// The families of which the namespace has usable addresses.
    pub addresses: UsableAddresses,
    /// The name servers of `/etc/resolv.conf`.
    pub resolvers: Vec<IpAddr>,
    /// The ID of the proxy's cgroup, where an option names one and it exists.
    pub proxy_cgroup: Option<u64>,
}

/// The facts of an ordinary pod, which a dry run assumes if it cannot observe any.
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
            proxy_cgroup: None,
        }
    }
}

/// Whether the namespace has addresses that other hosts can reach: loopback addresses do not count, link-local ones
/// count separately. If there is no other, `::6` on the loopback interface counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsableAddresses {
    /// IPv4 addresses.
    pub v4: bool,
    /// IPv6 addresses.
    pub v6: bool,
    /// Link-local IPv6 addresses, which only neighbours on the link can reach.
    pub v6_link_local: bool,
}

/// The IPv6 support of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// The loopback interface accepts IPv6 addresses.
    Usable,
    /// Disabled on the loopback interface (`net.ipv6.conf.lo.disable_ipv6`).
    OffOnLoopback {
        /// Whether another interface has an IPv6 address.
        used_elsewhere: bool,
    },
    /// The kernel has no IPv6 (`ipv6.disable=1`, or not built in).
    Absent,
}

/// An installed chain, owned by sidetrack or foreign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledChain {
    /// Table, as a person writes it: `ip nat`, `inet sidetrack`, or `nat (legacy iptables)`.
    pub table: String,
    /// Chain name.
    pub chain: String,
}

impl InstalledChain {
    /// The chain of this name in a table.
    pub fn new(table: String, chain: &str) -> Self {
        Self {
            table,
            chain: chain.to_owned(),
        }
    }
}
