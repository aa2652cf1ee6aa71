//! Where the plugin's reports arrive. Who has that place is the installer of this node: the one that was started last,
//! so that two versions do not fight while one takes the other's place.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::metrics::{Metrics, PLUGIN_RUN_SECONDS, PLUGIN_RUNS};
use crate::cni::environment::Verb;
use crate::cni::report::{LARGEST, Outcome, Report};
use crate::linux::files::{self, FileError};

/// Whether an installer listens at the socket.
pub fn is_answered(socket: &Path) -> bool {
    UnixDatagram::unbound().is_ok_and(|probe| probe.connect(socket).is_ok())
}

/// Removes the socket of an installer that was killed.
///
/// # Errors
/// The system did not do it, or there is something else.
pub fn remove(socket: &Path) -> Result<(), FileError> {
    refuse_others(socket).map_err(FileError::system("removing", socket))?;
    files::remove(socket).map(drop)
}

/// Nothing but a socket is replaced or removed, wherever an option leads to.
fn refuse_others(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something that is no socket",
        )),
        _ => Ok(()),
    }
}

/// Who has the place where reports arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This installer.
    Ours,
    /// One that was started later.
    Another,
    /// Nobody: the socket was removed.
    Nobody,
}

/// The place where reports arrive, and a thread that logs and counts them: nothing else keeps it from reading, since the
/// kernel keeps few datagrams.
#[derive(Debug)]
pub struct Receiver {
    path: PathBuf,
    identity: (u64, u64),
    socket: Arc<UnixDatagram>,
    closed: Arc<AtomicBool>,
}

impl Receiver {
    /// Takes the place at `path`.
    ///
    /// # Errors
    /// The system did not do it.
    pub fn bind(path: &Path, metrics: &Arc<Metrics>) -> Result<Self, FileError> {
        let listening = |reason| FileError::system("listening for reports at", path)(reason);
        if let Some(directory) = path.parent() {
            files::make_directory(directory)?;
        }
        refuse_others(path).map_err(listening)?;
        // Renamed into place, so that there is no moment without a socket, and none with others' rights.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        files::remove(&new)?;
        let socket = Arc::new(UnixDatagram::bind(&new).map_err(listening)?);
        let closed = Arc::new(AtomicBool::new(false));
        let place = || {
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
            fs::rename(&new, path)?;
            let (socket, closed, metrics) = (Arc::clone(&socket), Arc::clone(&closed), Arc::clone(metrics));
            let receive = move || receive(&socket, &closed, &metrics);
            thread::Builder::new().name("reports".to_owned()).spawn(receive)?;
            identity(path)
        };
        let identity = place().map_err(listening)?;
        let path = path.to_owned();
        Ok(Self {
            path,
            identity,
            socket,
            closed,
        })
    }

    /// Who has the place now.
    pub fn place(&self) -> Place {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Place::Ours,
            Ok(_) => Place::Another,
            Err(_) => Place::Nobody,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.place() == Place::Ours
            && let Err(error) = files::remove(&self.path)
        {
            tracing::debug!(%error, "the socket stays");
        }
        // Ends the thread.
        self.closed.store(true, Ordering::Release);
        let _woken = self.socket.shutdown(Shutdown::Both);
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn receive(socket: &UnixDatagram, closed: &AtomicBool, metrics: &Metrics) {
    let mut datagram = vec![0; LARGEST];
    loop {
        let received = socket.recv(&mut datagram);
        if closed.load(Ordering::Acquire) {
            return;
        }
        match received {
            Ok(length) => match Report::parse(&datagram[..length]) {
                Some(report) => {
                    count(&report, metrics);
                    log(&report);
                }
                None => tracing::debug!(length, "not a report of the plugin"),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return tracing::error!(%error, "no more reports of the plugin's runs are read"),
        }
    }
}

fn count(report: &Report, metrics: &Metrics) {
    // Of the commands, only those that there are: labels are for ever.
    let known = Verb::ALL.into_iter().find(|(_, name)| *name == report.command);
    let command = known.map_or("other", |(_, name)| name);
    let labels = [("command", command), ("outcome", report.outcome.name())];
    metrics.add(PLUGIN_RUNS, &labels, 1.0);
    metrics.add(PLUGIN_RUN_SECONDS, &labels[..1], report.duration.as_secs_f64());
}

/// Logs a run. Texts are quoted: they come from elsewhere, and must not make lines of their own.
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
        tracing::warn!(command, pod, container, warning, "the plugin warned");
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
                "the plugin ran"
            );
        }
        Outcome::Redirected(_) | Outcome::LetThrough(_) => {
            tracing::info!(
                command,
                pod,
                container,
                outcome = name,
                reason,
                milliseconds,
                "the plugin ran"
            );
        }
        // Runtimes ask for the status every few seconds.
        Outcome::Done => tracing::debug!(command, pod, container, outcome = name, milliseconds, "the plugin ran"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_has_the_place_and_leaves_nothing() {
        let path = std::env::temp_dir().join(format!("sidetrack-reports-{}/log.sock", std::process::id()));
        let metrics = Arc::new(Metrics::default());
        assert!(!is_answered(&path));
        let first = Receiver::bind(&path, &metrics).unwrap();
        assert!(is_answered(&path));
        assert_eq!(first.place(), Place::Ours);
        let second = Receiver::bind(&path, &metrics).unwrap();
        assert_eq!((first.place(), second.place()), (Place::Another, Place::Ours));
        drop(first);
        assert_eq!(second.place(), Place::Ours);
        fs::remove_file(&path).unwrap();
        assert_eq!(second.place(), Place::Nobody);
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
