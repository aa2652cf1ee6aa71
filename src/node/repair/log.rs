//! What is logged about pods and their repair.

use std::path::Path;

use super::sandbox::Sandbox;
use super::state::State;
use super::{Failure, Outcome};
use crate::cni::late::{Late, Proof};

/// Logs the state of a pod. Texts from outside are quoted, so that they cannot forge log lines.
pub fn state(sandbox: &Sandbox, state: &State) {
    let (pod, container) = (sandbox.pod.to_string(), sandbox.container.as_str());
    let (name, reason) = (state.name(), state.reason());
    if let State::Drifted { .. } = state {
        tracing::warn!(
            pod,
            container,
            state = name,
            reason,
            "the rules of the pod differ from its options"
        );
    } else if state.is_wrong() {
        tracing::warn!(pod, container, state = name, reason, "pod may bypass its proxy");
    } else {
        tracing::debug!(pod, container, state = name, reason, "pod state");
    }
}

/// Logs a problem of a pod that its rules do not fix.
pub fn warning(sandbox: &Sandbox, warning: Option<&str>) {
    if let Some(reason) = warning {
        let (pod, container) = (sandbox.pod.to_string(), sandbox.container.as_str());
        tracing::warn!(
            pod,
            container,
            reason,
            "the proxy's own traffic is redirected to itself"
        );
    }
}

/// Logs the outcome of a repair.
pub fn outcome(sandbox: &Sandbox, outcome: &Result<Outcome, Failure>) {
    let (pod, container) = (sandbox.pod.to_string(), sandbox.container.as_str());
    match outcome {
        Ok(Outcome::Repaired(Late { survivors, proof })) => {
            let proof = match proof {
                Proof::Proved(tally) => tally.to_string(),
                Proof::None(why) => format!("none: {why}"),
                Proof::Refuted(wrong) => wrong.clone(),
            };
            tracing::info!(
                pod,
                container,
                probes = proof,
                open_connections = survivors.open,
                "repaired"
            );
        }
        Ok(Outcome::Asked(done) | Outcome::Deferred(done)) => {
            tracing::info!(pod, container, done, "request to the API server done");
        }
        Ok(Outcome::NotNeeded(why)) => tracing::info!(pod, container, why, "no repair needed"),
        Err(Failure { reason, message }) => {
            tracing::error!(pod, container, reason, error = message, "repair failed");
        }
    }
}

/// Logs that the node's proc file system is not mounted.
pub fn missing_proc(proc: &Path) {
    if !proc.is_dir() {
        tracing::info!(directory = %proc.display(), "directory does not exist: processes of the node are not visible (--proc-dir)");
    }
}
