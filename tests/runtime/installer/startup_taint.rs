//! The startup taint: removed from the installer's own node, once it is ready, and no other taint with it. The answers
//! are those of a real API server, which `scripts/test-admission --record` keeps.

use std::fs;

use serde_json::{Map, Value, json};
use sidetrack::node::startup_taint::KEY;

use super::attached::Attached;
use super::fixture::{Installer, Machine, eventually};
use super::kubernetes::{Server, recorded};
use crate::program::Run;

const NODE: &str = "PATCH /api/v1/nodes/node-1";
/// How the node is read, and how it is patched.
const READ: &str = "PATCH /api/v1/nodes/node-1 application/merge-patch+json";
const PATCH: &str = "PATCH /api/v1/nodes/node-1 application/json-patch+json";
const OPTIONS: [&str; 4] = ["--startup-taint", KEY, "--node-name", "node-1"];

fn answers(answers: &[(&str, u16, Value)]) -> Map<String, Value> {
    let answers = answers.iter();
    answers
        .map(|(request, status, body)| ((*request).to_owned(), json!([status, body])))
        .collect()
}

/// The node has the taint, and loses it.
fn willing() -> Map<String, Value> {
    answers(&[
        (READ, 200, recorded("node-200.json")),
        (PATCH, 200, recorded("node-untainted-200.json")),
    ])
}

/// What was sent with this content type.
fn sent(server: &Server, request: &str) -> Vec<Value> {
    let (_, kind) = request.rsplit_once(' ').expect("a content type");
    let mut requests = server.requests_to(NODE);
    requests.retain(|request| request["type"] == kind);
    requests
}

fn removals(installer: &Installer) -> f64 {
    installer.metric("sidetrack_node_startup_taint_removals_total")
}

fn degraded(installer: &Installer) -> f64 {
    installer.metric("sidetrack_node_degraded{part=\"startup-taint\"}")
}

#[test]
fn startup_taint_alone_is_removed_once_the_plugin_is_installed() {
    let attached = Attached::new();
    let conflist = attached.machine.read("10-flannel.conflist");
    fs::remove_file(attached.machine.conf().join("10-flannel.conflist")).expect("a file");
    let server = Server::start(attached.machine.root(), willing());
    let installer = server.installer_with(&attached, &OPTIONS);
    installer.eventually_not_ready(&format!("; startup taint {KEY}: stays until the installer is ready"));
    assert_eq!(server.requests(), [Value::Null; 0]);

    attached.machine.write("10-flannel.conflist", &conflist);
    installer.eventually_logs(&format!("startup taint removed key=\"{KEY}\" node=\"node-1\""));
    assert_eq!((removals(&installer), degraded(&installer)), (1.0, 0.0));
    let patches = sent(&server, PATCH);
    assert_eq!(patches.len(), 1, "{patches:#?}");
    let taints = recorded("node-200.json")["spec"]["taints"].clone();
    let taints = taints.as_array().expect("taints");
    assert!(taints.len() > 2 && taints[1]["key"] == KEY, "{taints:?}");
    assert_eq!(
        patches[0]["body"],
        json!([
            { "op": "test", "path": "/spec/taints/1", "value": taints[1] },
            { "op": "remove", "path": "/spec/taints/1" },
        ])
    );
    let reads = sent(&server, READ);
    assert_eq!(reads[0]["body"], json!({}), "a patch that changes nothing");
    assert_eq!(
        reads.len() + patches.len(),
        server.requests().len(),
        "nothing else is asked"
    );
    let mut status = attached.command(&["status", "--health-address", &installer.address().to_string()]);
    let status = Run::of(&mut status).succeeded().stdout;
    assert!(
        status.contains(&format!("installer      ok; startup taint {KEY}: removed\n")),
        "{status}"
    );
}

/// Another client keeps adding a taint before sidetrack's, so that a `test` of the patch fails.
#[test]
fn concurrently_changed_taints_are_never_overwritten() {
    let attached = Attached::new();
    let changing = answers(&[
        (READ, 200, recorded("node-200.json")),
        (PATCH, 422, recorded("taint-422.json")),
    ]);
    let server = Server::start(attached.machine.root(), changing);
    let installer = server.installer_with(&attached, &OPTIONS);
    installer.eventually_logs("removing the startup taint failed; trying again");
    let (reads, patches) = (sent(&server, READ).len(), sent(&server, PATCH).len());
    assert!(reads >= patches && patches >= 2, "{reads} reads, {patches} patches");
    assert_eq!(degraded(&installer), 1.0);
    server.answer(willing());
    installer.eventually_logs("startup taint removed");
    assert_eq!((removals(&installer), degraded(&installer)), (1.0, 0.0));
}

/// A server that refuses, and none at all: reported, tried again, and the plugin is installed all the same.
#[test]
fn unremovable_startup_taint_is_reported_and_affects_nothing_else() {
    let attached = Attached::new();
    let refused = answers(&[(READ, 403, recorded("taint-403.json"))]);
    let server = Server::start(attached.machine.root(), refused);
    let installer = server.installer_with(&attached, &OPTIONS);
    installer.eventually_logs("removing the startup taint failed; trying again");
    installer.eventually_logs("ValidatingAdmissionPolicy 'sidetrack-node-taint'");
    installer.eventually_logs("with those of cni-conf/kubernetes/taint");
    installer.eventually_ready();
    let (status, body) = installer.get("/readyz");
    assert_eq!(status, 200);
    assert!(
        body.starts_with(&format!("ok; startup taint {KEY}: not removed: ")),
        "{body}"
    );
    assert_eq!((removals(&installer), degraded(&installer)), (0.0, 1.0));
    eventually("it is tried again", || match sent(&server, READ).len() {
        0 | 1 => Err(installer.log()),
        _ => Ok(()),
    });
    let failures = installer.log().matches("removing the startup taint failed").count();
    assert_eq!(failures, 1, "logged once");

    let machine = Machine::with(&[("10-flannel.conflist", &attached.machine.read("10-flannel.conflist"))]);
    let mut nowhere = machine.command(&["install"]);
    nowhere.args(OPTIONS).env_remove("KUBERNETES_SERVICE_HOST");
    let installer = Installer::start(nowhere);
    installer.eventually_logs("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set");
    installer.eventually_ready();
}

#[test]
fn a_node_without_the_startup_taint_is_not_patched() {
    let attached = Attached::new();
    let untainted = answers(&[(READ, 200, recorded("node-untainted-200.json"))]);
    let server = Server::start(attached.machine.root(), untainted);
    let installer = server.installer_with(&attached, &OPTIONS);
    installer.eventually_logs("the node does not have the startup taint");
    assert_eq!(sent(&server, PATCH).len(), 0);
    assert_eq!((removals(&installer), degraded(&installer)), (0.0, 0.0));
}

#[test]
fn a_startup_taint_without_a_node_or_a_key_is_refused() {
    let machine = Machine::new();
    for (options, said) in [
        (&["--startup-taint", KEY][..], "--node-name is empty"),
        (
            &["--startup-taint", "a=b:NoSchedule", "--node-name", "n"],
            "is not the key of a taint",
        ),
        (
            &["--startup-taint", KEY, "--node-name", "n", "--once"],
            "an installer that stays",
        ),
    ] {
        let run = machine.run(&[&["install"], options].concat());
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(said), "{run:?}");
    }
    assert!(!machine.has_binary());
}
