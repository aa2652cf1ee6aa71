//! The dashboard and the alerts of the Helm chart: they ask for metrics, labels and values that the installer has, and for
//! all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use sidetrack::cni::environment::Verb;
use sidetrack::cni::report::Outcome;
use sidetrack::node::layout::Verdict;
use sidetrack::node::metrics::{Kind, METRICS, Metric, Part};
use sidetrack::node::repair::state::State;

/// What Prometheus adds to a sample: the scraped node, and the bound of a histogram's bucket.
const ADDED_LABELS: [&str; 2] = ["instance", "le"];

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn file(name: &str) -> Value {
    let text = text(&format!("cni-conf/helm/sidetrack/files/{name}"));
    sidetrack::yaml::document(&text).expect("YAML or JSON").to_json()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("an array").iter()
}

fn string(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// The rules of alerts.yaml.
fn alerts() -> Vec<Value> {
    let file = file("alerts.yaml");
    array(&file["groups"])
        .flat_map(|group| array(&group["rules"]))
        .cloned()
        .collect()
}

/// The expressions of the dashboard, each with its legend.
fn queries() -> Vec<(String, String)> {
    let file = file("dashboard.json");
    array(&file["panels"])
        .flat_map(|panel| array(&panel["targets"]))
        .map(|target| {
            (
                string(&target["expr"]).to_owned(),
                string(&target["legendFormat"]).to_owned(),
            )
        })
        .collect()
}

fn expressions() -> Vec<String> {
    let queries = queries().into_iter().map(|(expression, _)| expression);
    let alerts = alerts();
    let alerts = alerts.iter().map(|rule| string(&rule["expr"]).to_owned());
    queries.chain(alerts).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !is_part(c)).filter(|word| !word.is_empty())
}

/// The metric that a series belongs to.
fn metric(series: &str) -> Option<Metric> {
    METRICS.into_iter().find(|metric| match metric.kind {
        Kind::Counter | Kind::Gauge => metric.name == series,
        Kind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|suffix| series.strip_suffix(suffix) == Some(metric.name)),
    })
}

/// The labels of each metric, from the table in docs/node.md.
fn labels() -> BTreeMap<&'static str, BTreeSet<String>> {
    let page = text("docs/node.md");
    let of_metric = |metric: Metric| {
        let row = format!("| `{}", metric.name);
        let rest = page.lines().find_map(|line| line.strip_prefix(&row)).expect("a row");
        let (labels, _) = rest.split_once('`').expect("the end of the name");
        (metric.name, words(labels).map(str::to_owned).collect())
    };
    METRICS.into_iter().map(of_metric).collect()
}

/// The values that a label can have, where there are few.
fn values(metric: &str, label: &str) -> Vec<&'static str> {
    match (metric, label) {
        ("sidetrack_node_pods", "state") => State::NAMES.to_vec(),
        ("sidetrack_node_configurations", "verdict") => Verdict::NAMES.to_vec(),
        ("sidetrack_node_degraded", "part") => Part::ALL.map(Part::name).to_vec(),
        (_, "command") => Verb::ALL.map(|(_, name)| name).to_vec(),
        (_, "outcome") => Outcome::NAMES.to_vec(),
        _ => panic!("what can {label} of {metric} be?"),
    }
}

/// The labels that an expression keeps: those of its outermost aggregation, or those of its metrics.
fn kept(expression: &str, all: &BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<String> {
    let is_aggregation = ["sum", "count", "histogram_quantile"]
        .iter()
        .any(|name| expression.starts_with(name));
    match expression.split_once(" by (") {
        // The first is the outermost.
        Some((_, rest)) => words(rest.split(')').next().unwrap_or(rest))
            .map(str::to_owned)
            .collect(),
        None if is_aggregation => BTreeSet::new(),
        None => {
            let metrics = words(expression).filter_map(metric);
            let labels = metrics.flat_map(|metric| all[metric.name].clone());
            labels.chain(ADDED_LABELS.map(str::to_owned)).collect()
        }
    }
}

#[test]
fn dashboard_and_alerts_ask_for_existing_metrics_labels_and_values() {
    let all = labels();
    for expression in expressions() {
        let mut series = expression.match_indices("sidetrack_").peekable();
        assert!(series.peek().is_some(), "{expression}");
        for (at, _) in series {
            let rest = &expression[at..];
            let name = words(rest).next().expect("a name");
            let metric = metric(name).unwrap_or_else(|| panic!("there is no {name}: {expression}"));
            let known = |label: &str| all[metric.name].contains(label) || ADDED_LABELS.contains(&label);
            let selector = rest[name.len()..]
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'));
            for matcher in selector
                .map_or("", |(matchers, _)| matchers)
                .split(',')
                .filter(|one| !one.is_empty())
            {
                let (label, value) = matcher.split_once(['=', '!']).expect("a matcher");
                assert!(known(label), "{name} has no {label}: {expression}");
                let value = value.trim_start_matches(['=', '~']).trim_matches('"');
                for value in value.split('|').filter(|value| *value != "$instance") {
                    assert!(
                        values(metric.name, label).contains(&value),
                        "{label} is never {value}: {expression}"
                    );
                }
            }
        }
        for by in expression.split(" by (").skip(1) {
            for label in words(by.split(')').next().unwrap_or(by)) {
                let mut metrics = words(&expression).filter_map(metric);
                let known = ADDED_LABELS.contains(&label) || metrics.any(|metric| all[metric.name].contains(label));
                assert!(known, "no metric has {label}: {expression}");
            }
        }
    }
}

/// A legend or a message that names a label which the expression has summed away is empty.
#[test]
fn legends_and_messages_name_labels_that_their_expressions_keep() {
    let all = labels();
    for (expression, legend) in queries() {
        let kept = kept(&expression, &all);
        for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            assert!(kept.contains(label), "{label}: {expression}");
        }
    }
    for rule in alerts() {
        let expression = string(&rule["expr"]);
        let kept = kept(expression, &all);
        let messages = rule["annotations"].to_string();
        for label in messages.split("$labels.").skip(1).filter_map(|rest| words(rest).next()) {
            assert!(kept.contains(label), "{label}: {expression}");
        }
    }
}

#[test]
fn each_metric_is_on_the_dashboard() {
    let queries = queries();
    let shown = queries.iter().flat_map(|(expression, _)| words(expression));
    let shown: BTreeSet<&str> = shown.filter_map(metric).map(|metric| metric.name).collect();
    assert_eq!(shown, METRICS.iter().map(|metric| metric.name).collect());
}

#[test]
fn panels_do_not_overlap() {
    let file = file("dashboard.json");
    let mut taken = BTreeSet::new();
    for panel in array(&file["panels"]) {
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
            let cell = (place("x") + x, place("y") + y);
            assert!(cell.0 < 24 && taken.insert(cell), "{}", panel["title"]);
        }
    }
}

/// The table in docs/troubleshooting.md says what to do about each alert.
#[test]
fn each_alert_is_explained() {
    let page = text("docs/troubleshooting.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `Sidetrack"));
    let explained: Vec<String> = rows
        .filter_map(|row| row.split('`').next())
        .map(|name| format!("Sidetrack{name}"))
        .collect();
    let alerts: Vec<String> = alerts().iter().map(|rule| string(&rule["alert"]).to_owned()).collect();
    assert_eq!(explained, alerts);
}
