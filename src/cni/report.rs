//! The report of a plugin run to the node installer: one JSON object in one message to a Unix socket.
//!
//! Reporting never blocks the plugin and never makes it fail: without a listener, or if its queue is full, the report is
//! lost.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::environment::Verb;
use crate::linux::unix_messages;
use crate::mesh::pod::PodName;

/// The default socket of the installer: the same path on the node and in the installer's container.
pub const SOCKET: &str = "/var/run/sidetrack/log.sock";

/// The longest text in a report, in characters. Names and annotations of a pod may be of any length.
const MAX_TEXT_CHARS: usize = 1024;
/// The most warnings in a report. A character takes at most 6 bytes (`\u0001`).
const MAX_WARNINGS: usize = 8;
/// The largest report, in bytes: the texts and the JSON around them.
pub const MAX_REPORT_BYTES: usize = (5 + MAX_WARNINGS) * MAX_TEXT_CHARS * 6 + 1024;

/// The outcome of a run, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// ADD redirected the pod's traffic.
    Redirected(String),
    /// ADD did not redirect the pod's traffic.
    NotRedirected(String),
    /// Success of a verb that decides nothing.
    Done,
    /// It failed.
    Failed(String),
}

impl Outcome {
    /// The names of the variants.
    pub const NAMES: [&str; 4] = ["redirected", "let-through", "done", "failed"];

    /// The names of those that a run of this verb can have.
    pub fn names_after(verb: Verb) -> Vec<&'static str> {
        let [redirected, not_redirected, done, failed] = Self::NAMES;
        match verb {
            Verb::Add => vec![redirected, not_redirected, failed],
            Verb::Check | Verb::Gc | Verb::Status => vec![done, failed],
            Verb::Del | Verb::Version => vec![done],
        }
    }

    /// The name in reports, logs and metrics.
    pub fn name(&self) -> &'static str {
        let [redirected, not_redirected, done, failed] = Self::NAMES;
        match self {
            Self::Redirected(_) => redirected,
            Self::NotRedirected(_) => not_redirected,
            Self::Done => done,
            Self::Failed(_) => failed,
        }
    }

    /// The reason of the decision, or the error message.
    pub fn reason(&self) -> &str {
        match self {
            Self::Redirected(reason) | Self::NotRedirected(reason) | Self::Failed(reason) => reason,
            Self::Done => "",
        }
    }

    fn named(name: &str, reason: String) -> Option<Self> {
        let outcomes = [
            Self::Redirected(reason.clone()),
            Self::NotRedirected(reason.clone()),
            Self::Done,
            Self::Failed(reason),
        ];
        outcomes.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// A run of the plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// `CNI_COMMAND`, valid or not.
    pub command: String,
    /// The pod's names, as far as the runtime passes them.
    pub pod: PodName,
    /// `CNI_CONTAINERID`; empty where there is none.
    pub container: String,
    /// The outcome of the run.
    pub outcome: Outcome,
    /// The warnings of the run.
    pub warnings: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

impl Report {
    /// Sends the report to the installer. Never blocks; a report that cannot be sent is lost.
    pub fn send(&self, socket: &Path) {
        if let Err(error) = unix_messages::send(socket, self.to_json().to_string().as_bytes()) {
            tracing::debug!(%error, socket = %socket.display(), "could not report this run to the node installer");
        }
    }

    fn to_json(&self) -> Value {
        let cut = |text: &str| text.chars().take(MAX_TEXT_CHARS).collect::<String>();
        let name = |name: &Option<String>| cut(name.as_deref().unwrap_or_default());
        let warnings = self.warnings.iter().take(MAX_WARNINGS).map(|text| cut(text));
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

    /// Parses a message; `None` where it is not a report.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(message).ok()?;
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
    use crate::linux::unix_messages::Listener;

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
    fn each_outcome_survives_a_round_trip() {
        let reason = || "because".to_owned();
        let outcomes = [
            Outcome::Redirected(reason()),
            Outcome::NotRedirected(reason()),
            Outcome::Done,
            Outcome::Failed(reason()),
        ];
        for outcome in outcomes {
            let report = report(outcome);
            assert_eq!(Report::parse(report.to_json().to_string().as_bytes()), Some(report));
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let endless = "\u{1}".repeat(1 << 20);
        let mut report = report(Outcome::Failed(endless.clone()));
        report.warnings = vec![endless.clone(); 100];
        (report.command, report.container) = (endless.clone(), endless.clone());
        report.pod = PodName {
            namespace: Some(endless.clone()),
            name: Some(endless),
        };
        let message = report.to_json().to_string();
        assert!(message.len() <= MAX_REPORT_BYTES, "{} bytes", message.len());
        let read = Report::parse(message.as_bytes()).unwrap();
        assert_eq!(read.outcome.reason().len(), MAX_TEXT_CHARS);
        assert_eq!(read.warnings.len(), MAX_WARNINGS);
    }

    #[test]
    fn invalid_message_is_not_a_report() {
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
    fn report_never_blocks_without_or_with_a_slow_listener() {
        let directory = std::env::temp_dir().join(format!("sidetrack-report-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log.sock");
        report(Outcome::Done).send(&path);
        std::fs::write(&path, "no socket").unwrap();
        report(Outcome::Done).send(&path);
        std::fs::remove_file(&path).unwrap();
        let listener = Listener::bind(&path, 10, Duration::from_secs(60)).unwrap();
        let sent = 100;
        for _ in 0..sent {
            report(Outcome::Done).send(&path);
        }
        listener.close();
        let (mut message, mut arrived) = (vec![0; MAX_REPORT_BYTES], 0);
        while let Ok(length) = listener.receive(&mut message) {
            assert_eq!(Report::parse(&message[..length]), Some(report(Outcome::Done)));
            arrived += 1;
        }
        assert!(arrived > 0 && arrived < sent, "{arrived}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
