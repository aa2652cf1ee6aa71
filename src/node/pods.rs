//! The pods of the node, as `node pods` prints them: as text and as JSON.

use serde_json::{Value, json};

use super::repair::{Found, Scan};
use crate::backend::running::Holder;
use crate::cni::capability::POD_ANNOTATIONS;
use crate::cni::late::Basis;
use crate::drift::Difference;
use crate::types::timestamp;

/// The version of the JSON schema.
const VERSION: u32 = 1;

/// All pods as a table.
pub fn table(scan: &Scan) -> String {
    let head = ["POD", "MESH", "VERDICT", "STATE", "BACKEND", "SINCE", "REASON"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(scan.found.iter().map(row)).collect();
    lines(&rows)
}

/// A change of a pod on one line.
pub fn change_as_text(what: &str, found: &Found) -> String {
    let [pod, mesh, verdict, state, backend, _, reason] = row(found);
    let line = format!("{what}: {pod} mesh={mesh} verdict={verdict} state={state} backend={backend}: {reason}");
    format!("{}\n", one_line(&line))
}

fn row(found: &Found) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        found.sandbox.pod.to_string(),
        or_dash(mesh(found)),
        found.decision.name().to_owned(),
        found.state.name().to_owned(),
        or_dash(found.backend().map(|backend| backend.to_string())),
        or_dash(found.sandbox.attached.map(timestamp)),
        reason(found).to_owned(),
    ]
}

/// The columns of a table, each as wide as its widest text.
fn lines(rows: &[[String; 7]]) -> String {
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let is_last = column + 1 == row.len();
            let width = rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default();
            let padding = if is_last { 0 } else { width + 2 - cell.chars().count() };
            text += &one_line(cell);
            text += &" ".repeat(padding);
        }
        text.push('\n');
    }
    text
}

/// Texts of pods on one line, so that they cannot forge others.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Why the state is as it is, or, if it is as the plugin would have it, why the plugin decides so.
fn reason(found: &Found) -> &str {
    if found.state.name() == "in-sync" && found.basis != Some(Basis::Record) {
        found.decision.reason()
    } else {
        found.state.reason()
    }
}

fn mesh(found: &Found) -> Option<String> {
    found.sandbox.mesh().map(|mesh| mesh.to_string())
}

/// All pods as a JSON document.
pub fn document(scan: &Scan) -> String {
    let pods: Vec<Value> = scan.found.iter().map(summary).collect();
    let document = json!({ "version": VERSION, "pods": pods, "skippedFiles": scan.unusable });
    format!("{document:#}\n")
}

/// A change of a pod as a JSON document on one line.
pub fn change(what: &str, found: &Found) -> String {
    format!(
        "{}\n",
        json!({ "version": VERSION, "event": what, "pod": summary(found) })
    )
}

/// What the list says of a pod.
fn summary(found: &Found) -> Value {
    json!({
        "namespace": found.sandbox.pod.namespace,
        "name": found.sandbox.pod.name,
        "container": found.sandbox.container,
        "mesh": mesh(found),
        "verdict": found.decision.name(),
        "verdictReason": found.decision.reason(),
        "state": found.state.name(),
        "reason": found.state.reason(),
        "comparedWith": found.basis.map(Basis::name),
        "backend": found.backend().map(|backend| backend.to_string()),
        "since": found.sandbox.attached.map(timestamp),
        "warning": found.warning,
    })
}

/// All that is known about one pod as a JSON document.
pub fn detailed_document(found: &Found) -> String {
    let sandbox = &found.sandbox;
    let mut pod = summary(found);
    pod["version"] = VERSION.into();
    pod["uid"] = json!(sandbox.uid);
    pod["interface"] = json!(sandbox.ifname);
    pod["network"] = sandbox.request()["name"].clone();
    pod["addresses"] = json!(sandbox.addresses);
    pod["nameServers"] = json!(name_servers(found));
    pod["ranPlugin"] = json!(sandbox.ran_plugin);
    pod["annotations"] = sandbox.request()["runtimeConfig"][POD_ANNOTATIONS].clone();
    pod["result"] = sandbox.request()["prevResult"].clone();
    pod["netns"] = json!(netns(found));
    pod["redirectedBy"] = json!(holder(found));
    pod["differences"] = found.differences.iter().map(Difference::json).collect();
    format!("{pod:#}\n")
}

/// All that is known about one pod as text.
pub fn detailed_text(found: &Found) -> String {
    let Found {
        sandbox,
        decision,
        state,
        warning,
        ..
    } = found;
    let list = |texts: Vec<String>| {
        if texts.is_empty() {
            "-".to_owned()
        } else {
            texts.join(", ")
        }
    };
    let texts = |addresses: &[std::net::IpAddr]| list(addresses.iter().map(ToString::to_string).collect());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let network = sandbox.request()["name"].as_str().unwrap_or_default();
    let mut lines = vec![
        ("pod", sandbox.pod.to_string()),
        ("uid", or_dash(sandbox.uid.clone())),
        ("container", sandbox.container.clone()),
        ("since", or_dash(sandbox.attached.map(timestamp))),
        ("network", format!("{network}, interface {}", sandbox.ifname)),
        ("addresses", texts(&sandbox.addresses)),
        ("name servers", texts(&name_servers(found))),
        (
            "attached by",
            match sandbox.ran_plugin {
                Some(true) => "a chain with the plugin",
                Some(false) => "a chain without the plugin",
                None => "a chain that the cache does not show",
            }
            .to_owned(),
        ),
        ("netns", or_dash(netns(found))),
        ("redirected by", holder(found)),
        ("mesh", or_dash(mesh(found))),
        ("verdict", format!("{}: {}", decision.name(), decision.reason())),
        ("state", format!("{}: {}", state.name(), state.reason())),
        (
            "compared with",
            match found.basis {
                Some(Basis::Plugin) => "the options that the plugin has for it",
                Some(Basis::Record) => "the options recorded with its rules",
                None => "-",
            }
            .to_owned(),
        ),
    ];
    lines.extend(warning.iter().map(|warning| ("warning", warning.clone())));
    let annotations = sandbox.request()["runtimeConfig"][POD_ANNOTATIONS].as_object();
    let annotations = annotations.into_iter().flatten();
    lines.extend(annotations.map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        ("annotation", format!("{name}: {value}"))
    }));
    lines.extend(
        found
            .differences
            .iter()
            .map(|difference| ("difference", difference.to_string())),
    );
    let line = |(name, text): &(&str, String)| format!("{name:<14} {}\n", one_line(text));
    lines.iter().map(line).collect()
}

fn name_servers(found: &Found) -> Vec<std::net::IpAddr> {
    found
        .sandbox
        .netconf()
        .map(|netconf| netconf.resolvers)
        .unwrap_or_default()
}

fn netns(found: &Found) -> Option<String> {
    match &found.namespace {
        Some((netns, _)) => Some(netns.path().display().to_string()),
        None => found.sandbox.netns.first().map(|path| path.display().to_string()),
    }
}

/// What redirects the traffic, as the kernel shows it.
fn holder(found: &Found) -> String {
    match &found.namespace {
        Some((_, Holder::Sidetrack(backend))) => format!("sidetrack, with {backend}"),
        Some((_, Holder::Other(tool))) => (*tool).to_owned(),
        Some((_, Holder::None)) => "nothing".to_owned(),
        None => "not observed".to_owned(),
    }
}
