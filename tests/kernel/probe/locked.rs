//! What the policies reject is rejected, and a probe fails where it is not.

use std::collections::BTreeSet;

use super::{Probed, both, probe, probe_with_losses};
use crate::SIDETRACK;
use crate::common::{Netns, Pod, output_of};
use crate::program::{BACKENDS, Run, apply};

/// Both policies, beside which some TCP is captured in neither direction.
const LOCKED: &[&str] = &[
    "--outbound-policy",
    "proxy-only",
    "--inbound-policy",
    "proxy-only",
    "--include-outbound-cidrs",
    "10.0.0.0/8,fd00::/8",
    "--include-inbound-ports",
    "8080",
];

const OUTBOUND: [&str; 5] = [
    "tcp locked-tcp",
    "udp locked-udp",
    "udp locked-quic",
    "udp locked-dns",
    "icmp locked-icmp",
];
const INBOUND: [&str; 3] = [
    "tcp locked-inbound-tcp",
    "udp locked-inbound-udp",
    "icmp locked-inbound-icmp",
];

fn flush(netns: &Netns, chain: &str) {
    output_of(
        netns
            .command("nft")
            .args(["flush", "chain", "inet", "sidetrack", chain]),
    );
}

#[track_caller]
fn holds(probed: &Probed, names: &[&str]) {
    let passed = probed.with_result("passed");
    let missing: Vec<String> = both(names).into_iter().filter(|name| !passed.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in {probed:#?}");
}

#[test]
fn locked_probes_pass_on_every_backend() {
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, LOCKED);
        let probed = probe(&pod.netns, LOCKED);
        probed.passed();
        holds(&probed, &OUTBOUND);
        holds(&probed, &INBOUND);
        let expected = probed.texts("ipv6 icmp locked-icmp", "expected");
        assert!(expected.iter().all(|text| text == "rejected"), "{expected:?}");
    }
}

/// A pod whose lock has lost the rules of these chains: these probes fail, and each says what it found.
#[track_caller]
fn failed_without(chains: &[&str], names: &[&str], found: &str, found_of_echo: &str) -> (Pod, Probed) {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", LOCKED);
    chains.iter().for_each(|chain| flush(&pod.netns, chain));
    let probed = probe(&pod.netns, LOCKED);
    let names = both(names);
    probed.failed(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        probed.says(name, if name.contains(" icmp ") { found_of_echo } else { found });
    }
    (pod, probed)
}

#[test]
fn empty_lock_fails_the_locked_probes() {
    let (pod, probed) = failed_without(
        &["reject_outbound", "filter_postrouting"],
        &OUTBOUND,
        "left the pod, past the proxy",
        "was answered from outside of the pod",
    );
    for name in both(&["icmp locked-icmp"]) {
        let meaning = &probed.texts(&name, "meaning")[0];
        assert_eq!(meaning, "traffic of the application leaves the pod without the proxy");
    }
    let run = Run::of(pod.netns.command(SIDETRACK).arg("probe"));
    let line = "failed    IPv4 UDP locked-quic: user 1000, group 1000 to 192.0.2.254:443: left the pod, past the proxy\n          \
                expected: is rejected at once\n";
    assert!(run.stdout.contains(line), "{run:?}");
    assert_eq!(run.code, Some(3));
}

#[test]
fn empty_inbound_lock_fails_the_locked_probes() {
    let past_the_proxy = "arrived directly, past the proxy";
    failed_without(&["reject_inbound"], &INBOUND, past_the_proxy, "was answered by the pod");
}

/// The sender of a dropped datagram gets the error of a rejected one, at once. Of a connection, a drop is silence until a
/// time-out.
#[test]
fn silent_drop_fails_the_locked_probes_of_connections() {
    let pod = Pod::new();
    let options = ["--outbound-policy", "proxy-only", "--ip-family", "ipv4"];
    apply(&pod.netns, "nftables", &options);
    output_of(
        pod.netns
            .command("nft")
            .args(["insert", "rule", "inet", "sidetrack", "reject_outbound", "drop"]),
    );
    let probed = probe_with_losses(&pod.netns, &options);
    probed.failed(&["ipv6 tcp locked-tcp"]);
    probed.says("ipv6 tcp locked-tcp", "got no answer in time");
    assert!(
        probed.with_result("passed").contains("ipv6 udp locked-udp"),
        "{probed:#?}"
    );
}

#[test]
fn family_that_is_not_redirected_is_locked_too() {
    let pod = Pod::new();
    let options = [
        "--outbound-policy",
        "proxy-only",
        "--inbound-policy",
        "proxy-only",
        "--ip-family",
        "ipv4",
    ];
    apply(&pod.netns, "nftables", &options);
    let probed = probe(&pod.netns, &options);
    probed.passed();
    let of_ipv6: BTreeSet<String> = OUTBOUND
        .iter()
        .chain(&INBOUND)
        .map(|name| format!("ipv6 {name}"))
        .collect();
    let passed = probed.with_result("passed");
    let found: BTreeSet<String> = passed.into_iter().filter(|name| name.starts_with("ipv6 ")).collect();
    assert_eq!(found, of_ipv6);
}

/// New interfaces have no IPv6, and neither has the link to the host outside.
fn without_ipv6_on_links(netns: &Netns) {
    let off = || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    netns.run(off).expect("a setting");
}

#[test]
fn family_that_the_pod_lacks_is_noted_and_passes() {
    let netns = Netns::new();
    without_ipv6_on_links(&netns);
    netns.ip("link add eth0 type bridge\naddress add 10.9.0.2/24 dev eth0\nlink set eth0 up\n");
    let options = [&LOCKED[..4], &["--ip-family", "ipv4"]].concat();
    apply(&netns, "nftables", &options);
    let probed = probe(&netns, &options);
    probed.passed();
    let passed = probed.with_result("passed");
    assert!(passed.contains("ipv4 udp locked-udp"), "{passed:?}");
    assert!(!passed.iter().any(|name| name.starts_with("ipv6 ")), "{passed:?}");
    let notes = probed.report["notes"].to_string();
    assert!(
        notes.contains("the pod has no IPv6 address, so nothing leaves or arrives"),
        "{notes}"
    );
}

/// What has IPv6 elsewhere may send over it, so that a probe that cannot be made is missing.
#[test]
fn family_that_the_link_lacks_is_incomplete_if_the_pod_uses_it() {
    let pod = Pod::new();
    without_ipv6_on_links(&pod.netns);
    let options = [&LOCKED[..4], &["--ip-family", "ipv4"]].concat();
    apply(&pod.netns, "nftables", &options);
    let probed = probe(&pod.netns, &options);
    assert_eq!(probed.code, Some(1), "{probed:#?}");
    assert!(
        probed.with_result("passed").contains("ipv6 udp locked-udp"),
        "{probed:#?}"
    );
    assert!(
        probed.with_result("not made").contains("ipv6 udp locked-inbound-udp"),
        "{probed:#?}"
    );
    assert_eq!(probed.with_result("failed"), BTreeSet::new());
}

#[test]
fn holes_of_the_lock_pass_as_probed() {
    let pod = Pod::new();
    let options = [
        "--outbound-policy",
        "proxy-only",
        "--allow-dns",
        "--dns-servers",
        "10.96.0.10,fd96::a",
        "--exclude-outbound-ports",
        "3306",
        "--exclude-uids",
        "7",
        "--exclude-gids",
        "9",
        "--exclude-outbound-cidrs",
        "10.9.0.0/16,fd09::/16",
        "--proxy-mark",
        "0x1337",
    ];
    apply(&pod.netns, "nftables", &options);
    let probed = probe(&pod.netns, &options);
    probed.passed();
    holds(
        &probed,
        &[
            "udp allowed-dns",
            "udp locked-dns",
            "udp locked-udp",
            "tcp excluded-outbound-port",
            "tcp excluded-user",
            "tcp excluded-group",
            "tcp excluded-outbound-address",
            "tcp exempt",
            "tcp impostor",
        ],
    );
    let impostor = |probe: &&serde_json::Value| probe["name"] == "locked-udp" && probe["caller"]["uid"] == 1337;
    assert_eq!(probed.probes().iter().filter(impostor).count(), 2);
}
