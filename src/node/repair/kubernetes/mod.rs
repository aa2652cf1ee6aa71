//! Pods that lack their rules, by way of the API server: labelled, or evicted, so that they start again with the plugin.
//! Only in builds with the feature `kubernetes`.

mod client;
mod decision;
mod event;

use std::time::SystemTime;

use serde_json::json;

pub use self::client::{ApiError, Client};
pub use self::decision::{Decision, LABEL, Wish, decide};
use super::sandbox::Sandbox;
use super::{Failure, Outcome};

/// Does what is wished for about a pod that lacks its rules.
///
/// # Errors
/// The API server does not do it; or may not, as where a PodDisruptionBudget speaks against an eviction.
pub fn act(sandbox: &Sandbox, wish: Wish) -> Result<Outcome, Failure> {
    attempt(sandbox, wish).map_err(|error| Failure {
        reason: "api",
        message: error.to_string(),
    })
}

fn attempt(sandbox: &Sandbox, wish: Wish) -> Result<Outcome, ApiError> {
    let (Some(namespace), Some(name), Some(uid)) = (&sandbox.pod.namespace, &sandbox.pod.name, &sandbox.uid) else {
        return Ok(Outcome::NotNeeded("the runtime's cache has no name or no UID of it"));
    };
    let client = Client::of_service_account()?;
    let pod = match client.pod(namespace, name) {
        Ok(pod) => pod,
        Err(ApiError::Refused { status: 404, .. }) => return Ok(Outcome::NotNeeded("it has gone")),
        Err(error) => return Err(error),
    };
    // Both go by the UID: in between, another pod may have got the name.
    let (done, reason, message) = match decide(&pod, uid, wish) {
        Decision::Nothing(why) => return Ok(Outcome::NotNeeded(why)),
        Decision::Label(why) => {
            client.patch(
                namespace,
                name,
                &json!({ "metadata": { "uid": uid, "labels": { LABEL: "true" } } }),
            )?;
            (
                "labelled",
                "BypassesProxy",
                format!("Its traffic is not redirected to its proxy. {why}"),
            )
        }
        Decision::Evict => {
            client.evict(namespace, name, uid)?;
            let message = "It was evicted since its traffic was not redirected to its proxy: it started before the CNI \
                           plugin was there";
            ("evicted", "EvictedForRedirection", message.to_owned())
        }
    };
    let event = event::warning(&pod, reason, &message, SystemTime::now());
    if let Err(error) = client.record(namespace, &event) {
        // What matters was done, and is in the log.
        tracing::warn!(%error, pod = sandbox.pod.to_string(), "the event that tells of it could not be written");
    }
    Ok(Outcome::Asked(done))
}
