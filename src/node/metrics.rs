//! What the installer counts, as Prometheus reads it (text format 0.0.4), and what its probes ask.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::layout::{Reason, Verdict};

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

/// One for each [`Reason`].
pub const REPAIRS: Metric = Metric {
    name: "sidetrack_node_repairs_total",
    kind: "counter",
    help: "What was put right, by reason; the first installation counts, too",
};
/// Without labels.
pub const FAILURES: Metric = Metric {
    name: "sidetrack_node_failures_total",
    kind: "counter",
    help: "Looks and repairs that failed, each to be tried again",
};
/// Without labels.
pub const READY: Metric = Metric {
    name: "sidetrack_node_ready",
    kind: "gauge",
    help: "1 if binary and configuration are in place",
};
/// Without labels.
pub const CONTENDED: Metric = Metric {
    name: "sidetrack_node_contended",
    kind: "gauge",
    help: "1 if repairs are slowed down, since somebody keeps undoing them",
};
/// One for each name of a [`Verdict`].
pub const CONFIGURATIONS: Metric = Metric {
    name: "sidetrack_node_configurations",
    kind: "gauge",
    help: "Files in the directory of network configurations, by verdict; with one that is blocking, containerd takes none",
};
/// One for each of [`PARTS`].
pub const DEGRADED: Metric = Metric {
    name: "sidetrack_node_degraded",
    kind: "gauge",
    help: "1 if the installer goes on without this part: inotify (it polls), health (nothing answers probes and scrapes), \
           pods (those that lack their rules are not found), startup-taint (it cannot be removed)",
};
/// Without labels.
pub const STARTUP_TAINT_REMOVALS: Metric = Metric {
    name: "sidetrack_node_startup_taint_removals_total",
    kind: "counter",
    help: "How often the startup taint was removed from the node",
};
/// One for each command and outcome.
pub const PLUGIN_RUNS: Metric = Metric {
    name: "sidetrack_node_plugin_runs_total",
    kind: "counter",
    help: "Runs of the plugin that were reported, by command and outcome",
};
/// One for each command.
pub const PLUGIN_RUN_SECONDS: Metric = Metric {
    name: "sidetrack_node_plugin_run_seconds_total",
    kind: "counter",
    help: "The time that these runs took, by command",
};
/// One for each state.
pub const PODS: Metric = Metric {
    name: "sidetrack_node_pods",
    kind: "gauge",
    help: "The pods of the node at the last look, by state; those that are lacking, missed or suspected may bypass their proxy",
};
/// One for the mode.
pub const POD_REPAIRS: Metric = Metric {
    name: "sidetrack_node_pod_repairs_total",
    kind: "counter",
    help: "Pods that lacked their rules and were treated as the mode says",
};
/// One for each reason.
pub const POD_REPAIR_FAILURES: Metric = Metric {
    name: "sidetrack_node_pod_repair_failures_total",
    kind: "counter",
    help: "Repairs of pods that failed, by reason",
};
/// One for the version.
pub const BUILD: Metric = Metric {
    name: "sidetrack_build_info",
    kind: "gauge",
    help: "1, with the version as a label",
};

/// All metrics.
pub const METRICS: [Metric; 13] = [
    REPAIRS,
    FAILURES,
    READY,
    CONTENDED,
    CONFIGURATIONS,
    DEGRADED,
    STARTUP_TAINT_REMOVALS,
    PLUGIN_RUNS,
    PLUGIN_RUN_SECONDS,
    PODS,
    POD_REPAIRS,
    POD_REPAIR_FAILURES,
    BUILD,
];

/// What the installer can go on without.
pub const PARTS: [&str; 4] = ["inotify", "health", "pods", "startup-taint"];

/// Names and values of a metric's labels. None of them is made up by others.
pub type Labels<'l> = &'l [(&'static str, &'static str)];

/// A service that has not turned for this long hangs.
const HANGING: Duration = Duration::from_secs(180);

/// The state of the service that others may see. Shared by its threads.
#[derive(Debug)]
pub struct Metrics(Mutex<State>);

#[derive(Debug)]
struct State {
    /// By metric and labels, as they are written.
    samples: BTreeMap<(&'static str, String), f64>,
    /// What is not in place, in words; `None` where all is.
    missing: Option<String>,
    /// What else `/readyz` and `node status` show.
    note: Option<String>,
    turned: Instant,
}

impl Default for Metrics {
    /// Nothing has happened, which is told, too, where it is known what could.
    fn default() -> Self {
        let metrics = Self(Mutex::new(State {
            samples: BTreeMap::new(),
            missing: Some("the installer has just started".to_owned()),
            note: None,
            turned: Instant::now(),
        }));
        for reason in Reason::ALL {
            metrics.add(REPAIRS, &[("reason", reason.name())], 0.0);
        }
        metrics.add(FAILURES, &[], 0.0);
        metrics.add(STARTUP_TAINT_REMOVALS, &[], 0.0);
        metrics.set(READY, &[], 0.0);
        metrics.set(CONTENDED, &[], 0.0);
        for verdict in Verdict::NAMES {
            metrics.set(CONFIGURATIONS, &[("verdict", verdict)], 0.0);
        }
        for part in PARTS {
            metrics.set(DEGRADED, &[("part", part)], 0.0);
        }
        metrics.set(BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        metrics
    }
}

impl Metrics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises a counter.
    pub fn add(&self, metric: Metric, labels: Labels, by: f64) {
        *self.state().samples.entry((metric.name, written(labels))).or_default() += by;
    }

    /// Sets a gauge.
    pub fn set(&self, metric: Metric, labels: Labels, value: f64) {
        self.state().samples.insert((metric.name, written(labels)), value);
    }

    /// Says what is not in place, in words; `None` where all is.
    pub fn set_missing(&self, missing: Option<String>) {
        self.set(READY, &[], f64::from(missing.is_none()));
        self.state().missing = missing;
    }

    /// What is not in place, in words; `None` where all is.
    pub fn missing(&self) -> Option<String> {
        self.state().missing.clone()
    }

    /// Sets what `/readyz` and `node status` show beside readiness.
    pub fn set_note(&self, note: String) {
        self.state().note = Some(note);
    }

    /// What `/readyz` and `node status` show beside readiness.
    pub fn note(&self) -> Option<String> {
        self.state().note.clone()
    }

    /// The service turns.
    pub fn turned(&self) {
        self.state().turned = Instant::now();
    }

    /// Whether the service turns.
    pub fn is_alive(&self) -> bool {
        self.state().turned.elapsed() < HANGING
    }

    /// The metrics as Prometheus reads them.
    pub fn exposition(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        for Metric { name, kind, help } in METRICS {
            // Writing to a string does not fail.
            let _written = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for ((_, labels), value) in state.samples.iter().filter(|((of, _), _)| *of == name) {
                let _written = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }
}

fn written(labels: Labels) -> String {
    let written: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    if written.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", written.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_below_their_metric() {
        let metrics = Metrics::default();
        let labels = [("command", "ADD"), ("outcome", "failed")];
        metrics.add(PLUGIN_RUNS, &labels, 1.0);
        metrics.add(PLUGIN_RUNS, &labels, 1.0);
        metrics.add(PLUGIN_RUN_SECONDS, &labels[..1], 0.25);
        let text = metrics.exposition();
        for said in [
            "# TYPE sidetrack_node_ready gauge\nsidetrack_node_ready 0\n",
            "sidetrack_node_repairs_total{reason=\"entry-not-last\"} 0\n",
            "counter\nsidetrack_node_plugin_runs_total{command=\"ADD\",outcome=\"failed\"} 2\n",
            "counter\nsidetrack_node_plugin_run_seconds_total{command=\"ADD\"} 0.25\n",
        ] {
            assert!(text.contains(said), "{said} in {text}");
        }
        metrics.set_missing(None);
        assert!(metrics.exposition().contains("\nsidetrack_node_ready 1\n"));
    }
}
