//! Other tools that redirect, known by the names of their chains and tables.

use super::MESHES;
use crate::facts::InstalledChain;

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

/// How the chains of a redirector begin that is no longer developed, and of which no more is known.
const OPEN_SERVICE_MESH: (&str, &str) = ("OSM_PROXY_", "Open Service Mesh");

/// The other redirectors among these chains, each once.
pub fn redirectors<'c>(chains: impl IntoIterator<Item = &'c InstalledChain>) -> Vec<Redirector> {
    let mut found: Vec<Redirector> = Vec::new();
    for chain in chains {
        let chains = MESHES.iter().flat_map(|mesh| mesh.chains).chain([&OPEN_SERVICE_MESH]);
        let tables = MESHES.iter().flat_map(|mesh| mesh.tables);
        let by_chain = chains.into_iter().find(|(prefix, _)| chain.chain.starts_with(prefix));
        let by_table = || tables.into_iter().find(|(prefix, _)| chain.table.starts_with(prefix));
        let Some((_, tool)) = by_chain.or_else(by_table) else {
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
