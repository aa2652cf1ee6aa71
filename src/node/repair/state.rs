//! The state of a pod, derived from what is observed: pure decisions.

use std::sync::Arc;

use super::locate::Located;
use super::sandbox::Decision;
use super::{Failure, Outcome};
use crate::backend::check;
use crate::backend::running::Holder;
use crate::cni::error::Error as CniError;
use crate::cni::late::{Basis, Compared, Fault, OTHER_AUTHOR, Seen};
use crate::drift::{self, Difference};
use crate::linux::netns::Netns;
use crate::types::{Choice, Uid, Uids};

/// What the installer does about pods that lack their rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The installer does not look for them.
    Off,
    /// They are logged and counted, as far as the installer's privileges allow it.
    Report,
    /// The rules are installed in the running pod.
    InPlace,
    /// They are labelled. Needs a build with the feature `kubernetes`.
    Label,
    /// They are labelled, and evicted where a controller recreates them. Needs such a build, too.
    Delete,
}

impl Mode {
    /// The name of the mode, as the option and the metrics have it.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(mode, _)| *mode == self);
        named.map_or("", |(_, name)| name)
    }

    /// Whether this build supports the mode.
    pub fn is_built_in(self) -> bool {
        cfg!(feature = "kubernetes") || !matches!(self, Self::Label | Self::Delete)
    }
}

impl Choice for Mode {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Off, "off"),
        (Self::Report, "report"),
        (Self::InPlace, "in-place"),
        (Self::Label, "label"),
        (Self::Delete, "delete"),
    ];
}

/// The state of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The rules are those of the options that count for the pod ([`Basis`]).
    InSync(String),
    /// sidetrack redirects the traffic, with other rules than those of the options that count for the pod.
    Drifted {
        /// The differences.
        reason: String,
        /// Whether ADD repairs any of them.
        is_repairable: bool,
        /// The network namespace of the pod.
        netns: Arc<Netns>,
    },
    /// Another program redirects the traffic: which one.
    Foreign(String),
    /// sidetrack redirects the traffic, and the rules were not compared: why, or how it is known.
    Redirected(String),
    /// The plugin would not redirect the traffic: the reason.
    NotRedirected(String),
    /// The plugin would redirect the traffic, and no program does.
    Lacking {
        /// Why the plugin would redirect it.
        reason: String,
        /// The network namespace of the pod.
        netns: Arc<Netns>,
    },
    /// The plugin would redirect the traffic and was not in the chain; the namespace was not observed: why it would.
    Missed(String),
    /// The annotations are unknown, a process of the proxy's user runs in the pod, and no program redirects the
    /// traffic.
    Suspected(String),
    /// The state cannot be determined: the reason.
    Undecided(String),
    /// The pod no longer exists, or left a stale file in the cache: how that was detected.
    Gone(String),
}

impl State {
    /// The names of the variants in metrics.
    pub const NAMES: [&'static str; 10] = [
        "in-sync",
        "drifted",
        "foreign",
        "redirected",
        "skipped",
        "lacking",
        "missed",
        "suspected",
        "undecided",
        "gone",
    ];

    /// The name of the state in metrics and JSON.
    pub fn name(&self) -> &'static str {
        let [
            in_sync,
            drifted,
            foreign,
            redirected,
            skipped,
            lacking,
            missed,
            suspected,
            undecided,
            gone,
        ] = Self::NAMES;
        match self {
            Self::InSync(_) => in_sync,
            Self::Drifted { .. } => drifted,
            Self::Foreign(_) => foreign,
            Self::Redirected(_) => redirected,
            Self::NotRedirected(_) => skipped,
            Self::Lacking { .. } => lacking,
            Self::Missed(_) => missed,
            Self::Suspected(_) => suspected,
            Self::Undecided(_) => undecided,
            Self::Gone(_) => gone,
        }
    }

    /// The reason as text.
    pub fn reason(&self) -> &str {
        match self {
            Self::InSync(reason)
            | Self::Drifted { reason, .. }
            | Self::Foreign(reason)
            | Self::Redirected(reason)
            | Self::NotRedirected(reason)
            | Self::Lacking { reason, .. }
            | Self::Missed(reason)
            | Self::Suspected(reason)
            | Self::Undecided(reason)
            | Self::Gone(reason) => reason,
        }
    }

    /// The state of a pod after a repair with this outcome.
    pub fn after(self, outcome: &Result<Outcome, Failure>) -> Self {
        match (self, outcome) {
            (Self::Lacking { reason, .. } | Self::Drifted { reason, .. }, Ok(Outcome::Repaired(_))) => {
                Self::InSync(format!("repaired just now: {reason}"))
            }
            (Self::Lacking { .. }, Ok(Outcome::NotNeeded(why))) => Self::Gone((*why).to_owned()),
            (Self::Drifted { .. }, Ok(Outcome::NotNeeded(why))) => Self::Redirected((*why).to_owned()),
            (
                Self::Drifted {
                    netns, is_repairable, ..
                },
                Err(Failure { message, .. }),
            ) => Self::Drifted {
                reason: format!("its repair failed: {message}"),
                is_repairable,
                netns,
            },
            (Self::Lacking { netns, .. }, Err(Failure { message, .. })) => {
                let reason = format!("its repair failed: {message}");
                Self::Lacking { reason, netns }
            }
            (state, _) => state,
        }
    }

    /// Whether the pod may bypass its proxy.
    pub fn is_wrong(&self) -> bool {
        match self {
            Self::Lacking { .. } | Self::Drifted { .. } | Self::Missed(_) | Self::Suspected(_) | Self::Undecided(_) => {
                true
            }
            Self::InSync(_) | Self::Foreign(_) | Self::Redirected(_) | Self::NotRedirected(_) | Self::Gone(_) => false,
        }
    }

    /// What ADD would repair in the pod, and the pod's network namespace.
    pub fn repairable(&self) -> Option<(Fault, &Arc<Netns>)> {
        match self {
            Self::Lacking { netns, .. } => Some((Fault::Lacking, netns)),
            Self::Drifted {
                is_repairable: true,
                netns,
                ..
            } => Some((Fault::Drifted, netns)),
            _ => None,
        }
    }

    /// The decision, if the state of the pod depends on more than the decision.
    ///
    /// # Errors
    /// The state, where the plugin would not redirect the pod.
    pub fn unless_not_redirected(decision: Decision) -> Result<Decision, Self> {
        match decision {
            Decision::NotRedirected(reason) => Err(Self::NotRedirected(reason)),
            decision => Ok(decision),
        }
    }

    /// The state that the cache alone shows: the plugin's decision, and whether the plugin was in the chain.
    pub fn of_cache(decision: Decision, ran_plugin: Option<bool>) -> Self {
        match (decision, ran_plugin) {
            (Decision::NotRedirected(reason), _) => Self::NotRedirected(reason),
            (Decision::Redirected { .. }, Some(true)) => Self::Redirected("sidetrack, when it was attached".to_owned()),
            (_, Some(true)) => Self::NotRedirected("the plugin was in its chain and decided".to_owned()),
            (Decision::Redirected { reason, .. }, Some(false)) => {
                Self::Missed(format!("{reason}, and the plugin was not in its chain"))
            }
            (Decision::Redirected { .. }, None) => {
                Self::Undecided("the runtime's cache does not say which plugins it was attached by".to_owned())
            }
            (Decision::Refused(reason), _) => Self::Undecided(reason),
            (Decision::Unknown(_), _) => Self::Undecided(
                "the runtime's cache has no annotations of it, and the plugin was not in its chain".to_owned(),
            ),
        }
    }

    /// The state of an observed pod. `runs_as` returns which of these users a process in the pod runs as.
    pub fn of(decision: Decision, located: Located, runs_as: impl FnOnce(&Uids) -> Option<Uid>) -> Self {
        let (netns, holder) = match located {
            Located::At(netns, Seen { holder, .. }) => (netns, holder),
            Located::Gone(reason) => return Self::Gone(reason),
            Located::Unknown(reason) => return Self::Undecided(reason),
        };
        match (decision, holder) {
            (Decision::NotRedirected(reason), _) => Self::NotRedirected(reason),
            (_, Holder::Sidetrack(backend)) => {
                Self::Redirected(format!("sidetrack, with {backend}; its rules were not compared"))
            }
            (_, Holder::Other(tool)) => Self::Foreign(format!("{tool} redirects it")),
            (Decision::Redirected { reason, .. }, Holder::None) => Self::Lacking { reason, netns },
            (Decision::Refused(reason), Holder::None) => Self::Undecided(reason),
            (Decision::Unknown(uids), Holder::None) => match runs_as(&uids) {
                Some(uid) => Self::Suspected(format!(
                    "the runtime's cache has no annotations of it, and a process runs in it as the proxy's user {uid}"
                )),
                None => Self::Undecided("the runtime's cache has no annotations of it".to_owned()),
            },
        }
    }
}

/// The result of comparing a pod's rules with the options that count for it. It holds no network namespace open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They are the same: in which backend.
    InSync(String),
    /// They differ.
    Drifted {
        /// The differences.
        reason: String,
        /// Whether ADD repairs any of them.
        is_repairable: bool,
    },
    /// There is no result: why.
    Failed(String),
}

impl Comparison {
    /// The comparison by this result.
    pub fn of(compared: &Result<Compared, CniError>) -> Self {
        let (basis, report) = match compared {
            Ok(Compared::With(basis, report)) => (*basis, report),
            Ok(Compared::Not(reason)) => return Self::Failed(reason.clone()),
            Err(error) => return Self::Failed(error.message()),
        };
        let (options, author) = match basis {
            Basis::Plugin => ("its options", String::new()),
            Basis::Record => ("the options recorded with them", format!("; {OTHER_AUTHOR}")),
        };
        let backends: Vec<String> = report.backends.iter().map(ToString::to_string).collect();
        match report.state {
            check::State::InSync => {
                Self::InSync(format!("its rules match {options}, in {}{author}", backends.join(", ")))
            }
            check::State::Absent | check::State::Foreign => Self::Failed("its rules were removed meanwhile".to_owned()),
            check::State::Drifted => Self::Drifted {
                reason: match basis {
                    Basis::Plugin => drift::summary(&report.differences),
                    Basis::Record => format!("from {options}: {}{author}", drift::summary(&report.differences)),
                },
                // ADD would replace the options of an init container by the plugin's.
                is_repairable: basis == Basis::Plugin
                    && report.differences.iter().any(Difference::is_repaired_by_apply),
            },
        }
    }

    /// The state of the pod with this network namespace.
    pub fn state(self, netns: Arc<Netns>) -> State {
        match self {
            Self::InSync(reason) => State::InSync(reason),
            Self::Drifted { reason, is_repairable } => State::Drifted {
                reason,
                is_repairable,
                netns,
            },
            Self::Failed(reason) => State::Redirected(format!("sidetrack; its rules cannot be compared: {reason}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::RuleBackend;
    use crate::backend::check::Report;
    use crate::backend::running::Survivors;
    use crate::cni::late::{Late, Proof};
    use crate::drift::{Kind, Subject};
    use crate::options::Settings;
    use crate::types::Id as _;

    fn at(holder: Holder) -> Located {
        let addresses = Vec::new();
        let netns = Netns::open("/proc/self/ns/net".into()).unwrap();
        Located::At(Arc::new(netns), Seen { holder, addresses })
    }

    fn uids() -> Uids {
        [Uid::new(1337).unwrap()].into_iter().collect()
    }

    fn name(decision: Decision, located: Located, proxy: bool) -> &'static str {
        State::of(decision, located, |_| proxy.then(|| Uid::new(1337).unwrap())).name()
    }

    #[test]
    fn pod_without_redirection_is_lacking() {
        let redirected = || Decision::Redirected {
            reason: "select is always".to_owned(),
            proxy: Box::new(Settings::default().config.proxy),
        };
        let ours = Holder::Sidetrack(RuleBackend::IptablesNft);
        assert_eq!(name(redirected(), at(Holder::None), false), "lacking");
        assert_eq!(name(redirected(), at(ours), false), "redirected");
        assert_eq!(name(redirected(), at(Holder::Other("Istio")), false), "foreign");
        assert_eq!(name(redirected(), Located::Gone(String::new()), false), "gone");
        assert_eq!(name(redirected(), Located::Unknown(String::new()), false), "undecided");
    }

    #[test]
    fn repair_outcome_changes_state() {
        let lacking = || State::Lacking {
            reason: "select is always".to_owned(),
            netns: Arc::new(Netns::open("/proc/self/ns/net".into()).unwrap()),
        };
        let repaired = Late {
            survivors: Survivors {
                open: Some(0),
                disturbed: None,
            },
            proof: Proof::None(String::new()),
        };
        let failure = Failure {
            reason: "plan",
            message: "no IPv6".to_owned(),
        };
        for (outcome, name, expected) in [
            (Ok(Outcome::Repaired(repaired)), "in-sync", "select is always"),
            (Ok(Outcome::NotNeeded("it has gone")), "gone", "it has gone"),
            (Err(failure), "lacking", "no IPv6"),
        ] {
            let state = lacking().after(&outcome);
            assert!(
                state.name() == name && state.reason().contains(expected),
                "{outcome:?}: {state:?}"
            );
        }
        let other = State::Undecided("no annotations".to_owned());
        assert_eq!(other.clone().after(&Ok(Outcome::NotNeeded("it has gone"))), other);
    }

    #[test]
    fn drift_from_the_plugins_options_is_repairable_and_drift_from_a_record_is_not() {
        let netns = Arc::new(Netns::open("/proc/self/ns/net".into()).unwrap());
        let difference = |kind| Difference::new(kind, Subject::Address, Some("::6".to_owned()), None);
        let compared = |basis, state, differences: &[Difference]| {
            let report = Report {
                state,
                backends: vec![RuleBackend::Nftables],
                differences: differences.to_vec(),
            };
            Ok(Compared::With(basis, report))
        };
        let report = |state, differences: &[Difference]| compared(Basis::Plugin, state, differences);
        let foreign = difference(Kind::Foreign);
        for (report, name, repairable) in [
            (report(check::State::InSync, &[]), "in-sync", None),
            (
                report(check::State::Drifted, std::slice::from_ref(&foreign)),
                "drifted",
                None,
            ),
            (
                report(check::State::Drifted, &[foreign, difference(Kind::Missing)]),
                "drifted",
                Some(Fault::Drifted),
            ),
            (compared(Basis::Record, check::State::InSync, &[]), "in-sync", None),
            (
                compared(Basis::Record, check::State::Drifted, &[difference(Kind::Missing)]),
                "drifted",
                None,
            ),
            (report(check::State::Absent, &[]), "redirected", None),
            (Err(CniError::Internal("no plan".to_owned())), "redirected", None),
            (Ok(Compared::Not("no record".to_owned())), "redirected", None),
        ] {
            let state = Comparison::of(&report).state(Arc::clone(&netns));
            assert_eq!(state.name(), name, "{report:?}");
            assert_eq!(state.repairable().map(|(fault, _)| fault), repairable, "{report:?}");
            assert_eq!(state.is_wrong(), name == "drifted", "{report:?}");
        }
    }

    #[test]
    fn running_proxy_without_annotations_is_suspected() {
        for (decision, proxy, found) in [
            (Decision::Unknown(uids()), true, "suspected"),
            (Decision::Unknown(uids()), false, "undecided"),
            (Decision::Refused(String::new()), true, "undecided"),
            (Decision::NotRedirected(String::new()), true, "skipped"),
        ] {
            assert_eq!(name(decision.clone(), at(Holder::None), proxy), found, "{decision:?}");
        }
        assert_eq!(
            name(Decision::Unknown(uids()), at(Holder::Other("Kuma")), true),
            "foreign"
        );
    }

    #[test]
    fn cache_alone_shows_missed_pods() {
        let redirected = || Decision::Redirected {
            reason: "select is always".to_owned(),
            proxy: Box::new(Settings::default().config.proxy),
        };
        for (decision, ran, state) in [
            (redirected(), Some(false), "missed"),
            (redirected(), Some(true), "redirected"),
            (redirected(), None, "undecided"),
            (Decision::NotRedirected(String::new()), Some(false), "skipped"),
            (Decision::Unknown(uids()), Some(true), "skipped"),
            (Decision::Unknown(uids()), Some(false), "undecided"),
            (Decision::Refused(String::new()), None, "undecided"),
        ] {
            assert_eq!(
                State::of_cache(decision.clone(), ran).name(),
                state,
                "{decision:?} {ran:?}"
            );
        }
    }
}
