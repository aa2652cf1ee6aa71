//! The installer at work: once, or for as long as the node is to have the plugin.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::FileError;
use super::layout::Reason;
use super::metrics::{Metrics, Outcome};
use super::pace::{Pace, Retry};
use super::report::{self, Place, Receiver};
use super::watch::Watch;
use super::{Look, Node, NodeError, health};

/// How long nothing has to happen until we look all the same.
const RESYNC: Duration = Duration::from_secs(30);
/// Events within this time after a look lead to one look together.
const TOGETHER: Duration = Duration::from_millis(50);
/// How long a configuration may be gone, or half written, until the next one is taken instead.
const SETTLE: Duration = Duration::from_millis(200);
/// How often to try, where somebody changes a configuration in the same moment.
const TRIES: usize = 20;

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
}

/// Installs, and is done.
///
/// # Errors
/// Something cannot be put in place, or there is no configuration to join.
pub fn once(node: &Node) -> Result<(), NodeError> {
    node.remove_unfinished()?;
    for _ in 0..TRIES {
        let look = node.look()?;
        let reasons = look.reasons();
        if reasons.is_empty() {
            let target = look.layout.target.map_err(NodeError::Waiting)?;
            tracing::info!(target, "in place");
            return Ok(());
        }
        match node.install(&look) {
            Ok(()) => tell(&look, &reasons, "installed"),
            Err(FileError::Changed(path)) => tracing::debug!(path = %path.display(), "changed in this moment"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(FileError::Changed(node.conf_dir.clone()).into())
}

/// Takes everything away, unless an installer runs that would put it back.
///
/// # Errors
/// Such an installer runs, or something cannot be taken away.
pub fn uninstall(node: &Node, socket: &Path) -> Result<(), NodeError> {
    if report::is_answered(socket) {
        return Err(NodeError::Running(socket.to_owned()));
    }
    node.uninstall()
}

fn tell(look: &Look, reasons: &[Reason], what: &str) {
    let target = look.layout.target.as_ref().map_or("", String::as_str);
    let reasons: Vec<&str> = reasons.iter().copied().map(Reason::name).collect();
    tracing::info!(target, reasons = reasons.join(","), "{what}");
}

impl Service {
    /// Installs, and keeps it so until it is told to stop.
    ///
    /// # Errors
    /// It cannot begin: what fails later is tried again.
    pub fn run(&self) -> Result<(), NodeError> {
        let directories = vec![self.node.bin_dir.clone(), self.node.conf_dir.clone()];
        let watch = Watch::new(directories).map_err(NodeError::Watch)?;
        let metrics = Arc::new(Metrics::default());
        let health = health::serve(self.health, &metrics)?;
        tracing::info!(%health, "answering /readyz, /healthz, /metrics and /status");
        let mut desk = Desk::open(&self.socket);
        self.node.remove_unfinished()?;
        let mut keeper = Keeper::new(&self.node, Arc::clone(&metrics));
        let mut retry = Retry::default();
        loop {
            metrics.turned();
            watch.renew().map_err(NodeError::Watch)?;
            let pause = if desk.is_ours() {
                match keeper.turn(Instant::now()) {
                    Ok(longest) => {
                        retry.succeeded();
                        Pause {
                            shortest: TOGETHER.min(longest),
                            longest,
                        }
                    }
                    Err(FileError::Changed(path)) => {
                        tracing::debug!(path = %path.display(), "changed in this moment");
                        Pause::fixed(TOGETHER)
                    }
                    Err(error) if !keeper.has_begun() => return Err(error.into()),
                    Err(error) => {
                        let wait = retry.failed();
                        tracing::error!(%error, seconds = wait.as_secs(), "trying again later");
                        Pause::fixed(wait)
                    }
                }
            } else {
                metrics.set_missing(Some("an installer that was started later has taken over".to_owned()));
                Pause::fixed(RESYNC)
            };
            if desk.wait(&watch, pause, &metrics)? {
                break;
            }
        }
        if self.uninstall_on_exit && desk.is_ours() {
            return self.node.uninstall();
        }
        tracing::info!("stopping; the plugin stays installed");
        Ok(())
    }
}

/// How long to wait: until something changes, but for no shorter and no longer than this.
#[derive(Clone, Copy, Debug)]
struct Pause {
    shortest: Duration,
    longest: Duration,
}

impl Pause {
    fn fixed(wait: Duration) -> Self {
        Self {
            shortest: wait,
            longest: wait,
        }
    }
}

/// The place where reports arrive. Who has it is the installer of this node: the one that was started last, so that
/// two versions do not fight while one takes the other's place.
struct Desk<'s> {
    path: &'s Path,
    receiver: Option<Receiver>,
    taken_over: bool,
}

impl<'s> Desk<'s> {
    fn open(path: &'s Path) -> Self {
        let receiver = Receiver::bind(path)
            .inspect_err(|error| tracing::warn!(%error, "going on without reports of the plugin's runs (--socket)"));
        Self {
            path,
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
            Some(Place::Nobody) if !self.taken_over => *self = Self::open(self.path),
            _ => {}
        }
        !self.taken_over
    }

    /// Waits, and counts the reports that arrive meanwhile. Returns whether to stop.
    fn wait(&self, watch: &Watch, pause: Pause, metrics: &Metrics) -> Result<bool, NodeError> {
        let (start, mut changed) = (Instant::now(), false);
        loop {
            let longest = if changed { pause.shortest } else { pause.longest };
            let left = longest.saturating_sub(start.elapsed());
            let socket = self.receiver.as_ref().map(Receiver::socket);
            let woken = watch.wait(socket, left).map_err(NodeError::Watch)?;
            for run in self.receiver.iter().flat_map(Receiver::receive) {
                metrics.count_run(&run);
            }
            changed |= woken.changed;
            let longest = if changed { pause.shortest } else { pause.longest };
            if woken.stop || start.elapsed() >= longest {
                return Ok(woken.stop);
            }
        }
    }
}

/// Keeps a node as wanted.
struct Keeper<'n> {
    node: &'n Node,
    metrics: Arc<Metrics>,
    pace: Pace,
    begun: bool,
    /// Whether everything was in place once. What has to be done after that is a repair.
    installed: bool,
    /// The configuration that had our entry at the last look.
    target: Option<String>,
    /// Since when it has been gone.
    gone: Option<Instant>,
}

impl<'n> Keeper<'n> {
    fn new(node: &'n Node, metrics: Arc<Metrics>) -> Self {
        Self {
            node,
            metrics,
            pace: Pace::default(),
            begun: false,
            installed: false,
            target: None,
            gone: None,
        }
    }

    /// Whether a look, and what it led to, succeeded once.
    fn has_begun(&self) -> bool {
        self.begun
    }

    /// Looks, and does what is due. Returns how long nothing else is due.
    fn turn(&mut self, now: Instant) -> Result<Duration, FileError> {
        let result = self.look_and_act(now);
        match &result {
            Ok(_) => self.begun = true,
            Err(FileError::Changed(_)) => {}
            Err(error) => {
                self.metrics.count(Outcome::Failed);
                self.metrics.set_missing(Some(error.to_string()));
            }
        }
        self.metrics
            .set_contended(self.pace.is_contended(now), self.pace.in_a_row());
        result
    }

    fn look_and_act(&mut self, now: Instant) -> Result<Duration, FileError> {
        let look = self.node.look()?;
        let reasons = look.reasons();
        let news = self.metrics.set_missing(look.missing());
        let settles_in = self.settles_in(&look, now);
        if !settles_in.is_zero() {
            return Ok(settles_in);
        }
        if reasons.is_empty() {
            if !self.begun {
                self.metrics.count(Outcome::Unchanged);
            }
            match &look.layout.target {
                Ok(target) if news => tracing::info!(target, "in place"),
                Err(waiting) if news => tracing::info!("waiting: {waiting}"),
                Ok(_) | Err(_) => {}
            }
            self.pace.nothing_to_do();
            self.installed |= look.layout.target.is_ok();
            self.target = look.layout.target.ok();
            return Ok(RESYNC);
        }
        if self.installed {
            let was_waiting = self.pace.is_waiting();
            let wait = self.pace.wait(now);
            if !wait.is_zero() {
                if !was_waiting {
                    self.warn_of_a_fight(&reasons, wait);
                }
                return Ok(wait.min(RESYNC));
            }
        }
        self.node.install(&look)?;
        self.metrics.count(Outcome::Installed);
        if self.installed {
            self.pace.repaired(now);
            self.metrics.count_repairs(&reasons);
            tell(&look, &reasons, "repaired");
        } else {
            tell(&look, &reasons, "installed");
        }
        // To see that it is so.
        Ok(Duration::ZERO)
    }

    /// How long to wait, since the configuration that had our entry is gone or half written: its owner may be about
    /// to put it back.
    fn settles_in(&mut self, look: &Look, now: Instant) -> Duration {
        let is_gone = |target: &String| look.layout.target.as_ref() != Ok(target) && !look.valid.contains(target);
        if !self.target.as_ref().is_some_and(is_gone) {
            self.gone = None;
            return Duration::ZERO;
        }
        let gone = *self.gone.get_or_insert(now);
        SETTLE.saturating_sub(now.saturating_duration_since(gone))
    }

    fn warn_of_a_fight(&self, reasons: &[Reason], wait: Duration) {
        let reasons: Vec<&str> = reasons.iter().copied().map(Reason::name).collect();
        tracing::warn!(
            reasons = reasons.join(","),
            repairs_in_a_row = self.pace.in_a_row(),
            seconds = wait.as_secs(),
            "somebody keeps undoing what is repaired; the next repair waits. Pods that start meanwhile may bypass their \
             proxy. Find who else writes there: for Cilium, set cni.exclusive=false"
        );
    }
}
