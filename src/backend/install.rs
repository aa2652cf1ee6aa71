//! The order in which a plan is applied and removed, and the rollback after a failure.

use std::fmt;
use std::net::Ipv6Addr;

use super::choice::{Chosen, choose};
use super::iptables::IptablesError;
use super::nftables::NftablesError;
use super::running::{OpenConnections, Survivors};
use super::{Change, Kernel, KernelError, Observed, RuleBackend};
use crate::linux::route::{RouteError, Unusable};
use crate::plan::{LoopbackRoute, Plan, Prerequisite};
use crate::ruleset::Ruleset;
use crate::types::Backend;

/// The result of applying a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The change to the rules.
    pub change: Change,
    /// The prerequisites that were missing before.
    pub added: Vec<Prerequisite>,
    /// The routes of bound interfaces that cannot be added yet, each with the reason.
    pub skipped: Vec<(LoopbackRoute, Unusable)>,
    /// The source of the timeouts of half-closed connections.
    pub half_closed: HalfClosed,
    /// The connections that were open before the rules.
    pub survivors: Survivors,
}

/// The source of the timeouts that conntrack applies to half-closed connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HalfClosed {
    /// The rules, or the kernel's defaults if the plan sets none.
    AsPlanned,
    /// The sysctls for all connections of the namespace, raised because rules cannot set timeouts.
    BySettings {
        /// Why rules cannot set timeouts.
        why: NoTimeouts,
    },
    /// The unchanged sysctls: neither rules nor sysctls could be set.
    NotAsPlanned {
        /// Why rules cannot set timeouts.
        why: NoTimeouts,
        /// Why the sysctls could not be raised.
        error: String,
    },
}

/// Why rules cannot set timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTimeouts {
    /// The kernel has no ct timeout objects.
    InKernel,
    /// iptables cannot create ct timeout objects.
    InIptables,
}

impl fmt::Display for NoTimeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InKernel => {
                "this kernel has no ct timeout objects: they need the module nft_ct and CONFIG_NF_CONNTRACK_TIMEOUT"
            }
            Self::InIptables => "iptables cannot set connection timeouts",
        })
    }
}

/// The result of a cleanup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The backends whose rules were removed.
    pub rules: Vec<RuleBackend>,
    /// The addresses removed from the loopback interface.
    pub addresses: Vec<Ipv6Addr>,
    /// The policy routing rules and routes that were removed.
    pub policy_routing: Vec<Prerequisite>,
    /// The routes of bound interfaces.
    pub loopback_routes: Vec<LoopbackRoute>,
    /// What was kept because foreign rules need it, each with its user.
    pub kept: Vec<(Prerequisite, String)>,
}

impl Removed {
    fn push(&mut self, what: Prerequisite) {
        match what {
            Prerequisite::Address(address) => self.addresses.push(address),
            Prerequisite::Rule { .. } | Prerequisite::Route { .. } => self.policy_routing.push(what),
            Prerequisite::LoopbackRoute(route) => self.loopback_routes.push(route),
        }
    }
}

/// Applies a plan with a backend that `wanted` allows.
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

/// Applies a plan with one backend: first the prerequisites of redirected packets, then the rules, atomically; last, it
/// removes what earlier plans left and this one does not need. After a failure everything is as before, unless the
/// error says otherwise.
///
/// # Errors
/// A step failed or is not permitted.
pub fn apply_with(
    kernel: &mut dyn Kernel,
    plan: &Plan,
    backend: RuleBackend,
    observed: &Observed,
) -> Result<Applied, KernelError> {
    let wanted = Prerequisite::of(plan);
    if let Some(sharing) = wanted.iter().find_map(|what| observed.sharing(what)) {
        return Err(RouteError::TableShared(sharing).into());
    }
    if plan.marks_v4()
        && let Some(discards) = kernel.discards_marked()
    {
        return Err(RouteError::Discards(discards).into());
    }
    let mut added = Added::default();
    let mut open = OpenConnections::leave_alone(kernel, observed);
    let result = add(kernel, &wanted, &mut added).and_then(|()| apply_rules(kernel, &plan.ruleset, backend, observed));
    let (change, half_closed) = match result {
        Ok(done) => done,
        // The rules may be in force and need the prerequisites. If they are not, those do no harm.
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
    // Routes are removed before their rules. If that fails, the rule stays: the next run finds the route by it.
    left_over.extend(
        stale
            .into_iter()
            .rev()
            .find_map(|what| match observed.foreign_user_of(&what) {
                Some(_) => None,
                None => kernel.remove(&what).err(),
            }),
    );
    if left_over.is_empty() {
        Ok(Applied {
            change,
            added: added.added,
            skipped: added.skipped,
            half_closed,
            survivors: open.under(&plan.ruleset),
        })
    } else {
        Err(KernelError::LeftOver(left_over))
    }
}

/// Removes everything owned by sidetrack from every backend: first the rules, then their prerequisites. If rules stay,
/// the prerequisites stay too.
///
/// # Errors
/// Everything that could not be removed.
pub fn cleanup(kernel: &mut dyn Kernel, observed: &Observed) -> Result<Removed, KernelError> {
    let (mut removed, mut errors) = (Removed::default(), Vec::new());
    for backend in RuleBackend::ALL {
        let seen = observed.holds_rules(backend);
        let possible = match backend {
            // The request is cheap, and its answer shows whether it is permitted.
            RuleBackend::Nftables => true,
            RuleBackend::NftablesPerFamily | RuleBackend::IptablesNft => seen,
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
    // Read again: another process may have added some since the observation.
    let installed = kernel.prerequisites().unwrap_or_else(|error| {
        errors.push(error);
        observed.prerequisites()
    });
    for what in installed.into_iter().rev() {
        if let Some(by) = observed.foreign_user_of(&what) {
            removed.kept.push((what, by));
            continue;
        }
        match kernel.remove(&what) {
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

/// Combines errors into one.
fn several(mut errors: Vec<KernelError>) -> KernelError {
    match errors.len() {
        1 => errors.swap_remove(0),
        _ => KernelError::Several(errors),
    }
}

/// Writes the rules. If they cannot set timeouts, raises the sysctls instead; a failure to do so is reported, and the
/// rules stay.
fn apply_rules(
    kernel: &mut dyn Kernel,
    ruleset: &Ruleset,
    backend: RuleBackend,
    observed: &Observed,
) -> Result<(Change, HalfClosed), KernelError> {
    let (change, why) = match (kernel.apply_rules(backend, ruleset, observed), backend) {
        (Err(error), _) if error.lacks_timeouts() => {
            let change = kernel.apply_rules(backend, &ruleset.without_timeouts(), observed)?;
            (change, NoTimeouts::InKernel)
        }
        (result, RuleBackend::Nftables | RuleBackend::NftablesPerFamily) => {
            return Ok((result?, HalfClosed::AsPlanned));
        }
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

#[derive(Default)]
struct Added {
    added: Vec<Prerequisite>,
    skipped: Vec<(LoopbackRoute, Unusable)>,
}

/// Adds the prerequisites. Skips the route of a bound interface if that is absent or down: without the route, bound
/// sockets reach nothing; without the rules, all traffic would bypass the proxy.
fn add(kernel: &mut dyn Kernel, wanted: &[Prerequisite], to: &mut Added) -> Result<(), KernelError> {
    for what in wanted {
        match kernel.add(what) {
            Ok(true) => to.added.push(what.clone()),
            Ok(false) => {}
            Err(KernelError::Route(RouteError::Unusable { route, why })) => to.skipped.push((route, why)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the wanted prerequisites that exist now and did not before. The acknowledgements do not show which were
/// added, since one of them may have been lost.
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
            added.filter_map(|what| kernel.remove(&what).err()).collect()
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
