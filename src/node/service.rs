//! The installer: runs once, or keeps the plugin installed until it is stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::layout::{Judged, Verdict, Waiting};
use super::metrics::{CONFIGURATIONS, CONTENDED, FAILURES, Metrics, Part, REPAIRS};
use super::pace::{Pace, backoff};
use super::repair::cache;
use super::repair::locate::Places;
use super::repair::state::Mode;
use super::repair::worker::{Repair, Worker};
use super::reports::{self, Owner, Receiver};
use super::startup_taint::StartupTaint;
#[cfg(feature = "kubernetes")]
use super::startup_taint::worker as untaint;
use super::watch::{Pause, Watch};
use super::{Directories, Node, NodeError, Observation, health, retry_if_changed, warm_up};
use crate::linux::files::FileError;

/// How often the node is scanned without a change notification.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);
/// Changes within this time after a scan are handled by one scan.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long a configuration may be missing or half written before the installer joins the next one.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// The installer as a daemon.
#[derive(Clone, Debug)]
pub struct Service {
    /// The node and its desired state.
    pub node: Node,
    /// The socket for the plugin's reports.
    pub socket: PathBuf,
    /// The address for probes and Prometheus.
    pub health: SocketAddr,
    /// Whether everything is uninstalled on SIGTERM and SIGINT.
    pub uninstall_on_exit: bool,
    /// How pods that lack their rules are repaired.
    pub repair: Repair,
    /// The directories that such pods are found in.
    pub places: Places,
    /// The taint that is removed from the node.
    pub startup_taint: Option<StartupTaint>,
}

/// Installs the plugin and returns.
///
/// # Errors
/// The plugin cannot be installed, or there is no configuration to join.
pub fn once(node: &Node) -> Result<(), NodeError> {
    node.directories.remove_unfinished()?;
    let observation = retry_if_changed(&node.directories.conf, || {
        let observation = node.observe()?;
        if observation.reasons().is_empty() {
            return Ok(Some(observation));
        }
        node.install(&observation)?;
        log_repair(&observation);
        Ok(None)
    })?;
    log_files(&observation.files, &[]);
    let missing = observation.missing();
    let target = observation.layout.target.map_err(NodeError::Waiting)?;
    tracing::info!(target, "in place");
    missing.map_or(Ok(()), |missing| Err(NodeError::Unreadable(missing)))
}

/// Uninstalls everything, unless a running installer would restore it. With a `cache`, the binary stays while the
/// runtime's cache has pods that were attached with it.
///
/// # Errors
/// An installer runs, or something cannot be removed.
pub fn uninstall(directories: &Directories, socket: &Path, cache: Option<&Path>) -> Result<(), NodeError> {
    if reports::is_answered(socket) {
        return Err(NodeError::Running(socket.to_owned()));
    }
    reports::remove(socket)?;
    directories.uninstall(|| cache.map_or(Ok(0), cache::attached_with_plugin))
}

/// Logs invalid and unreadable configurations, except those `logged` before.
fn log_files(files: &[Judged], logged: &[Judged]) {
    for judged in files.iter().filter(|judged| !logged.contains(judged)) {
        let (file, reason) = (&judged.name, judged.verdict.reason());
        match judged.verdict {
            Verdict::Blocking(_) => tracing::warn!(file, reason, "invalid network configuration"),
            Verdict::Broken(_) => tracing::info!(file, reason, "invalid network configuration"),
            Verdict::Unreadable(_) => {
                tracing::error!(file, reason, "unreadable network configuration; the runtime may use it");
            }
            Verdict::Joined | Verdict::Unused | Verdict::Unread(_) => {}
        }
    }
}

fn log_repair(observation: &Observation) {
    // None before the runtime has a valid configuration; tracing leaves the field out then.
    let target = observation.layout.target.as_deref().ok();
    tracing::info!(target, reasons = observation.reason_names(), "repaired");
}

impl Service {
    /// Installs the plugin and keeps it installed until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// The first installation fails. Later failures are retried.
    pub fn run(&self) -> Result<(), NodeError> {
        let Directories { bin, conf } = self.node.directories.clone();
        let mut watch = Watch::new(vec![bin, conf]).map_err(NodeError::Watch)?;
        let metrics = Arc::new(Metrics::default());
        let mut optional = OptionalParts::new(&metrics);
        let mut reports = Reports::open(&self.socket, &metrics);
        self.node.directories.remove_unfinished()?;
        warm_up::start(&self.node.wanted.entry, &metrics)?;
        let mut reconciler = Reconciler::new(&self.node, &metrics);
        let is_owner = Arc::new(AtomicBool::new(false));
        let repair = match self.repair.mode {
            Mode::Off => None,
            _ => Some(Worker::start(
                &self.node,
                &self.places,
                self.repair,
                &metrics,
                &is_owner,
            )?),
        };
        #[cfg(feature = "kubernetes")]
        let taint = self
            .startup_taint
            .as_ref()
            .map(|taint| untaint::start(taint, &metrics, &is_owner))
            .transpose()?;
        loop {
            metrics.heartbeat();
            tracing::trace!("scanning");
            optional.watch(&mut watch, &reconciler.folders);
            let owner = reports.is_owner();
            is_owner.store(owner, Ordering::Release);
            let pause = if owner {
                reconciler.run_once(Instant::now())?
            } else {
                Pause::of(RESYNC_INTERVAL)
            };
            // After the first scan: an address in use must not prevent the installation.
            optional.serve(self.health);
            if watch.wait(pause).map_err(NodeError::Watch)? {
                break;
            }
        }
        // Ends the repair thread: no pod is repaired after this.
        drop(repair);
        #[cfg(feature = "kubernetes")]
        drop(taint);
        if self.uninstall_on_exit && reports.is_owner() {
            let cache = &self.places.cache;
            return self.node.directories.uninstall(|| cache::attached_with_plugin(cache));
        }
        tracing::info!("stopping; the plugin stays installed");
        Ok(())
    }
}

/// Optional parts of the installer: inotify and the health endpoint. Both are retried in each cycle; a change is
/// logged.
struct OptionalParts<'s> {
    metrics: &'s Arc<Metrics>,
    is_polling: bool,
    is_served: bool,
    has_failed: bool,
}

impl<'s> OptionalParts<'s> {
    fn new(metrics: &'s Arc<Metrics>) -> Self {
        Self {
            metrics,
            is_polling: false,
            is_served: false,
            has_failed: false,
        }
    }

    fn watch(&mut self, watch: &mut Watch, folders: &[PathBuf]) {
        let renewed = watch.renew(folders);
        self.metrics.set_degraded(Part::Inotify, renewed.is_err());
        match &renewed {
            Err(error) if !self.is_polling => tracing::warn!(
                %error,
                "no inotify instance or watch left; polling every second. Raise fs.inotify.max_user_instances and \
                 fs.inotify.max_user_watches"
            ),
            Ok(()) if self.is_polling => tracing::info!("inotify works again; polling stopped"),
            _ => {}
        }
        self.is_polling = renewed.is_err();
    }

    fn serve(&mut self, address: SocketAddr) {
        if self.is_served {
            return;
        }
        let served = health::serve(address, self.metrics);
        self.metrics.set_degraded(Part::Health, served.is_err());
        match served {
            Ok(health) => {
                tracing::info!(%health, "serving /readyz, /healthz and /metrics");
                self.is_served = true;
            }
            Err(error) if !self.has_failed => {
                tracing::error!(%error, "cannot serve probes and metrics; retrying");
                self.has_failed = true;
            }
            Err(_) => {}
        }
    }
}

/// The report socket. Its owner is the installer of this node: see [`reports`].
struct Reports<'s> {
    path: &'s Path,
    metrics: &'s Arc<Metrics>,
    receiver: Option<Receiver>,
    is_replaced: bool,
}

impl<'s> Reports<'s> {
    fn open(path: &'s Path, metrics: &'s Arc<Metrics>) -> Self {
        let receiver = Receiver::bind(path, metrics).inspect_err(
            |error| tracing::warn!(%error, "cannot listen on --socket; continuing without reports of plugin runs"),
        );
        Self {
            path,
            metrics,
            receiver: receiver.ok(),
            is_replaced: false,
        }
    }

    fn is_owner(&mut self) -> bool {
        match self.receiver.as_ref().map(Receiver::owner) {
            Some(Owner::AnotherInstaller) if !self.is_replaced => {
                self.metrics
                    .set_missing(Some("a newer installer has taken over this node".to_owned()));
                tracing::warn!("a newer installer has taken over this node; standing by");
                self.is_replaced = true;
            }
            Some(Owner::None) if !self.is_replaced => *self = Self::open(self.path, self.metrics),
            _ => {}
        }
        !self.is_replaced
    }
}

/// Keeps the binary and the configuration of a node as wanted.
struct Reconciler<'n> {
    node: &'n Node,
    metrics: &'n Metrics,
    pace: Pace,
    /// How many scans and repairs failed in a row; `None` until the first one succeeds.
    failures: Option<u32>,
    /// The target or the reason to wait that was logged last; `None` after a change.
    logged: Option<Result<String, Waiting>>,
    /// The configuration that had our entry at the last scan.
    target: Option<String>,
    /// When that configuration disappeared.
    gone: Option<Instant>,
    /// The plugin folders at the last scan.
    folders: Vec<PathBuf>,
    /// The files at the last scan, which were logged.
    logged_files: Vec<Judged>,
}

impl<'n> Reconciler<'n> {
    fn new(node: &'n Node, metrics: &'n Metrics) -> Self {
        Self {
            node,
            metrics,
            pace: Pace::default(),
            failures: None,
            logged: None,
            target: None,
            gone: None,
            folders: Vec::new(),
            logged_files: Vec::new(),
        }
    }

    /// Scans the node and repairs what is due. Returns how long to wait.
    ///
    /// # Errors
    /// A failure before the first success. Later failures are retried.
    fn run_once(&mut self, now: Instant) -> Result<Pause, FileError> {
        let result = self.scan_and_repair(now);
        self.publish_contention(now);
        match result {
            Ok(longest) => {
                self.failures = Some(0);
                let shortest = DEBOUNCE.min(longest);
                Ok(Pause { shortest, longest })
            }
            Err(FileError::Changed(path)) => {
                tracing::debug!(path = %path.display(), "another program changed the file meanwhile; retrying");
                Ok(Pause::of(DEBOUNCE))
            }
            Err(error) => {
                self.metrics.add(FAILURES, &[], 1.0);
                self.metrics.set_missing(Some(error.to_string()));
                self.logged = None;
                let Some(failures) = &mut self.failures else {
                    return Err(error);
                };
                let wait = backoff(*failures);
                *failures += 1;
                tracing::error!(%error, seconds = wait.as_secs(), "reconciliation failed; retrying");
                // No sooner, even if files change: the failing repair may itself change files.
                Ok(Pause::of(wait))
            }
        }
    }

    fn scan_and_repair(&mut self, now: Instant) -> Result<Duration, FileError> {
        let observation = self.node.observe()?;
        self.metrics.set_missing(observation.missing());
        if self.folders != observation.folders {
            // The new folders are not watched yet.
            self.folders.clone_from(&observation.folders);
            return Ok(Duration::ZERO);
        }
        let settles_in = self.settles_in(&observation, now);
        if !settles_in.is_zero() {
            return Ok(settles_in);
        }
        self.log_files(&observation);
        let reasons = observation.reasons();
        if reasons.is_empty() {
            if self.logged.as_ref() != Some(&observation.layout.target) {
                match &observation.layout.target {
                    Ok(target) => tracing::info!(target, "in place"),
                    Err(waiting) => tracing::info!(reason = waiting.to_string(), "waiting for a network configuration"),
                }
                self.logged = Some(observation.layout.target.clone());
            }
            self.pace.not_needed();
            self.target = observation.layout.target.ok();
            return Ok(RESYNC_INTERVAL);
        }
        let was_waiting = self.pace.is_waiting();
        let wait = self.pace.wait(now);
        if !wait.is_zero() {
            let slowed_down =
                |missing| format!("{missing}; repairs are slowed down: another process keeps reverting our changes");
            self.metrics.set_missing(observation.missing().map(slowed_down));
            self.publish_contention(now);
            if !was_waiting {
                self.warn_of_conflict(&observation, wait);
            }
            return Ok(wait);
        }
        self.node.install(&observation)?;
        self.pace.repaired(now);
        for reason in reasons {
            self.metrics.add(REPAIRS, &[("reason", reason.name())], 1.0);
        }
        log_repair(&observation);
        self.logged = None;
        // Scans again at once to verify the repair.
        Ok(Duration::ZERO)
    }

    /// Counts the files by verdict and logs new verdicts.
    fn log_files(&mut self, observation: &Observation) {
        for name in Verdict::NAMES {
            let files = observation.files.iter().filter(|file| file.verdict.name() == name);
            self.metrics
                .set(CONFIGURATIONS, &[("verdict", name)], files.count() as f64);
        }
        log_files(&observation.files, &self.logged_files);
        self.logged_files.clone_from(&observation.files);
    }

    /// How long to wait because the configuration that had our entry is missing or half written: its owner may be
    /// rewriting it.
    fn settles_in(&mut self, observation: &Observation, now: Instant) -> Duration {
        let is_gone =
            |target: &String| observation.layout.target.as_ref() != Ok(target) && !observation.is_valid(target);
        if !self.target.as_ref().is_some_and(is_gone) {
            self.gone = None;
            return Duration::ZERO;
        }
        let gone = *self.gone.get_or_insert(now);
        SETTLE_TIME.saturating_sub(now.saturating_duration_since(gone))
    }

    fn publish_contention(&self, now: Instant) {
        let contended = self.pace.is_contended(now);
        self.metrics.set(CONTENDED, &[], f64::from(contended));
    }

    fn warn_of_conflict(&self, observation: &Observation, wait: Duration) {
        tracing::warn!(
            reasons = observation.reason_names(),
            consecutive_repairs = self.pace.consecutive(),
            seconds = wait.as_secs(),
            "another process keeps reverting our changes; backing off. Pods that start meanwhile may bypass their proxy. \
             Find the other writer of this directory; for Cilium, set cni.exclusive=false"
        );
    }
}
