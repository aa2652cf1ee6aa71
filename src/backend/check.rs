//! Comparing what is installed with a plan. Changes nothing.

use std::fmt;

use super::choice::candidates;
use super::iptables::legacy;
use super::nftables::{Nftables, NftablesError};
use super::{Kernel as _, KernelError, Namespace, Observed, RuleBackend};
use crate::drift::{self, BaseChain, Difference, Kind, Place, Subject, Thing};
use crate::linux::route::Sharing;
use crate::plan::{Plan, Prerequisite};
use crate::types::{Backend, Family};

/// How what is installed compares with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is the same.
    InSync,
    /// There are no rules of ours.
    Absent,
    /// There are others, or more, or what they need is missing; or rules of others are in the way.
    Drifted,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InSync => "in-sync",
            Self::Absent => "absent",
            Self::Drifted => "drifted",
        })
    }
}

/// What comparing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it compares.
    pub state: State,
    /// Where rules of ours are: one, where all is well.
    pub backends: Vec<RuleBackend>,
    /// Each difference. Where the state is [`State::Absent`], only what is somebody else's.
    pub differences: Vec<Difference>,
}

impl Namespace {
    /// Compares this network namespace with `plan`, as it would be applied with `backend`. Changes nothing.
    ///
    /// # Errors
    /// The system did not answer, or may not be looked at.
    pub fn check(&mut self, plan: &Plan, backend: Backend, observed: &Observed) -> Result<Report, KernelError> {
        // What may not be seen was passed over by whoever observed.
        match self.nftables().and_then(Nftables::answers) {
            Ok(()) | Err(NftablesError::Unsupported { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if backend == Backend::IptablesLegacy && observed.legacy.is_none() {
            return Err(KernelError::LegacyUnseen);
        }
        let holds_rules = |backend: &RuleBackend| observed.holds_rules(*backend);
        let backends: Vec<RuleBackend> = RuleBackend::ALL.into_iter().filter(holds_rules).collect();
        let wanted = candidates(backend);
        let right = wanted.iter().copied().find(|backend| backends.contains(backend));
        let mut differences = Vec::new();
        if !backends.is_empty() {
            differences.extend(misplaced(wanted[0], right, &backends));
            differences.extend(match right {
                Some(backend) => self.rules(backend)?.differences(&plan.ruleset)?,
                None => Vec::new(),
            });
            differences.extend(self.differences_besides_rules(plan, observed)?);
        }
        let places = match right.unwrap_or(wanted[0]) {
            RuleBackend::Nftables => drift::places(&plan.ruleset),
            RuleBackend::IptablesNft | RuleBackend::IptablesLegacy => drift::places_in_iptables(&plan.ruleset),
        };
        differences.extend(drift::in_front(&plan.ruleset, &places, &self.others_in_front(&places)?));
        differences.extend(drift::redirectors(observed.all_chains()));
        let state = match (backends.is_empty(), differences.is_empty()) {
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
        // Routes whose rule is gone were not looked for by whoever observed.
        let mut ours = observed.prerequisites();
        let routes = self.route()?.routes()?;
        ours.extend(
            routes
                .into_iter()
                .filter(|route| !observed.policy_routing.contains(route)),
        );
        for what in &wanted {
            if !ours.contains(what) && self.route()?.is_of_others(*what)? {
                ours.push(*what);
            }
        }
        // What others need stays where a plan does without it.
        ours.retain(|what| wanted.contains(what) || observed.needed_by_others(*what).is_none());
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
        differences.extend(drift::things(&things(&wanted), &things(&ours)));
        Ok(differences)
    }

    /// What others have to do with the routing tables that are to be ours alone.
    fn shared_tables(&mut self, wanted: &[Prerequisite], observed: &Observed) -> Result<Vec<Difference>, KernelError> {
        let mut differences = Vec::new();
        let mut foreign = |subject, sharing: Sharing| {
            differences.push(Difference::new(Kind::Foreign, subject, None, Some(sharing.to_string())));
        };
        for what in wanted {
            match *what {
                Prerequisite::Rule { family, .. } => {
                    if let Some(sharing) = observed.sharing(*what) {
                        foreign(Subject::PolicyRule(family), sharing);
                    }
                }
                Prerequisite::Route { family, table } => {
                    if self.route()?.has_foreign_routes(family, table)? {
                        foreign(Subject::Route(family), Sharing::Route { family, table });
                    }
                }
                Prerequisite::Address(_) => {}
            }
        }
        Ok(differences)
    }

    /// The base chains of others that come before ours.
    fn others_in_front(&mut self, ours: &[Place]) -> Result<Vec<BaseChain>, KernelError> {
        let mut others = match self.nftables().and_then(|nftables| nftables.in_front(ours)) {
            Err(NftablesError::Unsupported { .. }) => Vec::new(),
            others => others?,
        };
        others.extend(legacy::base_chains()?.into_iter().flatten());
        Ok(others)
    }
}

/// Rules of ours that are elsewhere than in the `right` place; or in the one that is `wanted`, where there are none in
/// any that would do.
fn misplaced(wanted: RuleBackend, right: Option<RuleBackend>, found: &[RuleBackend]) -> Vec<Difference> {
    let difference = |backend: &RuleBackend| match right {
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
        .filter(|backend| Some(**backend) != right)
        .map(difference)
        .collect()
}

fn thing(what: &Prerequisite) -> Thing {
    Thing {
        what: match what {
            Prerequisite::Address(_) => Subject::Address,
            Prerequisite::Rule { family, .. } => Subject::PolicyRule(*family),
            Prerequisite::Route { family, .. } => Subject::Route(*family),
        },
        text: what.to_string(),
    }
}
