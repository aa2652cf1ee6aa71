//! The name servers of a pod: those that the runtime passed to the plugin, not those of the node.

use serde_json::{Value, json};

use super::attached::{Attached, Process, WITH_PLUGIN};
use super::pods::{annotations, pods, run};
use crate::cni::has_rules;
use crate::common::Pod;
use crate::program::nft_state;

/// By the node's own `/etc/resolv.conf`, the pod looked drifted, and the advised apply broke its DNS.
#[test]
fn name_servers_of_a_pod_are_those_that_the_runtime_passed() {
    let attached = Attached::new();
    let [known, unknown] = [(); 2].map(|()| Pod::new());
    let dns = [("traffic.sidetrack.dev/redirect-dns", "true")];
    let mut capabilities = annotations(&dns);
    capabilities["dns"] = json!({ "Servers": ["10.96.0.10"] });
    attached.attach(
        "known",
        &attached.file(&known.netns.path()),
        &[("/capabilityArgs", capabilities)],
    );
    attached.attach(
        "unknown",
        &attached.file(&unknown.netns.path()),
        &[("/capabilityArgs", annotations(&dns))],
    );
    attached.command(&["repair"]).status().expect("the program");
    assert!(has_rules(&known.netns) && nft_state(&known.netns).contains("10.96.0.10"));
    for pod in ["known", "unknown"] {
        run(&attached, &["check", "--pod", &format!("shop/{pod}")]).succeeded();
    }
    let explain = |server: &str, pod: &str| {
        let (destination, pod) = (format!("{server}:53"), format!("shop/{pod}"));
        run(&attached, &["explain", "outbound", "udp", &destination, "--pod", &pod])
            .succeeded()
            .stdout
    };
    for (server, pod, is_captured) in [
        ("10.96.0.10", "known", true),
        ("9.9.9.9", "known", false),
        ("9.9.9.9", "unknown", true),
    ] {
        let said = explain(server, pod);
        assert_eq!(
            !said.contains("Leaves the pod by eth0"),
            is_captured,
            "{server} {pod}: {said}"
        );
    }
    let states: Vec<Value> = pods(&attached)["pods"]
        .as_array()
        .expect("pods")
        .iter()
        .map(|pod| pod["state"].clone())
        .collect();
    assert_eq!(states, ["in-sync", "in-sync"]);
}

/// The same by `--netns`, where the runtime's cache has the pod of that namespace.
#[test]
fn name_servers_of_a_namespace_are_those_that_the_runtime_passed_for_its_pod() {
    let attached = Attached::new();
    let [known, unknown] = [(); 2].map(|()| Pod::new());
    let dns = [("traffic.sidetrack.dev/redirect-dns", "true")];
    let mut capabilities = annotations(&dns);
    capabilities["dns"] = json!({ "Servers": ["10.96.0.10"] });
    for (pod, name, capabilities) in [
        (&known, "known", capabilities),
        (&unknown, "unknown", annotations(&dns)),
    ] {
        let file = attached.file(&pod.netns.path());
        attached.attach(
            name,
            &file,
            &[("/capabilityArgs", capabilities), ("/config", WITH_PLUGIN.into())],
        );
    }
    // Processes of the pods whose file is another one.
    let _processes = [&known, &unknown].map(|pod| Process::start(pod.netns.command("sleep").arg("600")));
    attached.command(&["repair"]).status().expect("the program");
    for pod in [&known, &unknown] {
        let netns = pod.netns.path().display().to_string();
        run(&attached, &["check", "--redirect-dns", "--netns", &netns]).succeeded();
    }
    let netns = known.netns.path().display().to_string();
    let explain = [
        "explain",
        "outbound",
        "udp",
        "10.96.0.10:53",
        "--redirect-dns",
        "--netns",
        &netns,
    ];
    let said = run(&attached, &explain).succeeded().stdout;
    assert!(!said.contains("Leaves the pod"), "{said}");
}
