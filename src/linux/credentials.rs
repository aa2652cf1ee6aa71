//! The user and group that a thread acts as (credentials(7)).

// On these architectures the calls without a number take IDs of 16 bits (setresuid(2), "C library/kernel differences").
#[cfg(not(any(
    target_arch = "arm",
    target_arch = "m68k",
    target_arch = "sparc",
    target_arch = "x86"
)))]
use libc::{SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
#[cfg(any(
    target_arch = "arm",
    target_arch = "m68k",
    target_arch = "sparc",
    target_arch = "x86"
))]
use libc::{SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID};
use nix::errno::Errno;

use nix::unistd::{setfsgid, setfsuid};

use crate::types::{Gid, Id as _, Uid};

/// Sets the user and group of the calling thread for good; other threads of the process keep their own.
///
/// # Errors
/// This process may not change its credentials (EPERM), or its user namespace has no such IDs (EINVAL).
#[expect(unsafe_code, reason = "there is no safe wrapper for one thread alone")]
pub fn assume(uid: Uid, gid: Gid) -> Result<(), Errno> {
    let (uid, gid) = (uid.get(), gid.get());
    // The functions of libc change every thread of the process, so these are plain system calls. The group comes first:
    // changing it takes a capability that is lost with the user.
    // SAFETY: the call takes numbers only, and changes the credentials of the calling thread alone.
    Errno::result(unsafe { libc::syscall(SETRESGID, gid, gid, gid) })?;
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(SETRESUID, uid, uid, uid) })?;
    Ok(())
}

/// Sets the user and group of the calling thread for what it opens from now on, which includes the owner of its sockets
/// (setfsuid(2)). The thread keeps its capabilities, but those for files.
///
/// # Errors
/// This process may not change its credentials (EPERM).
pub fn assume_for_files(uid: Uid, gid: Gid) -> Result<(), Errno> {
    let (uid, gid) = (uid.get().into(), gid.get().into());
    setfsgid(gid);
    setfsuid(uid);
    // The calls report nothing but the previous ID.
    match setfsgid(gid) == gid && setfsuid(uid) == uid {
        true => Ok(()),
        false => Err(Errno::EPERM),
    }
}
