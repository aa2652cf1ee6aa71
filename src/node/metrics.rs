//! The metrics of the installer in the text formats of Prometheus (0.0.4) and OpenMetrics (1.0.0), and the state behind
//! its probes.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::layout::{Reason, Verdict};
use crate::cni::environment::Verb;
use crate::cni::report::Outcome;

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in the exposition.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The help text.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by [`BUCKETS`], in seconds. Its name ends in `_seconds`.
    Histogram,
}

impl Kind {
    /// The name of the type in both formats.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The upper bounds of the buckets in seconds: the default ones of Prometheus' client libraries. A bucket for all other
/// observations follows them.
pub const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The format of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0: names of counter families end before `_total`, units are named, and the text ends in `# EOF`.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for; Prometheus prefers OpenMetrics where a server has it.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The name of the family that a metric's samples belong to.
    fn family(self, metric: Metric) -> &'static str {
        match self {
            Self::OpenMetrics if metric.kind == Kind::Counter => {
                metric.name.strip_suffix("_total").unwrap_or(metric.name)
            }
            Self::Prometheus | Self::OpenMetrics => metric.name,
        }
    }
}

/// One for each [`Reason`].
pub const REPAIRS: Metric = Metric {
    name: "sidetrack_node_repairs_total",
    kind: Kind::Counter,
    help: "Repairs of the binary and the configuration, by reason; the first installation counts, too",
};
/// Without labels.
pub const FAILURES: Metric = Metric {
    name: "sidetrack_node_failures_total",
    kind: Kind::Counter,
    help: "Failed scans and repairs; each is retried",
};
/// Without labels.
pub const READY: Metric = Metric {
    name: "sidetrack_node_ready",
    kind: Kind::Gauge,
    help: "1 if binary and configuration are in place",
};
/// Without labels.
pub const CONTENDED: Metric = Metric {
    name: "sidetrack_node_contended",
    kind: Kind::Gauge,
    help: "1 if repairs are slowed down because another process keeps reverting them",
};
/// One for each name of a [`Verdict`].
pub const CONFIGURATIONS: Metric = Metric {
    name: "sidetrack_node_configurations",
    kind: Kind::Gauge,
    help: "Files in the directory of network configurations, by verdict; a blocking file keeps containerd from using any",
};
/// One for each [`Part`].
pub const DEGRADED: Metric = Metric {
    name: "sidetrack_node_degraded",
    kind: Kind::Gauge,
    help: "1 if this part does not work: inotify (the installer polls), health (probes and scrapes get no answer), \
           kernel (rules cannot be applied on this node), pods (pods that lack their rules are not found), \
           startup-taint (the startup taint cannot be removed)",
};
/// Without labels.
pub const STARTUP_TAINT_REMOVALS: Metric = Metric {
    name: "sidetrack_node_startup_taint_removals_total",
    kind: Kind::Counter,
    help: "Removals of the startup taint from the node",
};
/// One for each command and outcome.
pub const PLUGIN_RUNS: Metric = Metric {
    name: "sidetrack_node_plugin_runs_total",
    kind: Kind::Counter,
    help: "Reported plugin runs, by command and outcome",
};
/// One for each command.
pub const PLUGIN_RUN_DURATION: Metric = Metric {
    name: "sidetrack_node_plugin_run_duration_seconds",
    kind: Kind::Histogram,
    help: "Durations of these runs in seconds, by command; a runtime waits that long for the plugin",
};
/// One for each state.
pub const PODS: Metric = Metric {
    name: "sidetrack_node_pods",
    kind: Kind::Gauge,
    help: "Pods of the node at the last scan, by state; pods that are lacking, missed or suspected may bypass their proxy; drifted ones have other rules than their options ask for",
};
/// One for the mode.
pub const POD_REPAIRS: Metric = Metric {
    name: "sidetrack_node_pod_repairs_total",
    kind: Kind::Counter,
    help: "Pods that lacked their rules, or had others, and were repaired, labelled or evicted, by mode",
};
/// One for each reason.
pub const POD_REPAIR_FAILURES: Metric = Metric {
    name: "sidetrack_node_pod_repair_failures_total",
    kind: Kind::Counter,
    help: "Failed pod repairs, by reason",
};
/// One for each direction, verdict and reason that rules with counters have.
pub const CONNECTIONS: Metric = Metric {
    name: "sidetrack_node_connections_total",
    kind: Kind::Counter,
    help: "Connections of pods whose rules have counters, by direction, verdict and reason, as sidetrack stats shows them",
};
/// One for the version.
pub const BUILD: Metric = Metric {
    name: "sidetrack_build_info",
    kind: Kind::Gauge,
    help: "Always 1; the version is a label",
};

/// All metrics.
pub const METRICS: [Metric; 14] = [
    REPAIRS,
    FAILURES,
    READY,
    CONTENDED,
    CONFIGURATIONS,
    DEGRADED,
    STARTUP_TAINT_REMOVALS,
    PLUGIN_RUNS,
    PLUGIN_RUN_DURATION,
    PODS,
    POD_REPAIRS,
    POD_REPAIR_FAILURES,
    CONNECTIONS,
    BUILD,
];

/// An optional part of the installer: what it does not need in order to install the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Notifications of changed files.
    Inotify,
    /// The server for probes and scrapes.
    Health,
    /// The rules of pods, on this node's kernel.
    Kernel,
    /// The search for pods that lack their rules.
    Pods,
    /// The removal of the node's startup taint.
    StartupTaint,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 5] = [
        Self::Inotify,
        Self::Health,
        Self::Kernel,
        Self::Pods,
        Self::StartupTaint,
    ];

    /// The name in [`DEGRADED`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Inotify => "inotify",
            Self::Health => "health",
            Self::Kernel => "kernel",
            Self::Pods => "pods",
            Self::StartupTaint => "startup-taint",
        }
    }
}

/// Names and values of a metric's labels. No value has characters that would have to be escaped.
pub type Labels<'l> = &'l [(&'static str, &'l str)];

/// A service without a heartbeat for this long hangs.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(180);

/// The visible state of the service, shared by its threads.
#[derive(Debug)]
pub struct Metrics(Mutex<State>);

#[derive(Debug)]
struct State {
    /// By metric and label text.
    samples: BTreeMap<(&'static str, String), f64>,
    /// By metric and label text, without the braces.
    histograms: BTreeMap<(&'static str, String), Histogram>,
    /// What is not in place, as text; `None` where everything is.
    missing: Option<String>,
    /// Further text for `/readyz` and `node status`.
    note: Option<String>,
    /// Why rules cannot be applied on this node.
    kernel: Option<String>,
    last_heartbeat: Instant,
}

/// Observations of a duration.
#[derive(Debug, Default)]
struct Histogram {
    /// By [`BUCKETS`], and one for all longer ones. Not cumulative.
    counts: [u64; BUCKETS.len() + 1],
    /// The sum in seconds.
    sum: f64,
}

impl Default for Metrics {
    /// All metrics whose labels are known, at zero: Prometheus sees no increase where a counter begins at one.
    fn default() -> Self {
        let metrics = Self(Mutex::new(State {
            samples: BTreeMap::new(),
            histograms: BTreeMap::new(),
            missing: Some("the installer has just started".to_owned()),
            note: None,
            kernel: None,
            last_heartbeat: Instant::now(),
        }));
        for reason in Reason::ALL {
            metrics.add(REPAIRS, &[("reason", reason.name())], 0.0);
        }
        metrics.add(FAILURES, &[], 0.0);
        metrics.add(STARTUP_TAINT_REMOVALS, &[], 0.0);
        for (verb, command) in Verb::ALL {
            for outcome in Outcome::names_after(verb) {
                metrics.add(PLUGIN_RUNS, &[("command", command), ("outcome", outcome)], 0.0);
            }
        }
        metrics.set(READY, &[], 0.0);
        metrics.set(CONTENDED, &[], 0.0);
        for verdict in Verdict::NAMES {
            metrics.set(CONFIGURATIONS, &[("verdict", verdict)], 0.0);
        }
        for part in Part::ALL {
            metrics.set_degraded(part, false);
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

    /// Sets whether a part does not work.
    pub fn set_degraded(&self, part: Part, is_degraded: bool) {
        self.set(DEGRADED, &[("part", part.name())], f64::from(is_degraded));
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, metric: Metric, labels: Labels, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        let mut state = self.state();
        let histogram = state.histograms.entry((metric.name, pairs(labels))).or_default();
        histogram.counts[bucket.unwrap_or(BUCKETS.len())] += 1;
        histogram.sum += seconds;
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

    /// Sets why rules cannot be applied on this node, if so; it is shown beside readiness, too.
    pub fn set_kernel(&self, reason: Option<String>) {
        self.state().kernel = reason;
    }

    /// What `/readyz` and `node status` show beside readiness.
    pub fn note(&self) -> Option<String> {
        let state = self.state();
        let kernel = state.kernel.as_ref();
        let kernel = kernel.map(|reason| format!("rules cannot be applied on this node: {reason}"));
        let parts: Vec<String> = kernel.into_iter().chain(state.note.clone()).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Records that the service loop runs.
    pub fn heartbeat(&self) {
        self.state().last_heartbeat = Instant::now();
    }

    /// Whether the service loop runs.
    pub fn is_alive(&self) -> bool {
        self.state().last_heartbeat.elapsed() < HEARTBEAT_TIMEOUT
    }

    /// The text that a scrape gets.
    pub fn exposition(&self, format: Format) -> String {
        let state = self.state();
        let mut text = String::new();
        // Writing to a string does not fail.
        let _written = state.write(&mut text, format);
        text
    }
}

impl State {
    fn write(&self, text: &mut String, format: Format) -> fmt::Result {
        for metric in METRICS {
            let (name, family) = (metric.name, format.family(metric));
            writeln!(
                text,
                "# HELP {family} {}\n# TYPE {family} {}",
                metric.help,
                metric.kind.name()
            )?;
            if format == Format::OpenMetrics && family.ends_with("_seconds") {
                writeln!(text, "# UNIT {family} seconds")?;
            }
            for ((_, labels), value) in self.samples.iter().filter(|((of, _), _)| *of == name) {
                writeln!(text, "{name}{labels} {value}")?;
            }
            for ((_, labels), histogram) in self.histograms.iter().filter(|((of, _), _)| *of == name) {
                let mut count = 0;
                let bounds = BUCKETS
                    .iter()
                    .map(|bound| format!("{bound:?}"))
                    .chain(["+Inf".to_owned()]);
                for (bound, counted) in bounds.zip(histogram.counts) {
                    count += counted;
                    writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
                }
                writeln!(
                    text,
                    "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {count}",
                    histogram.sum
                )?;
            }
        }
        if format == Format::OpenMetrics {
            text.push_str("# EOF\n");
        }
        Ok(())
    }
}

fn label_text(labels: Labels) -> String {
    if labels.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", pairs(labels))
    }
}

fn pairs(labels: Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    pairs.join(",")
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
        metrics.observe(PLUGIN_RUN_DURATION, &labels[..1], Duration::from_millis(250));
        metrics.observe(PLUGIN_RUN_DURATION, &labels[..1], Duration::from_secs(20));
        let text = metrics.exposition(Format::Prometheus);
        for expected in [
            "# TYPE sidetrack_node_ready gauge\nsidetrack_node_ready 0\n",
            "sidetrack_node_repairs_total{reason=\"entry-not-last\"} 0\n",
            "counter\nsidetrack_node_plugin_runs_total{command=\"ADD\",outcome=\"failed\"} 2\n",
            "_duration_seconds histogram\nsidetrack_node_plugin_run_duration_seconds_bucket{command=\"ADD\",le=\"0.005\"} 0\n",
            "_bucket{command=\"ADD\",le=\"0.1\"} 0\n",
            "_bucket{command=\"ADD\",le=\"0.25\"} 1\n",
            "_bucket{command=\"ADD\",le=\"10.0\"} 1\n",
            "_bucket{command=\"ADD\",le=\"+Inf\"} 2\nsidetrack_node_plugin_run_duration_seconds_sum{command=\"ADD\"} 20.25\n",
            "_seconds_count{command=\"ADD\"} 2\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        metrics.set_missing(None);
        assert!(
            metrics
                .exposition(Format::Prometheus)
                .contains("\nsidetrack_node_ready 1\n")
        );
    }
}
