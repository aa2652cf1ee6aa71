//! Network namespaces: entering one, and leaving it for certain; making one.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use thiserror::Error;

use super::privilege;

/// A network namespace that could not be entered.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// Its file cannot be opened.
    #[error("the network namespace {}: {reason}. Give the name of one that `ip netns` lists, or a path such as /proc/PID/ns/net", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// The file is something else.
    #[error("{} is not a network namespace; give a path such as /proc/PID/ns/net", .0.display())]
    NotANamespace(PathBuf),
    /// We may not enter it.
    #[error(
        "entering the network namespace {} is not allowed: it takes CAP_SYS_ADMIN, also in the user namespace that \
         owns it. Run as root, or run inside the namespace without --netns", .0.display()
    )]
    NotPermitted(PathBuf),
    /// No thread could be had to enter it with.
    #[error(
        "starting a thread to enter the network namespace {}: {reason}. Is there a limit on processes (pids.max, \
         ulimit -u)?", path.display()
    )]
    Thread {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// The kernel refused for another reason.
    #[error("entering the network namespace {}: {errno}", path.display())]
    Enter {
        /// The file.
        path: PathBuf,
        /// Why not.
        errno: Errno,
    },
}

/// The file of a network namespace given as a path or, without a slash, as a name of ip-netns(8).
pub fn path(path_or_name: &str) -> PathBuf {
    if path_or_name.contains('/') {
        PathBuf::from(path_or_name)
    } else {
        PathBuf::from("/run/netns").join(path_or_name)
    }
}

/// A network namespace that is held open: by its file, not by a name.
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens one.
    ///
    /// # Errors
    /// There is no such file.
    pub fn open(path: PathBuf) -> Result<Self, NetnsError> {
        match File::open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(reason) => Err(NetnsError::Open { path, reason }),
        }
    }

    /// Makes one. It has no name: the kernel removes it with this handle and the sockets in it, also if this process is
    /// killed.
    ///
    /// # Errors
    /// It cannot or may not be made.
    pub fn make() -> io::Result<Self> {
        // A thread of its own takes the change of namespace with it when it ends.
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let path = PathBuf::from("/proc/thread-self/ns/net");
            let file = File::open(&path)?;
            Ok(Self { file, path })
        })?
    }

    /// Runs `work` inside, on a thread of its own that ends with it: nothing else of this process is ever inside.
    ///
    /// # Errors
    /// The namespace cannot be entered. `work` has not begun then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let path = || self.path.clone();
        let done = on_thread(|| match setns(&self.file, CloneFlags::CLONE_NEWNET) {
            Ok(()) => Ok(work()),
            Err(Errno::EINVAL) => Err(NetnsError::NotANamespace(path())),
            Err(Errno::EPERM) => Err(NetnsError::NotPermitted(path())),
            Err(errno) => Err(NetnsError::Enter { path: path(), errno }),
        });
        done.unwrap_or_else(|reason| Err(NetnsError::Thread { path: path(), reason }))
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `work` inside a network namespace, on a thread of its own.
///
/// # Errors
/// The namespace cannot be entered. `work` has not begun then.
pub fn within<T: Send>(path: PathBuf, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    Netns::open(path)?.run(work)
}

/// The same for work that changes the namespace: of its capabilities the thread keeps those that this takes.
///
/// # Errors
/// See [`within`].
pub fn administer<T: Send>(path: PathBuf, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    within(path, || {
        privilege::keep_those_of_the_network();
        work()
    })
}

/// Runs `work` on a thread of its own, and returns when that has ended.
///
/// # Errors
/// There can be no more threads. `work` has not begun then.
pub fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// What identifies a namespace: the device and the inode of its file (namespaces(7)).
pub type Identity = (u64, u64);

/// The identity of the namespace that a path leads to.
///
/// # Errors
/// It leads nowhere, or may not be followed.
pub fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether this thread is in the network namespace of the first process, which is the host's unless this is a container.
///
/// # Errors
/// It cannot be seen.
pub fn is_that_of_the_first_process() -> io::Result<bool> {
    Ok(identity(Path::new("/proc/thread-self/ns/net"))? == identity(Path::new("/proc/1/ns/net"))?)
}

/// Whose network namespace a path leads to, where it is not a pod's: this process's own, or that of the host's first
/// process, where that may be seen.
///
/// # Errors
/// The path leads nowhere.
pub fn owner_of_host_netns(netns: &Path) -> io::Result<Option<&'static str>> {
    const HOSTS: [(&str, &str); 2] = [
        ("/proc/thread-self/ns/net", "the one that this plugin runs in"),
        ("/proc/1/ns/net", "the host's"),
    ];
    let wanted = identity(netns)?;
    let same = |(path, _): &&(&str, &str)| identity(Path::new(path)).is_ok_and(|host| host == wanted);
    Ok(HOSTS.iter().find(same).map(|(_, owner)| *owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_where_ip_netns_keeps_them() {
        assert_eq!(path("pod"), PathBuf::from("/run/netns/pod"));
        assert_eq!(path("/proc/1/ns/net"), PathBuf::from("/proc/1/ns/net"));
        assert_eq!(path("./ns"), PathBuf::from("./ns"));
    }

    #[test]
    fn a_missing_file_is_told_with_what_would_do() {
        let error = within(path("no-such-namespace"), || ()).unwrap_err().to_string();
        assert!(error.contains("/run/netns/no-such-namespace"), "{error}");
        assert!(error.contains("ip netns"), "{error}");
    }

    #[test]
    fn our_own_network_namespace_is_known() {
        for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
            assert!(owner_of_host_netns(Path::new(path)).unwrap().is_some(), "{path}");
        }
        assert_eq!(owner_of_host_netns(Path::new("/proc/self/status")).unwrap(), None);
        assert!(owner_of_host_netns(Path::new("/no/such/namespace")).is_err());
    }
}
