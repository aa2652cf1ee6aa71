//! What the plugin tells the installer of each of its runs: one JSON object in one datagram of a Unix socket.
//!
//! The plugin never waits for it. Where nobody listens, or too slowly, the datagram is lost.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::files::{self, FileError};

/// Where the socket is, unless told otherwise: the same on the node and in the installer's container.
pub const SOCKET: &str = "/var/run/sidetrack/log.sock";

/// The longest text in a report, in characters.
const LONGEST: usize = 1024;
/// The largest datagram that is read.
const MAX_DATAGRAM: usize = 1 << 16;

/// What a run of the plugin came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The pod's traffic is redirected.
    Redirected,
    /// The pod is let through as it is.
    Passed,
    /// Done; there was nothing to decide.
    Done,
    /// It failed.
    Failed,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Redirected, Self::Passed, Self::Done, Self::Failed];

    /// Its name in reports, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::Passed => "passed",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|decision| decision.name() == name)
    }
}

/// The verbs of the specification.
pub const COMMANDS: [&str; 6] = ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"];

/// A run of the plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The verb: one of [`COMMANDS`].
    pub command: String,
    /// The namespace of the pod; empty where the runtime did not tell.
    pub namespace: String,
    /// The name of the pod; empty where the runtime did not tell.
    pub pod: String,
    /// What it came to.
    pub decision: Decision,
    /// Why: the reason of the decision, or the error.
    pub reason: String,
    /// How long it took.
    pub duration: Duration,
}

impl Run {
    fn to_json(&self) -> Value {
        let text = |text: &str| text.chars().take(LONGEST).collect::<String>();
        json!({
            "command": text(&self.command),
            "namespace": text(&self.namespace),
            "pod": text(&self.pod),
            "decision": self.decision.name(),
            "reason": text(&self.reason),
            "seconds": self.duration.as_secs_f64(),
        })
    }

    fn from_json(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        Some(Self {
            command: text("command")?,
            namespace: text("namespace")?,
            pod: text("pod")?,
            decision: Decision::named(&text("decision")?)?,
            reason: text("reason")?,
            duration: Duration::try_from_secs_f64(value.get("seconds")?.as_f64()?).ok()?,
        })
    }

    fn log(&self) {
        let Self {
            command,
            namespace,
            pod,
            reason,
            ..
        } = self;
        let milliseconds = self.duration.as_millis() as u64;
        let decision = self.decision.name();
        // Quoted: names and reasons come from elsewhere, and must not make lines of their own.
        match self.decision {
            Decision::Failed => {
                tracing::error!(
                    command,
                    namespace,
                    pod,
                    decision,
                    reason,
                    milliseconds,
                    "the plugin failed"
                );
            }
            Decision::Redirected | Decision::Passed | Decision::Done => {
                tracing::info!(
                    command,
                    namespace,
                    pod,
                    decision,
                    reason,
                    milliseconds,
                    "the plugin ran"
                );
            }
        }
    }
}

/// Tells the installer of a run of the plugin. Never waits, and never fails the run.
pub fn report(socket: &Path, run: &Run) {
    let send = || -> io::Result<()> {
        let sender = UnixDatagram::unbound()?;
        sender.set_nonblocking(true)?;
        sender.send_to(run.to_json().to_string().as_bytes(), socket)?;
        Ok(())
    };
    if let Err(error) = send() {
        tracing::debug!(%error, socket = %socket.display(), "the installer was not told of this run");
    }
}

/// Whether an installer listens at the socket.
pub fn is_answered(socket: &Path) -> bool {
    UnixDatagram::unbound().is_ok_and(|probe| probe.connect(socket).is_ok())
}

/// Where reports arrive. The installer that was started last has the place.
#[derive(Debug)]
pub struct Receiver {
    path: PathBuf,
    socket: UnixDatagram,
    identity: (u64, u64),
}

impl Receiver {
    /// Takes the place at `path`.
    ///
    /// # Errors
    /// The system did not do it.
    pub fn bind(path: &Path) -> Result<Self, FileError> {
        let failed = |reason| FileError::System {
            doing: "listening for reports at",
            path: path.to_owned(),
            reason,
        };
        if let Some(directory) = path.parent() {
            files::make_directory(directory)?;
        }
        // Renamed into place, so that there is no moment without a socket, and none with others' rights.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        files::remove(&new)?;
        let socket = UnixDatagram::bind(&new).map_err(failed)?;
        let place = || -> io::Result<(u64, u64)> {
            socket.set_nonblocking(true)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
            fs::rename(&new, path)?;
            identity(path)
        };
        let identity = place().map_err(failed)?;
        let path = path.to_owned();
        Ok(Self { path, socket, identity })
    }

    /// Who has the place now.
    pub fn place(&self) -> Place {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Place::Ours,
            Ok(_) => Place::Another,
            Err(_) => Place::Nobody,
        }
    }

    /// The reports that have arrived. Each is logged.
    pub fn receive(&self) -> Vec<Run> {
        let (mut runs, mut datagram) = (Vec::new(), vec![0; MAX_DATAGRAM]);
        while let Ok(length) = self.socket.recv(&mut datagram) {
            match Run::from_json(&datagram[..length]) {
                Some(run) => {
                    run.log();
                    runs.push(run);
                }
                None => tracing::debug!(length, "not a report of the plugin"),
            }
        }
        runs
    }

    /// The socket.
    pub fn socket(&self) -> &UnixDatagram {
        &self.socket
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.place() == Place::Ours
            && let Err(error) = files::remove(&self.path)
        {
            tracing::debug!(%error, "the socket stays");
        }
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

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            command: "ADD".to_owned(),
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            decision: Decision::Redirected,
            reason: "two\nlines and \u{e9}".to_owned(),
            duration: Duration::from_millis(7),
        }
    }

    #[test]
    fn a_report_arrives_as_it_was_sent_and_nobody_waits() {
        let path = std::env::temp_dir().join(format!("sidetrack-report-{}/log.sock", std::process::id()));
        report(&path, &run());
        let receiver = Receiver::bind(&path).unwrap();
        assert!(is_answered(&path));
        report(&path, &run());
        assert_eq!(receiver.receive(), [run()]);
        for _ in 0..100_000 {
            // More than the kernel keeps: the rest is lost, and nothing waits.
            report(&path, &run());
        }
        assert!(!receiver.receive().is_empty());
        let successor = Receiver::bind(&path).unwrap();
        assert_eq!((receiver.place(), successor.place()), (Place::Another, Place::Ours));
        drop(receiver);
        assert_eq!(successor.place(), Place::Ours);
        drop(successor);
        assert!(!path.exists() && !is_answered(&path));
        fs::remove_dir(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_text_without_end_is_cut() {
        let mut run = run();
        run.reason = "\u{1}".repeat(1 << 20);
        let datagram = run.to_json().to_string();
        assert!(datagram.len() < MAX_DATAGRAM);
        assert_eq!(Run::from_json(datagram.as_bytes()).unwrap().reason.len(), LONGEST);
    }

    #[test]
    fn what_is_no_report_is_left_out() {
        for bytes in [&b""[..], b"x", b"{}", b"{\"command\":3}", b"\xff"] {
            assert_eq!(Run::from_json(bytes), None);
        }
        let negative = run().to_json().to_string().replace("0.007", "-1");
        assert_eq!(Run::from_json(negative.as_bytes()), None);
    }
}
