//! A network namespace in memory: it holds what was put there, and fails where it is told to.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use nix::errno::Errno;

use super::nftables::NftablesError;
use super::route::Loopback;
use super::{Change, Kernel, KernelError, Observed, RuleBackend};
use crate::facts::{InstalledChain, Ipv6, UsableAddresses};
use crate::render::netlink::Object;
use crate::ruleset::Ruleset;

/// Something done to the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    AddAddress(Ipv6Addr),
    RemoveAddress(Ipv6Addr),
    ApplyRules(RuleBackend),
    RemoveRules(RuleBackend),
}

/// What a namespace holds.
pub type State = (Vec<Ipv6Addr>, Vec<Ipv6Addr>, HashMap<RuleBackend, Ruleset>);

/// The namespace.
pub struct Fake {
    pub nftables_supported: bool,
    pub foreign_addresses: Vec<Ipv6Addr>,
    /// Everything that succeeded, in order.
    pub done: Vec<Operation>,
    our_addresses: Vec<Ipv6Addr>,
    rules: HashMap<RuleBackend, Ruleset>,
    failing: Vec<Operation>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            nftables_supported: true,
            foreign_addresses: Vec::new(),
            done: Vec::new(),
            our_addresses: Vec::new(),
            rules: HashMap::new(),
            failing: Vec::new(),
        }
    }
}

impl Fake {
    pub fn fail_at(&mut self, operation: Operation) {
        self.failing.push(operation);
    }

    pub fn state(&self) -> State {
        (
            self.foreign_addresses.clone(),
            self.our_addresses.clone(),
            self.rules.clone(),
        )
    }

    pub fn observed(&self) -> Observed {
        let chain = |backend, table: &str, chain: &str| {
            self.rules.contains_key(&backend).then(|| InstalledChain {
                table: table.to_owned(),
                chain: chain.to_owned(),
            })
        };
        let nftables = chain(RuleBackend::Nftables, "inet sidetrack", "output");
        let iptables_nft = chain(RuleBackend::IptablesNft, "ip nat", "SIDETRACK_OUTPUT");
        let legacy = chain(RuleBackend::IptablesLegacy, "nat (legacy iptables)", "SIDETRACK_OUTPUT");
        Observed {
            loopback: Loopback {
                up: true,
                ipv6: Ipv6::Usable,
                addresses: UsableAddresses { v4: true, v6: true },
                our_addresses: self.our_addresses.clone(),
            },
            chains: nftables.into_iter().chain(iptables_nft).collect(),
            legacy: Some(legacy.into_iter().collect()),
        }
    }

    fn attempt(&mut self, operation: Operation) -> Result<(), KernelError> {
        if self.failing.contains(&operation) {
            return Err(KernelError::Nftables(NftablesError::Refused {
                object: Object::Table,
                errno: Errno::ENOMEM,
            }));
        }
        self.done.push(operation);
        Ok(())
    }
}

impl Kernel for Fake {
    fn add_address(&mut self, address: Ipv6Addr) -> Result<bool, KernelError> {
        if self.our_addresses.contains(&address) || self.foreign_addresses.contains(&address) {
            return Ok(false);
        }
        self.attempt(Operation::AddAddress(address))?;
        self.our_addresses.push(address);
        Ok(true)
    }

    fn remove_address(&mut self, address: Ipv6Addr) -> Result<bool, KernelError> {
        self.attempt(Operation::RemoveAddress(address))?;
        let before = self.our_addresses.len() + self.foreign_addresses.len();
        self.our_addresses.retain(|own| *own != address);
        self.foreign_addresses.retain(|foreign| *foreign != address);
        Ok(self.our_addresses.len() + self.foreign_addresses.len() < before)
    }

    fn apply_rules(&mut self, backend: RuleBackend, ruleset: &Ruleset, _: bool) -> Result<Change, KernelError> {
        if backend == RuleBackend::Nftables && !self.nftables_supported {
            return Err(KernelError::Nftables(NftablesError::Unsupported {
                what: "NAT in nf_tables".to_owned(),
                module: "nft_chain_nat",
                errno: Errno::ENOENT,
            }));
        }
        self.attempt(Operation::ApplyRules(backend))?;
        Ok(match self.rules.insert(backend, ruleset.clone()) {
            None => Change::Created,
            Some(before) if before == *ruleset => Change::Unchanged,
            Some(_) => Change::Replaced,
        })
    }

    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError> {
        self.attempt(Operation::RemoveRules(backend))?;
        Ok(self.rules.remove(&backend).is_some())
    }
}
