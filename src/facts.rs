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
            addresses: UsableAddresses { v4: true, v6: true },
            resolvers: Vec::new(),
        }
    }
}

/// Whether there are addresses that other hosts could reach: neither loopback nor link-local ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsableAddresses {
    /// IPv4 addresses.
    pub v4: bool,
    /// IPv6 addresses.
    pub v6: bool,
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

/// A tool that redirects traffic like we do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirector {
    /// What it is called.
    pub tool: &'static str,
    /// A table of its.
    pub table: String,
    /// A chain of its.
    pub chain: String,
}

/// How the chains of other redirectors begin.
const CHAINS_OF_OTHERS: [(&str, &str); 5] = [
    ("ISTIO_", "Istio (istio-init or istio-cni)"),
    ("PROXY_INIT_", "Linkerd (linkerd-init or linkerd-cni)"),
    ("KUMA_MESH_", "Kuma"),
    ("CONSUL_", "Consul"),
    ("OSM_PROXY_", "Open Service Mesh"),
];

/// How the tables of other redirectors begin.
const TABLES_OF_OTHERS: [(&str, &str); 2] = [
    ("inet istio-proxy-", "Istio (native nftables)"),
    ("inet consul", "Consul"),
];

/// The other redirectors among these chains, each once.
pub fn redirectors<'c>(chains: impl IntoIterator<Item = &'c InstalledChain>) -> Vec<Redirector> {
    let mut found: Vec<Redirector> = Vec::new();
    for chain in chains {
        let by_chain = CHAINS_OF_OTHERS
            .iter()
            .find(|(prefix, _)| chain.chain.starts_with(prefix));
        let by_table = TABLES_OF_OTHERS
            .iter()
            .find(|(prefix, _)| chain.table.starts_with(prefix));
        let Some((_, tool)) = by_chain.or(by_table) else {
            continue;
        };
        if !found.iter().any(|redirector| redirector.tool == *tool) {
            found.push(Redirector {
                tool,
                table: chain.table.clone(),
                chain: chain.chain.clone(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(table: &str, chain: &str) -> InstalledChain {
        InstalledChain {
            table: table.to_owned(),
            chain: chain.to_owned(),
        }
    }

    #[test]
    fn other_redirectors_are_named_once_each() {
        let chains = [
            chain("ip nat", "PREROUTING"),
            chain("ip nat", "ISTIO_OUTPUT"),
            chain("ip6 nat", "ISTIO_REDIRECT"),
            chain("nat (legacy iptables)", "PROXY_INIT_OUTPUT"),
            chain("inet istio-proxy-nat", "output"),
            chain("inet sidetrack", "output"),
            chain("ip nat", "SIDETRACK_OUTPUT"),
            chain("ip nat", "MY_ISTIO_OUTPUT"),
        ];
        let tools: Vec<&str> = redirectors(&chains).iter().map(|redirector| redirector.tool).collect();
        assert_eq!(
            tools,
            [
                "Istio (istio-init or istio-cni)",
                "Linkerd (linkerd-init or linkerd-cni)",
                "Istio (native nftables)"
            ]
        );
    }
}
