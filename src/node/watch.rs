//! Waiting for something to happen: in directories (inotify(7)), or to the process (signalfd(2)).

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// How long to wait: until something changes, but for no shorter and no longer than this.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// Changes within this time lead to one look together.
    pub shortest: Duration,
    /// Then we look whether something changed or not.
    pub longest: Duration,
}

impl Pause {
    /// Waits as long as this, whatever changes.
    pub fn of(wait: Duration) -> Self {
        Self {
            shortest: wait,
            longest: wait,
        }
    }
}

/// How often directories are looked at where changes of them are not told.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Everything that is waited for.
#[derive(Debug)]
pub struct Watch {
    /// `None` where the node has none left for us: then directories are looked at every [`POLL_INTERVAL`].
    inotify: Option<Inotify>,
    signals: SignalFd,
    directories: Vec<PathBuf>,
}

impl Watch {
    /// Begins to watch these directories, and to take SIGTERM and SIGINT as requests to stop: on this thread and on
    /// those that it starts later.
    ///
    /// # Errors
    /// The kernel does not do it.
    pub fn new(directories: Vec<PathBuf>) -> Result<Self, Errno> {
        let stop: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        stop.thread_block()?;
        Ok(Self {
            inotify: None,
            signals: SignalFd::with_flags(&stop, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            directories,
        })
    }

    /// Watches the directories that are there now, and these. Must be called before each look: a directory may have been
    /// made anew. One that is watched already is not watched twice. Where that fails, the next call tries again.
    ///
    /// # Errors
    /// The node has no inotify instance or no watch left (inotify(7), `/proc/sys/fs/inotify`). Changes are not told then;
    /// [`wait`](Self::wait) ends soon instead.
    pub fn renew(&mut self, more: &[PathBuf]) -> Result<(), Errno> {
        let inotify = match self.inotify.take() {
            Some(inotify) => inotify,
            None => Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
        };
        // What is written in place counts when it is closed; a link is made without that. Modes matter for the binary.
        // That a directory was deleted is told without being asked for (IN_IGNORED).
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        for directory in self.directories.iter().chain(more) {
            match inotify.add_watch(directory, events) {
                // Whoever looks there next will tell.
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.inotify = Some(inotify);
        Ok(())
    }

    /// Waits. Returns whether we are told to stop.
    ///
    /// # Errors
    /// The kernel does not do it.
    pub fn wait(&self, pause: Pause) -> Result<bool, Errno> {
        let (start, mut changed) = (Instant::now(), false);
        let longest = match self.inotify {
            Some(_) => pause.longest,
            None => pause.longest.min(POLL_INTERVAL.max(pause.shortest)),
        };
        loop {
            let end = if changed { pause.shortest } else { longest };
            let left = end.saturating_sub(start.elapsed());
            // Rounded up: a wait that ends early would only begin again.
            let milliseconds = left.as_micros().div_ceil(1000);
            let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
            let mut waiting = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let inotify = self.inotify.as_ref();
            waiting.extend(inotify.map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)));
            match poll(&mut waiting, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
            changed |= self.drain()?;
            if self.signals.read_signal()?.is_some() {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Reads all events. What they are does not matter: whoever is woken looks at everything.
    fn drain(&self) -> Result<bool, Errno> {
        let mut any = false;
        // Not for ever, should they come as fast as they are read: what is left wakes us again.
        for _ in 0..64 {
            let Some(inotify) = &self.inotify else {
                break;
            };
            match inotify.read_events() {
                Ok(_) => any = true,
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(any)
    }
}
