//! Loads the kernel modules that rules need before the first pod comes, where the installer has the rights.

use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};

use super::NodeError;
use super::metrics::{Metrics, Part};
use crate::cni::netconf::NetConf;
use crate::cni::version::Version;
use crate::cni::warm_up::{WarmUpError, warm_up};

/// Applies the rules of the plugin's entry once, on a thread that nobody waits for: loading a module may take long.
///
/// # Errors
/// The thread cannot be started.
pub fn start(entry: &Value, metrics: &Arc<Metrics>) -> Result<(), NodeError> {
    let (netconf, metrics) = (netconf(entry), Arc::clone(metrics));
    thread::Builder::new()
        .name("warm-up".to_owned())
        .spawn(move || run(&netconf, &metrics))
        .map(drop)
        .map_err(NodeError::Thread)
}

/// The NetConf that a runtime derives from the entry.
fn netconf(entry: &Value) -> Vec<u8> {
    let mut netconf = entry.clone();
    for (key, value) in [("cniVersion", Version::NEWEST.as_str()), ("name", "warm-up")] {
        netconf[key] = json!(value);
    }
    netconf.to_string().into_bytes()
}

fn run(netconf: &[u8], metrics: &Metrics) {
    let parsed = NetConf::parse(netconf).map_err(WarmUpError::Failed);
    let result = parsed.and_then(|netconf| warm_up(&netconf));
    let broken = match &result {
        Err(error @ WarmUpError::Failed(_)) => Some(error.to_string()),
        _ => None,
    };
    metrics.set_degraded(Part::Kernel, broken.is_some());
    metrics.set_kernel(broken);
    match result {
        Ok(Some(backend)) => tracing::info!(%backend, "the kernel has what the rules of pods need"),
        Ok(None) => {}
        Err(error @ WarmUpError::NoRights(_)) => {
            tracing::debug!(%error, "kernel modules are loaded for the first pod, not before");
        }
        Err(error @ (WarmUpError::Netns(_) | WarmUpError::OnlyLegacy(_))) => {
            tracing::warn!(%error, "cannot load the kernel modules of nf_tables before the first pod");
        }
        Err(error @ WarmUpError::Failed(_)) => tracing::error!(
            %error,
            "rules cannot be applied on this node: pods that need them will not start. Load the module, or change the \
             plugin's configuration, and restart the installer"
        ),
    }
}
