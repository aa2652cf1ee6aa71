//! The outcomes of all probes, as text and as JSON. The schema is in `docs/probe.md`.

use std::fmt;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::judge::{description, expectation};
use super::{Caller, Expected, Outcome, Probe, Transport, Verdict, judge};
use crate::types::Family;
use crate::types::Id as _;

/// The version of the schema.
const VERSION: u32 = 1;

/// The probes and their outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Each probe with its outcome.
    pub outcomes: Vec<(Probe, Outcome)>,
    /// The addresses on which a proxy listens; on the others, probes listened in its place.
    pub proxy_listens: Vec<SocketAddr>,
    /// Observations that may explain failures. Each a sentence.
    pub notes: Vec<String>,
}

/// The number of probes by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those with the expected result.
    pub passed: usize,
    /// Those with another result.
    pub failed: usize,
    /// Those that could not run.
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

    /// One probe and its outcome, as a line without a newline.
    pub fn line(probe: &Probe, outcome: &Outcome) -> String {
        let protocol = match probe.protocol {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
            Transport::Icmp => "ICMP",
        };
        let source = probe.source.map(|source| format!(" from {}", source.address));
        let relation = match probe.caller {
            Caller::Process(_) => "bound to",
            Caller::Neighbour | Caller::Behind => "behind",
        };
        let bound = probe.bound_to.as_ref().map(|name| format!(" {relation} {name}"));
        let (bound, behind) = match probe.destination_behind() {
            Some(_) => (None, bound),
            None => (bound, None),
        };
        let found = match outcome {
            Outcome::Found(finding) => description(probe, finding),
            Outcome::NotMade(reason) => reason.clone(),
        };
        format!(
            "{} {protocol} {}: {}{}{} to {}{}: {found}",
            probe.family(),
            probe.subject.name(),
            probe.caller,
            source.unwrap_or_default(),
            bound.unwrap_or_default(),
            destination(probe),
            behind.unwrap_or_default(),
        )
    }

    /// A line for each probe, and more for those that failed. `source`: what the expectations follow from, as a sentence.
    pub fn text(&self, source: Option<&str>) -> String {
        let mut text: String = self
            .outcomes
            .iter()
            .map(|(probe, outcome)| lines(probe, outcome))
            .collect();
        if !self.proxy_listens.is_empty() {
            let addresses: Vec<String> = self.proxy_listens.iter().map(ToString::to_string).collect();
            text += &format!("A proxy listens at: {}\n", addresses.join(", "));
        }
        if let Some(source) = source {
            text += &format!("{source}\n");
        }
        for note in &self.notes {
            text += &format!("Note: {note}\n");
        }
        text + &format!("{}\n", self.tally())
    }

    /// The report as one indented object. `source`: what the expectations follow from, as fields of the object.
    pub fn json(&self, source: [(&str, Value); 3]) -> String {
        let tally = self.tally();
        let result = match (tally.failed, tally.not_made) {
            (0, 0) => "passed",
            (0, _) => "incomplete",
            _ => "failed",
        };
        let addresses: Vec<String> = self.proxy_listens.iter().map(ToString::to_string).collect();
        let mut document = json!({
            "version": VERSION,
            "result": result,
            "passed": tally.passed,
            "failed": tally.failed,
            "notMade": tally.not_made,
            "proxyListens": addresses,
            "notes": self.notes,
            "probes": self.outcomes.iter().map(|(probe, outcome)| entry(probe, outcome)).collect::<Vec<_>>(),
        });
        for (field, value) in source {
            document[field] = value;
        }
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
        ("expected", expected.as_str()),
        ("meaning", meaning),
        ("advice", advice),
    ];
    let more = more.map(|(what, text)| format!("          {what}: {text}\n"));
    [line, more.concat()].concat()
}

/// The destination, without the port that echo requests lack.
fn destination(probe: &Probe) -> String {
    match probe.protocol {
        Transport::Tcp | Transport::Udp => probe.destination.to_string(),
        Transport::Icmp => probe.destination.ip().to_string(),
    }
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
        Outcome::Found(finding) => (Some(description(probe, finding)), None),
        Outcome::NotMade(reason) => (None, Some(reason)),
    };
    json!({
        "name": probe.subject.name(),
        "family": match probe.family() {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        },
        "protocol": match probe.protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Icmp => "icmp",
        },
        "caller": match probe.caller {
            Caller::Process(owner) => match owner.mark {
                Some(mark) => json!({ "uid": owner.uid.get(), "gid": owner.gid.get(), "mark": mark.get() }),
                None => json!({ "uid": owner.uid.get(), "gid": owner.gid.get() }),
            },
            Caller::Neighbour | Caller::Behind => json!("neighbour"),
        },
        "source": probe.source.map(|source| source.address.to_string()),
        "interface": probe.bound_to.as_ref().map(|name| name.as_str()),
        "destination": destination(probe),
        "expected": match probe.expected {
            Expected::Captured(port) => json!({ "port": port.get() }),
            Expected::Untouched => json!("untouched"),
            Expected::Remembered { port, seconds } => json!({ "port": port.get(), "closeWait": seconds }),
            Expected::Dropped => json!("dropped"),
            Expected::Rejected => json!("rejected"),
        },
        "result": result(&verdict),
        "found": found,
        "meaning": meaning,
        "advice": advice,
        "reason": reason,
    })
}
