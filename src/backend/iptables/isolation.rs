//! Isolates the iptables programs from name services and from the lock that the whole host shares.
//!
//! The programs look up each UID or GID as a name first (libxt_owner), which may query services that hang, and the
//! legacy variant waits for one lock of the whole host, which another process may hold for long.

use std::fs::OpenOptions;
use std::io;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};

/// The files that make the C library query name services: nsswitch.conf(5), nscd(8). Without them it reads files.
const NAME_SERVICES: [&str; 2] = ["/etc/nsswitch.conf", "/run/nscd/socket"];

/// The lock of legacy iptables.
const LOCK: &str = "/run/xtables.lock";

/// Gives this thread and the programs it starts a mount namespace without name services, in which the lock of iptables
/// is that of the thread's network namespace.
///
/// # Errors
/// The mount namespace could not be set up.
pub fn isolate_this_thread() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Mounts made here must not propagate to the host.
    mount("none", "/", MsFlags::MS_REC | MsFlags::MS_SLAVE)?;
    for service in NAME_SERVICES {
        match mount("/dev/null", service, MsFlags::MS_BIND) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // A mount needs an existing target. The program would create the file too.
    OpenOptions::new().append(true).create(true).open(LOCK)?;
    Ok(mount("/proc/thread-self/ns/net", LOCK, MsFlags::MS_BIND)?)
}

fn mount(source: &str, target: &str, flags: MsFlags) -> Result<(), Errno> {
    let nothing: Option<&str> = None;
    nix::mount::mount(Some(source), target, nothing, flags, nothing)
}
