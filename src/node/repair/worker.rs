//! Looks at the pods of the node again and again, and repairs at a pace that a mistake could be seen at.

use std::collections::BTreeMap;
use std::io::{self, PipeWriter};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::locate::Places;
use super::sandbox::Sandbox;
use super::state::{Mode, State};
use super::{FAILURES, Failure, Found, Outcome, RepairError, look, look_at_cache, observe, repair};
use crate::cni::late::{Late, Proof};
use crate::linux::netns::Netns;
use crate::node::metrics::{DEGRADED, Metrics, POD_REPAIR_FAILURES, POD_REPAIRS, PODS};
use crate::node::pace::{Spacing, growing};
use crate::node::watch::{Pause, Watch};
use crate::node::{Node, NodeError};

/// How long between two looks, unless a pod is attached that the plugin did not run for.
const INTERVAL: Duration = Duration::from_secs(60);
/// The most pods that are repaired in place after a look.
const IN_PLACE_AT_ONCE: usize = 30;
/// Until the installer has put the plugin in place, and after a look that failed.
const SOON: Duration = Duration::from_secs(2);
/// Attachments within this time lead to one look together.
const TOGETHER: Duration = Duration::from_millis(100);
/// A repair that failed waits [`growing`] times as many seconds: half a minute, a minute, up to a quarter of an hour.
const PATIENCE: u32 = 30;

/// What is done about pods that lack their rules, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Repair {
    /// What.
    pub mode: Mode,
    /// How long to wait between two evictions.
    pub eviction_interval: Duration,
}

/// Who looks for pods that lack their rules.
pub struct Worker {
    node: Node,
    places: Places,
    mode: Mode,
    /// How often pods are evicted.
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(dead_code, reason = "only the API server evicts")
    )]
    evictions: Spacing,
    metrics: Arc<Metrics>,
    memory: BTreeMap<String, Memory>,
    /// The last error of a look, once it was told.
    error: String,
    /// How many files were passed over when that was told.
    unusable: usize,
    watch: Watch,
}

/// A worker at work. Dropping it ends the work: a repair that has begun is brought to its end first.
pub struct Working {
    /// Closed once the service ends.
    running: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.running = None;
        // A panic of it was told already.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// What is remembered of a pod, by the ID of its sandbox.
#[derive(Default)]
struct Memory {
    /// Its state and the reason when that was told. Not more: a network namespace lasts as long as it is held.
    told: Option<(&'static str, String)>,
    /// The warning that was told.
    warned: Option<String>,
    /// Whether what can be done was done.
    done: bool,
    failures: u32,
    not_before: Option<Instant>,
    #[cfg(feature = "kubernetes")]
    asked: kubernetes::Asked,
}

impl Worker {
    /// Starts one that works until the handle is dropped, while `ours` says that the node is ours.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(
        node: &Node,
        places: &Places,
        repair: Repair,
        metrics: &Arc<Metrics>,
        ours: &Arc<AtomicBool>,
    ) -> Result<Working, NodeError> {
        let (stop, running) = io::pipe().map_err(NodeError::Thread)?;
        let mut worker = Self {
            node: node.clone(),
            places: places.clone(),
            mode: repair.mode,
            evictions: Spacing::new(repair.eviction_interval),
            metrics: Arc::clone(metrics),
            memory: BTreeMap::new(),
            error: String::new(),
            unusable: 0,
            watch: Watch::of_directory(places.cache.clone(), stop),
        };
        let ours = Arc::clone(ours);
        if repair.mode != Mode::Report {
            warn_of_missing(&places.proc);
        }
        for reason in FAILURES {
            metrics.add(POD_REPAIR_FAILURES, &[("reason", reason)], 0.0);
        }
        metrics.add(POD_REPAIRS, &[("mode", repair.mode.name())], 0.0);
        let work = move || {
            loop {
                let wait = if ours.load(Ordering::Acquire) {
                    worker.turn()
                } else {
                    SOON
                };
                if worker.is_stopped_within(wait) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("repair".to_owned()).spawn(work);
        Ok(Working {
            running: Some(running),
            thread: Some(thread.map_err(NodeError::Thread)?),
        })
    }

    /// Waits, or until a pod was attached that may lack its rules: a chain that another program keeps writing has our
    /// plugin for some pods and not for others. Returns whether the service ends.
    fn is_stopped_within(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            let longest = until.saturating_duration_since(Instant::now());
            let shortest = TOGETHER.min(longest);
            if let Err(error) = self.watch.renew(&[]) {
                tracing::debug!(%error, "the runtime's cache is not watched");
            }
            match self.watch.wait(Pause { shortest, longest }) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "waiting for pods");
                    thread::sleep(SOON.min(longest));
                }
            }
            if until <= Instant::now() || self.has_news() {
                return false;
            }
        }
    }

    /// Whether there are pods that were not looked at yet, and that our plugin did not run for.
    fn has_news(&self) -> bool {
        let is_news = |found: &Found| found.state.is_wrong() && !self.memory.contains_key(&found.sandbox.container);
        look_at_cache(&self.node, &self.places).is_ok_and(|look| look.found.iter().any(is_news))
    }

    /// Looks, and repairs what is due. Returns for how long to rest.
    fn turn(&mut self) -> Duration {
        let look = match self.mode {
            Mode::Report => observe(&self.node, &self.places),
            _ => look(&self.node, &self.places),
        };
        let unable = f64::from(u8::from(matches!(look, Err(RepairError::File(_)))));
        self.metrics.set(DEGRADED, &[("part", "pods")], unable);
        let look = match look {
            Ok(look) => look,
            Err(error) => return self.tell_error(&error),
        };
        self.error.clear();
        if self.unusable != look.unusable {
            look.warn_of_unusable(&self.places);
            self.unusable = look.unusable;
        }
        let found = look.found;
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
        } in found
        {
            let memory = self.memory.entry(sandbox.container.clone()).or_default();
            if memory.warned != warning {
                warn(&sandbox, warning.as_deref());
                memory.warned = warning;
            }
            let now = (state.name(), state.reason().to_owned());
            if memory.told.as_ref() != Some(&now) {
                tell(&sandbox, &state);
                memory.told = Some(now);
            }
            let State::Lacking { netns, .. } = state else {
                memory.done = false;
                continue;
            };
            let is_due = memory.not_before.is_none_or(|time| time <= Instant::now());
            if is_due && !memory.done {
                due.push((memory.failures, sandbox, netns));
            }
        }
        // Those that failed before keep no other waiting.
        due.sort_by_key(|(failures, ..)| *failures);
        let due = due.into_iter().map(|(_, sandbox, netns)| (sandbox, netns)).collect();
        match self.mode {
            Mode::Off | Mode::Report => INTERVAL,
            Mode::InPlace => self.repair(due),
            Mode::Label | Mode::Delete => self.ask(due),
        }
    }

    /// Repairs these pods in place. Returns for how long to rest.
    fn repair(&mut self, due: Vec<(Sandbox, Arc<Netns>)>) -> Duration {
        let mut rest = INTERVAL;
        for (sandbox, netns) in due.into_iter().take(IN_PLACE_AT_ONCE) {
            if self.watch.is_stopped() {
                break;
            }
            let outcome = repair(&sandbox, &netns, &self.places);
            if matches!(outcome, Ok(Outcome::Repaired(_))) {
                // To see that it is so, and to go on with the others.
                rest = SOON;
            }
            self.learn(&sandbox, &outcome);
        }
        rest
    }

    /// Has these pods labelled, and evicted one after the other. Returns for how long to rest.
    #[cfg(feature = "kubernetes")]
    fn ask(&mut self, due: Vec<(Sandbox, Arc<Netns>)>) -> Duration {
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
            return INTERVAL;
        }
        let mut rest = INTERVAL;
        let client = Client::of_service_account().map_err(failure);
        for (sandbox, _) in due {
            if self.watch.is_stopped() {
                break;
            }
            let client = match &client {
                Ok(client) => client,
                // It would be the same for the others.
                Err(failure) => {
                    self.learn(&sandbox, &Err(failure.clone()));
                    return INTERVAL;
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
            self.learn(&sandbox, &outcome.map_err(failure));
            if is_unreachable {
                return INTERVAL;
            }
        }
        rest
    }

    /// The command line refuses modes that a build does not have.
    #[cfg(not(feature = "kubernetes"))]
    fn ask(&mut self, _due: Vec<(Sandbox, Arc<Netns>)>) -> Duration {
        INTERVAL
    }

    /// Remembers, counts and logs what came of a pod's repair.
    fn learn(&mut self, sandbox: &Sandbox, outcome: &Result<Outcome, Failure>) {
        let memory = self.memory.entry(sandbox.container.clone()).or_default();
        memory.learn(outcome);
        count(&self.metrics, self.mode, outcome);
        tell_outcome(sandbox, outcome);
    }

    fn tell_error(&mut self, error: &RepairError) -> Duration {
        let wait = match error {
            // The installer says so.
            RepairError::Waiting(_) | RepairError::NotInPlace(_) => return SOON,
            RepairError::File(_) | RepairError::Standalone => INTERVAL,
        };
        let text = error.to_string();
        if self.error != text {
            tracing::warn!(
                error = text,
                "pods that lack their rules cannot be looked for; trying again"
            );
            self.error = text;
        }
        wait
    }
}

impl Memory {
    fn learn(&mut self, outcome: &Result<Outcome, Failure>) {
        match outcome {
            Ok(outcome) => {
                (self.failures, self.not_before) = (0, None);
                // What was repaired shows at the next look. Others take their time, and are not asked twice.
                self.done = matches!(outcome, Outcome::Asked(_) | Outcome::NotNeeded(_));
            }
            Err(_) => {
                self.not_before = Some(Instant::now() + growing(self.failures) * PATIENCE);
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

/// Logs how a pod is. Texts are quoted: they come from elsewhere, and must not make lines of their own.
fn tell(sandbox: &Sandbox, state: &State) {
    let (pod, container) = (sandbox.pod.to_string(), sandbox.container.as_str());
    let (name, reason) = (state.name(), state.reason());
    if state.is_wrong() {
        tracing::warn!(pod, container, state = name, reason, "a pod may bypass its proxy");
    } else {
        tracing::debug!(pod, container, state = name, reason, "a pod");
    }
}

/// Logs what is wrong with a pod that its rules do not cure.
pub fn warn(sandbox: &Sandbox, warning: Option<&str>) {
    if let Some(reason) = warning {
        let (pod, container) = (sandbox.pod.to_string(), sandbox.container.as_str());
        tracing::warn!(pod, container, reason, "a pod's proxy is redirected to itself");
    }
}

/// Logs what a repair came to.
pub fn tell_outcome(sandbox: &Sandbox, outcome: &Result<Outcome, Failure>) {
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
            tracing::info!(pod, container, done, "the API server was asked");
        }
        Ok(Outcome::NotNeeded(why)) => tracing::info!(pod, container, why, "no repair was needed"),
        Err(Failure { reason, message }) => {
            tracing::error!(pod, container, reason, error = message, "the repair failed");
        }
    }
}

/// Says where a proc file system of the node would be of use.
fn warn_of_missing(proc: &Path) {
    if !proc.is_dir() {
        tracing::info!(directory = %proc.display(), "not there: processes of the node are not seen (--proc-dir)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Directories;
    use crate::node::layout::{Choice, Wanted};

    #[test]
    fn the_thread_ends_with_its_handle() {
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
            eviction_interval: INTERVAL,
        };
        let (metrics, ours) = (Arc::new(Metrics::default()), Arc::new(AtomicBool::new(true)));
        let working = Worker::start(&node, &places, repair, &metrics, &ours).unwrap();
        assert!(Arc::strong_count(&ours) == 2);
        drop(working);
        assert_eq!((Arc::strong_count(&ours), Arc::strong_count(&metrics)), (1, 1));
    }
}
