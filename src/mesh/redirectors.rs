//! Other tools that redirect traffic, recognized by the names of their chains and tables.

use super::{MESHES, Mesh};
use crate::facts::InstalledChain;
use crate::types::MeshName;

/// Another tool whose redirection rules are installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirector {
    /// The name of the tool.
    pub tool: &'static str,
    /// The mesh that it belongs to, if it is a supported one.
    pub mesh: Option<MeshName>,
    /// One of its tables.
    pub table: String,
    /// One of its chains.
    pub chain: String,
}

/// The chain prefix of a tool that is no longer maintained and not supported as a mesh.
const OPEN_SERVICE_MESH: (&str, &str) = ("OSM_PROXY_", "Open Service Mesh");

impl Redirector {
    /// The command that removes its rules.
    pub fn removal(&self) -> String {
        match self.mesh {
            Some(mesh) => format!("sidetrack cleanup --foreign {mesh}"),
            None => "its own program".to_owned(),
        }
    }

    /// The section of the documentation that describes the migration from it, if there is one.
    pub fn migration(&self) -> Option<&'static str> {
        let section = match self.mesh? {
            MeshName::Istio => "docs/migration.md#from-istio-init",
            MeshName::Linkerd => "docs/migration.md#from-linkerd-init",
            MeshName::Kuma => "docs/migration.md#from-kuma-init",
            MeshName::Consul => "docs/migration.md#from-consul",
            MeshName::None => return None,
        };
        Some(section)
    }
}

/// The tools that own some of these chains, each once.
pub fn redirectors<'c>(chains: impl IntoIterator<Item = &'c InstalledChain>) -> Vec<Redirector> {
    let mut found: Vec<Redirector> = Vec::new();
    for chain in chains {
        let of_mesh = MESHES
            .iter()
            .find_map(|mesh| Some((mesh.writer(chain)?, Some(mesh.option))));
        let (prefix, tool) = OPEN_SERVICE_MESH;
        let of_others = || chain.chain.starts_with(prefix).then_some((tool, None));
        let Some((tool, mesh)) = of_mesh.or_else(of_others) else {
            continue;
        };
        if !found.iter().any(|redirector| redirector.tool == tool) {
            found.push(Redirector {
                tool,
                mesh,
                table: chain.table.clone(),
                chain: chain.chain.clone(),
            });
        }
    }
    found
}

impl Mesh {
    /// Whether a chain of this name belongs to the mesh.
    pub fn owns_chain(&self, name: &str) -> bool {
        self.chains.iter().any(|(prefix, _)| name.starts_with(prefix))
    }

    /// The tool of the mesh that created a chain; `None` for a foreign chain.
    fn writer(&self, chain: &InstalledChain) -> Option<&'static str> {
        let by_chain = self.chains.iter().find(|(prefix, _)| chain.chain.starts_with(prefix));
        let by_table = || self.tables.iter().find(|(prefix, _)| chain.table.starts_with(prefix));
        by_chain.or_else(by_table).map(|(_, tool)| *tool)
    }

    /// The nf_tables tables that hold only its rules, as `FAMILY NAME`, without those of iptables-nft.
    pub fn own_tables(&self, chains: &[InstalledChain]) -> Vec<String> {
        let mut tables: Vec<String> = Vec::new();
        for InstalledChain { table, .. } in chains {
            let mut inside = chains.iter().filter(|chain| chain.table == *table);
            let own = table.starts_with("inet ") && inside.all(|chain| self.writer(chain).is_some());
            if own && !tables.contains(table) {
                tables.push(table.clone());
            }
        }
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::super::named;
    use super::*;

    fn chain(table: &str, chain: &str) -> InstalledChain {
        InstalledChain {
            table: table.to_owned(),
            chain: chain.to_owned(),
        }
    }

    #[test]
    fn redirectors_are_listed_once_each() {
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

    #[test]
    fn migrations_are_sections_of_the_documentation() {
        let page = include_str!("../../docs/migration.md");
        let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
        let sections: Vec<String> = headings
            .map(|heading| format!("docs/migration.md#{}", heading.to_lowercase().replace(' ', "-")))
            .collect();
        for mesh in &MESHES {
            let (prefix, _) = mesh.chains[0];
            let found = redirectors(&[chain("ip nat", prefix)]);
            let section = found[0].migration().expect("a section");
            assert!(sections.iter().any(|known| known == section), "{section}");
        }
    }

    #[test]
    fn own_tables_exclude_shared_tables() {
        let chains = [
            chain("inet istio-proxy-nat", "output"),
            chain("inet istio-proxy-nat", "istio-output"),
            chain("inet consul_tproxy", "CONSUL_NAT_OUTPUT"),
            chain("inet nat", "CONSUL_PROXY_OUTPUT"),
            chain("inet nat", "postrouting"),
            chain("ip nat", "CONSUL_PROXY_OUTPUT"),
            chain("inet other", "CONSUL_PROXY_OUTPUT"),
        ];
        let own = |name| named(name).unwrap().own_tables(&chains);
        assert_eq!(own(MeshName::Istio), ["inet istio-proxy-nat"]);
        assert_eq!(own(MeshName::Consul), ["inet consul_tproxy", "inet other"]);
        assert_eq!(own(MeshName::Linkerd), Vec::<String>::new());
    }
}
