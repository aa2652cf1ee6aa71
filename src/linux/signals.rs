//! Signals as file descriptors (signalfd(2)).

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A descriptor that is readable after SIGTERM or SIGINT. These no longer end the process: this thread, and threads that
/// it starts later, block them.
///
/// # Errors
/// A system call failed.
pub fn stop_requests() -> Result<SignalFd, Errno> {
    let stop: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    stop.thread_block()?;
    SignalFd::with_flags(&stop, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
