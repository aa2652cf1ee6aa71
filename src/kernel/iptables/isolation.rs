//! Keeping the programs of iptables away from what the host shares with everybody.
//!
//! They look up each number of a user or group as a name first (libxt_owner), which may ask services that hang, and the
//! legacy variant waits for the one lock of the whole host, which somebody else may hold for long.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::ptr;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

/// By these the C library asks others for names: nsswitch.conf(5), nscd(8). Without them it reads files.
const NAME_SERVICES: [&CStr; 2] = [c"/etc/nsswitch.conf", c"/run/nscd/socket"];

/// The lock of legacy iptables.
const LOCK: &CStr = c"/run/xtables.lock";
const LOCK_PATH: &str = "/run/xtables.lock";

/// Gives this thread, and the programs that it starts, a view of the file system in which there are no name services,
/// and the lock is that of the network namespace that the thread is in.
///
/// # Errors
/// The view could not be made.
pub fn isolate_this_thread() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted here is nobody else's business.
    mount(c"none", c"/", libc::MS_REC | libc::MS_SLAVE)?;
    for service in NAME_SERVICES {
        match mount(c"/dev/null", service, libc::MS_BIND) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // Only what exists can be covered. The program would make it too.
    OpenOptions::new().append(true).create(true).open(LOCK_PATH)?;
    Ok(mount(c"/proc/thread-self/ns/net", LOCK, libc::MS_BIND)?)
}

#[expect(unsafe_code, reason = "the safe binding is in a part of nix that is not built")]
fn mount(source: &CStr, target: &CStr, flags: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: both are strings that end with 0 and outlive the call; neither a type nor data is read with these flags.
    let result = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), ptr::null(), flags, ptr::null()) };
    Errno::result(result).map(drop)
}
