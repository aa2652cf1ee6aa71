//! Users and groups that own sockets.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

use super::socket;

/// The user and group that a socket belongs to, what the kernel calls skuid and skgid; and its mark, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub mark: u32,
}

impl Owner {
    pub const ROOT: Self = Self::new(0, 0);
    /// An application.
    pub const APP: Self = Self::new(1000, 1000);
    /// The proxy, as it runs unless options say otherwise.
    pub const PROXY: Self = Self::new(1337, 1337);
    /// The proxy, as Istio runs it for TPROXY.
    pub const PROXY_AS_ROOT: Self = Self::new(0, 1337);

    pub const fn new(uid: u32, gid: u32) -> Self {
        Self { uid, gid, mark: 0 }
    }

    /// The same, with a mark on the sockets with which it connects.
    pub const fn marked(self, mark: u32) -> Self {
        Self { mark, ..self }
    }

    /// Makes the calling thread act as this user and group, for good. Sockets belong to the user of the thread
    /// when they are made. With a mark, the thread keeps CAP_NET_ADMIN to set it on those that it makes.
    #[expect(unsafe_code, reason = "there is no safe wrapper for one thread alone")]
    pub fn assume(self) -> io::Result<()> {
        prctl::set_keepcaps(self.mark != 0)?;
        // The functions of libc change every thread of the process, so these are plain system calls.
        // SAFETY: they take no pointers, but for the empty list of groups, which is not read.
        let results = unsafe {
            [
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()),
                libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid),
                libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid),
            ]
        };
        if results != [0; 3] {
            return Err(io::Error::last_os_error());
        }
        if self.mark != 0 {
            let only = CapsHashSet::from([Capability::CAP_NET_ADMIN]);
            caps::set(None, CapSet::Effective, &only).map_err(io::Error::other)?;
        }
        socket::mark_those_of_this_thread(self.mark);
        Ok(())
    }

    /// Makes the calling thread act as this user and group, with this capability and no other, now and in programs
    /// that it executes, as a container runtime does for a container with nothing else.
    pub fn assume_with(self, capability: Capability) -> io::Result<()> {
        let only = CapsHashSet::from([capability]);
        for other in caps::all() {
            if other != capability && caps::has_cap(None, CapSet::Bounding, other).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, other).map_err(io::Error::other)?;
            }
        }
        prctl::set_keepcaps(true)?;
        self.assume()?;
        // What is effective must be permitted throughout.
        for set in [
            CapSet::Effective,
            CapSet::Permitted,
            CapSet::Inheritable,
            CapSet::Ambient,
        ] {
            caps::set(None, set, &only).map_err(io::Error::other)?;
        }
        Ok(())
    }
}
