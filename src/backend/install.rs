//! In which order a plan is put in place and taken away, and what is undone where something fails.

use std::fmt;
use std::net::Ipv6Addr;

use super::choice::{Chosen, choose};
use super::iptables::IptablesError;
use super::nftables::NftablesError;
use super::running::{OpenConnections, Survivors};
use super::{Change, Kernel, KernelError, Observed, RuleBackend};
use crate::linux::route::RouteError;
use crate::plan::{Plan, Prerequisite};
use crate::ruleset::Ruleset;
use crate::types::Backend;

/// What applying a plan did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What was done about the rules.
    pub change: Change,
    /// What they need, as far as it was not there yet.
    pub added: Vec<Prerequisite>,
    /// How half-closed connections are remembered.
    pub half_closed: HalfClosed,
    /// The connections that were open before there were rules.
    pub survivors: Survivors,
}

/// Who says for how long the kernel remembers half-closed connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HalfClosed {
    /// The rules, or nobody where the plan leaves it to the kernel.
    AsPlanned,
    /// Not the rules: `why`. The kernel's settings for all connections of the namespace were raised instead.
    BySettings {
        /// Why not the rules.
        why: NoTimeouts,
    },
    /// The kernel's settings, as they are: `why`.
    NotAsPlanned {
        /// Why not the rules.
        why: NoTimeouts,
        /// Why the settings could not be raised.
        error: String,
    },
}

/// Why rules have no timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTimeouts {
    /// The kernel has no objects for them.
    InKernel,
    /// The backend cannot make any.
    InIptables,
}

impl fmt::Display for NoTimeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InKernel => {
                "this kernel has no ct timeout objects: they take the module nft_ct and CONFIG_NF_CONNTRACK_TIMEOUT"
            }
            Self::InIptables => "iptables cannot give connections timeouts by itself",
        })
    }
}

/// What cleaning up removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Where there were rules of ours.
    pub rules: Vec<RuleBackend>,
    /// The addresses that we had put on the loopback interface.
    pub addresses: Vec<Ipv6Addr>,
    /// Our rules of policy routing and their routes.
    pub policy_routing: Vec<Prerequisite>,
    /// What stays, since others need it: each with who.
    pub kept: Vec<(Prerequisite, String)>,
}

impl Removed {
    fn push(&mut self, what: Prerequisite) {
        match what {
            Prerequisite::Address(address) => self.addresses.push(address),
            Prerequisite::Rule { .. } | Prerequisite::Route { .. } => self.policy_routing.push(what),
        }
    }
}

/// Puts a plan in place, with the backend that `wanted` leads to.
///
/// # Errors
/// See [`apply_with`].
pub fn apply(
    kernel: &mut dyn Kernel,
    plan: &Plan,
    wanted: Backend,
    observed: &Observed,
) -> Result<Chosen<Applied>, KernelError> {
    choose(wanted, Ok, |backend| apply_with(kernel, plan, backend, observed))
}

/// Puts a plan in place with one backend: first what redirected packets will need, then the rules, at one instant;
/// last, what earlier plans have left and this one does not want. On failure everything is as it was, unless the error
/// says otherwise.
///
/// # Errors
/// The system cannot or may not.
pub fn apply_with(
    kernel: &mut dyn Kernel,
    plan: &Plan,
    backend: RuleBackend,
    observed: &Observed,
) -> Result<Applied, KernelError> {
    let wanted = Prerequisite::of(plan);
    if let Some(sharing) = wanted.iter().find_map(|what| observed.sharing(*what)) {
        return Err(RouteError::TableShared(sharing).into());
    }
    if plan.marks_v4()
        && let Some(discards) = kernel.discards_marked()
    {
        return Err(RouteError::Discards(discards).into());
    }
    let mut added = Vec::new();
    let installed = observed.holds_rules(backend);
    let mut open = OpenConnections::leave_alone(kernel, observed);
    let result = add(kernel, &wanted, &mut added).and_then(|()| apply_rules(kernel, &plan.ruleset, backend, installed));
    let (change, half_closed) = match result {
        Ok(done) => done,
        // Rules that may be in force may need what was added. Where they are not, it does no harm.
        Err(cause) if cause.may_have_changed_rules() => return Err(cause),
        Err(cause) => return Err(undo(kernel, &wanted, observed, &open, cause)),
    };
    open.try_again(kernel);
    let mut left_over = Vec::new();
    for other in RuleBackend::ALL {
        if other != backend && observed.holds_rules(other) {
            left_over.extend(kernel.remove_rules(other).err());
        }
    }
    let mut stale = observed.prerequisites();
    stale.retain(|what| !wanted.contains(what));
    // Routes go before their rules. Where one cannot be removed, its rule stays: that is how the next run finds it.
    left_over.extend(
        stale
            .into_iter()
            .rev()
            .find_map(|what| match observed.needed_by_others(what) {
                Some(_) => None,
                None => kernel.remove(what).err(),
            }),
    );
    if left_over.is_empty() {
        Ok(Applied {
            change,
            added,
            half_closed,
            survivors: open.under(&plan.ruleset),
        })
    } else {
        Err(KernelError::LeftOver(left_over))
    }
}

/// Takes away all that is ours, on every backend: the rules first, then what they needed. Rules that stay keep that.
///
/// # Errors
/// Everything that could not be removed.
pub fn cleanup(kernel: &mut dyn Kernel, observed: &Observed) -> Result<Removed, KernelError> {
    let (mut removed, mut errors) = (Removed::default(), Vec::new());
    for backend in RuleBackend::ALL {
        let seen = observed.holds_rules(backend);
        let possible = match backend {
            // Asking costs nothing, and the kernel knows who may not.
            RuleBackend::Nftables => true,
            RuleBackend::IptablesNft => seen,
            RuleBackend::IptablesLegacy => seen || observed.legacy.is_none(),
        };
        if !possible {
            continue;
        }
        match kernel.remove_rules(backend) {
            Ok(true) => removed.rules.push(backend),
            Ok(false) | Err(KernelError::Nftables(NftablesError::Unsupported { .. })) => {}
            Err(KernelError::Iptables(IptablesError::NotFound { .. })) if !seen => {}
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(several(errors));
    }
    // What is there now, so that nothing is left of what came after the look.
    let ours = kernel.prerequisites().unwrap_or_else(|error| {
        errors.push(error);
        observed.prerequisites()
    });
    for what in ours.into_iter().rev() {
        if let Some(by) = observed.needed_by_others(what) {
            removed.kept.push((what, by));
            continue;
        }
        match kernel.remove(what) {
            Ok(true) => removed.push(what),
            Ok(false) => {}
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(removed)
    } else {
        Err(several(errors))
    }
}

/// All of them as one error.
fn several(mut errors: Vec<KernelError>) -> KernelError {
    match errors.len() {
        1 => errors.swap_remove(0),
        _ => KernelError::Several(errors),
    }
}

/// Writes the rules; where those cannot hold timeouts, the kernel's settings take their place. Without those the rules are
/// worth as much as any others.
fn apply_rules(
    kernel: &mut dyn Kernel,
    ruleset: &Ruleset,
    backend: RuleBackend,
    installed: bool,
) -> Result<(Change, HalfClosed), KernelError> {
    let (change, why) = match (kernel.apply_rules(backend, ruleset, installed), backend) {
        (Err(error), _) if error.lacks_timeouts() => {
            let change = kernel.apply_rules(backend, &ruleset.without_timeouts(), installed)?;
            (change, NoTimeouts::InKernel)
        }
        (result, RuleBackend::Nftables) => return Ok((result?, HalfClosed::AsPlanned)),
        (result, RuleBackend::IptablesNft | RuleBackend::IptablesLegacy) => (result?, NoTimeouts::InIptables),
    };
    let half_closed = match ruleset.timeouts.map(|timeouts| kernel.raise_timeouts(&timeouts)) {
        None => HalfClosed::AsPlanned,
        Some(Ok(())) => HalfClosed::BySettings { why },
        Some(Err(error)) => HalfClosed::NotAsPlanned {
            why,
            error: error.to_string(),
        },
    };
    Ok((change, half_closed))
}

fn add(kernel: &mut dyn Kernel, wanted: &[Prerequisite], added: &mut Vec<Prerequisite>) -> Result<(), KernelError> {
    for what in wanted {
        if kernel.add(*what)? {
            added.push(*what);
        }
    }
    Ok(())
}

/// Takes away what is there now of what was wanted, and was not there before. Whether it was added cannot be told from
/// the answers: one of them may have been lost.
fn undo(
    kernel: &mut dyn Kernel,
    wanted: &[Prerequisite],
    observed: &Observed,
    open: &OpenConnections,
    cause: KernelError,
) -> KernelError {
    let before = observed.prerequisites();
    let added = |what: &Prerequisite| wanted.contains(what) && !before.contains(what);
    let mut failures: Vec<KernelError> = match kernel.prerequisites() {
        Ok(now) => {
            let added = now.into_iter().rev().filter(added);
            added.filter_map(|what| kernel.remove(what).err()).collect()
        }
        Err(error) => vec![error],
    };
    failures.extend(open.undo(kernel).err().map(KernelError::from));
    if failures.is_empty() {
        return cause;
    }
    KernelError::NotUndone {
        cause: Box::new(cause),
        undo: Box::new(several(failures)),
    }
}

#[cfg(test)]
mod tests;
