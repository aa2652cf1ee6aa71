//! Network namespaces: entering one, and leaving it for certain.

use std::fs::File;
use std::path::PathBuf;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use thiserror::Error;

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

/// Runs `work` inside a network namespace, on a thread of its own that ends with it: nothing else of this process is
/// ever in that namespace.
///
/// # Errors
/// The namespace cannot be entered. `work` has not begun then.
pub fn within<T: Send>(path: PathBuf, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(reason) => return Err(NetnsError::Open { path, reason }),
    };
    let inside = || match setns(&file, CloneFlags::CLONE_NEWNET) {
        Ok(()) => Ok(work()),
        Err(Errno::EINVAL) => Err(NetnsError::NotANamespace(path.clone())),
        Err(Errno::EPERM) => Err(NetnsError::NotPermitted(path.clone())),
        Err(errno) => Err(NetnsError::Enter {
            path: path.clone(),
            errno,
        }),
    };
    thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, inside) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(reason) => Err(NetnsError::Thread {
            path: path.clone(),
            reason,
        }),
    })
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
}
