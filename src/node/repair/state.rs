//! What a look at a pod means: pure decisions.

use std::sync::Arc;

use super::locate::Located;
use super::sandbox::Wanted;
use super::{Failure, Outcome};
use crate::backend::running::Holder;
use crate::cni::late::Seen;
use crate::linux::netns::Netns;
use crate::types::{Choice, Uid, Uids};

/// What is done about pods that lack their rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody looks for them.
    Off,
    /// They are logged and counted, as far as it can be told without more rights.
    Report,
    /// The rules are put in place.
    InPlace,
    /// They are labelled. Takes a build with the feature `kubernetes`.
    Label,
    /// They are labelled, and evicted where a controller creates them again. Takes such a build, too.
    Delete,
}

impl Mode {
    /// Its name.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(mode, _)| *mode == self);
        named.map_or("", |(_, name)| name)
    }

    /// Whether this build has it.
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

/// How a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its traffic is redirected, whatever the rules say: by whom.
    Redirected(String),
    /// The plugin would let it through: why.
    LetThrough(String),
    /// The plugin would redirect its traffic, and nobody does.
    Lacking {
        /// Why the plugin would.
        reason: String,
        /// Its network namespace.
        netns: Arc<Netns>,
    },
    /// The plugin would redirect its traffic, and was not in its chain; it was not looked into: why it would.
    Missed(String),
    /// Its annotations are not known; a process of the proxy's user runs in it, and nobody redirects its traffic.
    Suspected(String),
    /// It cannot be told: why.
    Undecided(String),
    /// It has gone since the cache was read, or it left its file there: how that is known.
    Gone(String),
}

impl State {
    /// The name of each, in metrics.
    pub const NAMES: [&'static str; 7] = [
        "redirected",
        "let-through",
        "lacking",
        "missed",
        "suspected",
        "undecided",
        "gone",
    ];

    /// Its name.
    pub fn name(&self) -> &'static str {
        let [redirected, let_through, lacking, missed, suspected, undecided, gone] = Self::NAMES;
        match self {
            Self::Redirected(_) => redirected,
            Self::LetThrough(_) => let_through,
            Self::Lacking { .. } => lacking,
            Self::Missed(_) => missed,
            Self::Suspected(_) => suspected,
            Self::Undecided(_) => undecided,
            Self::Gone(_) => gone,
        }
    }

    /// The reason, in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Redirected(reason)
            | Self::LetThrough(reason)
            | Self::Lacking { reason, .. }
            | Self::Missed(reason)
            | Self::Suspected(reason)
            | Self::Undecided(reason)
            | Self::Gone(reason) => reason,
        }
    }

    /// How a pod is, after this came of its repair.
    pub fn after(self, outcome: &Result<Outcome, Failure>) -> Self {
        match (self, outcome) {
            (Self::Lacking { reason, .. }, Ok(Outcome::Repaired(_))) => {
                Self::Redirected(format!("repaired just now: {reason}"))
            }
            (Self::Lacking { .. }, Ok(Outcome::NotNeeded(why))) => Self::Gone((*why).to_owned()),
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
            Self::Lacking { .. } | Self::Missed(_) | Self::Suspected(_) | Self::Undecided(_) => true,
            Self::Redirected(_) | Self::LetThrough(_) | Self::Gone(_) => false,
        }
    }

    /// Whether more has to be known of a pod than what is wanted of it.
    ///
    /// # Errors
    /// No: its state.
    pub fn unless_through(wanted: Wanted) -> Result<Wanted, Self> {
        match wanted {
            Wanted::Through(reason) => Err(Self::LetThrough(reason)),
            wanted => Ok(wanted),
        }
    }

    /// What the cache alone means: what is wanted, and whether our plugin was in the chain.
    pub fn of_cache(wanted: Wanted, ran_plugin: Option<bool>) -> Self {
        match (wanted, ran_plugin) {
            (Wanted::Through(reason), _) => Self::LetThrough(reason),
            (Wanted::Redirected { .. }, Some(true)) => Self::Redirected("sidetrack, when it was attached".to_owned()),
            (_, Some(true)) => Self::LetThrough("the plugin was in its chain, and decided".to_owned()),
            (Wanted::Redirected { reason, .. }, Some(false)) => {
                Self::Missed(format!("{reason}, and the plugin was not in its chain"))
            }
            (Wanted::Redirected { .. }, None) => {
                Self::Undecided("the runtime's cache does not say which plugins it was attached by".to_owned())
            }
            (Wanted::Refused(reason), _) => Self::Undecided(reason),
            (Wanted::Unknown(_), _) => Self::Undecided(
                "the runtime's cache has no annotations of it, and the plugin was not in its chain".to_owned(),
            ),
        }
    }

    /// What a look at a pod means. `runs_as` says as which of these users a process runs in it.
    pub fn of(wanted: Wanted, located: Located, runs_as: impl FnOnce(&Uids) -> Option<Uid>) -> Self {
        let (netns, holder) = match located {
            Located::At(netns, Seen { holder, .. }) => (netns, holder),
            Located::Gone(reason) => return Self::Gone(reason),
            Located::Unknown(reason) => return Self::Undecided(reason),
        };
        match (wanted, holder) {
            (Wanted::Through(reason), _) => Self::LetThrough(reason),
            (_, Holder::Sidetrack(backend)) => Self::Redirected(format!("sidetrack, with {backend}")),
            (_, Holder::Other(tool)) => Self::Redirected(tool.to_owned()),
            (Wanted::Redirected { reason, .. }, Holder::None) => Self::Lacking { reason, netns },
            (Wanted::Refused(reason), Holder::None) => Self::Undecided(reason),
            (Wanted::Unknown(uids), Holder::None) => match runs_as(&uids) {
                Some(uid) => Self::Suspected(format!(
                    "the runtime's cache has no annotations of it, and a process runs in it as the proxy's user {uid}"
                )),
                None => Self::Undecided("the runtime's cache has no annotations of it".to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::RuleBackend;
    use crate::backend::running::Survivors;
    use crate::cni::late::{Late, Proof};
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

    fn name(wanted: Wanted, located: Located, proxy: bool) -> &'static str {
        State::of(wanted, located, |_| proxy.then(|| Uid::new(1337).unwrap())).name()
    }

    #[test]
    fn a_pod_lacks_its_rules_where_it_should_be_redirected_and_nobody_does() {
        let redirected = || Wanted::Redirected {
            reason: "select is always".to_owned(),
            proxy: Box::new(Settings::default().config.proxy),
        };
        let ours = Holder::Sidetrack(RuleBackend::IptablesNft);
        assert_eq!(name(redirected(), at(Holder::None), false), "lacking");
        assert_eq!(name(redirected(), at(ours), false), "redirected");
        assert_eq!(name(redirected(), at(Holder::Other("Istio")), false), "redirected");
        assert_eq!(name(redirected(), Located::Gone(String::new()), false), "gone");
        assert_eq!(name(redirected(), Located::Unknown(String::new()), false), "undecided");
    }

    #[test]
    fn a_repair_shows_in_the_state_of_its_pod() {
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
        for (outcome, name, said) in [
            (Ok(Outcome::Repaired(repaired)), "redirected", "select is always"),
            (Ok(Outcome::NotNeeded("it has gone")), "gone", "it has gone"),
            (Err(failure), "lacking", "no IPv6"),
        ] {
            let state = lacking().after(&outcome);
            assert!(
                state.name() == name && state.reason().contains(said),
                "{outcome:?}: {state:?}"
            );
        }
        let other = State::Undecided("no annotations".to_owned());
        assert_eq!(other.clone().after(&Ok(Outcome::NotNeeded("it has gone"))), other);
    }

    #[test]
    fn where_nothing_is_known_a_proxy_is_a_suspicion_and_no_more() {
        for (wanted, proxy, found) in [
            (Wanted::Unknown(uids()), true, "suspected"),
            (Wanted::Unknown(uids()), false, "undecided"),
            (Wanted::Refused(String::new()), true, "undecided"),
            (Wanted::Through(String::new()), true, "let-through"),
        ] {
            assert_eq!(name(wanted.clone(), at(Holder::None), proxy), found, "{wanted:?}");
        }
        assert_eq!(
            name(Wanted::Unknown(uids()), at(Holder::Other("Kuma")), true),
            "redirected"
        );
    }

    #[test]
    fn the_cache_alone_tells_of_pods_that_the_plugin_missed() {
        let redirected = || Wanted::Redirected {
            reason: "select is always".to_owned(),
            proxy: Box::new(Settings::default().config.proxy),
        };
        for (wanted, ran, state) in [
            (redirected(), Some(false), "missed"),
            (redirected(), Some(true), "redirected"),
            (redirected(), None, "undecided"),
            (Wanted::Through(String::new()), Some(false), "let-through"),
            (Wanted::Unknown(uids()), Some(true), "let-through"),
            (Wanted::Unknown(uids()), Some(false), "undecided"),
            (Wanted::Refused(String::new()), None, "undecided"),
        ] {
            assert_eq!(State::of_cache(wanted.clone(), ran).name(), state, "{wanted:?} {ran:?}");
        }
    }
}
