//! The metrics of the installer in the text format of Prometheus (0.0.4), and the state behind its probes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::layout::{Reason, Verdict};

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in the exposition.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// The help text.
    pub help: &'static str,
}

/// One for each [`Reason`].
pub const REPAIRS: Metric = Metric {
    name: "sidetrack_node_repairs_total",
    kind: "counter",
    help: "Repairs of the binary and the configuration, by reason; the first installation counts, too",
};
/// Without labels.
pub const FAILURES: Metric = Metric {
    name: "sidetrack_node_failures_total",
    kind: "counter",
    help: "Failed scans and repairs; each is retried",
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
    help: "1 if repairs are slowed down because another process keeps reverting them",
};
/// One for each name of a [`Verdict`].
pub const CONFIGURATIONS: Metric = Metric {
    name: "sidetrack_node_configurations",
    kind: "gauge",
    help: "Files in the directory of network configurations, by verdict; a blocking file keeps containerd from using any",
};
/// One for each of [`PARTS`].
pub const DEGRADED: Metric = Metric {
    name: "sidetrack_node_degraded",
    kind: "gauge",
    help: "1 if this part does not work: inotify (the installer polls), health (probes and scrapes get no answer), \
           pods (pods that lack their rules are not found), startup-taint (the startup taint cannot be removed)",
};
/// Without labels.
pub const STARTUP_TAINT_REMOVALS: Metric = Metric {
    name: "sidetrack_node_startup_taint_removals_total",
    kind: "counter",
    help: "Removals of the startup taint from the node",
};
/// One for each command and outcome.
pub const PLUGIN_RUNS: Metric = Metric {
    name: "sidetrack_node_plugin_runs_total",
    kind: "counter",
    help: "Reported plugin runs, by command and outcome",
};
/// One for each command.
pub const PLUGIN_RUN_SECONDS: Metric = Metric {
    name: "sidetrack_node_plugin_run_seconds_total",
    kind: "counter",
    help: "Total duration of these runs in seconds, by command",
};
/// One for each state.
pub const PODS: Metric = Metric {
    name: "sidetrack_node_pods",
    kind: "gauge",
    help: "Pods of the node at the last scan, by state; pods that are lacking, missed or suspected may bypass their proxy; drifted ones have other rules than their options ask for",
};
/// One for the mode.
pub const POD_REPAIRS: Metric = Metric {
    name: "sidetrack_node_pod_repairs_total",
    kind: "counter",
    help: "Pods that lacked their rules, or had others, and were repaired, labelled or evicted, by mode",
};
/// One for each reason.
pub const POD_REPAIR_FAILURES: Metric = Metric {
    name: "sidetrack_node_pod_repair_failures_total",
    kind: "counter",
    help: "Failed pod repairs, by reason",
};
/// One for the version.
pub const BUILD: Metric = Metric {
    name: "sidetrack_build_info",
    kind: "gauge",
    help: "Always 1; the version is a label",
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

/// The optional parts of the installer.
pub const PARTS: [&str; 4] = ["inotify", "health", "pods", "startup-taint"];

/// Names and values of a metric's labels. No value comes from outside this program.
pub type Labels<'l> = &'l [(&'static str, &'static str)];

/// A service without a heartbeat for this long hangs.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(180);

/// The visible state of the service, shared by its threads.
#[derive(Debug)]
pub struct Metrics(Mutex<State>);

#[derive(Debug)]
struct State {
    /// By metric and label text.
    samples: BTreeMap<(&'static str, String), f64>,
    /// What is not in place, as text; `None` where everything is.
    missing: Option<String>,
    /// Further text for `/readyz` and `node status`.
    note: Option<String>,
    last_heartbeat: Instant,
}

impl Default for Metrics {
    /// All metrics whose labels are known, at zero.
    fn default() -> Self {
        let metrics = Self(Mutex::new(State {
            samples: BTreeMap::new(),
            missing: Some("the installer has just started".to_owned()),
            note: None,
            last_heartbeat: Instant::now(),
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
        *self
            .state()
            .samples
            .entry((metric.name, label_text(labels)))
            .or_default() += by;
    }

    /// Sets a gauge.
    pub fn set(&self, metric: Metric, labels: Labels, value: f64) {
        self.state().samples.insert((metric.name, label_text(labels)), value);
    }

    /// Sets what is not in place, as text; `None` where everything is.
    pub fn set_missing(&self, missing: Option<String>) {
        self.set(READY, &[], f64::from(missing.is_none()));
        self.state().missing = missing;
    }

    /// What is not in place, as text; `None` where everything is.
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

    /// Records that the service loop runs.
    pub fn heartbeat(&self) {
        self.state().last_heartbeat = Instant::now();
    }

    /// Whether the service loop runs.
    pub fn is_alive(&self) -> bool {
        self.state().last_heartbeat.elapsed() < HEARTBEAT_TIMEOUT
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

fn label_text(labels: Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", pairs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_their_metric() {
        let metrics = Metrics::default();
        let labels = [("command", "ADD"), ("outcome", "failed")];
        metrics.add(PLUGIN_RUNS, &labels, 1.0);
        metrics.add(PLUGIN_RUNS, &labels, 1.0);
        metrics.add(PLUGIN_RUN_SECONDS, &labels[..1], 0.25);
        let text = metrics.exposition();
        for expected in [
            "# TYPE sidetrack_node_ready gauge\nsidetrack_node_ready 0\n",
            "sidetrack_node_repairs_total{reason=\"entry-not-last\"} 0\n",
            "counter\nsidetrack_node_plugin_runs_total{command=\"ADD\",outcome=\"failed\"} 2\n",
            "counter\nsidetrack_node_plugin_run_seconds_total{command=\"ADD\"} 0.25\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        metrics.set_missing(None);
        assert!(metrics.exposition().contains("\nsidetrack_node_ready 1\n"));
    }
}
