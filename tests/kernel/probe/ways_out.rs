//! The lock by each way out of the pod: sockets bound to an interface, and what is forwarded from behind one, and to there.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Probed, both, pod_with_bridge, probe, probe_with_losses};
use crate::common::{Netns, Pod, output_of};
use crate::program::{BACKENDS, apply};

/// Both policies, beside which some TCP is captured in neither direction.
const LOCKED: &[&str] = &[
    "--outbound-policy",
    "proxy-only",
    "--reroute-interfaces",
    "docker0",
    "--include-outbound-cidrs",
    "10.0.0.0/8,fd09::/16",
    "--inbound-policy",
    "proxy-only",
    "--include-inbound-ports",
    "8080",
];

/// A pod with a bridge for containers, which forwards packets or not.
fn pod(forwards: bool) -> Pod {
    let pod = pod_with_bridge();
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

/// The probes of the lock with this result that name an interface.
fn of_interfaces<'p>(probed: &'p Probed, result: &str) -> impl Iterator<Item = &'p Value> {
    let of_result = probed.probes().iter().filter(move |probe| probe["result"] == result);
    of_result.filter(|probe| {
        let is_locked = probe["name"].as_str().is_some_and(|name| name.starts_with("locked-"));
        is_locked && !probe["interface"].is_null()
    })
}

/// Their ways: `ipv4 udp from docker0`.
fn ways(probed: &Probed, result: &str) -> BTreeSet<String> {
    let way = |probe: &Value| {
        let text = |field: &str| probe[field].as_str().expect("text").to_owned();
        let relation = match probe["caller"] == "neighbour" {
            true if text("name").starts_with("locked-inbound-") => "to",
            true => "from",
            false => "by",
        };
        let (family, protocol, interface) = (text("family"), text("protocol"), text("interface"));
        format!("{family} {protocol} {relation} {interface}")
    };
    of_interfaces(probed, result).map(way).collect()
}

const BOUND: &[&str] = &["udp by docker0", "icmp by docker0", "tcp by docker0"];
const FORWARDED: &[&str] = &["udp from docker0", "icmp from docker0", "tcp from docker0"];
const FORWARDED_TO: &[&str] = &["udp to docker0", "icmp to docker0", "tcp to docker0"];

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
            let others =
                ["udp", "icmp", "tcp"].map(|protocol| ["eth0", "eth1"].map(|name| format!("{protocol} by {name}")));
            let others: Vec<&str> = others.as_flattened().iter().map(String::as_str).collect();
            let expected = both(&[BOUND, FORWARDED, FORWARDED_TO, &others].concat());
            assert_eq!(ways(&probed, "passed"), expected.into_iter().collect(), "{backend}");
            let passed = probed.with_result("passed");
            for name in both(&["tcp rerouted-interface"]) {
                assert!(passed.contains(&name), "{backend}: no {name} in {passed:?}");
            }
        }
    }
}

/// A rule before those of the lock, and the probes that fail with it.
struct Fault {
    hooks: &'static [&'static str],
    rule: &'static str,
    fails: &'static [&'static str],
    found: &'static str,
}

const FAULTS: [Fault; 5] = [
    // Sockets bound to other interfaces stay locked in.
    Fault {
        hooks: &["output", "postrouting"],
        rule: "oifname docker0 accept",
        fails: BOUND,
        found: "left by the interface",
    },
    Fault {
        hooks: &["forward", "postrouting"],
        rule: "iifname docker0 accept",
        fails: FORWARDED,
        found: "left the pod, past the proxy",
    },
    // Nothing leaves, but containers wait for what they are not told.
    Fault {
        hooks: &["forward"],
        rule: "iifname docker0 drop",
        fails: FORWARDED,
        found: "got no answer in time",
    },
    Fault {
        hooks: &["forward"],
        rule: "oifname docker0 accept",
        fails: FORWARDED_TO,
        found: "arrived directly, past the proxy",
    },
    Fault {
        hooks: &["forward"],
        rule: "oifname docker0 drop",
        fails: FORWARDED_TO,
        found: "got no answer in time",
    },
];

#[test]
fn fault_of_the_lock_fails_the_probes_of_its_way() {
    for fault in FAULTS {
        let pod = pod(true);
        apply(&pod.netns, "nftables", LOCKED);
        open(&pod.netns, fault.hooks, fault.rule);
        // What is dropped has no answer to wait for.
        let probed = match fault.rule.ends_with("drop") {
            true => probe_with_losses(&pod.netns, LOCKED),
            false => probe(&pod.netns, LOCKED),
        };
        let expected = both(fault.fails).into_iter().collect();
        assert_eq!(ways(&probed, "failed"), expected, "{}: {probed:#?}", fault.rule);
        assert_eq!(probed.code, Some(3), "{}", fault.rule);
        for failed in of_interfaces(&probed, "failed") {
            assert_eq!(failed["found"], fault.found, "{}: {failed}", fault.rule);
        }
    }
}

#[test]
fn pod_that_forwards_nothing_says_so_and_passes() {
    let pod = pod(false);
    apply(&pod.netns, "nftables", LOCKED);
    let probed = probe(&pod.netns, LOCKED);
    probed.passed();
    let passed = ways(&probed, "passed");
    assert!(passed.iter().all(|way| way.contains(" by ")), "{passed:?}");
    let notes = probed.report["notes"].to_string();
    for direction in ["from", "to"] {
        let note = format!("{direction} behind docker0 is not probed");
        assert!(notes.contains(&note), "{notes}");
    }
}
