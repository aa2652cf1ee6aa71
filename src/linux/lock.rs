//! A lock that lets one sidetrack process at a time change a network namespace.
//!
//! The prerequisites of rules, addresses and routes, are not part of their transaction: what one run removes as stale,
//! another may be about to rely on. So runs that change anything take the lock.
//!
//! The lock is an abstract name of a Unix socket (unix(7)). Such names belong to the network namespace, need neither a
//! file system nor a privilege, and are released when their owner ends, even if it is killed.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use super::netlink::chance;

/// The name; `ss -xa` shows it as `@sidetrack`.
const NAME: &[u8] = b"sidetrack";

/// How long to wait for the lock. It is held for milliseconds, with iptables for hundreds of them; but any process in
/// the pod can bind the name, and that must not prevent a repair.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The held lock; dropping it releases it. Child processes inherit the socket: the lock is held until a child that
/// outlives this process ends.
pub struct Lock {
    _socket: OwnedFd,
}

impl Lock {
    /// Waits for the lock in the network namespace of this thread. `None`: it cannot be taken, and the work continues
    /// without.
    pub fn wait() -> Option<Self> {
        Self::wait_at_most(LOCK_TIMEOUT)
    }

    fn wait_at_most(timeout: Duration) -> Option<Self> {
        let begun = Instant::now();
        loop {
            match Self::take() {
                Ok(lock) => return Some(lock),
                Err(Errno::EADDRINUSE) if begun.elapsed() < timeout => {
                    thread::sleep(Duration::from_micros((500 + chance(5000)).into()));
                }
                Err(Errno::EADDRINUSE) => {
                    tracing::warn!(
                        seconds = timeout.as_secs(),
                        "timed out waiting for another sidetrack in this network namespace; continuing without the \
                         lock. `ss -xap` shows which process holds the Unix socket @sidetrack"
                    );
                    return None;
                }
                Err(errno) => {
                    tracing::debug!(%errno, "cannot take a lock; no other sidetrack may run meanwhile");
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
