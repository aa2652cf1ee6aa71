//! Repair of pods that started before the plugin was installed: finds the pods of this node that lack their rules, and
//! installs the rules.
//!
//! ```text
//!  cache of the runtime ─ Sandbox ─ plugin's decision ────┐
//!                                                          ├─ State (pure) ─ lacking, drifted? ─ ADD, late
//!  network namespaces ─── Located ─ redirected by, rules ─┘
//! ```
//!
//! [`cache`] reads the runtime's cache, [`sandbox`] calls the plugin's own code, [`locate`] finds and observes the
//! namespaces, [`state`] decides, [`worker`] repeats it. [`target`] finds one pod by its name.

mod base64;
pub mod cache;
pub mod connections;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod locate;
pub mod log;
pub mod processes;
pub mod sandbox;
pub mod state;
pub mod target;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use self::locate::{Located, Namespaces, Places};
use self::sandbox::{Decision, Sandbox};
use self::state::{Comparison, State};
use super::Node;
use super::chain::Chain;
use super::conf_dir;
use super::layout::{self, Choice, Waiting};
use crate::backend::RuleBackend;
use crate::backend::running::Holder;
use crate::cni::error::Error as CniError;
use crate::cni::late::{self, Basis, Compared, Fault, Late, Proof};
use crate::drift::Difference;
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
    #[error("{} is not in place yet. `sidetrack node status` shows what is missing", .0.display())]
    NotInPlace(PathBuf),
    /// With `--standalone`, attaching the network selects a pod.
    #[error(
        "with --standalone, attaching the network to a pod is what redirects it: there is nothing to repair. \
         Name the network namespace of a pod with --netns"
    )]
    Standalone,
}

/// A pod and its state.
#[derive(Clone, Debug)]
pub struct Found {
    /// The pod.
    pub sandbox: Sandbox,
    /// The decision of the plugin.
    pub decision: Decision,
    /// The state of the pod.
    pub state: State,
    /// The network namespace, if it was observed, and what redirects its traffic.
    pub namespace: Option<(Arc<Netns>, Holder)>,
    /// Whose options the rules were compared with, if they were.
    pub basis: Option<Basis>,
    /// The differences that a comparison found.
    pub differences: Vec<Difference>,
    /// A problem that the rules do not fix: they would break the pod's proxy.
    pub warning: Option<String>,
}

impl Found {
    /// The backend that holds the rules of sidetrack, if they were observed.
    pub fn backend(&self) -> Option<RuleBackend> {
        match self.namespace {
            Some((_, Holder::Sidetrack(backend))) => Some(backend),
            _ => None,
        }
    }

    /// The network namespace, if sidetrack redirects the pod.
    pub fn comparable(&self) -> Option<&Arc<Netns>> {
        match (&self.state, &self.namespace) {
            (State::Redirected(_), Some((netns, Holder::Sidetrack(_)))) => Some(netns),
            _ => None,
        }
    }

    /// Compares the rules with the options that count for the pod, if that is possible; changes nothing in the pod.
    pub fn compare(&mut self, places: &Places) -> Option<Comparison> {
        let netns = Arc::clone(self.comparable()?);
        let running = self.sandbox.running(&netns);
        let netconf = self.sandbox.netconf();
        let compared = netconf.and_then(|netconf| late::drift(&netconf, &running, &[&places.proc]));
        let comparison = Comparison::of(&compared);
        self.state = comparison.clone().state(netns);
        if let Ok(Compared::With(basis, report)) = compared {
            (self.basis, self.differences) = (Some(basis), report.differences);
        }
        Some(comparison)
    }
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
    /// Compares the rules of every pod where that is possible.
    pub fn compare(&mut self, places: &Places) {
        for found in &mut self.found {
            found.compare(places);
        }
    }

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
    let sandboxes: Vec<(Sandbox, Decision, Option<Option<Located>>)> = sandboxes
        .into_iter()
        .map(|sandbox| {
            let decision = sandbox.decision();
            let located = match decision {
                Decision::NotRedirected(_) => None,
                _ => Some(namespaces.by_file(&sandbox)),
            };
            (sandbox, decision, located)
        })
        .collect();
    let found = sandboxes.into_iter().map(|(sandbox, decision, located)| {
        let (mut warning, mut namespace) = (None, None);
        let state = match (State::unless_not_redirected(decision.clone()), located) {
            (Err(state), _) => state,
            (Ok(decision), located) => {
                let located = located.flatten().unwrap_or_else(|| namespaces.by_address(&sandbox));
                namespace = match &located {
                    Located::At(netns, seen) => Some((Arc::clone(netns), seen.holder)),
                    Located::Gone(_) | Located::Unknown(_) => None,
                };
                // Foreign rules exempt the proxy that they were written for.
                if let (Decision::Redirected { proxy, .. }, Some((netns, Holder::None | Holder::Sidetrack(_)))) =
                    (&decision, &namespace)
                {
                    warning = namespaces.unknown_proxy(netns, proxy);
                }
                let netns = namespace.as_ref().map(|(netns, _)| netns);
                State::of(decision, located, |uids| namespaces.runs_as(netns?, uids))
            }
        };
        Found {
            sandbox,
            decision,
            state,
            namespace,
            basis: None,
            differences: Vec::new(),
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
    let found = sandboxes.map(|sandbox| {
        let decision = sandbox.decision();
        Found {
            state: State::of_cache(decision.clone(), sandbox.ran_plugin),
            sandbox,
            decision,
            namespace: None,
            basis: None,
            differences: Vec::new(),
            warning: None,
        }
    });
    Ok(Scan {
        found: found.collect(),
        unusable,
    })
}

/// Marks pods that share a network namespace: the cache file of one of them is stale, and it is unknown which. So none is
/// compared or repaired.
fn mark_ambiguous(found: &mut [Found]) {
    let identity = |found: &Found| found.namespace.as_ref().map(|(netns, _)| netns.identity());
    let identities: Vec<_> = found.iter().map(identity).collect();
    for (index, one) in found.iter_mut().enumerate() {
        let mut others = identities.iter().enumerate().filter(|(other, _)| *other != index);
        if identities[index].is_none() || !others.any(|(_, other)| *other == identities[index]) {
            continue;
        }
        let ambiguous = "the cache has another pod with the same network namespace";
        match (&one.state, one.backend()) {
            (State::Lacking { .. }, _) => one.state = State::Undecided(ambiguous.to_owned()),
            (State::Redirected(_), Some(backend)) => {
                one.state = State::Redirected(format!("sidetrack, with {backend}; not compared: {ambiguous}"));
                one.namespace = None;
            }
            _ => {}
        }
    }
}

/// The entry of our plugin in the chain that is installed.
pub fn installed_entry(node: &Node) -> Option<serde_json::Value> {
    with_chain(node, |_, chain| chain.entry().cloned()).ok().flatten()
}

/// The name of the network whose chain has our plugin.
fn network(node: &Node) -> Result<String, RepairError> {
    // Runtimes that accept a network without a name use the file name.
    with_chain(node, |target, chain| chain.name().unwrap_or(target).to_owned())
}

/// Reads from the file name and the contents of the chain that has our plugin.
fn with_chain<T>(node: &Node, read: impl FnOnce(&str, &Chain) -> T) -> Result<T, RepairError> {
    if matches!(node.wanted.choice, Choice::Standalone(_)) {
        return Err(RepairError::Standalone);
    }
    let snapshot = conf_dir::snapshot(&node.directories.conf)?;
    let target = layout::install(&snapshot, &node.wanted)
        .target
        .map_err(RepairError::Waiting)?;
    let chain = snapshot.text(&target).and_then(|text| Chain::list(text).ok());
    chain
        .map(|chain| read(&target, &chain))
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

/// Installs the rules of a pod that lacks them, or whose rules differ.
///
/// # Errors
/// See [`Failure`].
pub fn repair(sandbox: &Sandbox, netns: &Netns, fault: Fault, places: &Places) -> Result<Outcome, Failure> {
    let running = sandbox.running(netns);
    let pod = sandbox.pod.to_string();
    let _logged = tracing::info_span!("repair", pod, container = sandbox.container).entered();
    let late = sandbox
        .netconf()
        .and_then(|netconf| late::add(&netconf, &running, fault, &[&places.proc]));
    match late {
        Ok(None) => Ok(Outcome::NotNeeded(match fault {
            Fault::Lacking => "another program redirects its traffic by now, or the pod no longer exists",
            Fault::Drifted => "its rules match its options by now, or the pod no longer exists",
        })),
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
