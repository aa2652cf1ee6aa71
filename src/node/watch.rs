//! Waiting for something to happen: in directories (inotify(7)), to the process (signalfd(2)), on a socket.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What woke us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// Something changed in a directory.
    pub changed: bool,
    /// We were told to stop.
    pub stop: bool,
}

/// Everything that is waited for.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
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
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            signals: SignalFd::with_flags(&stop, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            directories,
        })
    }

    /// Watches the directories that are there now. Must be called before each look: a directory may have been made
    /// anew. One that is watched already is not watched twice.
    ///
    /// # Errors
    /// The kernel does not do it.
    pub fn renew(&self) -> Result<(), Errno> {
        // What is written in place counts when it is closed; links are made without that. Modes matter for the binary.
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        for directory in &self.directories {
            match self.inotify.add_watch(directory, events) {
                // Whoever looks there next will tell.
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Waits until something happens, or `longest` is over.
    ///
    /// # Errors
    /// The kernel does not do it.
    pub fn wait(&self, socket: Option<&UnixDatagram>, longest: Duration) -> Result<Woken, Errno> {
        // Rounded up: a wait that ends early would only begin again.
        let milliseconds = longest.as_millis().saturating_add(1);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        let mut waiting = vec![
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        waiting.extend(socket.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(Woken {
            changed: self.drain()?,
            stop: self.signals.read_signal()?.is_some(),
        })
    }

    /// Reads all events. What they are does not matter: whoever is woken looks at everything.
    fn drain(&self) -> Result<bool, Errno> {
        let mut any = false;
        // Not for ever, should they come as fast as they are read: what is left wakes us again.
        for _ in 0..64 {
            match self.inotify.read_events() {
                Ok(_) => any = true,
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(any)
    }
}
