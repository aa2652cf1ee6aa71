//! One sidetrack at a time in a network namespace.
//!
//! What rules need, addresses and routes, is no part of their transaction: what one run takes away as stale, another may
//! be about to rely on. So runs that change anything take turns.
//!
//! The lock is an abstract name of a Unix socket (unix(7)). Such names belong to the network namespace, need neither a
//! file system nor a privilege, and are free again when their owner ends, however that happens.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use super::netlink::chance;

/// The name; `ss -xa` shows it as `@sidetrack`.
const NAME: &[u8] = b"sidetrack";

/// How long others may take. A turn takes milliseconds, with iptables some of them hundreds; but anybody in the pod can
/// take the name, and that must not keep rules from being repaired.
const PATIENCE: Duration = Duration::from_secs(10);

/// The turn of this process; dropping it ends it. Programs that are run meanwhile share it: one that outlives us is
/// waited for.
pub struct Lock {
    _socket: OwnedFd,
}

impl Lock {
    /// Waits for the turn in the network namespace of this thread. `None`: it cannot be had, and the work goes on
    /// without.
    pub fn wait() -> Option<Self> {
        Self::wait_at_most(PATIENCE)
    }

    fn wait_at_most(patience: Duration) -> Option<Self> {
        let begun = Instant::now();
        loop {
            match Self::take() {
                Ok(lock) => return Some(lock),
                Err(Errno::EADDRINUSE) if begun.elapsed() < patience => {
                    thread::sleep(Duration::from_micros((500 + chance(5000)).into()));
                }
                Err(Errno::EADDRINUSE) => {
                    tracing::warn!(
                        seconds = patience.as_secs(),
                        "waited for another sidetrack in this network namespace, and now go on beside it; \
                         `ss -xap` shows who has the Unix socket @sidetrack"
                    );
                    return None;
                }
                Err(errno) => {
                    tracing::debug!(%errno, "no lock can be had here; another sidetrack must not run meanwhile");
                    return None;
                }
            }
        }
    }

    fn take() -> Result<Self, Errno> {
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::empty(), None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new_abstract(NAME)?)?;
        Ok(Self { _socket: socket })
    }
}
