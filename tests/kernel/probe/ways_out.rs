//! The lock by each way out of the pod: sockets bound to an interface, and what is forwarded from behind one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Probed, both, probe, probe_with_losses};
use crate::common::{Netns, Pod, output_of};
use crate::program::{BACKENDS, apply};

/// Some TCP is not captured.
const LOCKED: &[&str] = &[
    "--outbound-policy",
    "proxy-only",
    "--reroute-interfaces",
    "docker0",
    "--include-outbound-cidrs",
    "10.0.0.0/8,fd00::/8",
];

/// A pod with a bridge for containers.
fn pod(forwards: bool) -> Pod {
    let pod = Pod::new();
    pod.netns.ip("link add docker0 type bridge
address add 172.17.0.1/16 dev docker0
address add fd17::1/64 dev docker0 nodad
link set docker0 up
");
    let set = |setting: &str| std::fs::write(format!("/proc/sys/net/{setting}"), if forwards { "1" } else { "0" });
    let set = || {
        ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
            .into_iter()
            .try_for_each(set)
    };
    pod.netns.run(set).expect("a setting");
    pod
}

/// Lets packets that match pass every chain of these hooks.
fn open(netns: &Netns, hooks: &[&str], packets: &str) {
    let listed = output_of(netns.command("nft").args(["-j", "list", "chains"]));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let chains = listed["nftables"].as_array().expect("a list").iter();
    let chains = chains.filter_map(|object| object.get("chain"));
    let rules: String = chains
        .filter(|chain| chain["hook"].as_str().is_some_and(|hook| hooks.contains(&hook)))
        .map(|chain| {
            format!(
                "insert rule inet sidetrack {} {packets}\n",
                chain["name"].as_str().expect("a name")
            )
        })
        .collect();
    assert!(!rules.is_empty());
    output_of(netns.command("nft").arg(rules));
}

/// The probes with this result, by their way out: `ipv4 udp behind docker0`.
fn ways(probed: &Probed, result: &str) -> BTreeSet<String> {
    let locked = |probe: &&Value| probe["name"].as_str().is_some_and(|name| name.starts_with("locked-"));
    let of_result = probed
        .probes()
        .iter()
        .filter(|probe| probe["result"] == result)
        .filter(locked);
    of_result
        .filter_map(|probe| {
            let interface = probe["interface"].as_str()?;
            let text = |field: &str| probe[field].as_str().expect("text").to_owned();
            let relation = if probe["caller"] == "neighbour" { "behind" } else { "by" };
            Some(format!(
                "{} {} {relation} {interface}",
                text("family"),
                text("protocol")
            ))
        })
        .collect()
}

const BOUND: [&str; 2] = ["udp by docker0", "icmp by docker0"];
const FORWARDED: [&str; 3] = ["udp behind docker0", "icmp behind docker0", "tcp behind docker0"];

#[test]
fn every_way_out_passes_on_every_backend() {
    for backend in BACKENDS.into_iter().chain(["nftables-per-family"]) {
        let pod = pod(true);
        apply(&pod.netns, backend, LOCKED);
        // An earlier probe leaves no neighbours that the kernel looks for.
        let times = if backend == "nftables" { 2 } else { 1 };
        for _ in 0..times {
            let probed = probe(&pod.netns, LOCKED);
            probed.passed();
            let others = ["udp by eth0", "icmp by eth0", "udp by eth1", "icmp by eth1"];
            let expected = both(&[&BOUND[..], &FORWARDED, &others].concat());
            assert_eq!(ways(&probed, "passed"), expected.into_iter().collect(), "{backend}");
            let passed = probed.with_result("passed");
            for name in both(&["tcp rerouted-interface"]) {
                assert!(passed.contains(&name), "{backend}: no {name} in {passed:?}");
            }
        }
    }
}

/// Sockets bound to other interfaces stay locked in.
#[test]
fn hole_for_an_interface_fails_the_probes_of_bound_sockets() {
    let pod = pod(true);
    apply(&pod.netns, "nftables", LOCKED);
    open(&pod.netns, &["output", "postrouting"], "oifname docker0 accept");
    let probed = probe(&pod.netns, LOCKED);
    assert_eq!(
        ways(&probed, "failed"),
        both(&BOUND).into_iter().collect(),
        "{probed:#?}"
    );
    assert_eq!(probed.code, Some(3));
    for name in both(&["udp locked-udp", "icmp locked-icmp"]) {
        probed.says(&name, "left by the interface");
    }
}

#[test]
fn hole_for_forwarded_packets_fails_the_probes_of_containers() {
    let pod = pod(true);
    apply(&pod.netns, "nftables", LOCKED);
    open(&pod.netns, &["forward", "postrouting"], "iifname docker0 accept");
    let probed = probe(&pod.netns, LOCKED);
    assert_eq!(
        ways(&probed, "failed"),
        both(&FORWARDED).into_iter().collect(),
        "{probed:#?}"
    );
    assert_eq!(probed.code, Some(3));
    for name in both(&["udp locked-udp", "icmp locked-icmp", "tcp locked-tcp"]) {
        probed.says(&name, "left the pod, past the proxy");
    }
}

/// Nothing leaves, but containers wait for what they are not told.
#[test]
fn silent_drop_fails_the_probes_of_containers() {
    let pod = pod(true);
    apply(&pod.netns, "nftables", LOCKED);
    open(&pod.netns, &["forward"], "iifname docker0 drop");
    let probed = probe_with_losses(&pod.netns, LOCKED);
    assert_eq!(
        ways(&probed, "failed"),
        both(&FORWARDED).into_iter().collect(),
        "{probed:#?}"
    );
    probed.says("ipv4 udp locked-udp", "got no answer in time");
}

#[test]
fn pod_that_forwards_nothing_says_so_and_passes() {
    let pod = pod(false);
    apply(&pod.netns, "nftables", LOCKED);
    let probed = probe(&pod.netns, LOCKED);
    probed.passed();
    let passed = ways(&probed, "passed");
    assert!(!passed.iter().any(|way| way.contains("behind")), "{passed:?}");
    let notes = probed.report["notes"].to_string();
    assert!(notes.contains("from behind docker0 is not probed"), "{notes}");
}
