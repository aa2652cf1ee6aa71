//! Removing what another mesh's own programs have installed.

use super::iptables::{Iptables, IptablesError, Variant};
use super::{KernelError, Namespace, Observed};
use crate::facts::InstalledChain;
use crate::mesh::Mesh;
use crate::plan::Prerequisite;
use crate::types::{Family, Mark, RouteTable};

/// What was removed of a mesh's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedForeign {
    /// Where there were rules in the tables of iptables.
    pub iptables: Vec<(Variant, Family)>,
    /// Its tables of nf_tables.
    pub tables: Vec<String>,
    /// Its rules of policy routing and their routes.
    pub policy_routing: Vec<Prerequisite>,
}

impl Namespace {
    /// Removes the rules of `mesh`, on every backend, and its policy routing; nothing else.
    ///
    /// # Errors
    /// The system cannot or may not. What was removed before stays so.
    pub fn remove_rules_of(&mut self, mesh: &Mesh, observed: &Observed) -> Result<RemovedForeign, KernelError> {
        let mut removed = RemovedForeign::default();
        let own = |chain: &&InstalledChain| mesh.owns_chain(&chain.chain);
        let nft = observed
            .chains
            .iter()
            .filter(own)
            .any(|chain| chain.table.starts_with("ip"));
        let legacy = observed
            .legacy
            .as_ref()
            .map(|chains| chains.iter().any(|chain| own(&chain)));
        for (variant, seen) in [(Variant::Nft, Some(nft)), (Variant::Legacy, legacy)] {
            if seen == Some(false) {
                continue;
            }
            match Iptables::find(variant).and_then(|iptables| iptables.remove_rules_of(mesh)) {
                Ok(families) => removed
                    .iptables
                    .extend(families.into_iter().map(|family| (variant, family))),
                Err(IptablesError::NotFound { .. }) if seen.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let tables = mesh.own_tables(&observed.chains);
        if !tables.is_empty() {
            removed.tables = self.nftables()?.remove_tables_of_others(&tables)?;
        }
        if removed.iptables.iter().any(|(variant, _)| *variant == Variant::Nft) {
            let shared = observed.tables_of_iptables(|chain| mesh.owns_chain(chain));
            self.remove_empty_tables(&shared);
        }
        let numbers = mesh.policy_routing;
        if let Some((mark, table)) = numbers.and_then(|(mark, table)| Mark::new(mark).zip(RouteTable::new(table))) {
            removed.policy_routing = self.route()?.remove_of_others(mark, table)?;
        }
        Ok(removed)
    }

    /// Removes those of the tables of iptables-nft of these names that have become empty: iptables makes them when they are
    /// needed. One that was there before and empty goes too; nobody can tell the two apart, and neither does anything.
    pub fn remove_empty_tables(&mut self, tables: &[String]) {
        let result = self
            .nftables()
            .and_then(|nftables| nftables.remove_empty_tables(tables));
        match result {
            Ok(removed) => tracing::debug!(tables = removed.join(", "), "empty tables of iptables were removed"),
            Err(error) => tracing::debug!(%error, "empty tables of iptables stay"),
        }
    }
}
