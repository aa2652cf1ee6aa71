//! A fake network namespace in memory, with injected failures.

use std::collections::HashMap;
use std::io;

use nix::errno::Errno;

use super::nftables::Object;
use super::nftables::transaction::NftablesError;
use super::{Change, Kernel, KernelError, Observed, RuleBackend};
use crate::facts::{InstalledChain, Ipv6, UsableAddresses};
use crate::linux::marks::Discards;
use crate::linux::netlink::NetlinkError;
use crate::linux::route::{Loopback, RouteError};
use crate::linux::sysctl::SysctlError;
use crate::plan::Prerequisite;
use crate::ruleset::{Ruleset, TableFamily, Timeouts};

/// An operation on the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Add(Prerequisite),
    Remove(Prerequisite),
    ApplyRules(RuleBackend),
    RemoveRules(RuleBackend),
}

/// The state of a namespace.
pub type State = (Vec<Prerequisite>, Vec<Prerequisite>, HashMap<RuleBackend, Ruleset>);

/// The namespace.
pub struct Fake {
    pub nftables_supported: bool,
    pub per_family_supported: bool,
    /// The number of open connections; `None` if it cannot be read.
    pub open: Option<usize>,
    /// The value of the sysctl `nf_conntrack_tcp_loose`.
    pub loose: String,
    /// Prerequisites added by other programs.
    pub foreign: Vec<Prerequisite>,
    /// The operations that succeeded, in order.
    pub done: Vec<Operation>,
    ours: Vec<Prerequisite>,
    rules: HashMap<RuleBackend, Ruleset>,
    failing: Vec<Operation>,
    unanswered: Vec<Operation>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            nftables_supported: true,
            per_family_supported: true,
            open: Some(0),
            loose: "1".to_owned(),
            foreign: Vec::new(),
            done: Vec::new(),
            ours: Vec::new(),
            rules: HashMap::new(),
            failing: Vec::new(),
            unanswered: Vec::new(),
        }
    }
}

impl Fake {
    pub fn fail_at(&mut self, operation: Operation) {
        self.failing.push(operation);
    }

    /// The operation succeeds but reports a failure, once.
    pub fn lose_acknowledgement_of(&mut self, operation: Operation) {
        self.unanswered.push(operation);
    }

    pub fn state(&self) -> State {
        (self.foreign.clone(), self.ours.clone(), self.rules.clone())
    }

    pub fn observed(&self) -> Observed {
        let chain = |backend, table: &str, chain: &str| {
            self.rules.contains_key(&backend).then(|| InstalledChain {
                table: table.to_owned(),
                chain: chain.to_owned(),
            })
        };
        let nftables = chain(RuleBackend::Nftables, "inet sidetrack", "output");
        let per_family = chain(RuleBackend::NftablesPerFamily, "ip sidetrack", "output");
        let iptables_nft = chain(RuleBackend::IptablesNft, "ip nat", "SIDETRACK_OUTPUT");
        let addresses = self.ours.iter().filter_map(|what| match what {
            Prerequisite::Address(address) => Some(*address),
            Prerequisite::Rule { .. } | Prerequisite::Route { .. } | Prerequisite::LoopbackRoute(_) => None,
        });
        // Like the real one: the rules, and the routes only if there are rules of either kind.
        let mut policy_routing = self.owned(|what| matches!(what, Prerequisite::Rule { .. }));
        if !policy_routing.is_empty() || !self.rules.is_empty() {
            let is_route =
                |what: &Prerequisite| matches!(what, Prerequisite::Route { .. } | Prerequisite::LoopbackRoute(_));
            policy_routing.extend(self.owned(is_route));
        }
        let legacy = chain(RuleBackend::IptablesLegacy, "nat (legacy iptables)", "SIDETRACK_OUTPUT");
        Observed {
            loopback: Loopback {
                up: true,
                ipv6: Ipv6::Usable,
                addresses: UsableAddresses {
                    v4: true,
                    v6: true,
                    v6_link_local: true,
                },
                own_addresses: addresses.collect(),
            },
            policy_routing,
            foreign_rules: Vec::new(),
            foreign_tables: Vec::new(),
            chains: nftables.into_iter().chain(per_family).chain(iptables_nft).collect(),
            legacy: Some(legacy.into_iter().collect()),
            may_have_legacy_tables: false,
        }
    }

    fn owned(&self, is_wanted: fn(&Prerequisite) -> bool) -> Vec<Prerequisite> {
        self.ours.iter().filter(|what| is_wanted(what)).cloned().collect()
    }

    fn attempt(&mut self, operation: Operation) -> Result<(), KernelError> {
        if self.failing.contains(&operation) {
            return Err(KernelError::Nftables(NftablesError::Refused {
                object: Object::Table(TableFamily::Inet),
                refusal: Errno::ENOMEM.into(),
            }));
        }
        self.done.push(operation);
        Ok(())
    }

    fn answer<T>(&mut self, operation: Operation, answer: T) -> Result<T, KernelError> {
        let Some(position) = self.unanswered.iter().position(|lost| *lost == operation) else {
            return Ok(answer);
        };
        self.unanswered.remove(position);
        let lost = NetlinkError::Receive(Errno::ENOBUFS);
        Err(match operation {
            Operation::Add(_) | Operation::Remove(_) => RouteError::from(lost).into(),
            Operation::ApplyRules(_) | Operation::RemoveRules(_) => NftablesError::Unanswered(lost).into(),
        })
    }
}

impl Kernel for Fake {
    fn add(&mut self, what: &Prerequisite) -> Result<bool, KernelError> {
        if self.ours.contains(what) || self.foreign.contains(what) {
            return Ok(false);
        }
        self.attempt(Operation::Add(what.clone()))?;
        self.ours.push(what.clone());
        self.answer(Operation::Add(what.clone()), true)
    }

    fn remove(&mut self, what: &Prerequisite) -> Result<bool, KernelError> {
        self.attempt(Operation::Remove(what.clone()))?;
        let before = self.ours.len() + self.foreign.len();
        self.ours.retain(|own| own != what);
        self.foreign.retain(|foreign| foreign != what);
        let removed = self.ours.len() + self.foreign.len() < before;
        self.answer(Operation::Remove(what.clone()), removed)
    }

    fn discards_marked(&mut self) -> Option<Discards> {
        None
    }

    fn prerequisites(&mut self) -> Result<Vec<Prerequisite>, KernelError> {
        let rules = self.owned(|what| matches!(what, Prerequisite::Rule { .. }));
        let routes = self.owned(|what| matches!(what, Prerequisite::Route { .. }));
        let addresses = self.owned(|what| matches!(what, Prerequisite::Address(_)));
        let loopback_routes = self.owned(|what| matches!(what, Prerequisite::LoopbackRoute(_)));
        Ok([rules, routes, addresses, loopback_routes].concat())
    }

    fn apply_rules(&mut self, backend: RuleBackend, ruleset: &Ruleset, _: &Observed) -> Result<Change, KernelError> {
        let is_supported = match backend {
            RuleBackend::Nftables => self.nftables_supported,
            RuleBackend::NftablesPerFamily => self.per_family_supported,
            RuleBackend::IptablesNft | RuleBackend::IptablesLegacy => true,
        };
        if !is_supported {
            return Err(KernelError::Nftables(NftablesError::Unsupported {
                what: "NAT in nf_tables".to_owned(),
                module: "nft_chain_nat".to_owned(),
                refusal: Errno::ENOENT.into(),
            }));
        }
        self.attempt(Operation::ApplyRules(backend))?;
        let change = match self.rules.insert(backend, ruleset.clone()) {
            None => Change::Created,
            Some(before) if before == *ruleset => Change::Unchanged,
            Some(_) => Change::Replaced,
        };
        self.answer(Operation::ApplyRules(backend), change)
    }

    fn open_connections(&mut self) -> io::Result<usize> {
        self.open.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace_loose(&mut self, value: &str) -> Result<String, SysctlError> {
        Ok(std::mem::replace(&mut self.loose, value.to_owned()))
    }

    fn raise_timeouts(&mut self, _: &Timeouts) -> Result<(), SysctlError> {
        Ok(())
    }

    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError> {
        self.attempt(Operation::RemoveRules(backend))?;
        let removed = self.rules.remove(&backend).is_some();
        self.answer(Operation::RemoveRules(backend), removed)
    }
}
