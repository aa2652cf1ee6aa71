//! What the policies reject is rejected, and a probe fails where it is not.

use std::collections::BTreeSet;

use super::{Probed, both, probe};
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
        assert_eq!(probed.texts("ipv6 icmp locked-icmp", "expected"), ["rejected"]);
    }
}

#[test]
fn empty_lock_fails_the_locked_probes() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", LOCKED);
    flush(&pod.netns, "reject_outbound");
    flush(&pod.netns, "filter_postrouting");
    let probed = probe(&pod.netns, LOCKED);
    let names = both(&OUTBOUND);
    probed.failed(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in both(&["tcp locked-tcp", "udp locked-udp", "udp locked-quic", "udp locked-dns"]) {
        probed.says(&name, "left the pod, past the proxy");
    }
    for name in both(&["icmp locked-icmp"]) {
        probed.says(&name, "was answered from outside of the pod");
        let meaning = probed.texts(&name, "meaning");
        assert_eq!(meaning, ["traffic of the application leaves the pod without the proxy"]);
    }
    let run = Run::of(pod.netns.command(SIDETRACK).arg("probe"));
    let line = "failed    IPv4 UDP locked-quic: user 1000, group 1000 to 192.0.2.254:443: left the pod, past the proxy\n          \
                expected: is rejected at once\n";
    assert!(run.stdout.contains(line), "{run:?}");
    assert_eq!(run.code, Some(3));
}

#[test]
fn empty_inbound_lock_fails_the_locked_probes() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", LOCKED);
    flush(&pod.netns, "reject_inbound");
    let probed = probe(&pod.netns, LOCKED);
    let names = both(&INBOUND);
    probed.failed(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in both(&["tcp locked-inbound-tcp", "udp locked-inbound-udp"]) {
        probed.says(&name, "arrived directly, past the proxy");
    }
    for name in both(&["icmp locked-inbound-icmp"]) {
        probed.says(&name, "was answered by the pod");
    }
}

/// A dropped datagram is an error of its sender as well. Of a connection, it is silence until a time-out.
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
    let probed = probe(&pod.netns, &[&options[..], &["--timeout", "300ms"]].concat());
    probed.failed(&["ipv6 tcp locked-tcp"]);
    probed.says("ipv6 tcp locked-tcp", "got no answer in time");
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
