//! Removes the rules that another mesh's own programs installed.

use super::iptables::{Iptables, IptablesError, Variant};
use super::{KernelError, Namespace, Observed};
use crate::facts::InstalledChain;
use crate::mesh::Mesh;
use crate::plan::Prerequisite;
use crate::types::{Family, Mark, RouteTable};

/// What was removed of a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedForeign {
    /// The backends and families whose iptables tables held rules.
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
    /// Removal failed or is not permitted. What was removed before stays removed.
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
            removed.tables = self.nftables()?.remove_foreign_tables(&tables)?;
        }
        if removed.iptables.iter().any(|(variant, _)| *variant == Variant::Nft) {
            let shared = observed.iptables_nft_tables(|chain| mesh.owns_chain(chain));
            self.remove_empty_tables(&shared);
        }
        let numbers = mesh.policy_routing;
        if let Some((mark, table)) = numbers.and_then(|(mark, table)| Mark::new(mark).zip(RouteTable::new(table))) {
            removed.policy_routing = self.route()?.remove_foreign(mark, table)?;
        }
        Ok(removed)
    }

    /// Removes the iptables-nft tables with these names that are empty now: iptables creates them on demand. A table
    /// that was empty before is removed too: the two are indistinguishable, and neither has an effect.
    pub fn remove_empty_tables(&mut self, tables: &[String]) {
        let result = self
            .nftables()
            .and_then(|nftables| nftables.remove_empty_tables(tables));
        match result {
            Ok(removed) => tracing::debug!(tables = removed.join(", "), "removed empty iptables tables"),
            Err(error) => tracing::debug!(%error, "empty iptables tables could not be removed"),
        }
    }
}
