//! Network namespaces: creating one, entering one, and leaving it reliably.
//!
//! A namespace is opened once, by [`Netns::open`]. Code that checks it, enters it and enters it again uses that
//! handle: a path may lead to another namespace a moment later, as `/proc/PID/ns/net` does when a PID is reused.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use thiserror::Error;

use super::privilege::{self, PrivilegeError};

/// A failure to enter a network namespace.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// Its file cannot be opened.
    #[error("the network namespace {}: {reason}. Give the name of one that `ip netns` lists, or a path such as /proc/PID/ns/net", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: std::io::Error,
    },
    /// The file is not a network namespace.
    #[error("{} is not a network namespace; give a path such as /proc/PID/ns/net", .0.display())]
    NotANamespace(PathBuf),
    /// Entering it is not permitted.
    #[error(
        "entering the network namespace {} is not allowed: it needs CAP_SYS_ADMIN, also in the user namespace that \
         owns it. Run as root, or run inside the namespace without --netns", .0.display()
    )]
    NotPermitted(PathBuf),
    /// The thread that would enter it could not be started.
    #[error(
        "starting a thread to enter the network namespace {}: {reason}. Is there a limit on processes (pids.max, \
         ulimit -u)?", path.display()
    )]
    Thread {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: std::io::Error,
    },
    /// The thread is in another network namespace than it should be.
    #[error("entering the network namespace {}: the kernel shows another one inside. Nothing was done", .0.display())]
    Elsewhere(PathBuf),
    /// The thread inside could not give up capabilities.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The kernel refused for another reason.
    #[error("entering the network namespace {}: {errno}", path.display())]
    Enter {
        /// The file.
        path: PathBuf,
        /// The reason.
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

/// A network namespace that is held open by its file, not by a name. Meanwhile, no other one has its identity.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    identity: Identity,
}

/// Whether both are the same namespace, by any path.
impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

impl Netns {
    /// Opens a network namespace.
    ///
    /// # Errors
    /// There is no such file.
    pub fn open(path: PathBuf) -> Result<Self, NetnsError> {
        // A pipe in its place would wait for a writer.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        match opened.and_then(|file| Ok((identity_of(&file.metadata()?), file))) {
            Ok((identity, file)) => Ok(Self { file, path, identity }),
            Err(reason) => Err(NetnsError::Open { path, reason }),
        }
    }

    /// The path that it was opened by. The path may lead to another file now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the namespace.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// A description of the owner, if it is not a pod: this process, or the host's first process, if that can be
    /// read. `proc`: possible mount points of the host's proc file system.
    pub fn host_owner(&self, proc: &[&Path]) -> Option<&'static str> {
        let is_at = |path: &Path| identity(path).is_ok_and(|host| host == self.identity);
        if is_at(Path::new(OWN)) {
            return Some("the one that this program runs in");
        }
        let hosts = proc.iter().map(|proc| proc.join("1/ns/net"));
        hosts.into_iter().any(|path| is_at(&path)).then_some("the host's")
    }

    /// Creates a network namespace without a name: the kernel removes it with this handle and the sockets in it, even
    /// if this process is killed.
    ///
    /// # Errors
    /// Creating it failed or is not permitted.
    pub fn make() -> io::Result<Self> {
        // A thread of its own takes the change of namespace with it when it ends.
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let path = PathBuf::from(OWN);
            let file = File::open(&path)?;
            let identity = identity_of(&file.metadata()?);
            Ok(Self { file, path, identity })
        })?
    }

    /// Runs `work` inside, on a thread of its own that ends with it: nothing else of this process is ever inside.
    ///
    /// # Errors
    /// The namespace cannot be entered. `work` has not begun then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let path = || self.path.clone();
        let done = on_thread(|| match setns(&self.file, CloneFlags::CLONE_NEWNET) {
            // Without /proc, the success of setns has to be enough.
            Ok(()) if identity(Path::new(OWN)).is_ok_and(|inside| inside != self.identity) => {
                Err(NetnsError::Elsewhere(path()))
            }
            Ok(()) => Ok(work()),
            Err(Errno::EINVAL) => Err(NetnsError::NotANamespace(path())),
            Err(Errno::EPERM) => Err(NetnsError::NotPermitted(path())),
            Err(errno) => Err(NetnsError::Enter { path: path(), errno }),
        });
        done.unwrap_or_else(|reason| Err(NetnsError::Thread { path: path(), reason }))
    }

    /// The same for work that reads or changes the rules of the namespace: the thread keeps only the capabilities that
    /// this needs.
    ///
    /// # Errors
    /// As [`Netns::run`], or the other capabilities cannot be given up. `work` has not begun then.
    pub fn administer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        self.run(|| {
            privilege::keep_network_capabilities()?;
            Ok(work())
        })?
    }

    /// The same for probes: the thread keeps only the capabilities that they need.
    ///
    /// # Errors
    /// As [`Netns::administer`].
    pub fn probe<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        self.run(|| {
            privilege::keep_probe_capabilities()?;
            Ok(work())
        })?
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `work` inside the network namespace at this path, see [`Netns::administer`].
///
/// # Errors
/// As [`Netns::administer`].
pub fn administer<T: Send>(path: PathBuf, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    Netns::open(path)?.administer(work)
}

/// Runs `work` on a thread of its own, and returns when that has ended.
///
/// # Errors
/// The thread could not be started. `work` has not begun then.
pub fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// The identity of a namespace: the device and the inode of its file (namespaces(7)).
pub type Identity = (u64, u64);

/// The network namespace of this thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The identity of the namespace at a path. Once that namespace is gone, another one may get the same identity.
///
/// # Errors
/// The path does not exist, or may not be followed.
pub fn identity(path: &Path) -> io::Result<Identity> {
    Ok(identity_of(&std::fs::metadata(path)?))
}

fn identity_of(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Whether this thread is in the network namespace of the first process, which is the host's unless this is a
/// container.
///
/// # Errors
/// The namespace of the first process cannot be read.
pub fn is_in_init_netns() -> io::Result<bool> {
    Ok(identity(Path::new(OWN))? == identity(Path::new("/proc/1/ns/net"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_below_run_netns() {
        assert_eq!(path("pod"), PathBuf::from("/run/netns/pod"));
        assert_eq!(path("/proc/1/ns/net"), PathBuf::from("/proc/1/ns/net"));
        assert_eq!(path("./ns"), PathBuf::from("./ns"));
    }

    #[test]
    fn missing_file_is_reported_with_advice() {
        let error = administer(path("no-such-namespace"), || ()).unwrap_err().to_string();
        assert!(error.contains("/run/netns/no-such-namespace"), "{error}");
        assert!(error.contains("ip netns"), "{error}");
    }

    #[test]
    fn own_network_namespace_is_recognized() {
        let owner = |path: &str| Netns::open(path.into()).unwrap().host_owner(&["/proc".as_ref()]);
        for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
            assert!(owner(path).is_some(), "{path}");
        }
        assert_eq!(owner("/proc/self/status"), None);
        assert!(Netns::open("/no/such/namespace".into()).is_err());
    }
}
