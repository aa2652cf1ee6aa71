//! docs/node.md matches the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sidetrack::cni::environment::Verb;
use sidetrack::cni::report::{Outcome, Report, SOCKET};
use sidetrack::node::layout::Reason;
use sidetrack::node::metrics::METRICS;
use sidetrack::node::repair::FAILURES;
use sidetrack::node::repair::state::State;

use crate::common::output_of;
use crate::program::schema::assert_conforms;
use crate::{SIDETRACK, generated};

fn text() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/node.md")).expect("docs/node.md")
}

/// The first column of the table rows that begin like this.
fn rows<'t>(text: &'t str, begin: &str) -> BTreeSet<&'t str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter(|row| row.starts_with(begin))
        .filter_map(|row| row.split(['`', ' ', '{']).next())
        .collect()
}

/// So that what is said of it, such as where it answers, is true of what is installed.
#[test]
fn manifest_is_that_of_the_base() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cni-conf/kubernetes/base/daemonset.yaml");
    let base = fs::read_to_string(path).expect("the base");
    generated::part("docs/node.md", "daemonset", &format!("```yaml\n{base}```\n"));
}

#[test]
fn table_of_options_matches_the_code() {
    let text = text();
    let mut flags = BTreeSet::new();
    for command in ["install", "uninstall", "status", "repair", "pods"] {
        let help = output_of(Command::new(SIDETRACK).args(["node", command, "--help"]));
        let words = help.split([' ', ',', '\n']).filter(|word| word.starts_with("--"));
        let of_every_command = ["--help", "--verbose...", "--log-level", "--log-format"];
        let words = words.filter(|word| !of_every_command.contains(word));
        flags.extend(words.map(str::to_owned));
        for default in help.split("[default: ").skip(1) {
            let (default, _) = default.split_once(']').expect("its end");
            let known = ["text", "info"].contains(&default);
            assert!(known || text.contains(&format!("`{default}`")), "the default {default}");
        }
    }
    assert!(flags.len() >= 12, "{flags:?}");
    let flags: BTreeSet<&str> = flags.iter().map(String::as_str).collect();
    assert_eq!(rows(&text, "--"), flags);
}

#[test]
fn table_of_metrics_matches_the_code() {
    let text = text();
    let metrics: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(rows(&text, "sidetrack_"), metrics);
    for metric in METRICS {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{}", metric.name)))
            .expect("a row");
        assert!(
            row.contains(metric.kind.name()) && row.contains(metric.help),
            "{row}\n{metric:?}"
        );
    }
    let reasons = Reason::ALL.map(Reason::name);
    for name in reasons.into_iter().chain(State::NAMES).chain(FAILURES) {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn report_of_a_run_is_documented() {
    let text = text();
    let commands = Verb::ALL.map(|(_, name)| name);
    for word in commands.into_iter().chain(Outcome::NAMES).chain([SOCKET]) {
        assert!(text.contains(&format!("`{word}`")), "{word}");
    }
    let (_, rest) = text.split_once("```json\n").expect("a report");
    let (example, _) = rest.split_once("```").expect("its end");
    let report = Report::parse(example.as_bytes()).expect("a report");
    assert_eq!(report.pod.to_string(), "shop/web-0");
    let members: Value = serde_json::from_str(example).expect("JSON");
    assert_conforms("plugin-report", &members);
    for key in members.as_object().expect("an object").keys() {
        assert!(text.contains(&format!("`{key}`")), "{key}");
    }
}

#[test]
fn manifest_names_existing_options_and_mounts() {
    let text = text();
    let (_, rest) = text.split_once("```yaml\n").expect("a manifest");
    let (manifest, _) = rest.split_once("```").expect("its end");
    let manifest = sidetrack::yaml::document(manifest).expect("YAML").to_json();
    let pod = &manifest["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["args"], serde_json::json!(["node", "install"]));
    let flags = rows(&text, "--");
    let variables = container["env"].as_array().expect("variables");
    let is_used = |name: &str| {
        let mut values = variables.iter().filter_map(|variable| variable["value"].as_str());
        values.any(|value| value.contains(&format!("$({name})")))
    };
    for variable in variables {
        let name = variable["name"].as_str().expect("a name");
        let Some(flag) = name.strip_prefix("SIDETRACK_NODE_") else {
            assert!(is_used(name), "{name}");
            continue;
        };
        let flag = format!("--{}", flag.to_lowercase().replace('_', "-"));
        assert!(flags.contains(flag.as_str()), "{name}");
    }
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    let paths: Vec<&str> = mounts.iter().filter_map(|mount| mount["mountPath"].as_str()).collect();
    assert_eq!(
        paths,
        [
            "/host/opt/cni/bin",
            "/host/etc/cni/net.d",
            "/var/run/sidetrack",
            "/host/var/lib/cni/results"
        ]
    );
    assert!(paths.iter().all(|path| text.contains(&format!("`{path}"))));
    assert_eq!(pod["volumes"].as_array().map(Vec::len), Some(paths.len()));
}
