//! The observed state of a network namespace.

use super::RuleBackend;
use super::nftables::ForeignTable;
use crate::facts::InstalledChain;
use crate::linux::route::{ForeignRule, Loopback, Sharing};
use crate::mesh::redirectors::redirectors;
use crate::mesh::{self, Delivery};
use crate::options::Settings;
use crate::plan::Prerequisite;
use crate::ruleset::{Layout, TABLE, TableFamily};

/// The observed state of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The loopback interface.
    pub loopback: Loopback,
    /// Our policy routing rules; then our routes, if there are such rules or a table of sidetrack.
    pub policy_routing: Vec<Prerequisite>,
    /// Foreign policy routing rules.
    pub foreign_rules: Vec<ForeignRule>,
    /// The chains of nf_tables, iptables-nft's among them.
    pub chains: Vec<InstalledChain>,
    /// The foreign nf_tables tables that have a chain at the hook input, or one that translates destinations.
    pub foreign_tables: Vec<ForeignTable>,
    /// The chains of legacy iptables; `None` if they cannot be read.
    pub legacy: Option<Vec<InstalledChain>>,
    /// Whether legacy iptables may have any table.
    pub may_have_legacy_tables: bool,
}

impl Observed {
    /// All observed chains.
    pub fn all_chains(&self) -> impl Iterator<Item = &InstalledChain> {
        self.chains.iter().chain(self.legacy.iter().flatten())
    }

    /// Whether another program may have written rules.
    pub fn may_have_foreign_rules(&self) -> bool {
        self.may_have_legacy_tables || self.foreign_chains().next().is_some()
    }

    /// The foreign chains.
    pub fn foreign_chains(&self) -> impl Iterator<Item = &InstalledChain> {
        let ours = |chain: &InstalledChain| {
            TableFamily::of_own_table(&chain.table).is_some() || is_iptables_chain(&chain.chain)
        };
        self.all_chains().filter(move |chain| !ours(chain))
    }

    /// The observed prerequisites owned by sidetrack, in the order of adding.
    pub fn prerequisites(&self) -> Vec<Prerequisite> {
        let addresses = self.loopback.own_addresses.iter().copied().map(Prerequisite::Address);
        self.policy_routing.iter().cloned().chain(addresses).collect()
    }

    /// The iptables-nft tables that have a chain that `is_meant` accepts.
    pub fn iptables_nft_tables(&self, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let mut tables: Vec<String> = Vec::new();
        for chain in self.chains.iter().filter(|chain| is_meant(&chain.chain)) {
            let is_iptables = chain.table.starts_with("ip ") || chain.table.starts_with("ip6 ");
            if is_iptables && !tables.contains(&chain.table) {
                tables.push(chain.table.clone());
            }
        }
        tables
    }

    /// The iptables-nft tables that have chains owned by sidetrack.
    pub fn own_iptables_nft_tables(&self) -> Vec<String> {
        self.iptables_nft_tables(is_iptables_chain)
    }

    /// Logs what conflicts with any redirection in this network namespace.
    pub fn log_warnings(&self) {
        for other in redirectors(self.all_chains()) {
            let remove = other.removal();
            tracing::warn!(
                tool = other.tool,
                table = other.table,
                chain = other.chain,
                remove,
                "another tool also redirects traffic in this network namespace and conflicts with sidetrack: remove \
                 its rules, or do not use sidetrack"
            );
        }
        self.warn_of_loopback();
    }

    /// Logs the redirection rules of other tools, which a cleanup leaves in place.
    pub fn warn_of_foreign_rules(&self) {
        for other in redirectors(self.all_chains()) {
            let remove = other.removal();
            tracing::warn!(
                tool = other.tool,
                table = other.table,
                chain = other.chain,
                remove,
                "the rules of another tool are left in place"
            );
        }
    }

    /// Warns if IPv6 bypasses the proxy by the mesh's default, although the namespace has IPv6 addresses and no option
    /// asked for it.
    pub fn warn_of_ipv6(&self, settings: &Settings) {
        let uses_ipv6 = self.loopback.facts(Vec::new()).addresses.v6;
        if let Some(mesh) = mesh::mesh_without_ipv6(settings).filter(|_| uses_ipv6) {
            tracing::warn!(
                "IPv6 is in use and bypasses the proxy: the proxy of {} listens on IPv4 alone unless the mesh is \
                 configured for IPv6. If it is, set ip-family to auto",
                mesh.name
            );
        }
    }

    /// Warns if the loopback interface is down.
    pub fn warn_of_loopback(&self) {
        if !self.loopback.up {
            tracing::warn!(
                "the loopback interface is down: until it is up, redirected local connections cannot reach the proxy"
            );
        }
    }

    /// The foreign user of a prerequisite owned by sidetrack, if any: another mesh's rules, or a policy routing rule.
    pub fn foreign_user_of(&self, what: &Prerequisite) -> Option<String> {
        match what {
            Prerequisite::Address(_) => self.passes_on_from_address().map(str::to_owned),
            Prerequisite::Rule { .. } | Prerequisite::LoopbackRoute(_) => None,
            Prerequisite::Route { family, table } => {
                let mut rules = self.foreign_rules.iter();
                let user = rules.find(|rule| (rule.family, rule.table) == (*family, *table));
                user.map(|rule| format!("the {family} rule with priority {}", rule.priority))
            }
        }
    }

    /// A foreign rule that routes packets other than sidetrack's by the table of this rule, if any.
    pub fn sharing(&self, what: &Prerequisite) -> Option<Sharing> {
        let Prerequisite::Rule { family, mark, table } = *what else {
            return None;
        };
        let of_table = |rule: &&ForeignRule| (rule.family, rule.table) == (family, table);
        let mut rules = self.foreign_rules.iter().filter(of_table);
        rules
            .find(|rule| rule.routes_other_marks_than(mark))
            .map(|rule| Sharing::Rule {
                family,
                priority: rule.priority,
                table,
            })
    }

    /// The tool whose IPv6 rules need `::6`, the source address of its proxy's passthrough connections, if any.
    fn passes_on_from_address(&self) -> Option<&'static str> {
        let of_v6 = |chain: &&InstalledChain| {
            let table = chain.table.as_str();
            table.starts_with("ip6 ") || table.starts_with("inet ") || table.ends_with("(legacy ip6tables)")
        };
        let mut others = redirectors(self.all_chains().filter(of_v6)).into_iter();
        let other = others.find(|other| {
            let mesh = other.mesh.map(mesh::delivery);
            mesh == Some(Delivery::FromPassthrough)
        });
        other.map(|other| other.tool)
    }

    /// The families of the nf_tables tables owned by sidetrack.
    pub fn own_tables(&self) -> Vec<TableFamily> {
        let holds = |family: &TableFamily| self.chains.iter().any(|chain| is_in(chain, *family));
        TableFamily::ALL.into_iter().filter(holds).collect()
    }

    /// Whether the observation found our rules in this backend.
    pub fn holds_rules(&self, backend: RuleBackend) -> bool {
        let (chains, ours): (_, fn(&InstalledChain) -> bool) = match backend {
            RuleBackend::Nftables => (Some(&self.chains), |chain| is_in_layout(chain, Layout::OneTable)),
            RuleBackend::NftablesPerFamily => (Some(&self.chains), |chain| is_in_layout(chain, Layout::PerFamily)),
            RuleBackend::IptablesNft => (Some(&self.chains), |chain| {
                chain.table.starts_with("ip") && is_iptables_chain(&chain.chain)
            }),
            RuleBackend::IptablesLegacy => (self.legacy.as_ref(), |chain| is_iptables_chain(&chain.chain)),
        };
        chains.into_iter().flatten().any(ours)
    }
}

fn is_in(chain: &InstalledChain, family: TableFamily) -> bool {
    TableFamily::of_own_table(&chain.table) == Some(family)
}

fn is_in_layout(chain: &InstalledChain, layout: Layout) -> bool {
    layout.families().iter().any(|family| is_in(chain, *family))
}

/// Whether an iptables chain has a name owned by sidetrack.
fn is_iptables_chain(name: &str) -> bool {
    name.strip_prefix(&TABLE.to_uppercase())
        .is_some_and(|rest| rest.starts_with('_'))
}
