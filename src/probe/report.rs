//! What became of all probes, as text for people and as JSON for machines. The schema is in `docs/probe.md`.

use std::fmt;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::judge::{expectation, words};
use super::{Caller, Expected, Outcome, Probe, Verdict, judge};
use crate::ruleset::Protocol;
use crate::types::Family;
use crate::types::Id as _;

/// The version of the schema.
const VERSION: u32 = 1;

/// The probes, and what became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Each probe with its outcome.
    pub outcomes: Vec<(Probe, Outcome)>,
    /// The addresses on which a proxy listens already; on the others its place was taken.
    pub proxy_listens: Vec<SocketAddr>,
    /// What else was seen that may explain failures. Each a sentence.
    pub notes: Vec<String>,
}

/// How many probes came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that came to what they should.
    pub passed: usize,
    /// Those that came to something else.
    pub failed: usize,
    /// Those that could not be made.
    pub not_made: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            not_made,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {not_made} not made")
    }
}

impl Report {
    /// Counts.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (probe, outcome) in &self.outcomes {
            match judge(probe, outcome) {
                Verdict::Passed => tally.passed += 1,
                Verdict::Failed { .. } => tally.failed += 1,
                Verdict::NotMade => tally.not_made += 1,
            }
        }
        tally
    }

    /// What became of one probe, in a line without its end.
    pub fn line(probe: &Probe, outcome: &Outcome) -> String {
        let protocol = match probe.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let source = probe.source.map(|source| format!(" from {}", source.address));
        let found = match outcome {
            Outcome::Found(finding) => words(probe, finding),
            Outcome::NotMade(reason) => reason.clone(),
        };
        format!(
            "{} {protocol} {}: {}{} to {}: {found}",
            probe.family(),
            probe.subject.name(),
            probe.caller,
            source.unwrap_or_default(),
            probe.destination,
        )
    }

    /// A line for each probe, and more for those that failed.
    pub fn text(&self) -> String {
        let mut text: String = self
            .outcomes
            .iter()
            .map(|(probe, outcome)| lines(probe, outcome))
            .collect();
        if !self.proxy_listens.is_empty() {
            let addresses: Vec<String> = self.proxy_listens.iter().map(ToString::to_string).collect();
            text += &format!("A proxy listens already: {}\n", addresses.join(", "));
        }
        for note in &self.notes {
            text += &format!("Note: {note}\n");
        }
        text + &format!("{}\n", self.tally())
    }

    /// The report as one indented object.
    pub fn json(&self) -> String {
        let tally = self.tally();
        let result = match (tally.failed, tally.not_made) {
            (0, 0) => "passed",
            (0, _) => "incomplete",
            _ => "failed",
        };
        let addresses: Vec<String> = self.proxy_listens.iter().map(ToString::to_string).collect();
        let document = json!({
            "version": VERSION,
            "result": result,
            "passed": tally.passed,
            "failed": tally.failed,
            "notMade": tally.not_made,
            "proxyListens": addresses,
            "notes": self.notes,
            "probes": self.outcomes.iter().map(|(probe, outcome)| entry(probe, outcome)).collect::<Vec<_>>(),
        });
        format!("{document:#}\n")
    }
}

fn lines(probe: &Probe, outcome: &Outcome) -> String {
    let verdict = judge(probe, outcome);
    let line = format!("{:<8}  {}\n", result(&verdict), Report::line(probe, outcome));
    let Verdict::Failed { meaning, advice } = verdict else {
        return line;
    };
    let expected = expectation(probe);
    let more = [
        ("should be", expected.as_str()),
        ("it means", meaning),
        ("to do", advice),
    ];
    let more = more.map(|(what, text)| format!("          {what}: {text}\n"));
    [line, more.concat()].concat()
}

fn result(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed { .. } => "failed",
        Verdict::NotMade => "not made",
    }
}

fn entry(probe: &Probe, outcome: &Outcome) -> Value {
    let verdict = judge(probe, outcome);
    let (meaning, advice) = match verdict {
        Verdict::Failed { meaning, advice } => (Some(meaning), Some(advice)),
        Verdict::Passed | Verdict::NotMade => (None, None),
    };
    let (found, reason) = match outcome {
        Outcome::Found(finding) => (Some(words(probe, finding)), None),
        Outcome::NotMade(reason) => (None, Some(reason)),
    };
    json!({
        "name": probe.subject.name(),
        "family": match probe.family() {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        },
        "protocol": match probe.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        },
        "caller": match probe.caller {
            Caller::Process(owner) => json!({ "uid": owner.uid.get(), "gid": owner.gid.get() }),
            Caller::Neighbour => json!("neighbour"),
        },
        "source": probe.source.map(|source| source.address.to_string()),
        "destination": probe.destination.to_string(),
        "expected": match probe.expected {
            Expected::Captured(port) => json!({ "port": port.get() }),
            Expected::Untouched => json!("untouched"),
        },
        "result": result(&verdict),
        "found": found,
        "meaning": meaning,
        "advice": advice,
        "reason": reason,
    })
}
