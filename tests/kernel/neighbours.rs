//! Foreign rules and routing in the same network namespace, and their dependence on our state.

use sidetrack::types::{Family, InboundMode};

use crate::common::sidecar::{APP_CALLS_PEER, PEER_CALLS_APP, journey};
use crate::common::{Caller, Journey, Netns, Owner, Pod, Route, Sidecar, To, Transport, output_of};
use crate::program::{BACKENDS, apply, feed, sidetrack};

/// The rules of Istio for this family, as far as they are about connections that its proxy passes on.
fn istio(program: &str, loopback: &str, passthrough: &str) -> String {
    let rules = [
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        "-A ISTIO_INBOUND -p tcp -j REDIRECT --to-ports 15006",
        "-A OUTPUT -j ISTIO_OUTPUT",
        &format!("-A ISTIO_OUTPUT -o lo -s {passthrough} -j RETURN"),
        "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
        &format!("-A ISTIO_OUTPUT -d {loopback} -j RETURN"),
        "-A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports 15001",
    ];
    format!(
        "# {program}\n*nat\n-N ISTIO_INBOUND\n-N ISTIO_OUTPUT\n{}\nCOMMIT\n",
        rules.join("\n")
    )
}

fn add_rules_of_istio(netns: &Netns) {
    for (program, loopback, passthrough) in [
        ("iptables-nft", "127.0.0.1/32", "127.0.0.6/32"),
        ("ip6tables-nft", "::1/128", "::6/128"),
    ] {
        let rules = istio(program, loopback, passthrough);
        feed(netns, &format!("{program}-restore"), &["--noflush"], &rules);
    }
}

fn has_passthrough_address(netns: &Netns) -> bool {
    output_of(netns.command("ip").args(["-6", "address", "show", "dev", "lo"])).contains(" ::6/128")
}

#[test]
fn cleanup_keeps_address_needed_by_another_mesh() {
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, &[]);
        add_rules_of_istio(&pod.netns);
        let run = sidetrack(&pod.netns, &["cleanup"]).succeeded();
        assert!(
            run.stderr.contains("the address ::6 on the loopback interface is kept") && run.stderr.contains("Istio"),
            "{}",
            run.stderr
        );
        let sidecar = Sidecar::start(pod);
        sidecar
            .travel(&PEER_CALLS_APP, Family::V6)
            .unwrap_or_else(|error| panic!("{backend}: {error}"));
        let pod = sidecar.stop();
        // It is still owned by sidetrack: cleanup removes it once no other rules need it.
        sidetrack(&pod.netns, &["cleanup", "--foreign", "istio"]).succeeded();
        assert!(!has_passthrough_address(&pod.netns), "{backend}");
    }
}

#[test]
fn replace_keeps_address_needed_by_another_mesh() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    add_rules_of_istio(&pod.netns);
    apply(&pod.netns, "nftables", &["--ip-family", "ipv4"]);
    assert!(has_passthrough_address(&pod.netns));
    let check = sidetrack(&pod.netns, &["check", "--ip-family", "ipv4"]);
    assert!(!check.stdout.contains("::6"), "{}", check.stdout);
}

#[test]
fn cleanup_keeps_route_used_by_foreign_rule() {
    let netns = Netns::new();
    apply(&netns, "nftables", &["--inbound-mode", "tproxy"]);
    netns.ip("rule add fwmark 1337 lookup 133\n");
    let run = sidetrack(&netns, &["cleanup"]).succeeded();
    assert!(
        run.stderr.contains("`local default dev lo table 133` is kept"),
        "{}",
        run.stderr
    );
    let routes = |family| output_of(netns.command("ip").args([family, "route", "show", "table", "133"]));
    assert!(routes("-4").contains("local default dev lo"), "{}", routes("-4"));
    netns.ip("rule delete fwmark 1337 lookup 133\n");
    sidetrack(&netns, &["cleanup"]).succeeded();
    let all = output_of(netns.command("ip").args(["route", "show", "table", "all"]));
    assert!(!all.contains("table 133"), "{all}");
}

const TPROXY: &[&str] = &["--inbound-mode", "tproxy"];

/// With TPROXY, packets routed by that table are delivered to this host, including those of a foreign rule.
fn a_routing_table_that_a_foreign_rule_looks_up_is_refused(backend: &str) {
    const PROXY_CALLS_PEER: Journey = journey(
        "the proxy calls a neighbour",
        Transport::Tcp,
        Caller::Proxy,
        To::Peer(9090),
        Route::Direct,
    );
    let pod = Pod::new();
    for (family, address) in [("-4", "10.99.0.2"), ("-6", "fd99::2")] {
        let rule = [
            family, "rule", "add", "from", address, "lookup", "133", "priority", "100",
        ];
        output_of(pod.netns.command("ip").args(rule));
    }
    let refused = sidetrack(&pod.netns, &[&["apply", "--backend", backend], TPROXY].concat());
    refused.failed(
        1,
        &[
            "a foreign IPv4 rule with priority 100 also looks up table 133",
            "--tproxy-route-table",
        ],
    );
    apply(
        &pod.netns,
        backend,
        &[TPROXY, &["--tproxy-route-table", "134"]].concat(),
    );
    let sidecar = Sidecar::start_as(Owner::PROXY_AS_ROOT, InboundMode::Tproxy, pod);
    sidecar.travel_all(&[PEER_CALLS_APP, PROXY_CALLS_PEER, APP_CALLS_PEER]);
}

#[test]
fn apply_refuses_routing_table_used_by_foreign_rule() {
    for backend in BACKENDS {
        a_routing_table_that_a_foreign_rule_looks_up_is_refused(backend);
    }
}

#[test]
fn check_reports_foreign_rule_using_our_table() {
    let netns = Netns::new();
    apply(&netns, "nftables", TPROXY);
    let check = || sidetrack(&netns, &[&["check"], TPROXY].concat());
    // The same packets: Istio's own rule.
    netns.ip("rule add fwmark 1337 lookup 133\n");
    check().succeeded();
    netns.ip("rule add from 10.99.0.2 lookup 133 priority 100\n");
    let drifted = check();
    assert_eq!(drifted.code, Some(3), "{drifted:?}");
    let said = "foreign: a foreign IPv4 rule with priority 100 also looks up table 133";
    assert!(drifted.stdout.contains(said), "{}", drifted.stdout);
    netns.ip("rule delete priority 100\nroute add 10.0.0.0/8 dev lo table 133\n");
    let drifted = check();
    assert_eq!(drifted.code, Some(3), "{drifted:?}");
    assert!(
        drifted.stdout.contains("the IPv4 table 133 has foreign routes"),
        "{}",
        drifted.stdout
    );
}
