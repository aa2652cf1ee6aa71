//! Reads the record that is installed with the rules.

use super::{KernelError, Namespace, Observed, RuleBackend};
use crate::ruleset::Record;
use crate::types::Family;

impl Namespace {
    /// The record of the installed rules, and the backend that holds it: the first one with a record.
    ///
    /// # Errors
    /// The rules of a backend could not be read.
    pub fn record(&mut self, observed: &Observed) -> Result<Option<(RuleBackend, Record)>, KernelError> {
        for backend in RuleBackend::ALL
            .into_iter()
            .filter(|backend| observed.holds_rules(*backend))
        {
            for family in Family::BOTH {
                let installed = self.rules(backend)?.installed(family)?;
                // A flushed table has the chain without comments.
                let record = installed
                    .ruleset
                    .record
                    .filter(|record| record.comments().next().is_some());
                if let Some(record) = record {
                    return Ok(Some((backend, record)));
                }
            }
        }
        Ok(None)
    }
}
