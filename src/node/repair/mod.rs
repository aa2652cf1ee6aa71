//! Pods that started before the plugin was there: finding those of this node that lack the rules they should have, and
//! putting the rules in place.
//!
//! ```text
//!  cache of the runtime ─ Sandbox ─ what the plugin says ─┐
//!                                                          ├─ State (pure) ─ lacking? ─ ADD, late
//!  network namespaces ─── Located ─ who redirects ────────┘
//! ```
//!
//! [`cache`] reads what the runtime remembers, [`sandbox`] asks the plugin's own code, [`locate`] finds and looks,
//! [`state`] decides, [`worker`] does it again and again.

mod base64;
pub mod cache;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod locate;
pub mod processes;
pub mod sandbox;
pub mod state;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use self::locate::{Located, Namespaces, Places};
use self::sandbox::{Sandbox, Wanted};
use self::state::State;
use super::Node;
use super::chain::Chain;
use super::conf_dir;
use super::layout::{self, Choice, Waiting};
use crate::backend::running::Holder;
use crate::cni::error::Error as CniError;
use crate::cni::late::{self, Late, Proof, Running};
use crate::linux::files::FileError;
use crate::linux::netns::Netns;

/// Why pods cannot be looked at.
#[derive(Debug, Error)]
pub enum RepairError {
    /// A directory cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no chain that could have our plugin.
    #[error("{0}")]
    Waiting(Waiting),
    /// The chain that is to have our plugin is not there yet.
    #[error("{} is not in place yet", .0.display())]
    NotInPlace(PathBuf),
    /// Nobody knows which pods would be attached.
    #[error("with --standalone, whoever attaches a pod decides whether it is redirected: there is nothing to repair")]
    Standalone,
}

/// A pod, and how it is.
#[derive(Clone, Debug)]
pub struct Found {
    /// The pod.
    pub sandbox: Sandbox,
    /// How it is.
    pub state: State,
    /// What is wrong with it besides: our rules would not let its proxy work.
    pub warning: Option<String>,
}

/// What a look at a node shows.
#[derive(Clone, Debug)]
pub struct Look {
    /// The pods that are attached to the network of our plugin.
    pub found: Vec<Found>,
    /// How many files of the cache are no attachments of pods.
    pub unusable: usize,
}

impl Look {
    /// Logs it where something was passed over.
    pub fn warn_of_unusable(&self, places: &Places) {
        if self.unusable > 0 {
            let directory = places.cache.display();
            tracing::warn!(%directory, files = self.unusable, "passed over: no attachments of pods");
        }
    }
}

/// Looks at all pods of a node that are attached to the network of our plugin. Changes nothing.
///
/// # Errors
/// They cannot be found.
pub fn look(node: &Node, places: &Places) -> Result<Look, RepairError> {
    let network = network(node)?;
    let (cached, unusable) = cache::read(&places.cache)?;
    let mut namespaces = Namespaces::of(places)?;
    let sandboxes = sandbox::sandboxes(cached, &network, &node.wanted.entry);
    // Those whose file is known first: what is left then are the namespaces of the others.
    let looked_at: Vec<(Sandbox, Result<_, State>)> = sandboxes
        .into_iter()
        .map(|sandbox| {
            let wanted = State::unless_through(sandbox.wanted());
            let wanted = wanted.map(|wanted| (wanted, namespaces.by_file(&sandbox)));
            (sandbox, wanted)
        })
        .collect();
    let found = looked_at.into_iter().map(|(sandbox, wanted)| {
        let mut warning = None;
        let state = match wanted {
            Err(state) => state,
            Ok((wanted, located)) => {
                let located = located.unwrap_or_else(|| namespaces.by_address(&sandbox));
                let netns = match &located {
                    Located::At(netns, seen) => Some((Arc::clone(netns), seen.holder)),
                    Located::Gone(_) | Located::Unknown(_) => None,
                };
                // Rules of others are for their proxies.
                if let (Wanted::Redirected { proxy, .. }, Some((netns, Holder::None | Holder::Sidetrack(_)))) =
                    (&wanted, &netns)
                {
                    warning = namespaces.unknown_proxy(netns, proxy);
                }
                State::of(wanted, located, |uids| namespaces.runs_as(&netns?.0, uids))
            }
        };
        Found {
            sandbox,
            state,
            warning,
        }
    });
    let mut found: Vec<Found> = found.collect();
    tell_apart(&mut found);
    Ok(Look { found, unusable })
}

/// Looks at all pods of a node as [`look`] does where their network namespaces are there, else by the cache alone, which
/// takes no more than to read it. Changes nothing.
///
/// # Errors
/// They cannot be found.
pub fn observe(node: &Node, places: &Places) -> Result<Look, RepairError> {
    if places.netns.is_dir() {
        look(node, places)
    } else {
        look_at_cache(node, places)
    }
}

/// Looks at all pods of a node by the cache alone: whether they are redirected by now, it does not know.
///
/// # Errors
/// They cannot be found.
pub fn look_at_cache(node: &Node, places: &Places) -> Result<Look, RepairError> {
    let network = network(node)?;
    let (cached, unusable) = cache::read(&places.cache)?;
    let sandboxes = sandbox::sandboxes(cached, &network, &node.wanted.entry).into_iter();
    let found = sandboxes.map(|sandbox| Found {
        state: State::of_cache(sandbox.wanted(), sandbox.ran_plugin),
        sandbox,
        warning: None,
    });
    Ok(Look {
        found: found.collect(),
        unusable,
    })
}

/// Two pods in one network namespace: one of them has left its file in the cache, and nobody knows which.
fn tell_apart(found: &mut [Found]) {
    let place = |found: &Found| match &found.state {
        State::Lacking { netns, .. } => Some(netns.identity()),
        _ => None,
    };
    let places: Vec<_> = found.iter().map(place).collect();
    for (index, one) in found.iter_mut().enumerate() {
        let others = places.iter().enumerate().filter(|(other, _)| *other != index);
        if places[index].is_some() && others.into_iter().any(|(_, place)| *place == places[index]) {
            one.state = State::Undecided("the cache has another pod with the same network namespace".to_owned());
        }
    }
}

/// The name of the network whose chain has our plugin.
fn network(node: &Node) -> Result<String, RepairError> {
    if matches!(node.wanted.choice, Choice::Standalone(_)) {
        return Err(RepairError::Standalone);
    }
    let snapshot = conf_dir::snapshot(&node.directories.conf)?;
    let target = layout::install(&snapshot, &node.wanted)
        .target
        .map_err(RepairError::Waiting)?;
    let chain = snapshot.text(&target).and_then(|text| Chain::list(text).ok());
    // Where a network has no name, runtimes that take it at all call it as the file.
    chain
        .map(|chain| chain.name().unwrap_or(&target).to_owned())
        .ok_or_else(|| RepairError::NotInPlace(node.directories.conf.join(target)))
}

/// What a repair came to.
#[derive(Debug)]
pub enum Outcome {
    /// The rules are in place.
    Repaired(Late),
    /// The API server did this.
    Asked(&'static str),
    /// The API server did a part of it; the rest is to be done later.
    Deferred(&'static str),
    /// It is as it should be, or the pod has gone: why nothing was done.
    NotNeeded(&'static str),
}

/// A repair that failed. Nothing was changed, unless probes then showed that it is of no use.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of failure it is, for metrics.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

/// Each kind of failure.
pub const FAILURES: [&str; 7] = [
    "netns",
    "configuration",
    "plan",
    "rules",
    "unproved",
    "api",
    "disruption-budget",
];

/// Puts the rules of a pod in place that lacks them.
///
/// # Errors
/// What went wrong.
pub fn repair(sandbox: &Sandbox, netns: &Netns, places: &Places) -> Result<Outcome, Failure> {
    let running = Running {
        pod: &sandbox.pod,
        addresses: &sandbox.addresses,
        netns,
    };
    let pod = sandbox.pod.to_string();
    let _logged = tracing::info_span!("repair", pod, container = sandbox.container).entered();
    let late = sandbox
        .netconf()
        .and_then(|netconf| late::add(&netconf, &running, &[&places.proc]));
    match late {
        Ok(None) => Ok(Outcome::NotNeeded(
            "another tool redirects its traffic by now, or it has gone",
        )),
        Ok(Some(Late {
            proof: Proof::Refuted(message),
            ..
        })) => Err(Failure {
            reason: "unproved",
            message: format!("the rules are in place, but do not do what they should: {message}"),
        }),
        Ok(Some(late)) => Ok(Outcome::Repaired(late)),
        Err(error) => Err(Failure {
            reason: match &error {
                CniError::Netns(_) | CniError::Environment(_) => "netns",
                CniError::Plan(_) => "plan",
                CniError::System(_) | CniError::Isolation(_) => "rules",
                CniError::Version(_)
                | CniError::UnsupportedField { .. }
                | CniError::Input(_)
                | CniError::Decoding(_)
                | CniError::Options(_)
                | CniError::NoAnnotations { .. }
                | CniError::Check { .. }
                | CniError::NotAvailable(_)
                | CniError::Internal(_) => "configuration",
            },
            message: error.message(),
        }),
    }
}
