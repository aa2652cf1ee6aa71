//! Sockets that belong to another user and group, as the kernel's rules see them: to whoever makes the call socket(2).

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use crate::linux::credentials;
use crate::linux::netns::on_thread;
use crate::probe::Owner;
use crate::types::{Gid, Id as _, Uid};

/// As whom this thread acts.
pub fn current() -> Option<Owner> {
    Some(Owner {
        uid: Uid::new(geteuid().as_raw())?,
        gid: Gid::new(getegid().as_raw())?,
    })
}

/// Makes something as `owner`: here, where this thread acts as that one already; else on a thread of its own, which
/// alone of this process ever acts so, and ends with it.
///
/// # Errors
/// This process may not act as others (EPERM), there are no such IDs in its user namespace (EINVAL), or there can
/// be no more threads (EAGAIN).
pub fn made_as<T: Send>(owner: Owner, make: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    if current() == Some(owner) {
        return Ok(make());
    }
    let made = on_thread(|| {
        credentials::assume(owner.uid, owner.gid)?;
        Ok(make())
    });
    made.unwrap_or(Err(Errno::EAGAIN)) // pthread_create(3) fails with nothing else here.
}
