//! What is in a network namespace.

use super::RuleBackend;
use super::nftables::Closed;
use crate::facts::InstalledChain;
use crate::linux::route::{ForeignRule, Loopback, Sharing};
use crate::mesh::redirectors::redirectors;
use crate::mesh::{self, Delivery};
use crate::options::Settings;
use crate::plan::Prerequisite;
use crate::ruleset::TABLE;

/// What a look at a network namespace shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The loopback interface.
    pub loopback: Loopback,
    /// Our rules of policy routing; after them, where there are any, our routes.
    pub policy_routing: Vec<Prerequisite>,
    /// The rules of policy routing that are not ours.
    pub foreign_rules: Vec<ForeignRule>,
    /// The chains of nf_tables, iptables-nft's among them.
    pub chains: Vec<InstalledChain>,
    /// The tables of nf_tables that drop what arrives unless a rule accepts it.
    pub closed: Vec<Closed>,
    /// The chains of legacy iptables; `None` where they cannot be seen.
    pub legacy: Option<Vec<InstalledChain>>,
}

impl Observed {
    /// All chains that were seen.
    pub fn all_chains(&self) -> impl Iterator<Item = &InstalledChain> {
        self.chains.iter().chain(self.legacy.iter().flatten())
    }

    /// The chains that are not ours.
    pub fn others(&self) -> impl Iterator<Item = &InstalledChain> {
        let ours = |chain: &InstalledChain| chain.table == format!("inet {TABLE}") || is_iptables_chain(&chain.chain);
        self.all_chains().filter(move |chain| !ours(chain))
    }

    /// What we have added besides rules, as far as it was seen, in the order in which it is added.
    pub fn prerequisites(&self) -> Vec<Prerequisite> {
        let addresses = self.loopback.our_addresses.iter().copied().map(Prerequisite::Address);
        self.policy_routing.iter().copied().chain(addresses).collect()
    }

    /// The tables of iptables-nft that have chains like these.
    pub fn tables_of_iptables(&self, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let mut tables: Vec<String> = Vec::new();
        for chain in self.chains.iter().filter(|chain| is_meant(&chain.chain)) {
            let of_iptables = chain.table.starts_with("ip ") || chain.table.starts_with("ip6 ");
            if of_iptables && !tables.contains(&chain.table) {
                tables.push(chain.table.clone());
            }
        }
        tables
    }

    /// The tables of iptables-nft that have chains of ours.
    pub fn our_tables_of_iptables(&self) -> Vec<String> {
        self.tables_of_iptables(is_iptables_chain)
    }

    /// Logs what will be in the way of any redirection here.
    pub fn log_warnings(&self) {
        for other in redirectors(self.all_chains()) {
            let remove = other.removal();
            tracing::warn!(
                tool = other.tool,
                table = other.table,
                chain = other.chain,
                remove,
                "another tool redirects traffic here too, and the two will fight: remove its rules, or do without \
                 sidetrack"
            );
        }
        self.warn_of_loopback();
    }

    /// Logs which rules of other tools there are, where ours are removed.
    pub fn warn_of_foreign_rules(&self) {
        for other in redirectors(self.all_chains()) {
            let remove = other.removal();
            tracing::warn!(
                tool = other.tool,
                table = other.table,
                chain = other.chain,
                remove,
                "another tool's rules are here, and stay"
            );
        }
    }

    /// Logs it where IPv6 goes past the proxy as its mesh has it, though there are addresses and nobody asked for that.
    pub fn warn_of_ipv6(&self, settings: &Settings) {
        let uses_ipv6 = self.loopback.facts(Vec::new()).addresses.v6;
        if let Some(mesh) = mesh::mesh_without_ipv6(settings).filter(|_| uses_ipv6) {
            tracing::warn!(
                "IPv6 is in use here and goes past the proxy: that of {} listens on IPv4 alone unless its mesh is set up \
                 for IPv6. Where it is, set ip-family to auto",
                mesh.name
            );
        }
    }

    /// Logs it where the loopback interface is down.
    pub fn warn_of_loopback(&self) {
        if !self.loopback.up {
            tracing::warn!(
                "the loopback interface is down: until it is up, redirected connections from here cannot reach the proxy"
            );
        }
    }

    /// Who else needs this of ours, if somebody does: another mesh's rules, or a foreign rule of policy routing.
    pub fn needed_by_others(&self, what: Prerequisite) -> Option<String> {
        match what {
            Prerequisite::Address(_) => self.passes_on_from_address().map(str::to_owned),
            Prerequisite::Rule { .. } => None,
            Prerequisite::Route { family, table } => {
                let mut rules = self.foreign_rules.iter();
                let user = rules.find(|rule| (rule.family, rule.table) == (family, table));
                user.map(|rule| format!("the {family} rule with priority {}", rule.priority))
            }
        }
    }

    /// The foreign rule that leads other packets than ours to the table of this rule, if there is one.
    pub fn sharing(&self, what: Prerequisite) -> Option<Sharing> {
        let Prerequisite::Rule { family, mark, table } = what else {
            return None;
        };
        let of_table = |rule: &&ForeignRule| (rule.family, rule.table) == (family, table);
        let mut rules = self.foreign_rules.iter().filter(of_table);
        rules
            .find(|rule| rule.leads_others_than(mark))
            .map(|rule| Sharing::Rule {
                family,
                priority: rule.priority,
                table,
            })
    }

    /// The tool whose rules for IPv6 are here and need `::6`, from which its proxy passes traffic on, if there is one.
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

    /// Whether rules of ours were seen.
    pub fn holds_rules(&self, backend: RuleBackend) -> bool {
        let (chains, ours): (_, fn(&InstalledChain) -> bool) = match backend {
            RuleBackend::Nftables => (Some(&self.chains), |chain| chain.table == format!("inet {TABLE}")),
            RuleBackend::IptablesNft => (Some(&self.chains), |chain| {
                chain.table.starts_with("ip") && is_iptables_chain(&chain.chain)
            }),
            RuleBackend::IptablesLegacy => (self.legacy.as_ref(), |chain| is_iptables_chain(&chain.chain)),
        };
        chains.into_iter().flatten().any(ours)
    }
}

/// Whether a chain of iptables bears one of our names.
fn is_iptables_chain(name: &str) -> bool {
    name.strip_prefix(&TABLE.to_uppercase())
        .is_some_and(|rest| rest.starts_with('_'))
}
