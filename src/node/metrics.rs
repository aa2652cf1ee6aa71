//! What the installer counts, and how Prometheus reads it (text format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::layout::Reason;
use super::report::{COMMANDS, Run};

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
}

const INSTALLS: Metric = Metric {
    name: "sidetrack_node_installs_total",
    kind: "counter",
    help: "Looks that found something to do, and the first, by result: installed, unchanged or failed",
};
const REPAIRS: Metric = Metric {
    name: "sidetrack_node_repairs_total",
    kind: "counter",
    help: "Things put right after the first install, by reason",
};
const READY: Metric = Metric {
    name: "sidetrack_node_ready",
    kind: "gauge",
    help: "1 if binary and configuration are in place",
};
const CONTENDED: Metric = Metric {
    name: "sidetrack_node_contended",
    kind: "gauge",
    help: "1 if repairs are slowed down, since somebody keeps undoing them",
};
const LAST_CHANGE: Metric = Metric {
    name: "sidetrack_node_last_change_timestamp_seconds",
    kind: "gauge",
    help: "When this installer last changed something; 0 if it never did",
};
const RUNS: Metric = Metric {
    name: "sidetrack_node_plugin_runs_total",
    kind: "counter",
    help: "Runs of the plugin that were reported, by command and decision",
};
const RUN_SECONDS: Metric = Metric {
    name: "sidetrack_node_plugin_run_seconds_total",
    kind: "counter",
    help: "The time that these runs took, by command",
};
const BUILD: Metric = Metric {
    name: "sidetrack_build_info",
    kind: "gauge",
    help: "1, with the version as a label",
};

/// All metrics.
pub const METRICS: [Metric; 8] = [
    INSTALLS,
    REPAIRS,
    READY,
    CONTENDED,
    LAST_CHANGE,
    RUNS,
    RUN_SECONDS,
    BUILD,
];

/// A service that has not turned for this long hangs.
const HANGING: Duration = Duration::from_secs(180);

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Something was changed.
    Installed,
    /// There was nothing to do.
    Unchanged,
    /// It failed.
    Failed,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Installed, Self::Unchanged, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// The state of the service that others may see. Shared by its threads.
#[derive(Debug)]
pub struct Metrics(Mutex<State>);

#[derive(Debug)]
struct State {
    installs: BTreeMap<Outcome, u64>,
    repairs: BTreeMap<Reason, u64>,
    runs: BTreeMap<(&'static str, &'static str), u64>,
    run_time: BTreeMap<&'static str, Duration>,
    /// What is not in place, in words; `None` where all is.
    missing: Option<String>,
    contended: bool,
    repairs_in_a_row: u32,
    last_change: Option<SystemTime>,
    turned: Instant,
}

impl Default for Metrics {
    fn default() -> Self {
        Self(Mutex::new(State {
            installs: BTreeMap::new(),
            repairs: BTreeMap::new(),
            runs: BTreeMap::new(),
            run_time: BTreeMap::new(),
            missing: Some("the installer has just started".to_owned()),
            contended: false,
            repairs_in_a_row: 0,
            last_change: None,
            turned: Instant::now(),
        }))
    }
}

impl Metrics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service turns.
    pub fn turned(&self) {
        self.state().turned = Instant::now();
    }

    /// A look came to something.
    pub fn count(&self, outcome: Outcome) {
        let mut state = self.state();
        *state.installs.entry(outcome).or_default() += 1;
        if outcome == Outcome::Installed {
            state.last_change = Some(SystemTime::now());
        }
    }

    /// These were put right.
    pub fn count_repairs(&self, reasons: &[Reason]) {
        for reason in reasons {
            *self.state().repairs.entry(*reason).or_default() += 1;
        }
    }

    /// The plugin ran.
    pub fn count_run(&self, run: &Run) {
        // Of the commands, only the known ones: labels are for ever.
        let command = COMMANDS.into_iter().find(|command| *command == run.command);
        let command = command.unwrap_or("other");
        let mut state = self.state();
        *state.runs.entry((command, run.decision.name())).or_default() += 1;
        *state.run_time.entry(command).or_default() += run.duration;
    }

    /// What is not in place; `None` where all is. Returns whether that is news.
    pub fn set_missing(&self, missing: Option<String>) -> bool {
        let mut state = self.state();
        let news = state.missing != missing;
        state.missing = missing;
        news
    }

    /// How the fight goes, if there is one.
    pub fn set_contended(&self, contended: bool, repairs_in_a_row: u32) {
        let mut state = self.state();
        state.contended = contended;
        state.repairs_in_a_row = repairs_in_a_row;
    }

    /// What is not in place, in words; `None` where all is.
    pub fn missing(&self) -> Option<String> {
        self.state().missing.clone()
    }

    /// Whether the service turns.
    pub fn is_alive(&self) -> bool {
        self.state().turned.elapsed() < HANGING
    }

    /// The state as JSON.
    pub fn status(&self) -> Value {
        let state = self.state();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": state.missing.is_none(),
            "missing": state.missing,
            "contended": state.contended,
            "repairsInARow": state.repairs_in_a_row,
            "lastChange": state.last_change.map(seconds),
        })
    }

    /// The state as Prometheus reads it.
    pub fn exposition(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        let mut metric = |metric: Metric, samples: Vec<(String, f64)>| {
            let Metric { name, kind, help } = metric;
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let one = |value: f64| vec![(String::new(), value)];
        let label = |key: &str, value: &str| format!("{{{key}=\"{value}\"}}");
        let installs = Outcome::ALL.map(|outcome| {
            let count = state.installs.get(&outcome).copied().unwrap_or_default();
            (label("result", outcome.name()), count as f64)
        });
        let repairs = Reason::ALL.map(|reason| {
            let count = state.repairs.get(&reason).copied().unwrap_or_default();
            (label("reason", reason.name()), count as f64)
        });
        let runs = state.runs.iter().map(|((command, decision), count)| {
            let labels = format!("{{command=\"{command}\",decision=\"{decision}\"}}");
            (labels, *count as f64)
        });
        let run_time = state.run_time.iter();
        let run_time = run_time.map(|(command, time)| (label("command", command), time.as_secs_f64()));
        metric(INSTALLS, installs.to_vec());
        metric(REPAIRS, repairs.to_vec());
        metric(READY, one(f64::from(state.missing.is_none())));
        metric(CONTENDED, one(f64::from(state.contended)));
        metric(LAST_CHANGE, one(state.last_change.map_or(0.0, seconds)));
        metric(RUNS, runs.collect());
        metric(RUN_SECONDS, run_time.collect());
        metric(BUILD, vec![(label("version", env!("CARGO_PKG_VERSION")), 1.0)]);
        text
    }
}

fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::report::Decision;
    use super::*;

    #[test]
    fn every_metric_is_exposed() {
        let metrics = Metrics::default();
        let text = metrics.exposition();
        for Metric { name, kind, .. } in METRICS {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{text}");
        }
        assert!(text.contains("sidetrack_node_ready 0\n"), "{text}");
        assert!(
            text.contains("sidetrack_node_repairs_total{reason=\"entry-not-last\"} 0\n"),
            "{text}"
        );
    }

    #[test]
    fn labels_cannot_be_made_up() {
        let metrics = Metrics::default();
        let run = |command: &str| Run {
            command: command.to_owned(),
            namespace: "n".to_owned(),
            pod: "p".to_owned(),
            decision: Decision::Passed,
            reason: String::new(),
            duration: Duration::from_millis(500),
        };
        for command in ["ADD", "ADD", "\"} 1\nx", "anything"] {
            metrics.count_run(&run(command));
        }
        let text = metrics.exposition();
        let runs = "sidetrack_node_plugin_runs_total";
        assert!(
            text.contains(&format!("{runs}{{command=\"ADD\",decision=\"passed\"}} 2\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("{runs}{{command=\"other\",decision=\"passed\"}} 2\n")),
            "{text}"
        );
        assert!(text.contains("run_seconds_total{command=\"ADD\"} 1\n"), "{text}");
    }
}
