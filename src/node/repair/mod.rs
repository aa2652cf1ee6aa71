//! Repair of pods that started before the plugin was installed: finds the pods of this node that lack their rules, and
//! installs the rules.
//!
//! ```text
//!  cache of the runtime ─ Sandbox ─ plugin's decision ────┐
//!                                                          ├─ State (pure) ─ lacking? ─ ADD, late
//!  network namespaces ─── Located ─ redirected by ────────┘
//! ```
//!
//! [`cache`] reads the runtime's cache, [`sandbox`] calls the plugin's own code, [`locate`] finds and observes the
//! namespaces, [`state`] decides, [`worker`] repeats it.

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
use self::sandbox::{Decision, Sandbox};
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

/// Why the pods of the node cannot be found.
#[derive(Debug, Error)]
pub enum RepairError {
    /// A directory cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no chain that the plugin could join.
    #[error("{0}")]
    Waiting(Waiting),
    /// The chain does not have the plugin yet.
    #[error("{} is not in place yet", .0.display())]
    NotInPlace(PathBuf),
    /// With `--standalone`, attaching the network selects a pod.
    #[error("with --standalone, attaching the network to a pod is what redirects it: there is nothing to repair")]
    Standalone,
}

/// A pod and its state.
#[derive(Clone, Debug)]
pub struct Found {
    /// The pod.
    pub sandbox: Sandbox,
    /// The state of the pod.
    pub state: State,
    /// A problem that the rules do not fix: they would break the pod's proxy.
    pub warning: Option<String>,
}

/// The pods that a scan found.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The pods that are attached to the network of our plugin.
    pub found: Vec<Found>,
    /// The number of cache files that are not attachments of pods.
    pub unusable: usize,
}

impl Scan {
    /// Logs a warning if files were skipped.
    pub fn warn_of_unusable(&self, places: &Places) {
        if self.unusable > 0 {
            let directory = places.cache.display();
            tracing::warn!(%directory, files = self.unusable, "skipped cache files that are not attachments of pods");
        }
    }
}

/// Scans the pods of a node that are attached to the network of our plugin, with their namespaces. Changes nothing.
///
/// # Errors
/// The pods cannot be found.
pub fn scan(node: &Node, places: &Places) -> Result<Scan, RepairError> {
    let network = network(node)?;
    let (cached, unusable) = cache::read(&places.cache)?;
    let mut namespaces = Namespaces::of(places)?;
    let sandboxes = sandbox::sandboxes(cached, &network, &node.wanted.entry);
    // First the pods whose file is known: the remaining namespaces belong to the other pods.
    let sandboxes: Vec<(Sandbox, Result<_, State>)> = sandboxes
        .into_iter()
        .map(|sandbox| {
            let decision = State::unless_not_redirected(sandbox.decision());
            let decision = decision.map(|decision| (decision, namespaces.by_file(&sandbox)));
            (sandbox, decision)
        })
        .collect();
    let found = sandboxes.into_iter().map(|(sandbox, decision)| {
        let mut warning = None;
        let state = match decision {
            Err(state) => state,
            Ok((decision, located)) => {
                let located = located.unwrap_or_else(|| namespaces.by_address(&sandbox));
                let netns = match &located {
                    Located::At(netns, seen) => Some((Arc::clone(netns), seen.holder)),
                    Located::Gone(_) | Located::Unknown(_) => None,
                };
                // Foreign rules exempt the proxy that they were written for.
                if let (Decision::Redirected { proxy, .. }, Some((netns, Holder::None | Holder::Sidetrack(_)))) =
                    (&decision, &netns)
                {
                    warning = namespaces.unknown_proxy(netns, proxy);
                }
                State::of(decision, located, |uids| namespaces.runs_as(&netns?.0, uids))
            }
        };
        Found {
            sandbox,
            state,
            warning,
        }
    });
    let mut found: Vec<Found> = found.collect();
    mark_ambiguous(&mut found);
    Ok(Scan { found, unusable })
}

/// Scans the pods of a node as [`scan`] does where the directory of network namespaces exists, else by the cache alone,
/// which needs only the right to read it. Changes nothing.
///
/// # Errors
/// The pods cannot be found.
pub fn scan_available(node: &Node, places: &Places) -> Result<Scan, RepairError> {
    if places.netns.is_dir() {
        scan(node, places)
    } else {
        scan_cache(node, places)
    }
}

/// Scans the pods of a node by the cache alone, which does not show whether they were repaired since.
///
/// # Errors
/// The pods cannot be found.
pub fn scan_cache(node: &Node, places: &Places) -> Result<Scan, RepairError> {
    let network = network(node)?;
    let (cached, unusable) = cache::read(&places.cache)?;
    let sandboxes = sandbox::sandboxes(cached, &network, &node.wanted.entry).into_iter();
    let found = sandboxes.map(|sandbox| Found {
        state: State::of_cache(sandbox.decision(), sandbox.ran_plugin),
        sandbox,
        warning: None,
    });
    Ok(Scan {
        found: found.collect(),
        unusable,
    })
}

/// Marks pods that share a network namespace as undecided: the cache file of one of them is stale, and it is unknown
/// which.
fn mark_ambiguous(found: &mut [Found]) {
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
    // Runtimes that accept a network without a name use the file name.
    chain
        .map(|chain| chain.name().unwrap_or(&target).to_owned())
        .ok_or_else(|| RepairError::NotInPlace(node.directories.conf.join(target)))
}

/// The outcome of a repair.
#[derive(Debug)]
pub enum Outcome {
    /// The rules were installed.
    Repaired(Late),
    /// The API server accepted this request.
    Asked(&'static str),
    /// The API server accepted a part of the request; the rest follows later.
    Deferred(&'static str),
    /// The pod needs no repair, or no longer exists: the reason.
    NotNeeded(&'static str),
}

/// A failed repair. The pod is unchanged, unless probes failed after the rules were installed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind of failure, for metrics.
    pub reason: &'static str,
    /// The error message.
    pub message: String,
}

/// The kinds of failures.
pub const FAILURES: [&str; 7] = [
    "netns",
    "configuration",
    "plan",
    "rules",
    "unproved",
    "api",
    "disruption-budget",
];

/// Installs the rules of a pod that lacks them.
///
/// # Errors
/// See [`Failure`].
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
            "another program redirects its traffic by now, or the pod no longer exists",
        )),
        Ok(Some(Late {
            proof: Proof::Refuted(message),
            ..
        })) => Err(Failure {
            reason: "unproved",
            message: format!("the rules are in place, but probes failed: {message}"),
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
                | CniError::AwaitsNetwork
                | CniError::NotAvailable(_)
                | CniError::Internal(_) => "configuration",
            },
            message: error.message(),
        }),
    }
}
