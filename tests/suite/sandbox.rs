//! Processes with fewer rights than root: capabilities taken away, system calls that fail, a root directory that
//! holds nothing but the program.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use caps::{CapSet, Capability};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;

use crate::common::Owner;

/// Makes `command` run as `owner` with these capabilities effective, and these others in the bounding set alone.
#[expect(unsafe_code, reason = "rights are given up between fork and exec")]
pub fn with_capabilities(command: &mut Command, owner: Owner, effective: &[Capability], bounding: &[Capability]) {
    let effective: caps::CapsHashSet = effective.iter().copied().collect();
    let bounding: caps::CapsHashSet = effective.iter().chain(bounding).copied().collect();
    let give_up = move || {
        for capability in caps::all() {
            if !bounding.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, capability).map_err(io::Error::other)?;
            }
        }
        prctl::set_keepcaps(true)?;
        owner.assume()?;
        // What is effective must be permitted throughout.
        caps::set(None, CapSet::Effective, &effective).map_err(io::Error::other)?;
        caps::set(None, CapSet::Permitted, &effective).map_err(io::Error::other)?;
        caps::set(None, CapSet::Inheritable, &effective).map_err(io::Error::other)?;
        caps::set(None, CapSet::Ambient, &effective).map_err(io::Error::other)
    };
    // SAFETY: the parent of these tests forks while other threads run; the closure allocates, which glibc allows in
    // the child since its allocator takes care of forks.
    unsafe { command.pre_exec(give_up) };
}

/// A system call that fails.
#[derive(Clone, Copy, Debug)]
pub enum Denial {
    /// `socket()` for a netlink protocol.
    Socket { protocol: u32, errno: i32 },
    /// `sendto()`.
    Send { errno: i32 },
    /// `recvfrom()`.
    Receive { errno: i32 },
}

/// Makes a system call of `command`, and of what it runs, fail (seccomp(2)).
#[expect(unsafe_code, reason = "a filter is installed between fork and exec")]
pub fn deny(command: &mut Command, denial: Denial) {
    let filter = filter(denial);
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        prctl::set_no_new_privs()?;
        // SAFETY: the program and the filter that it points to live through the call, which copies them.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the closure makes system calls and nothing else.
    unsafe { command.pre_exec(install) };
}

/// The filter: if the number of the call, and for sockets their domain and protocol, are as told, an error.
fn filter(denial: Denial) -> Vec<libc::sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Where `struct seccomp_data` has the number of the call, and its arguments of 8 bytes each.
    const NUMBER: u32 = 0;
    const ARGUMENTS: u32 = 16;
    let (conditions, errno): (Vec<(u32, u32)>, i32) = match denial {
        Denial::Socket { protocol, errno } => {
            let domain = (ARGUMENTS, libc::AF_NETLINK as u32);
            (
                vec![(NUMBER, libc::SYS_socket as u32), domain, (ARGUMENTS + 16, protocol)],
                errno,
            )
        }
        Denial::Send { errno } => (vec![(NUMBER, libc::SYS_sendto as u32)], errno),
        Denial::Receive { errno } => (vec![(NUMBER, libc::SYS_recvfrom as u32)], errno),
    };
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut filter = Vec::new();
    for (number, (offset, value)) in conditions.iter().enumerate() {
        filter.push(statement(LOAD, *offset));
        // Past the remaining conditions and the error, to where the call is allowed.
        let otherwise = 2 * (conditions.len() - number - 1) + 1;
        filter.push(libc::sock_filter {
            code: JUMP_EQUAL,
            jt: 0,
            jf: otherwise as u8,
            k: *value,
        });
    }
    filter.push(statement(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32));
    filter.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    filter
}

/// A directory that holds one static program and nothing else, as an image made `FROM scratch` does.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Puts the program there, as `/sidetrack`.
    pub fn with(program: &Path) -> Self {
        let directory = std::env::temp_dir().join(format!("sidetrack-scratch-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        fs::copy(program, directory.join("sidetrack")).expect("the static program");
        Self(directory)
    }

    /// Makes `command` see that directory alone, read-only.
    #[expect(unsafe_code, reason = "the root directory is changed between fork and exec")]
    pub fn confine(&self, command: &mut Command) {
        let root = self.0.clone();
        let enter = move || {
            let nothing: Option<&str> = None;
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            mount(Some(&root), &root, nothing, MsFlags::MS_BIND, nothing)?;
            let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(nothing, &root, nothing, read_only, nothing)?;
            nix::unistd::chroot(&root)?;
            Ok(nix::unistd::chdir("/")?)
        };
        // SAFETY: the closure makes system calls; what nix allocates for paths is small enough for its stack buffers.
        unsafe { command.pre_exec(enter) };
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
