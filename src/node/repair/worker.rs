//! The repair thread: scans the pods of the node periodically, and repairs slowly enough that a mistake is noticed.

use std::collections::BTreeMap;
use std::io::{self, PipeWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::connections::Connections;
#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::locate::Places;
use super::log;
use super::sandbox::Sandbox;
use super::state::{Comparison, Mode, State};
use super::{FAILURES, Failure, Found, Outcome, RepairError, repair, scan, scan_available, scan_cache};
use crate::cni::late::Fault;
use crate::linux::netns::Netns;
use crate::node::metrics::{Metrics, POD_REPAIR_FAILURES, POD_REPAIRS, PODS, Part};
use crate::node::pace::{Spacing, backoff, due_for_comparison};
use crate::node::watch::{Pause, Watch};
use crate::node::{Node, NodeError};

/// The time between two scans, unless a pod is attached without the plugin.
const SCAN_INTERVAL: Duration = Duration::from_secs(60);
/// How many pods are compared with their options by one scan.
const MAX_COMPARISONS_PER_SCAN: usize = 30;
/// A pod is not compared, or its counters read, again within this time, also if scans follow each other faster.
pub const COMPARISON_INTERVAL: Duration = Duration::from_secs(50);
/// How many pods are repaired in place after one scan.
const MAX_REPAIRS_PER_SCAN: usize = 30;
/// The time until the next scan while the plugin is not installed, and after a repair.
const RESCAN_DELAY: Duration = Duration::from_secs(2);
/// Attachments within this time are handled by one scan.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The factor on [`backoff`] after a failed repair: half a minute, a minute, up to a quarter of an hour.
const FAILURE_BACKOFF_FACTOR: u32 = 30;

/// What the installer does about pods that lack their rules, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Repair {
    /// What the installer does.
    pub mode: Mode,
    /// The time between two evictions.
    pub eviction_interval: Duration,
}

/// The state of the repair thread.
pub struct Worker {
    node: Node,
    places: Places,
    mode: Mode,
    /// The pace of evictions.
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(dead_code, reason = "only the API server evicts")
    )]
    evictions: Spacing,
    metrics: Arc<Metrics>,
    memory: BTreeMap<String, Memory>,
    connections: Connections,
    /// The last error of a scan that was logged.
    error: String,
    /// The number of skipped files that was logged last.
    unusable: usize,
    watch: Watch,
}

/// The handle of a repair thread. Dropping it ends the thread; a repair that has started is finished first.
pub struct WorkerHandle {
    /// Closing it requests the stop.
    running: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.running = None;
        // The panic hook has reported a panic of the thread.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// What the worker remembers of a pod, by the ID of its sandbox.
#[derive(Default)]
struct Memory {
    /// The name and the reason of the state that was logged. Not the state: it would keep the network namespace alive.
    logged: Option<(&'static str, String)>,
    /// The warning that was logged.
    warned: Option<String>,
    /// Whether no further request is needed.
    done: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// The last comparison of the rules.
    compared: Option<(Instant, Comparison)>,
    #[cfg(feature = "kubernetes")]
    asked: kubernetes::Asked,
}

impl Worker {
    /// Starts a repair thread that runs until the handle is dropped. It works only while `is_owner` is set.
    ///
    /// # Errors
    /// A pipe or a thread cannot be created.
    pub fn start(
        node: &Node,
        places: &Places,
        repair: Repair,
        metrics: &Arc<Metrics>,
        is_owner: &Arc<AtomicBool>,
    ) -> Result<WorkerHandle, NodeError> {
        let (stop, running) = io::pipe().map_err(NodeError::Thread)?;
        let mut worker = Self {
            node: node.clone(),
            places: places.clone(),
            mode: repair.mode,
            evictions: Spacing::new(repair.eviction_interval),
            metrics: Arc::clone(metrics),
            memory: BTreeMap::new(),
            connections: Connections::default(),
            error: String::new(),
            unusable: 0,
            watch: Watch::of_directory(places.cache.clone(), stop),
        };
        let is_owner = Arc::clone(is_owner);
        if repair.mode != Mode::Report {
            log::missing_proc(&places.proc);
        }
        for reason in FAILURES {
            metrics.add(POD_REPAIR_FAILURES, &[("reason", reason)], 0.0);
        }
        metrics.add(POD_REPAIRS, &[("mode", repair.mode.name())], 0.0);
        let work = move || {
            loop {
                let wait = if is_owner.load(Ordering::Acquire) {
                    worker.scan_and_repair()
                } else {
                    RESCAN_DELAY
                };
                if worker.is_stopped_within(wait) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("repair".to_owned()).spawn(work);
        Ok(WorkerHandle {
            running: Some(running),
            thread: Some(thread.map_err(NodeError::Thread)?),
        })
    }

    /// Waits for this time, or until a pod is attached that may lack its rules: a chain that another program keeps
    /// writing has our plugin for some pods and not for others. Returns whether a stop was requested.
    fn is_stopped_within(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            let longest = until.saturating_duration_since(Instant::now());
            let shortest = DEBOUNCE.min(longest);
            if let Err(error) = self.watch.renew(&[]) {
                tracing::debug!(%error, "cannot watch the runtime's cache");
            }
            match self.watch.wait(Pause { shortest, longest }) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "waiting for pods failed");
                    thread::sleep(RESCAN_DELAY.min(longest));
                }
            }
            if until <= Instant::now() || self.has_new_pods() {
                return false;
            }
        }
    }

    /// Whether the cache has new pods whose chain did not have our plugin.
    fn has_new_pods(&self) -> bool {
        let is_new = |found: &Found| found.state.is_wrong() && !self.memory.contains_key(&found.sandbox.container);
        scan_cache(&self.node, &self.places).is_ok_and(|scan| scan.found.iter().any(is_new))
    }

    /// Scans the pods and repairs those that are due. Returns the time until the next scan.
    fn scan_and_repair(&mut self) -> Duration {
        let scan = match self.mode {
            Mode::Report => scan_available(&self.node, &self.places),
            _ => scan(&self.node, &self.places),
        };
        let is_unable = matches!(scan, Err(RepairError::File(_)));
        self.metrics.set_degraded(Part::Pods, is_unable);
        let scan = match scan {
            Ok(scan) => scan,
            Err(error) => return self.log_error(&error),
        };
        self.error.clear();
        if self.unusable != scan.unusable {
            scan.warn_of_unusable(&self.places);
            self.unusable = scan.unusable;
        }
        let mut found = scan.found;
        self.compare(&mut found);
        self.connections.read(&found, &self.metrics);
        let mut counts = State::NAMES.map(|name| (name, 0_u32));
        for Found { state, .. } in &found {
            let count = counts.iter_mut().find(|(name, _)| *name == state.name());
            count.into_iter().for_each(|(_, count)| *count += 1);
        }
        for (name, count) in counts {
            self.metrics.set(PODS, &[("state", name)], count.into());
        }
        self.memory
            .retain(|container, _| found.iter().any(|one| one.sandbox.container == *container));
        let mut due = Vec::new();
        for Found {
            sandbox,
            state,
            warning,
            ..
        } in found
        {
            let memory = self.memory.entry(sandbox.container.clone()).or_default();
            if memory.warned != warning {
                log::warning(&sandbox, warning.as_deref());
                memory.warned = warning;
            }
            let now = (state.name(), state.reason().to_owned());
            if memory.logged.as_ref() != Some(&now) {
                log::state(&sandbox, &state);
                memory.logged = Some(now);
            }
            // The API server is asked about pods that bypass their proxy alone.
            let fault = state.repairable();
            let fault = fault.filter(|(fault, _)| *fault == Fault::Lacking || self.mode == Mode::InPlace);
            let Some((fault, netns)) = fault else {
                memory.done = false;
                continue;
            };
            let netns = Arc::clone(netns);
            let is_due = memory.not_before.is_none_or(|time| time <= Instant::now());
            if is_due && !memory.done {
                due.push((memory.failures, sandbox, netns, fault));
            }
        }
        // Pods whose repair failed before come last.
        due.sort_by_key(|(failures, ..)| *failures);
        let due = due.into_iter();
        let due = due.map(|(_, sandbox, netns, fault)| (sandbox, netns, fault)).collect();
        match self.mode {
            Mode::Off | Mode::Report => SCAN_INTERVAL,
            Mode::InPlace => self.repair(due),
            Mode::Label | Mode::Delete => self.request(due),
        }
    }

    /// Compares the rules of some pods with their options: those that were compared longest ago. The others keep the
    /// result of their last comparison.
    fn compare(&mut self, found: &mut [Found]) {
        let now = Instant::now();
        let mut comparable: Vec<&mut Found> = Vec::new();
        for one in found {
            match one.comparable() {
                Some(_) => comparable.push(one),
                None => {
                    let memory = self.memory.get_mut(&one.sandbox.container);
                    memory.into_iter().for_each(|memory| memory.compared = None);
                }
            }
        }
        let last = |one: &&mut Found| Some(self.memory.get(&one.sandbox.container)?.compared.as_ref()?.0);
        let last: Vec<Option<Instant>> = comparable.iter().map(last).collect();
        let due = due_for_comparison(&last, now, COMPARISON_INTERVAL, MAX_COMPARISONS_PER_SCAN);
        for (index, one) in comparable.into_iter().enumerate() {
            let memory = self.memory.entry(one.sandbox.container.clone()).or_default();
            if due.contains(&index) {
                memory.compared = one.compare(&self.places).map(|comparison| (now, comparison));
            } else if let (Some((_, comparison)), Some(netns)) = (&memory.compared, one.comparable()) {
                one.state = comparison.clone().state(Arc::clone(netns));
            }
        }
    }

    /// Repairs these pods in place. Returns the time until the next scan.
    fn repair(&mut self, due: Vec<(Sandbox, Arc<Netns>, Fault)>) -> Duration {
        let mut rest = SCAN_INTERVAL;
        for (sandbox, netns, fault) in due.into_iter().take(MAX_REPAIRS_PER_SCAN) {
            if self.watch.is_stopped() {
                break;
            }
            let outcome = repair(&sandbox, &netns, fault, &self.places);
            if matches!(outcome, Ok(Outcome::Repaired(_))) {
                // Verifies the repair soon, and continues with the other pods.
                rest = RESCAN_DELAY;
                // Not compared again at once: a process that keeps reverting the rules causes a repair a minute.
                let memory = self.memory.entry(sandbox.container.clone()).or_default();
                memory.compared = Some((Instant::now(), Comparison::InSync("repaired".to_owned())));
            }
            self.record(&sandbox, &outcome);
        }
        rest
    }

    /// Labels these pods through the API server, and evicts them one by one. Returns the time until the next scan.
    #[cfg(feature = "kubernetes")]
    fn request(&mut self, due: Vec<(Sandbox, Arc<Netns>, Fault)>) -> Duration {
        use kubernetes::{ApiError, Client, Wish, act};

        let failure = |error: ApiError| Failure {
            reason: error.reason(),
            message: error.to_string(),
        };
        let wish = match self.mode {
            Mode::Delete => Wish::Delete,
            Mode::Off | Mode::Report | Mode::InPlace | Mode::Label => Wish::Label,
        };
        if due.is_empty() {
            return SCAN_INTERVAL;
        }
        let mut rest = SCAN_INTERVAL;
        let client = Client::of_service_account().map_err(failure);
        for (sandbox, ..) in due {
            if self.watch.is_stopped() {
                break;
            }
            let client = match &client {
                Ok(client) => client,
                // The other pods would get the same error.
                Err(failure) => {
                    self.record(&sandbox, &Err(failure.clone()));
                    return SCAN_INTERVAL;
                }
            };
            let wait = self.evictions.wait(Instant::now());
            let memory = self.memory.entry(sandbox.container.clone()).or_default();
            if memory.asked.labelled && !wait.is_zero() {
                rest = rest.min(wait);
                continue;
            }
            let outcome = act(client, &sandbox, wish, &mut self.evictions, &mut memory.asked);
            if matches!(outcome, Ok(Outcome::Deferred(_))) {
                rest = rest.min(wait);
            }
            let is_unreachable = matches!(outcome, Err(ApiError::Unreachable { .. }));
            self.record(&sandbox, &outcome.map_err(failure));
            if is_unreachable {
                return SCAN_INTERVAL;
            }
        }
        rest
    }

    /// The command line refuses modes that a build does not have.
    #[cfg(not(feature = "kubernetes"))]
    fn request(&mut self, _due: Vec<(Sandbox, Arc<Netns>, Fault)>) -> Duration {
        SCAN_INTERVAL
    }

    /// Remembers, counts and logs the outcome of a repair.
    fn record(&mut self, sandbox: &Sandbox, outcome: &Result<Outcome, Failure>) {
        let memory = self.memory.entry(sandbox.container.clone()).or_default();
        memory.record(outcome);
        count(&self.metrics, self.mode, outcome);
        log::outcome(sandbox, outcome);
    }

    fn log_error(&mut self, error: &RepairError) -> Duration {
        let wait = match error {
            // The installer logs these.
            RepairError::Waiting(_) | RepairError::NotInPlace(_) => return RESCAN_DELAY,
            RepairError::File(_) | RepairError::Standalone => SCAN_INTERVAL,
        };
        let text = error.to_string();
        if self.error != text {
            tracing::warn!(error = text, "cannot look for pods that lack their rules; retrying");
            self.error = text;
        }
        wait
    }
}

impl Memory {
    fn record(&mut self, outcome: &Result<Outcome, Failure>) {
        match outcome {
            Ok(outcome) => {
                (self.failures, self.not_before) = (0, None);
                // The next scan shows the repair. A request to the API server takes time and is not repeated.
                self.done = matches!(outcome, Outcome::Asked(_) | Outcome::NotNeeded(_));
            }
            Err(_) => {
                self.not_before = Some(Instant::now() + backoff(self.failures) * FAILURE_BACKOFF_FACTOR);
                self.failures += 1;
            }
        }
    }
}

fn count(metrics: &Metrics, mode: Mode, outcome: &Result<Outcome, Failure>) {
    match outcome {
        Ok(Outcome::Repaired(_) | Outcome::Asked(_)) => metrics.add(POD_REPAIRS, &[("mode", mode.name())], 1.0),
        Ok(Outcome::Deferred(_) | Outcome::NotNeeded(_)) => {}
        Err(Failure { reason, .. }) => metrics.add(POD_REPAIR_FAILURES, &[("reason", reason)], 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Directories;
    use crate::node::layout::{Choice, Wanted};

    #[test]
    fn thread_ends_when_handle_is_dropped() {
        let node = Node {
            directories: Directories {
                bin: "/no/such/bin".into(),
                conf: "/no/such/conf".into(),
            },
            wanted: Wanted {
                entry: serde_json::json!({ "type": "sidetrack" }),
                choice: Choice::First,
            },
        };
        let places = Places {
            cache: "/no/such/cache".into(),
            netns: "/no/such/netns".into(),
            proc: "/no/such/proc".into(),
        };
        let repair = Repair {
            mode: Mode::InPlace,
            eviction_interval: SCAN_INTERVAL,
        };
        let (metrics, is_owner) = (Arc::new(Metrics::default()), Arc::new(AtomicBool::new(true)));
        let working = Worker::start(&node, &places, repair, &metrics, &is_owner).unwrap();
        assert!(Arc::strong_count(&is_owner) == 2);
        drop(working);
        assert_eq!((Arc::strong_count(&is_owner), Arc::strong_count(&metrics)), (1, 1));
    }
}
