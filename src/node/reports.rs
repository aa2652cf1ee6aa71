//! The socket that receives the plugin's reports. Its owner is the installer of this node: the one that was started
//! last, so that two versions do not revert each other during an upgrade.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::metrics::{Metrics, PLUGIN_RUN_DURATION, PLUGIN_RUNS};
use crate::cni::environment::Verb;
use crate::cni::report::{MAX_REPORT_BYTES, Outcome, Report};
use crate::linux::files::{self, FileError};
use crate::linux::unix_messages::{self, LONGEST_QUEUE, Listener};

/// The longest wait for a report of a plugin that has connected. On a busy node it may get no processor time for seconds;
/// other reports wait in the queue meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether an installer listens at the socket.
pub fn is_answered(socket: &Path) -> bool {
    unix_messages::is_answered(socket)
}

/// Removes the socket of an installer that was killed.
///
/// # Errors
/// The system refused, or the path is not a socket.
pub fn remove(socket: &Path) -> Result<(), FileError> {
    refuse_non_socket(socket).map_err(FileError::system("removing", socket))?;
    files::remove(socket).map(drop)
}

/// Refuses a path that is not a socket, so that a wrong option replaces or removes no other file.
fn refuse_non_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path exists and is not a socket",
        )),
        _ => Ok(()),
    }
}

/// The owner of the report socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This installer.
    ThisInstaller,
    /// An installer that was started later.
    AnotherInstaller,
    /// The socket was removed.
    None,
}

/// The report socket, and a thread that logs and counts reports. The thread does nothing else.
#[derive(Debug)]
pub struct Receiver {
    path: PathBuf,
    identity: (u64, u64),
    socket: Arc<Listener>,
    closed: Arc<AtomicBool>,
}

impl Receiver {
    /// Becomes the owner of the socket at `path`.
    ///
    /// # Errors
    /// The socket cannot be created.
    pub fn bind(path: &Path, metrics: &Arc<Metrics>) -> Result<Self, FileError> {
        let listening = |reason| FileError::system("listening for reports at", path)(reason);
        if let Some(directory) = path.parent() {
            files::make_directory(directory)?;
        }
        refuse_non_socket(path).map_err(listening)?;
        // Renamed into place: the path always has a socket, and never one with other permissions.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        files::remove(&new)?;
        let closed = Arc::new(AtomicBool::new(false));
        let bind = || {
            // Reports wait where this process gets no processor time, or where nobody reads its log.
            let socket = Arc::new(Listener::bind(&new, LONGEST_QUEUE, PATIENCE)?);
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
            fs::rename(&new, path)?;
            let (received, closed, metrics) = (Arc::clone(&socket), Arc::clone(&closed), Arc::clone(metrics));
            let receive = move || receive(&received, &closed, &metrics);
            thread::Builder::new().name("reports".to_owned()).spawn(receive)?;
            Ok((socket, identity(path)?))
        };
        let (socket, identity) = bind().map_err(|reason| {
            // Nothing is there once it was renamed.
            let _removed = files::remove(&new);
            listening(reason)
        })?;
        let path = path.to_owned();
        Ok(Self {
            path,
            identity,
            socket,
            closed,
        })
    }

    /// The current owner of the socket.
    pub fn owner(&self) -> Owner {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Owner::ThisInstaller,
            Ok(_) => Owner::AnotherInstaller,
            Err(_) => Owner::None,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.owner() == Owner::ThisInstaller
            && let Err(error) = files::remove(&self.path)
        {
            tracing::debug!(%error, "cannot remove the socket");
        }
        // Ends the thread, once it has read what is in the queue.
        self.closed.store(true, Ordering::Release);
        self.socket.close();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn receive(socket: &Listener, closed: &AtomicBool, metrics: &Metrics) {
    let mut message = vec![0; MAX_REPORT_BYTES];
    loop {
        match socket.receive(&mut message) {
            Ok(length) => match Report::parse(&message[..length]) {
                Some(report) => {
                    count(&report, metrics);
                    log(&report);
                }
                None => tracing::debug!(length, "message is not a plugin report"),
            },
            // All reports in the queue were read before.
            Err(_) if closed.load(Ordering::Acquire) => return,
            Err(error) => return tracing::error!(%error, "cannot read reports of plugin runs any more"),
        }
    }
}

fn count(report: &Report, metrics: &Metrics) {
    // Only known commands: each label value stays in memory.
    let known = Verb::ALL.into_iter().find(|(_, name)| *name == report.command);
    let command = known.map_or("other", |(_, name)| name);
    let labels = [("command", command), ("outcome", report.outcome.name())];
    metrics.add(PLUGIN_RUNS, &labels, 1.0);
    metrics.observe(PLUGIN_RUN_DURATION, &labels[..1], report.duration);
}

/// Logs a run. Texts from the report are quoted, so that they cannot forge log lines.
fn log(report: &Report) {
    let Report {
        command,
        pod,
        container,
        outcome,
        warnings,
        duration,
    } = report;
    let (pod, reason, milliseconds) = (pod.to_string(), outcome.reason(), duration.as_millis() as u64);
    for warning in warnings {
        tracing::warn!(command, pod, container, warning, "plugin warning");
    }
    let name = outcome.name();
    match outcome {
        Outcome::Failed(_) => {
            tracing::error!(
                command,
                pod,
                container,
                outcome = name,
                reason,
                milliseconds,
                "plugin run"
            );
        }
        Outcome::Redirected(_) | Outcome::NotRedirected(_) => {
            tracing::info!(
                command,
                pod,
                container,
                outcome = name,
                reason,
                milliseconds,
                "plugin run"
            );
        }
        // Runtimes request STATUS every few seconds.
        Outcome::Done => tracing::debug!(command, pod, container, outcome = name, milliseconds, "plugin run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_receiver_owns_socket_and_leaves_no_files() {
        let path = std::env::temp_dir().join(format!("sidetrack-reports-{}/log.sock", std::process::id()));
        let metrics = Arc::new(Metrics::default());
        assert!(!is_answered(&path));
        let first = Receiver::bind(&path, &metrics).unwrap();
        assert!(is_answered(&path));
        assert_eq!(first.owner(), Owner::ThisInstaller);
        let second = Receiver::bind(&path, &metrics).unwrap();
        assert_eq!(
            (first.owner(), second.owner()),
            (Owner::AnotherInstaller, Owner::ThisInstaller)
        );
        drop(first);
        assert_eq!(second.owner(), Owner::ThisInstaller);
        fs::remove_file(&path).unwrap();
        assert_eq!(second.owner(), Owner::None);
        let third = Receiver::bind(&path, &metrics).unwrap();
        drop((second, third));
        assert!(!path.exists() && !is_answered(&path));
        fs::write(&path, "no socket").unwrap();
        assert!(Receiver::bind(&path, &metrics).is_err() && remove(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"no socket");
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1, "nothing else is left");
        fs::remove_file(&path).unwrap();
        fs::remove_dir(path.parent().unwrap()).unwrap();
    }
}
