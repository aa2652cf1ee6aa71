//! The connections that the rules of all pods of the node have counted, as a metric that never goes down.
//!
//! The numbers of a pod end with it. So each scan adds the increase since the scan before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Found;
use super::worker::COMPARISON_INTERVAL;
use crate::backend::Namespace;
use crate::backend::running::Holder;
use crate::backend::stats::Counted;
use crate::node::metrics::{CONNECTIONS, Metrics};
use crate::stats::{Key, Stats, Unit};

/// The most label sets of the metric: a pod may write comments of its own into its rules.
const MAX_LABEL_SETS: usize = 200;
/// The reason of connections beyond that.
const OTHER: &str = "other";
/// The longest reason of the metric, in bytes.
const MAX_REASON_LENGTH: usize = 64;

/// The numbers of the pods at their last scan.
#[derive(Debug, Default)]
pub struct Connections {
    /// By the ID of the sandbox.
    last: BTreeMap<String, Vec<(Key, u64)>>,
    /// When the counters of a pod were read last, by the same.
    read: BTreeMap<String, Instant>,
    /// The pods that are older than the installer, whose numbers an earlier one may have added.
    older: Option<BTreeSet<String>>,
    label_sets: BTreeSet<(&'static str, &'static str, String)>,
}

impl Connections {
    /// Adds the increases of these pods' numbers, if their rules are in nftables. Those of iptables would need its programs.
    pub fn read(&mut self, found: &[Found], metrics: &Metrics) {
        self.begin(found.iter().map(|one| one.sandbox.container.as_str()));
        let now = Instant::now();
        for one in found {
            let Some((netns, Holder::Sidetrack(backend))) = &one.namespace else {
                continue;
            };
            if backend.layout().is_none() {
                continue;
            }
            let container = one.sandbox.container.as_str();
            let read = self.read.get(container);
            if read.is_some_and(|read| now < *read + COMPARISON_INTERVAL) {
                continue;
            }
            self.read.insert(container.to_owned(), now);
            match netns.administer(|| Namespace::default().stats_of(*backend)) {
                Ok(Ok(Counted::Stats(_, stats))) => self.add(container, &stats, metrics),
                Ok(Ok(Counted::Nothing | Counted::WithoutCounters(_))) => {}
                Ok(Err(error)) => tracing::debug!(pod = %one.sandbox.pod, %error, "cannot read the counters"),
                Err(error) => tracing::debug!(pod = %one.sandbox.pod, %error, "cannot read the counters"),
            }
        }
    }

    /// Begins a scan of these pods.
    fn begin<'p>(&mut self, pods: impl Iterator<Item = &'p str> + Clone) {
        self.older
            .get_or_insert_with(|| pods.clone().map(str::to_owned).collect());
        let pods: BTreeSet<&str> = pods.collect();
        self.last.retain(|pod, _| pods.contains(pod.as_str()));
        self.read.retain(|pod, _| pods.contains(pod.as_str()));
    }

    /// Adds the increase of a pod's numbers.
    fn add(&mut self, pod: &str, stats: &Stats, metrics: &Metrics) {
        let is_older = self.older.as_ref().is_some_and(|older| older.contains(pod));
        let before = self.last.get(pod);
        let rows = stats.rows.iter().filter(|row| row.key.unit == Unit::Connections);
        let mut now = Vec::new();
        let mut increases = Vec::new();
        for row in rows {
            let known = before.and_then(|before| before.iter().find(|(key, _)| *key == row.key));
            let last = match (known, before) {
                (Some((_, last)), _) => *last,
                (None, None) if is_older => row.count,
                (None, _) => 0,
            };
            increases.push((row.key.clone(), row.count.saturating_sub(last)));
            now.push((row.key.clone(), row.count));
        }
        self.last.insert(pod.to_owned(), now);
        for (key, increase) in increases {
            let (direction, verdict) = (key.direction(), key.verdict.name());
            let reason = self.reason(direction, verdict, &key);
            let labels = [("direction", direction), ("verdict", verdict), ("reason", &reason)];
            metrics.add(CONNECTIONS, &labels, increase as f64);
        }
    }

    /// The reason of a label set; [`OTHER`] if there are too many.
    fn reason(&mut self, direction: &'static str, verdict: &'static str, key: &Key) -> String {
        let mut reason = key.reason_word();
        reason.truncate(MAX_REASON_LENGTH); // It is ASCII.
        let set = (direction, verdict, reason.clone());
        if self.label_sets.contains(&set) {
            return reason;
        }
        if self.label_sets.len() >= MAX_LABEL_SETS {
            return OTHER.to_owned();
        }
        self.label_sets.insert(set);
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::metrics::Format;
    use crate::ruleset::Hook;
    use crate::stats::{Row, Verdict};

    fn stats(reason: &str, count: u64) -> Stats {
        let key = Key {
            hook: Hook::Output,
            unit: Unit::Connections,
            verdict: Verdict::Accept,
            reason: reason.to_owned(),
        };
        Stats {
            rows: vec![Row { key, count }],
        }
    }

    fn scan(connections: &mut Connections, metrics: &Metrics, pods: &[(&str, u64)]) -> f64 {
        connections.begin(pods.iter().map(|(pod, _)| *pod));
        for (pod, count) in pods {
            connections.add(pod, &stats("excluded owners", *count), metrics);
        }
        let text = metrics.exposition(Format::Prometheus);
        let sample =
            "sidetrack_node_connections_total{direction=\"outbound\",verdict=\"accept\",reason=\"excluded_owners\"} ";
        let value = text.lines().find_map(|line| line.strip_prefix(sample));
        value.map_or(f64::NAN, |value| value.parse().unwrap())
    }

    #[test]
    fn numbers_never_go_down_and_older_connections_do_not_count() {
        let (mut connections, metrics) = (Connections::default(), Metrics::default());
        let mut scan = |pods: &[(&str, u64)]| scan(&mut connections, &metrics, pods);
        assert_eq!(scan(&[("a", 1000)]), 0.0);
        assert_eq!(scan(&[("a", 1010)]), 10.0);
        // A pod that started since, and one that is gone.
        assert_eq!(scan(&[("b", 5)]), 15.0);
        // Its rules were applied anew.
        assert_eq!(scan(&[("b", 2)]), 15.0);
        assert_eq!(scan(&[("b", 7), ("c", 3)]), 23.0);
    }

    #[test]
    fn invented_reasons_are_bounded() {
        let (mut connections, metrics) = (Connections::default(), Metrics::default());
        connections.begin(["a"].into_iter());
        connections.begin(["a", "b"].into_iter());
        for number in 0..1000 {
            connections.add("b", &stats(&format!("reason \"{number}\""), 1), &metrics);
        }
        let text = metrics.exposition(Format::Prometheus);
        let samples: Vec<&str> = text.lines().filter(|line| line.starts_with(CONNECTIONS.name)).collect();
        assert_eq!(samples.len(), MAX_LABEL_SETS + 1);
        assert!(
            samples.iter().any(|line| line.contains("reason=\"other\"} 800")),
            "{samples:?}"
        );
        assert!(!text.contains("\"reason \""));
    }
}
