//! Connections that arrive on rerouted and on excluded interfaces.

use std::fs;

use serde_json::Value;

use super::selections::delete;
use super::{both, pod_with_bridge, probe, probe_with_losses};
use crate::common::{Netns, Pod, output_of};
use crate::program::{BACKENDS, apply};

const OPTIONS: &[&str] = &["--reroute-interfaces", "docker0", "--exclude-interfaces", "eth1,net7"];
const NAMES: [&str; 2] = ["tcp rerouted-interface", "tcp excluded-inbound-interface"];

/// A pod with a bridge for containers, and rules.
fn pod(backend: &str, options: &[&str]) -> Pod {
    let pod = pod_with_bridge();
    apply(&pod.netns, backend, options);
    pod
}

fn routes_and_links(netns: &Netns) -> String {
    // Without the states of links, which the kernel sets some time later.
    let script = "ip -brief link | sed 's/ .*//'; ip -o address; ip route show table all; ip -6 route show table all;
        tc filter show dev docker0 ingress";
    let listing = output_of(netns.command("sh").args(["-c", script]));
    // Link-local addresses become usable meanwhile.
    let lines = listing.lines().filter(|line| !line.contains("fe80::"));
    lines.map(|line| line.replace(" linkdown", "") + "\n").collect()
}

#[test]
fn connections_from_behind_interfaces_pass_on_every_backend_and_in_every_mode() {
    for backend in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            let options = [OPTIONS, &["--inbound-mode", mode]].concat();
            let pod = pod(backend, &options);
            let before = routes_and_links(&pod.netns);
            let probed = probe(&pod.netns, &options);
            probed.passed();
            let passed = probed.with_result("passed");
            for name in both(&NAMES) {
                assert!(passed.contains(&name), "{backend} {mode}: no {name} in {passed:?}");
            }
            let notes = probed.report["notes"].to_string();
            assert!(notes.contains("net7") && !notes.contains("eth1"), "{notes}");
            assert_eq!(routes_and_links(&pod.netns), before, "{backend} {mode}");
        }
    }
}

/// The host outside could have only one route to what packets from both call.
#[test]
fn connections_from_behind_two_interfaces_pass() {
    for policy in [&[][..], &["--outbound-policy", "proxy-only"]] {
        let pod = pod_with_bridge();
        pod.netns.ip("link add docker1 type bridge
address add 172.18.0.1/16 dev docker1
address add fd18::1/64 dev docker1 nodad
link set docker1 up
");
        let options = [policy, &["--reroute-interfaces", "docker0,docker1"]].concat();
        apply(&pod.netns, "nftables", &options);
        let probed = probe(&pod.netns, &options);
        probed.passed();
        for interface in ["docker0", "docker1"] {
            let is_by = |probe: &&Value| probe["name"] == "rerouted-interface" && probe["interface"] == interface;
            let count = probed.probes().iter().filter(is_by).count();
            assert_eq!(count, 2, "{policy:?} {interface}: {probed:#?}");
        }
    }
}

/// The kernel did not ask for the host outside until the link's own address was in use, two seconds later by default.
#[test]
fn connections_from_behind_interfaces_pass_while_link_local_addresses_are_tentative() {
    let pod = pod("nftables", OPTIONS);
    let tentative = || fs::write("/proc/sys/net/ipv6/conf/default/dad_transmits", "60");
    pod.netns.run(tentative).expect("a setting");
    probe(&pod.netns, OPTIONS).passed();
}

#[test]
fn a_missing_rule_for_an_interface_fails() {
    for backend in ["nftables", "iptables-nft"] {
        for (comment, name) in [
            ("outbound from a rerouted interface", "tcp rerouted-interface"),
            ("excluded interface", "tcp excluded-inbound-interface"),
        ] {
            let pod = pod(backend, OPTIONS);
            delete(&pod, backend, comment);
            let probed = probe_with_losses(&pod.netns, OPTIONS);
            let failed = probed.with_result("failed");
            assert!(both(&[name]).iter().all(|name| failed.contains(name)), "{probed:#?}");
            assert_eq!(probed.code, Some(3), "{probed:#?}");
        }
    }
}

/// The kernel drops them before any rule sees them.
#[test]
fn connections_that_a_strict_reverse_path_filter_drops_are_not_made() {
    let pod = pod("nftables", OPTIONS);
    let strict = || fs::write("/proc/sys/net/ipv4/conf/docker0/rp_filter", "1");
    pod.netns.run(strict).expect("a setting");
    let probed = probe(&pod.netns, OPTIONS);
    let not_made: Vec<String> = probed.with_result("not made").into_iter().collect();
    assert_eq!(not_made, ["ipv4 tcp rerouted-interface"], "{probed:#?}");
    let reason = probed.texts("ipv4 tcp rerouted-interface", "reason").concat();
    assert!(reason.contains("rp_filter"), "{reason}");
}
