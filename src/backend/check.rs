//! Compares the installed state with a plan, read-only.

use std::fmt;

use super::choice::candidates;
use super::iptables::legacy;
use super::nftables::{Nftables, NftablesError};
use super::{Kernel as _, KernelError, Namespace, Observed, RuleBackend};
use crate::drift::{self, BaseChain, Difference, Kind, Place, Subject, Thing};
use crate::linux::route::Sharing;
use crate::plan::{Plan, Prerequisite};
use crate::types::{Backend, Family};

/// The installed state in relation to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Exactly as planned.
    InSync,
    /// No rules owned by sidetrack, and no other tool redirects.
    Absent,
    /// No rules owned by sidetrack, but those of another tool that redirects: applying ours would redirect twice.
    Foreign,
    /// Other or more rules, missing prerequisites, or foreign rules that interfere.
    Drifted,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InSync => "in-sync",
            Self::Absent => "absent",
            Self::Foreign => "foreign",
            Self::Drifted => "drifted",
        })
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The overall result.
    pub state: State,
    /// The backends that hold our rules: one, if all is well.
    pub backends: Vec<RuleBackend>,
    /// All differences; with [`State::Absent`] and [`State::Foreign`], only the foreign ones.
    pub differences: Vec<Difference>,
}

impl Namespace {
    /// Compares this network namespace with `plan` as `backend` would apply it, read-only.
    ///
    /// # Errors
    /// The kernel did not answer, or does not permit reading.
    pub fn check(&mut self, plan: &Plan, backend: Backend, observed: &Observed) -> Result<Report, KernelError> {
        // The observation skips what it may not read, so permission is checked here.
        match self.nftables().and_then(Nftables::check_available) {
            Ok(()) | Err(NftablesError::Unsupported { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if backend == Backend::IptablesLegacy && observed.legacy.is_none() {
            return Err(KernelError::LegacyUnseen);
        }
        let holds_rules = |backend: &RuleBackend| observed.holds_rules(*backend);
        let backends: Vec<RuleBackend> = RuleBackend::ALL.into_iter().filter(holds_rules).collect();
        let wanted = candidates(backend);
        let usable = wanted.iter().copied().find(|backend| backends.contains(backend));
        let mut differences = Vec::new();
        if !backends.is_empty() {
            differences.extend(misplaced(wanted[0], usable, &backends));
            differences.extend(match usable {
                Some(backend) => self.rules(backend)?.differences(&plan.ruleset)?,
                None => Vec::new(),
            });
            differences.extend(self.differences_besides_rules(plan, observed)?);
        }
        let places = match usable.unwrap_or(wanted[0]) {
            RuleBackend::Nftables | RuleBackend::NftablesPerFamily => drift::places(&plan.ruleset),
            RuleBackend::IptablesNft | RuleBackend::IptablesLegacy => drift::places_in_iptables(&plan.ruleset),
        };
        differences.extend(drift::in_front(
            &plan.ruleset,
            &places,
            &self.foreign_in_front(&places)?,
        ));
        let redirectors = drift::redirectors(observed.all_chains());
        let is_redirected = !redirectors.is_empty();
        differences.extend(redirectors);
        let state = match (backends.is_empty(), differences.is_empty()) {
            (true, _) if is_redirected => State::Foreign,
            (true, _) => State::Absent,
            (false, true) => State::InSync,
            (false, false) => State::Drifted,
        };
        Ok(Report {
            state,
            backends,
            differences,
        })
    }

    fn differences_besides_rules(&mut self, plan: &Plan, observed: &Observed) -> Result<Vec<Difference>, KernelError> {
        let wanted = Prerequisite::of(plan);
        // The observation does not include routes whose rule is gone.
        let mut installed = observed.prerequisites();
        let routes = self.route()?.routes()?;
        installed.extend(
            routes
                .into_iter()
                .filter(|route| !observed.policy_routing.contains(route)),
        );
        for what in &wanted {
            if !installed.contains(what) && self.route()?.is_foreign(what)? {
                installed.push(what.clone());
            }
        }
        // Prerequisites that foreign rules need stay, even if the plan has no use for them.
        installed.retain(|what| wanted.contains(what) || observed.foreign_user_of(what).is_none());
        let mut differences = self.shared_tables(&wanted, observed)?;
        if plan.marks_v4()
            && let Some(discards) = self.discards_marked()
        {
            let subject = Subject::PolicyRule(Family::V4);
            differences.push(Difference::new(
                Kind::Foreign,
                subject,
                None,
                Some(discards.to_string()),
            ));
        }
        let things = |all: &[Prerequisite]| all.iter().map(thing).collect::<Vec<_>>();
        differences.extend(drift::things(&things(&wanted), &things(&installed)));
        Ok(differences)
    }

    /// Foreign use of the routing tables that only sidetrack may use.
    fn shared_tables(&mut self, wanted: &[Prerequisite], observed: &Observed) -> Result<Vec<Difference>, KernelError> {
        let mut differences = Vec::new();
        let mut foreign = |subject, sharing: Sharing| {
            differences.push(Difference::new(Kind::Foreign, subject, None, Some(sharing.to_string())));
        };
        for what in wanted {
            match *what {
                Prerequisite::Rule { family, .. } => {
                    if let Some(sharing) = observed.sharing(what) {
                        foreign(Subject::PolicyRule(family), sharing);
                    }
                }
                Prerequisite::Route { family, table } => {
                    if self.route()?.has_foreign_routes(family, table)? {
                        foreign(Subject::Route(family), Sharing::Route { family, table });
                    }
                }
                Prerequisite::Address(_) | Prerequisite::LoopbackRoute(_) => {}
            }
        }
        Ok(differences)
    }

    /// Foreign base chains that come before sidetrack's.
    fn foreign_in_front(&mut self, ours: &[Place]) -> Result<Vec<BaseChain>, KernelError> {
        let mut chains = match self.nftables().and_then(|nftables| nftables.in_front(ours)) {
            Err(NftablesError::Unsupported { .. }) => Vec::new(),
            chains => chains?,
        };
        chains.extend(legacy::base_chains()?.into_iter().flatten());
        Ok(chains)
    }
}

/// Our rules in other backends than the `usable` one, or, if no usable backend holds any, in other backends than the
/// one that is `wanted`.
fn misplaced(wanted: RuleBackend, usable: Option<RuleBackend>, found: &[RuleBackend]) -> Vec<Difference> {
    let difference = |backend: &RuleBackend| match usable {
        Some(_) => Difference::new(Kind::Extra, Subject::Backend, None, Some(backend.to_string())),
        None => Difference::new(
            Kind::Changed,
            Subject::Backend,
            Some(wanted.to_string()),
            Some(backend.to_string()),
        ),
    };
    found
        .iter()
        .filter(|backend| Some(**backend) != usable)
        .map(difference)
        .collect()
}

fn thing(what: &Prerequisite) -> Thing {
    Thing {
        what: match what {
            Prerequisite::Address(_) => Subject::Address,
            Prerequisite::Rule { family, .. } => Subject::PolicyRule(*family),
            Prerequisite::Route { family, .. } => Subject::Route(*family),
            Prerequisite::LoopbackRoute(route) => Subject::Route(route.family),
        },
        text: what.to_string(),
    }
}
