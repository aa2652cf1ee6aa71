//! Keeping the programs of iptables away from what the host shares with everybody.
//!
//! They look up each number of a user or group as a name first (libxt_owner), which may ask services that hang, and the
//! legacy variant waits for the one lock of the whole host, which somebody else may hold for long.

use std::fs::OpenOptions;
use std::io;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};

/// By these the C library asks others for names: nsswitch.conf(5), nscd(8). Without them it reads files.
const NAME_SERVICES: [&str; 2] = ["/etc/nsswitch.conf", "/run/nscd/socket"];

/// The lock of legacy iptables.
const LOCK: &str = "/run/xtables.lock";

/// Gives this thread, and the programs that it starts, a view of the file system in which there are no name services,
/// and the lock is that of the network namespace that the thread is in.
///
/// # Errors
/// The view could not be made.
pub fn isolate_this_thread() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted here is nobody else's business.
    mount("none", "/", MsFlags::MS_REC | MsFlags::MS_SLAVE)?;
    for service in NAME_SERVICES {
        match mount("/dev/null", service, MsFlags::MS_BIND) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // Only what exists can be covered. The program would make it too.
    OpenOptions::new().append(true).create(true).open(LOCK)?;
    Ok(mount("/proc/thread-self/ns/net", LOCK, MsFlags::MS_BIND)?)
}

fn mount(source: &str, target: &str, flags: MsFlags) -> Result<(), Errno> {
    let nothing: Option<&str> = None;
    nix::mount::mount(Some(source), target, nothing, flags, nothing)
}
