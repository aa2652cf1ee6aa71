//! Reads the connections that rules have counted.

use super::{KernelError, Namespace, Observed, RuleBackend};
use crate::stats::Stats;
use crate::types::Family;

/// What the rules owned by sidetrack have counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// No rules owned by sidetrack are installed.
    Nothing,
    /// The rules in this backend have no counters.
    WithoutCounters(RuleBackend),
    /// The numbers of the rules in this backend.
    Stats(RuleBackend, Stats),
}

impl Namespace {
    /// The numbers of the rules in the first backend that holds rules owned by sidetrack.
    ///
    /// # Errors
    /// The rules could not be read.
    pub fn stats(&mut self, observed: &Observed) -> Result<Counted, KernelError> {
        let backend = RuleBackend::ALL
            .into_iter()
            .find(|backend| observed.holds_rules(*backend));
        match backend {
            Some(backend) => self.stats_of(backend),
            None => Ok(Counted::Nothing),
        }
    }

    /// The numbers of the rules in this backend, which holds rules owned by sidetrack.
    ///
    /// # Errors
    /// The rules could not be read.
    pub fn stats_of(&mut self, backend: RuleBackend) -> Result<Counted, KernelError> {
        let families: &[Family] = match backend {
            RuleBackend::Nftables => &[Family::V4],
            RuleBackend::NftablesPerFamily | RuleBackend::IptablesNft | RuleBackend::IptablesLegacy => &Family::BOTH,
        };
        let (mut stats, mut has_counters) = (Stats::default(), false);
        for family in families {
            let (installed, counts) = self.rules(backend)?.counts(*family)?;
            has_counters |= !counts.is_empty();
            stats.merge(Stats::new(&installed.ruleset, &counts));
        }
        Ok(if has_counters {
            Counted::Stats(backend, stats)
        } else {
            Counted::WithoutCounters(backend)
        })
    }
}
