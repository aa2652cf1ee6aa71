//! The installer at work: once, or for as long as the node is to have the plugin.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::layout::{Judged, Verdict, Waiting};
use super::metrics::{CONFIGURATIONS, CONTENDED, DEGRADED, FAILURES, Metrics, REPAIRS};
use super::pace::{Pace, growing};
use super::repair::cache;
use super::repair::locate::Places;
use super::repair::state::Mode;
use super::repair::worker::{Repair, Worker};
use super::reports::{self, Place, Receiver};
use super::startup_taint::StartupTaint;
#[cfg(feature = "kubernetes")]
use super::startup_taint::worker as untaint;
use super::watch::{Pause, Watch};
use super::{Directories, Look, Node, NodeError, health, undisturbed};
use crate::linux::files::FileError;

/// How long nothing has to happen until we look all the same.
const RESYNC: Duration = Duration::from_secs(60);
/// Changes within this time after a look lead to one look together.
const TOGETHER: Duration = Duration::from_millis(50);
/// How long a configuration may be gone, or half written, until the next one is taken instead.
const SETTLE: Duration = Duration::from_millis(200);

/// The installer that stays.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it cares for.
    pub node: Node,
    /// Where the plugin reports its runs.
    pub socket: PathBuf,
    /// Where probes and Prometheus ask.
    pub health: SocketAddr,
    /// Whether everything is taken away when it is told to stop.
    pub uninstall_on_exit: bool,
    /// What is done about pods that lack their rules.
    pub repair: Repair,
    /// Where such pods are found.
    pub places: Places,
    /// The taint that is removed from the node.
    pub startup_taint: Option<StartupTaint>,
}

/// Installs, and is done.
///
/// # Errors
/// Something cannot be put in place, or there is no configuration to join.
pub fn once(node: &Node) -> Result<(), NodeError> {
    node.directories.remove_unfinished()?;
    let look = undisturbed(&node.directories.conf, || {
        let look = node.look()?;
        if look.reasons().is_empty() {
            return Ok(Some(look));
        }
        node.install(&look)?;
        tell(&look);
        Ok(None)
    })?;
    tell_files(&look.files, &[]);
    let missing = look.missing();
    let target = look.layout.target.map_err(NodeError::Waiting)?;
    tracing::info!(target, "in place");
    missing.map_or(Ok(()), |missing| Err(NodeError::Unreadable(missing)))
}

/// Takes everything away, unless an installer runs that would put it back. The binary stays while the runtime's cache
/// has pods that were attached with it, where a cache is given.
///
/// # Errors
/// Such an installer runs, or something cannot be taken away.
pub fn uninstall(directories: &Directories, socket: &Path, cache: Option<&Path>) -> Result<(), NodeError> {
    if reports::is_answered(socket) {
        return Err(NodeError::Running(socket.to_owned()));
    }
    reports::remove(socket)?;
    directories.uninstall(|| cache.map_or(Ok(0), cache::attached_with_plugin))
}

/// Logs the files that a runtime does not take, and those that are not known to be taken.
fn tell_files(files: &[Judged], told: &[Judged]) {
    for judged in files.iter().filter(|judged| !told.contains(judged)) {
        let (file, reason) = (&judged.name, judged.verdict.reason());
        match judged.verdict {
            Verdict::Blocking(_) => tracing::warn!(file, reason, "a configuration that no runtime takes"),
            Verdict::Broken(_) => tracing::info!(file, reason, "a configuration that no runtime takes"),
            Verdict::Unreadable(_) => {
                tracing::error!(file, reason, "a configuration that the runtime may take cannot be read");
            }
            Verdict::Joined | Verdict::Unused | Verdict::Unread(_) => {}
        }
    }
}

fn tell(look: &Look) {
    let target = look.layout.target.as_ref().map_or("", String::as_str);
    tracing::info!(target, reasons = look.reason_names(), "put right");
}

impl Service {
    /// Installs, and keeps it so until it is told to stop.
    ///
    /// # Errors
    /// It cannot begin: what fails later is tried again.
    pub fn run(&self) -> Result<(), NodeError> {
        let Directories { bin, conf } = self.node.directories.clone();
        let mut watch = Watch::new(vec![bin, conf]).map_err(NodeError::Watch)?;
        let metrics = Arc::new(Metrics::default());
        let mut secondary = Secondary::new(&metrics);
        let mut desk = Desk::open(&self.socket, &metrics);
        self.node.directories.remove_unfinished()?;
        let mut keeper = Keeper::new(&self.node, &metrics);
        let ours = Arc::new(AtomicBool::new(false));
        let repair = match self.repair.mode {
            Mode::Off => None,
            _ => Some(Worker::start(&self.node, &self.places, self.repair, &metrics, &ours)?),
        };
        #[cfg(feature = "kubernetes")]
        let taint = self
            .startup_taint
            .as_ref()
            .map(|taint| untaint::start(taint, &metrics, &ours))
            .transpose()?;
        loop {
            metrics.turned();
            tracing::trace!("looking");
            secondary.watch(&mut watch, &keeper.folders);
            let is_ours = desk.is_ours();
            ours.store(is_ours, Ordering::Release);
            let pause = if is_ours {
                keeper.turn(Instant::now())?
            } else {
                metrics.set_missing(Some("an installer that was started later has taken over".to_owned()));
                Pause::of(RESYNC)
            };
            // After the first turn: what probes and scrapes need is no reason not to install.
            secondary.serve(self.health);
            if watch.wait(pause).map_err(NodeError::Watch)? {
                break;
            }
        }
        // Nothing is repaired any more once this is gone.
        drop(repair);
        #[cfg(feature = "kubernetes")]
        drop(taint);
        if self.uninstall_on_exit && desk.is_ours() {
            let cache = &self.places.cache;
            return self.node.directories.uninstall(|| cache::attached_with_plugin(cache));
        }
        tracing::info!("stopping; the plugin stays installed");
        Ok(())
    }
}

/// What the installer goes on without, where the node does not have it: tried again at each turn, told when it changes.
struct Secondary<'s> {
    metrics: &'s Arc<Metrics>,
    is_polling: bool,
    is_served: bool,
    is_refused: bool,
}

impl<'s> Secondary<'s> {
    fn new(metrics: &'s Arc<Metrics>) -> Self {
        Self {
            metrics,
            is_polling: false,
            is_served: false,
            is_refused: false,
        }
    }

    fn watch(&mut self, watch: &mut Watch, folders: &[PathBuf]) {
        let renewed = watch.renew(folders);
        match &renewed {
            Err(error) if !self.is_polling => tracing::warn!(
                %error,
                "changes of directories are not told, so they are looked at every second: the node has no inotify \
                 instance or watch left. Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches"
            ),
            Ok(()) if self.is_polling => tracing::info!("changes of directories are told again"),
            _ => {}
        }
        self.is_polling = renewed.is_err();
        let polling = f64::from(u8::from(self.is_polling));
        self.metrics.set(DEGRADED, &[("part", "inotify")], polling);
    }

    fn serve(&mut self, address: SocketAddr) {
        if self.is_served {
            return;
        }
        match health::serve(address, self.metrics) {
            Ok(health) => {
                tracing::info!(%health, "answering /readyz, /healthz and /metrics");
                self.is_served = true;
            }
            Err(error) if !self.is_refused => {
                tracing::error!(%error, "going on without answers for probes and scrapes; trying again");
                self.is_refused = true;
            }
            Err(_) => {}
        }
        let refused = f64::from(u8::from(!self.is_served));
        self.metrics.set(DEGRADED, &[("part", "health")], refused);
    }
}

/// The place where reports arrive, and whether we have to do with this node: see [`reports`].
struct Desk<'s> {
    path: &'s Path,
    metrics: &'s Arc<Metrics>,
    receiver: Option<Receiver>,
    taken_over: bool,
}

impl<'s> Desk<'s> {
    fn open(path: &'s Path, metrics: &'s Arc<Metrics>) -> Self {
        let receiver = Receiver::bind(path, metrics)
            .inspect_err(|error| tracing::warn!(%error, "going on without reports of the plugin's runs (--socket)"));
        Self {
            path,
            metrics,
            receiver: receiver.ok(),
            taken_over: false,
        }
    }

    fn is_ours(&mut self) -> bool {
        match self.receiver.as_ref().map(Receiver::place) {
            Some(Place::Another) if !self.taken_over => {
                tracing::warn!("an installer that was started later has taken over; leaving everything to it");
                self.taken_over = true;
            }
            Some(Place::Nobody) if !self.taken_over => *self = Self::open(self.path, self.metrics),
            _ => {}
        }
        !self.taken_over
    }
}

/// Keeps a node as wanted.
struct Keeper<'n> {
    node: &'n Node,
    metrics: &'n Metrics,
    pace: Pace,
    /// How many looks and repairs failed in a row; `None` until the first one succeeds.
    failures: Option<u32>,
    /// What was logged of a node in order, unless it was changed since.
    told: Option<Result<String, Waiting>>,
    /// The configuration that had our entry at the last look.
    target: Option<String>,
    /// Since when it has been gone.
    gone: Option<Instant>,
    /// The folders of plugins at the last look.
    folders: Vec<PathBuf>,
    /// What was logged of files, unless it was changed since.
    told_files: Vec<Judged>,
}

impl<'n> Keeper<'n> {
    fn new(node: &'n Node, metrics: &'n Metrics) -> Self {
        Self {
            node,
            metrics,
            pace: Pace::default(),
            failures: None,
            told: None,
            target: None,
            gone: None,
            folders: Vec::new(),
            told_files: Vec::new(),
        }
    }

    /// Looks, and does what is due. Returns for how long nothing else is.
    ///
    /// # Errors
    /// Nothing has succeeded yet, so that somebody should know. What fails later is tried again.
    fn turn(&mut self, now: Instant) -> Result<Pause, FileError> {
        let result = self.look_and_act(now);
        let contended = self.pace.is_contended(now);
        self.metrics.set(CONTENDED, &[], f64::from(contended));
        match result {
            Ok(longest) => {
                self.failures = Some(0);
                let shortest = TOGETHER.min(longest);
                Ok(Pause { shortest, longest })
            }
            Err(FileError::Changed(path)) => {
                tracing::debug!(path = %path.display(), "changed in this moment");
                Ok(Pause::of(TOGETHER))
            }
            Err(error) => {
                self.metrics.add(FAILURES, &[], 1.0);
                self.metrics.set_missing(Some(error.to_string()));
                self.told = None;
                let Some(failures) = &mut self.failures else {
                    return Err(error);
                };
                let wait = growing(*failures);
                *failures += 1;
                tracing::error!(%error, seconds = wait.as_secs(), "trying again later");
                // Not sooner, whatever changes: what fails may itself change something.
                Ok(Pause::of(wait))
            }
        }
    }

    fn look_and_act(&mut self, now: Instant) -> Result<Duration, FileError> {
        let look = self.node.look()?;
        self.metrics.set_missing(look.missing());
        if self.folders != look.folders {
            // They are not watched yet.
            self.folders.clone_from(&look.folders);
            return Ok(Duration::ZERO);
        }
        let settles_in = self.settles_in(&look, now);
        if !settles_in.is_zero() {
            return Ok(settles_in);
        }
        self.tell_files(&look);
        let reasons = look.reasons();
        if reasons.is_empty() {
            if self.told.as_ref() != Some(&look.layout.target) {
                match &look.layout.target {
                    Ok(target) => tracing::info!(target, "in place"),
                    Err(waiting) => tracing::info!("waiting: {waiting}"),
                }
                self.told = Some(look.layout.target.clone());
            }
            self.pace.nothing_to_do();
            self.target = look.layout.target.ok();
            return Ok(RESYNC);
        }
        let was_waiting = self.pace.is_waiting();
        let wait = self.pace.wait(now);
        if !wait.is_zero() {
            if !was_waiting {
                self.warn_of_a_fight(&look, wait);
            }
            let slowly = |missing| format!("{missing}; repairs are slowed down, since somebody keeps undoing them");
            self.metrics.set_missing(look.missing().map(slowly));
            return Ok(wait);
        }
        self.node.install(&look)?;
        self.pace.repaired(now);
        for reason in reasons {
            self.metrics.add(REPAIRS, &[("reason", reason.name())], 1.0);
        }
        tell(&look);
        self.told = None;
        // To see that it is so.
        Ok(Duration::ZERO)
    }

    /// Counts the files by verdict, and logs what was not logged yet.
    fn tell_files(&mut self, look: &Look) {
        for name in Verdict::NAMES {
            let files = look.files.iter().filter(|file| file.verdict.name() == name);
            self.metrics
                .set(CONFIGURATIONS, &[("verdict", name)], files.count() as f64);
        }
        tell_files(&look.files, &self.told_files);
        self.told_files.clone_from(&look.files);
    }

    /// How long to wait, since the configuration that had our entry is gone or half written: its owner may be about
    /// to put it back.
    fn settles_in(&mut self, look: &Look, now: Instant) -> Duration {
        let is_gone = |target: &String| look.layout.target.as_ref() != Ok(target) && !look.is_valid(target);
        if !self.target.as_ref().is_some_and(is_gone) {
            self.gone = None;
            return Duration::ZERO;
        }
        let gone = *self.gone.get_or_insert(now);
        SETTLE.saturating_sub(now.saturating_duration_since(gone))
    }

    fn warn_of_a_fight(&self, look: &Look, wait: Duration) {
        tracing::warn!(
            reasons = look.reason_names(),
            repairs_in_a_row = self.pace.in_a_row(),
            seconds = wait.as_secs(),
            "somebody keeps undoing what is repaired; the next repair waits. Pods that start meanwhile may bypass their \
             proxy. Find who else writes there: for Cilium, set cni.exclusive=false"
        );
    }
}
