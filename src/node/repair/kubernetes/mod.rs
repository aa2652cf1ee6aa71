//! Pods that lack their rules, by way of the API server: labelled, and evicted where that is wished, so that they start
//! again with the plugin. Only in builds with the feature `kubernetes`.

mod client;
mod decision;
mod event;
mod node;

use std::time::{Instant, SystemTime};

use serde_json::Value;

pub use self::client::{ApiError, Client};
pub use self::decision::{ANOTHER, Decision, LABEL, Wish, decide};
use super::Outcome;
use super::sandbox::Sandbox;
use crate::node::pace::Spacing;

/// What the API server was asked about a pod before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// It was labelled, with an event that says why.
    pub labelled: bool,
    /// Its eviction was refused, with an event that says so.
    pub blocked: bool,
}

/// Labels a pod that lacks its rules, and evicts it if that is wished for and may be done now.
///
/// # Errors
/// The API server does not do it; or may not, as where a PodDisruptionBudget does not allow an eviction.
pub fn act(
    client: &Client,
    sandbox: &Sandbox,
    wish: Wish,
    evictions: &mut Spacing,
    asked: &mut Asked,
) -> Result<Outcome, ApiError> {
    let (Some(namespace), Some(name), Some(uid)) = (&sandbox.pod.namespace, &sandbox.pod.name, &sandbox.uid) else {
        return Ok(Outcome::NotNeeded("the runtime's cache has no name or no UID of it"));
    };
    // Each request goes by the UID: in between, another pod may have got the name.
    let pod = match client.label(namespace, name, uid, LABEL) {
        Err(error) if error.has_gone() => return Ok(Outcome::NotNeeded(ANOTHER)),
        pod => pod?,
    };
    let tell = |reason, message: &str| record(client, namespace, &pod, reason, message);
    let lacks = "Its traffic is not redirected to its proxy.";
    match decide(&pod, uid, wish) {
        Decision::Nothing(why) => Ok(Outcome::NotNeeded(why)),
        Decision::Label(why) => {
            tell("BypassesProxy", &format!("{lacks} {why}"));
            Ok(Outcome::Asked("labelled"))
        }
        Decision::Evict => {
            if !asked.labelled {
                asked.labelled = true;
                tell(
                    "BypassesProxy",
                    &format!("{lacks} It is to be evicted, so that it starts again with the CNI plugin."),
                );
            }
            if !evictions.wait(Instant::now()).is_zero() {
                return Ok(Outcome::Deferred("labelled; its eviction waits for others"));
            }
            match client.evict(namespace, name, uid) {
                Ok(()) => {
                    evictions.acted(Instant::now());
                    tell(
                        "EvictedForRedirection",
                        &format!("{lacks} It started before the CNI plugin was there."),
                    );
                    Ok(Outcome::Asked("evicted"))
                }
                Err(error) if error.has_gone() => Ok(Outcome::NotNeeded(ANOTHER)),
                Err(error) => {
                    if let (ApiError::Refused { message, .. }, false) = (&error, asked.blocked) {
                        asked.blocked = true;
                        tell(
                            "EvictionBlocked",
                            &format!("{lacks} It cannot be evicted now: {message}"),
                        );
                    }
                    Err(error)
                }
            }
        }
    }
}

/// Writes an event about a pod. What matters was done, and is in the log: a failure is a warning.
fn record(client: &Client, namespace: &str, pod: &Value, reason: &str, message: &str) {
    let event = event::warning(pod, reason, message, SystemTime::now());
    if let Err(error) = client.record(namespace, &event) {
        let pod = format!("{namespace}/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
        tracing::warn!(%error, pod, "the event that tells of it could not be written");
    }
}
