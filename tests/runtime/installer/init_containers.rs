//! Pods that an init container redirected, with other options than the plugin has for them: these options count.

use serde_json::{Value, json};

use super::attached::{Attached, WITH_PLUGIN};
use super::fixture::{Installer, eventually};
use super::pods::{pods, run};
use crate::common::{Netns, Pod};
use crate::program::{Run, apply, nft_state, sidetrack};

/// A chain without the plugin, as the cache has it: {"name":"a","plugins":[{"type":"x"}]}
const WITHOUT_PLUGIN: &str = "eyJuYW1lIjoiYSIsInBsdWdpbnMiOlt7InR5cGUiOiJ4In1dfQ==";
/// A chain with the plugin, which skips the pod:
/// {"name":"a","plugins":[{"type":"x"},{"type":"sidetrack","excludeNamespaces":["shop"]}]}
const SKIPPED_BY_PLUGIN: &str = "eyJuYW1lIjoiYSIsInBsdWdpbnMiOlt7InR5cGUiOiJ4In0seyJ0eXBlIjoic2lkZXRyYWNrIiwiZXhjbHVkZU5hbWVzcGFjZXMiOlsic2hvcCJdfV19";

/// A pod of a node, which has options of its own.
struct Node {
    attached: Attached,
    pod: Pod,
}

impl Node {
    /// A node with a pod that a chain attached.
    fn new(chain: &str) -> Self {
        let (attached, pod) = (Attached::new(), Pod::new());
        attached.attach("web-0", &attached.file(&pod.netns.path()), &[("/config", chain.into())]);
        Self { attached, pod }
    }

    /// The same, whose init container has run.
    fn with_init_container(chain: &str) -> Self {
        let node = Self::new(chain);
        apply(&node.pod.netns, "nftables", &["--exclude-inbound-ports", "22"]);
        node
    }

    /// What `node pods` lists: the state, whose options count, and the reason.
    fn listed(&self) -> [Value; 3] {
        let listed = pods(&self.attached);
        ["state", "comparedWith", "reason"].map(|key| listed["pods"][0][key].clone())
    }

    #[track_caller]
    fn assert_listed(&self, state: &str, basis: Value, reason: &str) {
        let listed = self.listed();
        assert_eq!(listed[..2], [json!(state), basis], "{listed:#?}");
        assert!(
            listed[2].as_str().is_some_and(|text| text.contains(reason)),
            "{listed:#?}"
        );
    }

    fn repair(&self) -> Run {
        Run::of(&mut self.attached.command(&["repair"]))
    }
}

fn nft(netns: &Netns, arguments: &[&str]) {
    assert!(netns.command("nft").args(arguments).status().expect("nft").success());
}

/// It was drifted, and repair gave it the plugin's options.
#[test]
fn options_of_an_init_container_count_and_are_not_replaced() {
    for chain in [WITHOUT_PLUGIN, SKIPPED_BY_PLUGIN] {
        let node = Node::with_init_container(chain);
        let before = nft_state(&node.pod.netns);
        node.assert_listed("in-sync", json!("record"), "the options recorded with them");
        node.repair().succeeded();
        assert_eq!(nft_state(&node.pod.netns), before);
        let check = run(&node.attached, &["check", "--pod", "shop/web-0"]).succeeded();
        assert!(check.stdout.contains("--exclude-inbound-ports=22"), "{check:?}");
        let probe = run(&node.attached, &["probe", "--pod", "shop/web-0"]).succeeded();
        assert!(
            probe
                .stdout
                .contains("excluded-inbound-port: a neighbour to 192.0.2.253:22: arrived directly"),
            "{probe:?}"
        );
        // Given flags count, and are flags on top of the plugin's options.
        let check = run(&node.attached, &["check", "--pod", "shop/web-0", "--drop-invalid"]);
        assert_eq!(check.code, Some(3), "{check:?}");
        let text = run(&node.attached, &["node", "pods", "shop/web-0"]).succeeded().stdout;
        assert!(
            text.contains("compared with  the options recorded with its rules\n"),
            "{text}"
        );
        let table = run(&node.attached, &["node", "pods"]).succeeded().stdout;
        assert!(
            table.contains("the options recorded with them, in nftables; a program other than"),
            "{table}"
        );
    }
}

#[test]
fn rules_of_a_front_end_are_compared_with_its_flags() {
    let node = Node::new(WITHOUT_PLUGIN);
    let flags = [
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        "1337",
        "-b",
        "8080",
        "-i",
        "10.0.0.0/8",
    ];
    sidetrack(&node.pod.netns, &[&["istio-iptables"][..], &flags].concat()).succeeded();
    node.assert_listed("in-sync", json!("record"), "the options recorded with them");
    node.repair().succeeded();
    node.assert_listed("in-sync", json!("record"), "the options recorded with them");
}

#[test]
fn rules_that_differ_from_those_of_the_init_container_are_reported_and_kept() {
    let node = Node::with_init_container(WITHOUT_PLUGIN);
    nft(&node.pod.netns, &["flush", "chain", "inet", "sidetrack", "outbound"]);
    let before = nft_state(&node.pod.netns);
    node.assert_listed("drifted", json!("record"), "from the options recorded with them");
    assert_eq!(node.repair().code, Some(3));
    assert_eq!(nft_state(&node.pod.netns), before);
    let check = run(&node.attached, &["check", "--pod", "shop/web-0"]);
    assert_eq!(check.code, Some(3), "{check:?}");
    assert!(check.stdout.contains("Restart the pod"), "{check:?}");

    let installer = Installer::start(node.attached.command(&["install", "--repair", "in-place"]));
    installer.eventually_logs("the rules of the pod differ from its options pod=\"shop/web-0\"");
    eventually("it is counted", || {
        let counts =
            ["drifted", "in-sync"].map(|state| installer.metric(&format!("sidetrack_node_pods{{state=\"{state}\"}}")));
        if counts == [1.0, 0.0] { Ok(()) } else { Err(counts) }
    });
    assert_eq!(nft_state(&node.pod.netns), before);
}

#[test]
fn rules_without_a_record_are_neither_compared_nor_changed() {
    let node = Node::with_init_container(WITHOUT_PLUGIN);
    nft(&node.pod.netns, &["flush", "chain", "inet", "sidetrack", "options"]);
    let before = nft_state(&node.pod.netns);
    node.assert_listed("redirected", Value::Null, "no options are recorded with them");
    node.repair().succeeded();
    assert_eq!(nft_state(&node.pod.netns), before);
}

/// Any process with `NET_ADMIN` in the pod can write rules and a record of them.
#[test]
fn record_does_not_count_for_a_pod_that_the_plugin_redirected() {
    let node = Node::with_init_container(WITH_PLUGIN);
    node.assert_listed("drifted", json!("plugin"), "22");
    node.repair().succeeded();
    node.assert_listed("in-sync", json!("plugin"), "match its options");
    assert!(!nft_state(&node.pod.netns).contains("exclude-inbound-ports"));
}

#[test]
fn plugins_options_count_for_a_pod_that_repair_redirected() {
    let node = Node::new(WITHOUT_PLUGIN);
    node.repair().succeeded();
    assert!(nft_state(&node.pod.netns).contains("by-repair"));
    node.assert_listed("in-sync", json!("plugin"), "match its options");
    let file = node.attached.machine.root().join("plugin.json");
    std::fs::write(&file, r#"{ "redirect": { "excludeInboundPorts": "22" } }"#).expect("a file");
    let mut command = node.attached.command(&["repair"]);
    command.env("SIDETRACK_NODE_PLUGIN_CONF", &file);
    Run::of(&mut command).succeeded();
    let after = nft_state(&node.pod.netns);
    assert!(
        after.contains("--exclude-inbound-ports=22") && after.contains("by-repair"),
        "{after}"
    );
}
