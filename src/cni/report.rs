//! What a run came to, as the node installer is told: one JSON object in one datagram of a Unix socket.
//!
//! The plugin never waits for that, and never fails for it: where nobody listens, or too slowly, the datagram is lost.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::mesh::pod::PodName;

/// Where the installer listens, unless told otherwise: the same path on the node and in the installer's container.
pub const SOCKET: &str = "/var/run/sidetrack/log.sock";

/// The longest text in a report, in characters. A pod's names and annotations may be as long as somebody likes.
const LONGEST: usize = 1024;
/// As many warnings fit, whatever is in them: a character takes 6 bytes at most (`\u0001`).
const MOST_WARNINGS: usize = 8;
/// The largest report, in bytes: the texts, and what is around them.
pub const LARGEST: usize = (5 + MOST_WARNINGS) * LONGEST * 6 + 1024;

/// What a run came to, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// ADD redirected the pod's traffic.
    Redirected(String),
    /// ADD let the pod through as it is.
    LetThrough(String),
    /// There was nothing to decide.
    Done,
    /// It failed.
    Failed(String),
}

impl Outcome {
    /// The name of each.
    pub const NAMES: [&str; 4] = ["redirected", "let-through", "done", "failed"];

    /// Its name in reports, logs and metrics.
    pub fn name(&self) -> &'static str {
        let [redirected, let_through, done, failed] = Self::NAMES;
        match self {
            Self::Redirected(_) => redirected,
            Self::LetThrough(_) => let_through,
            Self::Done => done,
            Self::Failed(_) => failed,
        }
    }

    /// The reason of the decision, or the error.
    pub fn reason(&self) -> &str {
        match self {
            Self::Redirected(reason) | Self::LetThrough(reason) | Self::Failed(reason) => reason,
            Self::Done => "",
        }
    }

    fn named(name: &str, reason: String) -> Option<Self> {
        let outcomes = [
            Self::Redirected(reason.clone()),
            Self::LetThrough(reason.clone()),
            Self::Done,
            Self::Failed(reason),
        ];
        outcomes.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// A run of the plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// `CNI_COMMAND`, whatever it was.
    pub command: String,
    /// The pod, as far as the runtime tells.
    pub pod: PodName,
    /// `CNI_CONTAINERID`; empty where there is none.
    pub container: String,
    /// What the run came to.
    pub outcome: Outcome,
    /// What it warned of.
    pub warnings: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

impl Report {
    /// Tells the installer. Never waits; what cannot be told is lost.
    pub fn send(&self, socket: &Path) {
        let send = || -> io::Result<()> {
            let sender = UnixDatagram::unbound()?;
            sender.set_nonblocking(true)?;
            sender.send_to(self.to_json().to_string().as_bytes(), socket)?;
            Ok(())
        };
        if let Err(error) = send() {
            tracing::debug!(%error, socket = %socket.display(), "the node installer was not told of this run");
        }
    }

    fn to_json(&self) -> Value {
        let cut = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let name = |name: &Option<String>| cut(name.as_deref().unwrap_or_default());
        let warnings = self.warnings.iter().take(MOST_WARNINGS).map(|text| cut(text));
        json!({
            "command": cut(&self.command),
            "namespace": name(&self.pod.namespace),
            "pod": name(&self.pod.name),
            "container": cut(&self.container),
            "outcome": self.outcome.name(),
            "reason": cut(self.outcome.reason()),
            "warnings": warnings.collect::<Vec<_>>(),
            "seconds": self.duration.as_secs_f64(),
        })
    }

    /// Reads a datagram; `None` where it is no report.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(datagram).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let member = |key| text(&value[key]);
        let name = |key| Some(member(key)?).map(|name| Some(name).filter(|name| !name.is_empty()));
        Some(Self {
            command: member("command")?,
            pod: PodName {
                namespace: name("namespace")?,
                name: name("pod")?,
            },
            container: member("container")?,
            outcome: Outcome::named(value["outcome"].as_str()?, member("reason")?)?,
            warnings: value["warnings"].as_array()?.iter().map(text).collect::<Option<_>>()?,
            duration: Duration::try_from_secs_f64(value["seconds"].as_f64()?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome) -> Report {
        Report {
            command: "ADD".to_owned(),
            pod: PodName {
                namespace: Some("shop".to_owned()),
                name: None,
            },
            container: "0f1e".to_owned(),
            outcome,
            warnings: vec!["two\nlines and \u{e9}".to_owned()],
            duration: Duration::from_millis(7),
        }
    }

    #[test]
    fn each_outcome_is_read_as_it_was_written() {
        let reason = || "because".to_owned();
        let outcomes = [
            Outcome::Redirected(reason()),
            Outcome::LetThrough(reason()),
            Outcome::Done,
            Outcome::Failed(reason()),
        ];
        for outcome in outcomes {
            let report = report(outcome);
            assert_eq!(Report::parse(report.to_json().to_string().as_bytes()), Some(report));
        }
    }

    #[test]
    fn texts_without_end_are_cut() {
        let endless = "\u{1}".repeat(1 << 20);
        let mut report = report(Outcome::Failed(endless.clone()));
        report.warnings = vec![endless.clone(); 100];
        (report.command, report.container) = (endless.clone(), endless.clone());
        report.pod = PodName {
            namespace: Some(endless.clone()),
            name: Some(endless),
        };
        let datagram = report.to_json().to_string();
        assert!(datagram.len() <= LARGEST, "{} bytes", datagram.len());
        let read = Report::parse(datagram.as_bytes()).unwrap();
        assert_eq!(read.outcome.reason().len(), LONGEST);
        assert_eq!(read.warnings.len(), MOST_WARNINGS);
    }

    #[test]
    fn what_is_no_report_is_none() {
        for bytes in [&b""[..], b"x", b"{}", b"[]", b"{\"command\":3}", b"\xff"] {
            assert_eq!(Report::parse(bytes), None);
        }
        let written = report(Outcome::Done).to_json().to_string();
        for (key, value) in [("0.007", "-1"), ("\"done\"", "\"dance\""), ("[\"two", "[3,\"two")] {
            let other = written.replace(key, value);
            assert_ne!(other, written);
            assert_eq!(Report::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn nobody_waits_for_who_does_not_listen_or_does_not_read() {
        let directory = std::env::temp_dir().join(format!("sidetrack-report-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log.sock");
        report(Outcome::Done).send(&path);
        std::fs::write(&path, "no socket").unwrap();
        report(Outcome::Done).send(&path);
        std::fs::remove_file(&path).unwrap();
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let sent = 100_000;
        for _ in 0..sent {
            report(Outcome::Done).send(&path);
        }
        let (mut datagram, mut arrived) = (vec![0; LARGEST], 0);
        while let Ok(length) = listener.recv(&mut datagram) {
            assert_eq!(Report::parse(&datagram[..length]), Some(report(Outcome::Done)));
            arrived += 1;
        }
        assert!(arrived > 0 && arrived < sent, "{arrived}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
