//! The iptables backend: runs the `-save` and `-restore` programs of one variant of iptables.
//!
//! The installed state is read first, and only the difference to the plan is written: see
//! [`patch()`]. Each family is one `iptables-restore`, each table in it one commit.

#[cfg(test)]
mod tests;

use std::env;
use std::ffi::{OsStr, OsString};

use super::Variant;
use super::program::{Programs, search_path};
use super::saved::{self, Instantiated};
use super::{InFront, IptablesError, TableName, Tables, contents, lower, patch, raise, removal, same};
use crate::backend::{Change, KernelError, Observed, Rules};
use crate::drift::{Difference, Subject};
use crate::linux::netlink;
use crate::mesh::Mesh;
use crate::ruleset::{Installed, Ruleset};
use crate::types::Family;

/// Attempts at a change that other processes interfere with.
const ATTEMPTS: u32 = 5;

/// The tables that our rules go to. These must be readable.
const REQUIRED_TABLES: [TableName; 3] = [TableName::Raw, TableName::Mangle, TableName::Nat];

/// The table that the rules of a policy go to. It must be readable if there are any: other programs may have made one
/// that iptables cannot read.
const POLICY_TABLES: [TableName; 1] = [TableName::Filter];

/// The programs of one variant. They act on the network namespace of the calling thread.
#[derive(Clone, Debug)]
pub struct Iptables {
    variant: Variant,
    search: OsString,
    v4: Programs,
    v6: Option<Programs>,
}

/// The change of one family from the installed to the wanted state.
struct Step {
    family: Family,
    installed: Tables,
    /// Foreign rules that come before sidetrack's.
    in_front: Vec<InFront>,
    wanted: Tables,
}

/// A failed attempt. It changed nothing, unless the error reports a change.
struct Failed {
    error: IptablesError,
    /// Another process interfered: the next attempt may succeed.
    is_retryable: bool,
}

impl From<IptablesError> for Failed {
    fn from(error: IptablesError) -> Self {
        let is_retryable = error.is_busy();
        Self { error, is_retryable }
    }
}

impl Step {
    fn in_sync(&self) -> bool {
        self.patch().is_none() || self.patch_without_comments().is_none()
    }

    fn patch(&self) -> Option<String> {
        patch(&self.installed, &self.wanted)
    }

    fn patch_without_comments(&self) -> Option<String> {
        patch(&self.installed, &self.wanted.without_comments())
    }

    /// The same without installed records: other options may have led to the same rules.
    fn without_record(self) -> Self {
        Self {
            installed: self.installed.without_record(),
            ..self
        }
    }

    fn differences(&self) -> Vec<Difference> {
        if self.in_sync() {
            return Vec::new();
        }
        let wanted = if self.installed.lacks_comments() {
            self.wanted.without_comments()
        } else {
            self.wanted.clone()
        };
        let planned = contents(&wanted, &[], self.family);
        let installed = contents(&self.installed, &self.in_front, self.family);
        let table = format!("of {} in iptables", self.family);
        planned.compare_unequal(&installed, Subject::Table { table })
    }

    /// Whether another process changed the state during the step.
    fn is_interfered_with(&self, found: &Tables) -> bool {
        let known = |table| {
            [&self.installed, &self.wanted]
                .iter()
                .any(|known| same(table, known, found))
        };
        !TableName::ALL.into_iter().all(known)
    }
}

impl Iptables {
    /// Finds the programs of `variant` in the absolute directories of `PATH`, without testing them.
    ///
    /// # Errors
    /// The programs for IPv4 are missing. Those for IPv6 are only required on use.
    pub fn find(variant: Variant) -> Result<Self, IptablesError> {
        Self::find_in(variant, &search_path(env::var_os("PATH").as_deref()))
    }

    /// Finds the programs of `variant` in the directories of `search`, which is written like `PATH`.
    ///
    /// # Errors
    /// As [`Iptables::find`].
    pub fn find_in(variant: Variant, search: &OsStr) -> Result<Self, IptablesError> {
        Ok(Self {
            variant,
            search: search.to_owned(),
            v4: Programs::find(variant, Family::V4, search)
                .ok_or_else(|| IptablesError::not_found(variant, Family::V4, search))?,
            v6: Programs::find(variant, Family::V6, search),
        })
    }

    /// Makes the installed rules equal to `ruleset`, in both families or in none. In a family that the ruleset leaves
    /// alone, our rules are removed. If nothing differs, nothing is written.
    ///
    /// # Errors
    /// A program is missing or fails. Earlier changes are rolled back.
    pub fn apply(&self, ruleset: &Ruleset) -> Result<Change, IptablesError> {
        let mut attempt = 1;
        loop {
            match self.attempt(ruleset) {
                Err(failed) if failed.is_retryable && attempt < ATTEMPTS => {
                    tracing::debug!(error = %failed.error, "another process changed the iptables tables; retrying");
                    netlink::pause(attempt);
                    attempt += 1;
                }
                result => return result.map_err(|failed| failed.error),
            }
        }
    }

    fn attempt(&self, ruleset: &Ruleset) -> Result<Change, Failed> {
        let mut steps = self.steps(ruleset)?;
        let created = steps.iter().all(|step| step.installed.is_empty());
        steps.retain(|step| !step.in_sync());
        if steps.is_empty() {
            return Ok(Change::Unchanged);
        }
        for (number, step) in steps.iter().enumerate() {
            if let Err(failed) = self.take(step) {
                let error = self.undo(&steps[..=number], failed.error)?;
                return Err(Failed { error, ..failed });
            }
        }
        Ok(if created { Change::Created } else { Change::Replaced })
    }

    /// The differences of the installed rules from `ruleset`, in both families.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn differences(&self, ruleset: &Ruleset) -> Result<Vec<Difference>, IptablesError> {
        let steps = self.steps(&ruleset.without_record())?;
        Ok(steps
            .into_iter()
            .flat_map(|step| step.without_record().differences())
            .collect())
    }

    /// Removes all our rules from both families and all tables, independent of current options. Returns
    /// whether there were any.
    ///
    /// # Errors
    /// A program is missing or fails; the other family is processed nevertheless.
    pub fn remove(&self) -> Result<bool, IptablesError> {
        let [v4, v6] = Family::BOTH.map(|family| self.remove_family(family));
        Ok(v4? | v6?)
    }

    /// Removes the rules of `mesh` from both families and all tables. Returns the families that had any.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn remove_rules_of(&self, mesh: &Mesh) -> Result<Vec<Family>, IptablesError> {
        let mut found = Vec::new();
        for family in Family::BOTH {
            let mut attempt = 1;
            let removed = loop {
                match self.remove_rules_of_in(mesh, family) {
                    Err(error) if error.is_busy() && attempt < ATTEMPTS => {
                        netlink::pause(attempt);
                        attempt += 1;
                    }
                    result => break result?,
                }
            };
            found.extend(removed.then_some(family));
        }
        Ok(found)
    }

    fn remove_rules_of_in(&self, mesh: &Mesh, family: Family) -> Result<bool, IptablesError> {
        let text = removal(&self.save(family)?, mesh);
        let found = text.is_some();
        self.restore(family, text)?;
        Ok(found)
    }

    /// The installed chains and jumps owned by sidetrack. Reading has one side effect: if a process of the
    /// legacy variant may not read the list of tables, reading a table makes the kernel create it.
    ///
    /// # Errors
    /// The program is missing although its tables are in use, fails, or cannot read a table.
    pub fn read(&self, family: Family) -> Result<Tables, IptablesError> {
        Ok(saved::parse(&self.save(family)?))
    }

    fn save(&self, family: Family) -> Result<String, IptablesError> {
        let text = match (self.variant, self.programs(family)) {
            // `iptables-nft-save` prints the existing tables and creates none.
            (Variant::Nft, Ok(programs)) => programs.save(&[])?,
            (Variant::Nft, Err(_)) => String::new(),
            (Variant::Legacy, programs) => match (saved::instantiated(family), programs) {
                (Instantiated::None, _) | (Instantiated::Unknown, Err(_)) => String::new(),
                (Instantiated::Some, programs) => programs?.save(&[])?,
                (Instantiated::Unknown, Ok(programs)) => REQUIRED_TABLES
                    .iter()
                    .chain(&POLICY_TABLES)
                    .map(|table| programs.save(&["-t", table.as_str()]))
                    .collect::<Result<_, _>>()?,
            },
        };
        match saved::incompatible(&text, &REQUIRED_TABLES) {
            Some(table) => Err(IptablesError::Incompatible { family, table }),
            None => Ok(text),
        }
    }

    /// The installed rules owned by sidetrack.
    ///
    /// # Errors
    /// As [`Iptables::read`].
    pub fn installed(&self, family: Family) -> Result<Installed, IptablesError> {
        Ok(raise(&self.read(family)?, family))
    }

    /// The change to `ruleset` for each family.
    fn steps(&self, ruleset: &Ruleset) -> Result<Vec<Step>, IptablesError> {
        let planned = lower(ruleset)?;
        let step = |family| {
            let redirected = ruleset.families.contains(family);
            let wanted = planned.of(family);
            let wanted = if redirected {
                wanted
            } else {
                wanted.without_empty_chains()
            };
            if !wanted.is_empty() {
                self.programs(family)?;
            }
            let text = self.save(family)?;
            if wanted.get(TableName::Filter).is_some()
                && let Some(table) = saved::incompatible(&text, &POLICY_TABLES)
            {
                return Err(IptablesError::Incompatible { family, table });
            }
            Ok(Step {
                family,
                installed: saved::parse(&text),
                in_front: saved::in_front(&text),
                wanted,
            })
        };
        Family::BOTH.into_iter().map(step).collect()
    }

    fn programs(&self, family: Family) -> Result<&Programs, IptablesError> {
        match family {
            Family::V4 => Some(&self.v4),
            Family::V6 => self.v6.as_ref(),
        }
        .ok_or_else(|| IptablesError::not_found(self.variant, family, &self.search))
    }

    fn remove_family(&self, family: Family) -> Result<bool, IptablesError> {
        let text = patch(&self.read(family)?, &Tables::default());
        let found = text.is_some();
        self.restore(family, text)?;
        Ok(found)
    }

    fn restore(&self, family: Family, text: Option<String>) -> Result<(), IptablesError> {
        match text {
            Some(text) => self.programs(family)?.restore(text),
            None => Ok(()),
        }
    }

    /// Takes the step; without comments if the kernel refuses them, since some kernels lack xt_comment.
    fn take(&self, step: &Step) -> Result<(), Failed> {
        let Err(failure) = self.restore(step.family, step.patch()) else {
            return Ok(());
        };
        // With more than one table, the step may be half done.
        let found = match self.read(step.family) {
            Ok(found) => found,
            Err(_) => return Err(failure.into()), // The first error says more.
        };
        let is_retryable = failure.is_busy() || step.is_interfered_with(&found);
        let without_comments = || self.restore(step.family, patch(&found, &step.wanted.without_comments()));
        if is_retryable || !failure.may_be_about_comments() || without_comments().is_err() {
            let error = failure;
            return Err(Failed { error, is_retryable });
        }
        tracing::warn!(
            family = %step.family, %failure,
            "the kernel refused rule comments: the rules are installed without them"
        );
        Ok(())
    }

    /// Rolls back every family of `steps`. The last step is the failed one: with more than one
    /// table, it may be half done.
    ///
    /// # Errors
    /// The rollback failed.
    fn undo(&self, steps: &[Step], failure: IptablesError) -> Result<IptablesError, IptablesError> {
        let back = |step: &Step| self.restore(step.family, patch(&self.read(step.family)?, &step.installed));
        let failures: Vec<IptablesError> = steps.iter().rev().filter_map(|step| back(step).err()).collect();
        if failures.is_empty() {
            return Ok(failure);
        }
        Err(failures.into_iter().fold(failure, IptablesError::with_failed_rollback))
    }
}

impl Rules for Iptables {
    fn apply(&mut self, ruleset: &Ruleset, _: &Observed) -> Result<Change, KernelError> {
        Ok(Self::apply(self, ruleset)?)
    }

    fn remove(&mut self) -> Result<bool, KernelError> {
        Ok(Self::remove(self)?)
    }

    fn installed(&mut self, family: Family) -> Result<Installed, KernelError> {
        Ok(Self::installed(self, family)?)
    }

    fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, KernelError> {
        Ok(Self::differences(self, ruleset)?)
    }
}
