//! Removes the startup taint once the installer is ready, and again whenever the node has it while the installer is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::StartupTaint;
use super::patch::removal;
use crate::node::NodeError;
use crate::node::metrics::{Metrics, Part, STARTUP_TAINT_REMOVALS};
use crate::node::pace::backoff;
use crate::node::repair::kubernetes::{ApiError, Client};

/// How often the API server is asked whether the node has the taint again. A cluster of 5,000 nodes asks 83 times a second.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);
/// How often this process is asked whether it is ready. No request leaves the process.
const READINESS_INTERVAL: Duration = Duration::from_secs(1);
/// How many patches may in a row meet a list of taints that has just changed.
const MAX_PATCHES: usize = 5;

/// A thread at work. Dropping it ends the work; a request that was sent is waited for.
pub struct Working {
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.running = None;
        // A panic was reported already.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// What the last request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// None was made: the installer is not ready.
    NotReady,
    /// The node does not have the taint.
    Absent,
    /// The taint was removed.
    Removed,
    /// The taint could not be read or removed.
    Failed(String),
}

struct Worker {
    taint: StartupTaint,
    metrics: Arc<Metrics>,
    is_installer: Arc<AtomicBool>,
    failures: u32,
    state: Option<State>,
}

/// Starts a thread that removes the taint for as long as the handle lives and `is_installer` says that this process, and
/// not one that was started later, is the installer of the node.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    taint: &StartupTaint,
    metrics: &Arc<Metrics>,
    is_installer: &Arc<AtomicBool>,
) -> Result<Working, NodeError> {
    let mut worker = Worker {
        taint: taint.clone(),
        metrics: Arc::clone(metrics),
        is_installer: Arc::clone(is_installer),
        failures: 0,
        state: None,
    };
    let (running, stop) = mpsc::channel();
    let work = move || {
        loop {
            let wait = worker.turn();
            if stop.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("startup-taint".to_owned()).spawn(work);
    Ok(Working {
        running: Some(running),
        thread: Some(thread.map_err(NodeError::Thread)?),
    })
}

impl Worker {
    /// Removes the taint if the installer is ready. Returns for how long to wait then.
    fn turn(&mut self) -> Duration {
        let is_ready = self.is_installer.load(Ordering::Acquire) && self.metrics.missing().is_none();
        if !is_ready {
            self.report(State::NotReady);
            return READINESS_INTERVAL;
        }
        match remove(&self.taint) {
            Ok(is_removed) => {
                self.failures = 0;
                self.report(if is_removed { State::Removed } else { State::Absent });
                RESYNC_INTERVAL
            }
            Err(error) => {
                let wait = backoff(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.report(State::Failed(error.to_string()));
                wait
            }
        }
    }

    /// Counts the state, shows it at `/readyz` and in `node status`, and logs it where it changed.
    fn report(&mut self, state: State) {
        let (key, node) = (self.taint.key.as_str(), self.taint.node.as_str());
        let text = match &state {
            State::NotReady => "stays until the installer is ready".to_owned(),
            State::Absent => "absent".to_owned(),
            State::Removed => {
                self.metrics.add(STARTUP_TAINT_REMOVALS, &[], 1.0);
                "removed".to_owned()
            }
            State::Failed(error) => format!("not removed: {error}"),
        };
        let has_failed = matches!(state, State::Failed(_));
        self.metrics.set_degraded(Part::StartupTaint, has_failed);
        self.metrics.set_note(format!("startup taint {key}: {text}"));
        let is_new = self.state.as_ref() != Some(&state);
        match &state {
            State::Removed => tracing::info!(key, node, "startup taint removed"),
            State::Absent if is_new => tracing::info!(key, node, "the node does not have the startup taint"),
            State::Failed(error) if is_new => {
                tracing::error!(key, node, error, "removing the startup taint failed; trying again");
            }
            State::NotReady | State::Absent | State::Failed(_) => {}
        }
        self.state = Some(state);
    }
}

/// Removes the taint. Returns whether the node had it.
fn remove(taint: &StartupTaint) -> Result<bool, ApiError> {
    // Token and certificate change, so the client lives no longer than this.
    let client = Client::of_service_account()?;
    let mut patches = 0;
    loop {
        let node = client.read_node(&taint.node)?;
        let Some(patch) = removal(&node, &taint.key) else {
            return Ok(false);
        };
        patches += 1;
        match client.patch_node(&taint.node, &patch) {
            Ok(()) => return Ok(true),
            Err(error) if error.has_changed() && patches < MAX_PATCHES => {
                tracing::debug!(%error, "the node's taints changed in between");
            }
            Err(error) => return Err(error),
        }
    }
}
