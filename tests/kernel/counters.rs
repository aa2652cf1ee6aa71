//! `sidetrack stats`: counters against scripted connections.

use std::collections::BTreeMap;
use std::thread;

use serde_json::Value;
use sidetrack::types::Family;

use crate::common::{Caller, Netns, Owner, Pod, Server, To, Transport, call_from, output_of};
use crate::program::{Run, apply, sidetrack};

const OPTIONS: &[&str] = &[
    "--counters",
    "--exclude-outbound-ports",
    "3306",
    "--exclude-inbound-ports",
    "2222",
    "--include-inbound-ports",
    "2222,8080",
];

/// Other rules with the same reasons.
const OTHER_OPTIONS: &[&str] = &[
    "--proxy-outbound-port",
    "16001",
    "--exclude-outbound-ports",
    "3306,3307",
];

/// A direction and a reason.
type Key = (&'static str, &'static str);

/// Connections of a kind: who calls whom, the shares of a hundred connections, and what counts them.
const SCRIPT: &[(Caller, To, usize, Key)] = &[
    (Caller::App, To::Peer(9090), 40, ("outbound", "outbound_to_the_proxy")),
    (Caller::App, To::Peer(3306), 10, ("outbound", "excluded_outbound_ports")),
    (
        Caller::Proxy,
        To::Peer(9090),
        12,
        ("outbound", "the_proxys_own_traffic"),
    ),
    (Caller::App, To::Loopback(8080), 4, ("outbound", "loopback")),
    (Caller::App, To::Pod(8080), 4, ("outbound", "traffic_within_the_pod")),
    (Caller::Proxy, To::Pod(8080), 4, ("outbound", "inbound_to_the_proxy")),
    // The shared rules for inbound connections skip it first.
    (Caller::Proxy, To::Pod(2222), 4, ("outbound", "the_proxys_own_traffic")),
    (Caller::Peer, To::Pod(8080), 12, ("inbound", "inbound_to_the_proxy")),
    (Caller::Peer, To::Pod(2222), 6, ("inbound", "excluded_inbound_ports")),
    (Caller::Peer, To::Pod(8000), 4, ("inbound", "no_rule_matches")),
];

struct Lab {
    pod: Pod,
    _servers: [Server; 3],
}

impl Lab {
    fn new() -> Self {
        let pod = Pod::new();
        let proxy = Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006, 16001]);
        let app = Server::start(&pod.netns, "app", Owner::APP, &[2222, 8000, 8080]);
        let peer = Server::start(&pod.peer, "peer", Owner::ROOT, &[3306, 9090]);
        Self {
            pod,
            _servers: [proxy, app, peer],
        }
    }

    /// Makes so many connections by the script, all kinds at once, in both families.
    fn connect(&self, connections: usize) {
        thread::scope(|scope| {
            for (caller, to, share, _) in SCRIPT {
                let pod = &self.pod;
                let connect = move || {
                    for number in 0..connections * share / 100 {
                        let family = Family::BOTH[number % 2];
                        let to = to.address(family).expect("an address");
                        call_from(Transport::Tcp, caller.source(family), to)?;
                    }
                    Ok(())
                };
                scope.spawn(move || caller.run(pod, connect).expect("each connection is answered"));
            }
        });
    }
}

/// The numbers that the script must give.
fn expected(connections: usize) -> BTreeMap<Key, u64> {
    let mut expected = BTreeMap::new();
    for (.., share, key) in SCRIPT {
        *expected.entry(*key).or_default() += (connections * share / 100) as u64;
    }
    expected
}

fn stats(netns: &Netns) -> Value {
    let run = sidetrack(netns, &["stats", "--json"]).succeeded();
    serde_json::from_str(&run.stdout).expect("JSON")
}

#[track_caller]
fn assert_counted(netns: &Netns, backend: &str, connections: usize) {
    let document = stats(netns);
    assert_eq!(document["backend"], backend);
    let mut expected = expected(connections);
    for counter in document["counters"].as_array().expect("a list") {
        assert_eq!(counter["unit"], "connections", "{counter}");
        let text = |key: &str| counter[key].as_str().expect("a text");
        let key = expected
            .keys()
            .find(|key| **key == (text("direction"), text("reason")))
            .copied();
        let expected = key.and_then(|key| expected.remove(&key)).unwrap_or_default();
        assert_eq!(counter["count"], expected, "{counter} in {document:#}");
    }
    assert!(expected.is_empty(), "{expected:?} in {document:#}");
}

#[track_caller]
fn assert_in_sync(netns: &Netns, backend: &str, options: &[&str]) {
    let given = [&["check", "--backend", backend], options].concat();
    sidetrack(netns, &given).succeeded();
    if backend == "nftables" {
        let recorded = sidetrack(netns, &["check"]).succeeded();
        assert!(recorded.stdout.contains("in-sync"), "{recorded:?}");
    }
}

#[test]
fn counters_equal_ten_thousand_connections_and_survive_replacements() {
    let lab = Lab::new();
    let netns = &lab.pod.netns;
    apply(netns, "nftables", OPTIONS);
    assert_counted(netns, "nftables", 0);
    lab.connect(5000);
    assert_counted(netns, "nftables", 5000);
    assert_in_sync(netns, "nftables", OPTIONS);
    assert!(
        apply(netns, "nftables", OPTIONS).contains("already redirected"),
        "values are no difference"
    );
    let options = [OPTIONS, OTHER_OPTIONS].concat();
    assert!(apply(netns, "nftables", &options).contains("replaced"));
    assert_counted(netns, "nftables", 5000);
    lab.connect(5000);
    assert_counted(netns, "nftables", 10_000);
    assert_in_sync(netns, "nftables", &options);
    let table = sidetrack(netns, &["stats"]).succeeded().stdout;
    let line = table.lines().find(|line| line.ends_with("excluded outbound ports"));
    let words: Vec<&str> = line.expect("a line").split_whitespace().collect();
    assert_eq!(
        words[..5],
        ["outbound", "1000", "connections", "not", "redirected"],
        "{table}"
    );
}

fn iptables_counts(backend: &str) {
    let lab = Lab::new();
    let netns = &lab.pod.netns;
    apply(netns, backend, OPTIONS);
    lab.connect(500);
    assert_counted(netns, backend, 500);
    assert_in_sync(netns, backend, OPTIONS);
    let options = [OPTIONS, OTHER_OPTIONS].concat();
    let log = apply(netns, backend, &options);
    assert!(log.contains("counters begin at 0"), "{log}");
    assert_counted(netns, backend, 0);
    lab.connect(500);
    assert_counted(netns, backend, 500);
}

#[test]
fn counters_equal_connections_with_iptables_nft() {
    iptables_counts("iptables-nft");
}

#[test]
fn counters_equal_connections_with_iptables_legacy() {
    iptables_counts("iptables-legacy");
}

#[test]
fn missing_counters_are_a_difference_and_no_numbers() {
    let pod = Pod::new();
    let netns = &pod.netns;
    let run: Run = sidetrack(netns, &["stats"]);
    run.failed(3, &["no rules of sidetrack are installed", "hint: "]);
    apply(netns, "nftables", &OPTIONS[1..]);
    sidetrack(netns, &["stats"]).failed(3, &["have no counters", "hint: Run `sidetrack apply --counters`"]);
    let given = [&["check"], OPTIONS].concat();
    let run = sidetrack(netns, &given);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stdout.contains("counter return"), "{run:?}");
}

#[test]
fn explain_and_trace_read_rules_with_counted_connections() {
    let lab = Lab::new();
    let netns = &lab.pod.netns;
    apply(netns, "nftables", OPTIONS);
    let explain = |netns: &Netns| {
        let packet = [
            "explain",
            "--from-kernel",
            "outbound",
            "tcp",
            "10.99.0.1:3306",
            "--uid",
            "1000",
        ];
        sidetrack(netns, &packet).succeeded().stdout
    };
    let before = explain(netns);
    assert!(before.contains("excluded outbound ports"), "{before}");
    lab.connect(100);
    assert_eq!(explain(netns), before);
    let listed = output_of(
        netns
            .command("nft")
            .args(["list", "chain", "inet", "sidetrack", "outbound"]),
    );
    assert!(listed.contains("counter packets 10 "), "{listed}");
}
