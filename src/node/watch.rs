//! Waiting for changes in directories (inotify(7)) and for signals (signalfd(2)).

use std::io::PipeReader;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signalfd::SignalFd;

use crate::linux::signals;

/// The bounds of a wait for changes.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// The shortest wait: changes within this time are reported once.
    pub shortest: Duration,
    /// The longest wait, without any change.
    pub longest: Duration,
}

impl Pause {
    /// A wait of a fixed time, which no change ends.
    pub fn of(wait: Duration) -> Self {
        Self {
            shortest: wait,
            longest: wait,
        }
    }
}

/// How often to scan directories where inotify is not available.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The source of the request to stop.
#[derive(Debug)]
enum Stop {
    /// SIGTERM or SIGINT.
    Signals(SignalFd),
    /// The other end of a pipe was closed, by the thread that receives signals.
    Closed(PipeReader),
}

impl Stop {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Signals(signals) => signals.as_fd(),
            Self::Closed(pipe) => pipe.as_fd(),
        }
    }

    /// Whether a stop was requested; to be called when the descriptor is readable.
    fn is_now(&self) -> Result<bool, Errno> {
        match self {
            Self::Signals(signals) => Ok(signals.read_signal()?.is_some()),
            Self::Closed(_) => Ok(true),
        }
    }
}

/// The directories and the stop request that are waited for.
#[derive(Debug)]
pub struct Watch {
    /// `None` where the node has no instance left: then [`wait`](Self::wait) ends every [`POLL_INTERVAL`].
    inotify: Option<Inotify>,
    stop: Stop,
    directories: Vec<PathBuf>,
}

impl Watch {
    /// Watches these directories, and handles SIGTERM and SIGINT as requests to stop: on this thread and on threads
    /// that it starts later.
    ///
    /// # Errors
    /// A system call failed.
    pub fn new(directories: Vec<PathBuf>) -> Result<Self, Errno> {
        Ok(Self {
            inotify: None,
            stop: Stop::Signals(signals::stop_requests()?),
            directories,
        })
    }

    /// Watches a directory on a thread that does not receive signals. Closing the other end of `stop` requests the
    /// stop.
    pub fn of_directory(directory: PathBuf, stop: PipeReader) -> Self {
        Self {
            inotify: None,
            stop: Stop::Closed(stop),
            directories: vec![directory],
        }
    }

    /// Adds watches for the existing directories and `more`. To be called before each scan: a directory may have been
    /// recreated. A directory that is watched already is not watched twice. After a failure, the next call tries again.
    ///
    /// # Errors
    /// The node has no inotify instance or no watch left (inotify(7), `/proc/sys/fs/inotify`). Then
    /// [`wait`](Self::wait) polls.
    pub fn renew(&mut self, more: &[PathBuf]) -> Result<(), Errno> {
        let inotify = match self.inotify.take() {
            Some(inotify) => inotify,
            None => Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
        };
        // A write in place counts when the file is closed; IN_CREATE reports links. IN_ATTRIB reports the binary's
        // mode. The kernel always reports the deletion of a directory (IN_IGNORED).
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        for directory in self.directories.iter().chain(more) {
            match inotify.add_watch(directory, events) {
                // The scan that follows reports this error.
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.inotify = Some(inotify);
        Ok(())
    }

    /// Waits. Returns whether a stop was requested.
    ///
    /// # Errors
    /// A system call failed.
    pub fn wait(&self, pause: Pause) -> Result<bool, Errno> {
        let (start, mut changed) = (Instant::now(), false);
        let longest = match self.inotify {
            Some(_) => pause.longest,
            None => pause.longest.min(POLL_INTERVAL.max(pause.shortest)),
        };
        loop {
            let end = if changed { pause.shortest } else { longest };
            let left = end.saturating_sub(start.elapsed());
            // Rounded up: a wait that ends early would only start again.
            let milliseconds = left.as_micros().div_ceil(1000);
            let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
            let inotify = self.inotify.as_ref().map(Inotify::as_fd);
            let waiting = [self.stop.fd()].into_iter().chain(inotify);
            let mut waiting: Vec<PollFd> = waiting.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut waiting, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
            changed |= self.drain()?;
            let is_ready = waiting.first().and_then(PollFd::any).unwrap_or(true);
            if is_ready && self.stop.is_now()? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Whether a stop was requested, without waiting.
    pub fn is_stopped(&self) -> bool {
        let mut stop = [PollFd::new(self.stop.fd(), PollFlags::POLLIN)];
        poll(&mut stop, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Reads and drops all events: each wake-up leads to a complete scan. Returns whether there were any.
    fn drain(&self) -> Result<bool, Errno> {
        let mut any = false;
        // Limited, because events may come as fast as they are read: the rest wakes the next `poll`.
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
