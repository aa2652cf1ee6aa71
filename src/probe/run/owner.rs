//! Sockets with another owner. For the rules of the kernel, the user and group that call socket(2) own it.

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use crate::linux::credentials;
use crate::linux::netns::on_thread;
use crate::probe::Owner;
use crate::types::{Gid, Id as _, Uid};

/// The user and group of this thread; `None` if one of them is not valid.
pub fn current() -> Option<Owner> {
    Some(Owner {
        uid: Uid::new(geteuid().as_raw())?,
        gid: Gid::new(getegid().as_raw())?,
        mark: None,
    })
}

/// Runs `work` as `owner`. Unless this thread is that user and group already, it runs on a thread of its own: no other
/// thread of this process changes its user. The mark is an option of a socket, not of a process.
///
/// # Errors
/// Changing users is not permitted (EPERM), the user namespace has no such IDs (EINVAL), or no thread can be started
/// (EAGAIN).
pub fn run_as<T: Send>(owner: Owner, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    run_with(owner, credentials::assume, work)
}

/// The same, with the capabilities of this process: for sockets that take one.
///
/// # Errors
/// As for [`run_as`].
pub fn run_capable_as<T: Send>(owner: Owner, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    run_with(owner, credentials::assume_for_files, work)
}

fn run_with<T: Send>(
    owner: Owner,
    assume: fn(Uid, Gid) -> Result<(), Errno>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Errno> {
    if current() == Some(Owner { mark: None, ..owner }) {
        return Ok(work());
    }
    let done = on_thread(|| {
        assume(owner.uid, owner.gid)?;
        Ok(work())
    });
    done.unwrap_or(Err(Errno::EAGAIN)) // pthread_create(3) fails with nothing else here.
}
