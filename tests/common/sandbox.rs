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

use crate::common::{Owner, copy_program};

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
    /// The call with this number.
    Call { number: i64, errno: i32 },
    /// Every call from this number on: those that are newer than the filter.
    From { number: i64, errno: i32 },
    /// The call with this number, where its first argument is this.
    With { number: i64, argument: u32, errno: i32 },
    /// The call with this number, where its first argument has any of these bits.
    WithBits { number: i64, bits: u32, errno: i32 },
}

/// What the filter that Docker and containerd have by default denies to a container without CAP_SYS_ADMIN, of the calls
/// that every architecture has. clone3() is said not to exist, since a filter cannot see its flags.
pub fn like_docker() -> Vec<Denial> {
    const DENIED: [i64; 52] = [
        libc::SYS_acct,
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_chroot,
        libc::SYS_clock_settime,
        libc::SYS_delete_module,
        libc::SYS_fanotify_init,
        libc::SYS_finit_module,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fsopen,
        libc::SYS_fspick,
        libc::SYS_get_mempolicy,
        libc::SYS_init_module,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        libc::SYS_kcmp,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_lookup_dcookie,
        libc::SYS_mbind,
        libc::SYS_migrate_pages,
        libc::SYS_mount,
        libc::SYS_mount_setattr,
        libc::SYS_move_mount,
        libc::SYS_move_pages,
        libc::SYS_nfsservctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_open_tree,
        libc::SYS_perf_event_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_pivot_root,
        libc::SYS_process_madvise,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        libc::SYS_quotactl,
        libc::SYS_reboot,
        libc::SYS_request_key,
        libc::SYS_set_mempolicy,
        libc::SYS_setdomainname,
        libc::SYS_sethostname,
        libc::SYS_setns,
        libc::SYS_settimeofday,
        libc::SYS_swapoff,
        libc::SYS_swapon,
        libc::SYS_syslog,
        libc::SYS_umount2,
        libc::SYS_unshare,
        libc::SYS_userfaultfd,
        libc::SYS_vhangup,
    ];
    const NEW_NAMESPACES: i32 = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let errno = libc::EPERM;
    let others = [
        Denial::Call {
            number: libc::SYS_clone3,
            errno: libc::ENOSYS,
        },
        Denial::WithBits {
            number: libc::SYS_clone,
            bits: NEW_NAMESPACES as u32,
            errno,
        },
        Denial::With {
            number: libc::SYS_socket,
            argument: libc::AF_VSOCK as u32,
            errno,
        },
        Denial::From {
            number: libc::SYS_futex_waitv + 1,
            errno,
        },
    ];
    let denied = DENIED.into_iter().map(|number| Denial::Call { number, errno });
    denied.chain(others).collect()
}

/// Makes a system call of `command`, and of what it runs, fail (seccomp(2)).
pub fn deny(command: &mut Command, denial: Denial) {
    deny_all(command, &[denial]);
}

/// Makes system calls of `command`, and of what it runs, fail (seccomp(2)).
#[expect(unsafe_code, reason = "a filter is installed between fork and exec")]
pub fn deny_all(command: &mut Command, denials: &[Denial]) {
    let filter = filter(denials);
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

/// A filter: for each denial, if the number of the call and its arguments match, the error; else the next one.
fn filter(denials: &[Denial]) -> Vec<libc::sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const EQUAL: u32 = libc::BPF_JEQ;
    const AT_LEAST: u32 = libc::BPF_JGE;
    const ANY_BIT: u32 = libc::BPF_JSET;
    /// Where `struct seccomp_data` has the number of the call, and its arguments of 8 bytes each.
    const NUMBER: u32 = 0;
    const ARGUMENTS: u32 = 16;
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let call = |number: i64| (NUMBER, EQUAL, number as u32);
    let mut filter = Vec::new();
    for denial in denials {
        let (conditions, errno) = match *denial {
            Denial::Socket { protocol, errno } => {
                let domain = (ARGUMENTS, EQUAL, libc::AF_NETLINK as u32);
                let protocol = (ARGUMENTS + 16, EQUAL, protocol);
                (vec![call(libc::SYS_socket), domain, protocol], errno)
            }
            Denial::Send { errno } => (vec![call(libc::SYS_sendto)], errno),
            Denial::Receive { errno } => (vec![call(libc::SYS_recvfrom)], errno),
            Denial::Call { number, errno } => (vec![call(number)], errno),
            Denial::From { number, errno } => (vec![(NUMBER, AT_LEAST, number as u32)], errno),
            Denial::With {
                number,
                argument,
                errno,
            } => (vec![call(number), (ARGUMENTS, EQUAL, argument)], errno),
            Denial::WithBits { number, bits, errno } => (vec![call(number), (ARGUMENTS, ANY_BIT, bits)], errno),
        };
        for (number, (offset, test, value)) in conditions.iter().enumerate() {
            filter.push(statement(LOAD, *offset));
            // Past the remaining conditions and the error, to what follows.
            let otherwise = 2 * (conditions.len() - number - 1) + 1;
            filter.push(libc::sock_filter {
                code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
                jt: 0,
                jf: otherwise as u8,
                k: *value,
            });
        }
        filter.push(statement(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    filter.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    filter
}

/// Hides these directories from `command`: each is empty.
#[expect(unsafe_code, reason = "file systems are mounted between fork and exec")]
pub fn hide(command: &mut Command, directories: &'static [&'static str]) {
    let cover = move || {
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        for directory in directories {
            mount(nothing, *directory, Some("tmpfs"), MsFlags::empty(), nothing)?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls; what nix allocates for paths is small enough for its stack buffers.
    unsafe { command.pre_exec(cover) };
}

/// A directory that holds one static program and nothing else, as an image made `FROM scratch` does.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Puts the program there, as `/sidetrack`.
    pub fn with(program: &Path) -> Self {
        let directory = std::env::temp_dir().join(format!("sidetrack-scratch-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        copy_program(program, &directory.join("sidetrack"));
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
