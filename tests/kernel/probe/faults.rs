//! Rules that are missing, changed, or preceded by foreign ones.

use super::{EVERYTHING, both, probe, probe_with_losses};
use crate::common::{Netns, Owner, Pod, Server, output_of};
use crate::program::{apply, feed};

/// Deletes the rules of our table that nft shows with all of these words.
#[track_caller]
pub fn delete_rules(netns: &Netns, words: &[&str]) {
    let listing = output_of(netns.command("nft").args(["-a", "list", "table", "inet", "sidetrack"]));
    let (mut chain, mut deleted) = ("", 0);
    for line in listing.lines() {
        if let Some(name) = line.trim().strip_prefix("chain ") {
            chain = name.split(' ').next().expect("a name");
        } else if words.iter().all(|word| line.contains(word)) {
            let (_, handle) = line.rsplit_once("# handle ").expect("a handle");
            let rule = ["delete", "rule", "inet", "sidetrack", chain, "handle", handle];
            output_of(netns.command("nft").args(rule));
            deleted += 1;
        }
    }
    assert!(deleted > 0, "no rule has {words:?}: {listing}");
}

#[test]
fn without_rules_everything_that_should_be_captured_fails_and_nothing_else() {
    let pod = Pod::new();
    let probed = probe(&pod.netns, &[]);
    let captured = both(&["tcp outbound", "tcp inbound", "tcp self-call"]);
    let mut failed: Vec<&str> = captured.iter().map(String::as_str).collect();
    // Without ::6 there is nothing to pass it on from.
    failed.push("ipv6 tcp passthrough");
    probed.failed(&failed);
    probed.says("ipv4 tcp outbound", "left the pod, past the proxy");
    probed.says("ipv4 tcp inbound", "arrived directly, past the proxy");
    probed.says("ipv6 tcp passthrough", "cannot use its source address");
    let notes = probed.report["notes"].to_string();
    assert!(notes.contains("no rules of sidetrack are installed"), "{notes}");
    assert!(probed.stderr.contains("11 failed"), "{probed:?}");
}

#[test]
fn a_missing_rule_fails_the_probes_that_it_is_for_and_no_others() {
    let tproxy = [EVERYTHING, &["--inbound-mode", "tproxy"]].concat();
    let table: &[(&[&str], &[&str], &[&str])] = &[
        (EVERYTHING, &["outbound, to the proxy"], &["tcp outbound"]),
        (
            EVERYTHING,
            &["inbound, to the proxy"],
            &["tcp inbound", "tcp self-call"],
        ),
        (EVERYTHING, &["inbound TCP"], &["tcp inbound"]),
        (EVERYTHING, &["the mesh's own ports"], &["tcp mesh-port"]),
        (EVERYTHING, &["excluded inbound ports"], &["tcp excluded-inbound-port"]),
        (
            EVERYTHING,
            &["excluded outbound ports", "tcp"],
            &["tcp excluded-outbound-port"],
        ),
        (EVERYTHING, &["DNS query, to the proxy", "udp"], &["udp lookup"]),
        (EVERYTHING, &["DNS query, to the proxy", "tcp"], &["tcp lookup"]),
        (EVERYTHING, &["the proxy's DNS answer"], &["udp lookup"]),
        (
            EVERYTHING,
            &["from the proxy to the pod's own address"],
            &["tcp self-call"],
        ),
        (
            &tproxy,
            &["inbound, to the proxy's transparent socket"],
            &["tcp inbound"],
        ),
        (&tproxy, &["reply to the proxy"], &["tcp passthrough"]),
    ];
    for (options, words, failed) in table {
        let pod = Pod::new();
        apply(&pod.netns, "nftables", options);
        delete_rules(&pod.netns, words);
        let failed = both(failed);
        let failed: Vec<&str> = failed.iter().map(String::as_str).collect();
        let probed = probe_with_losses(&pod.netns, options);
        probed.failed(&failed);
    }
}

#[test]
fn exemptions_fail_each_for_itself() {
    for (words, exempt, of) in [
        (&["the proxy's own traffic", "skuid"][..], "exempt", ("uid", 1337)),
        (&["the proxy's own traffic", "skgid"], "exempt", ("gid", 1337)),
        (&["excluded users"], "excluded-user", ("uid", 7)),
        (&["excluded groups"], "excluded-group", ("gid", 9)),
    ] {
        let pod = Pod::new();
        apply(&pod.netns, "nftables", EVERYTHING);
        delete_rules(&pod.netns, words);
        let probed = probe_with_losses(&pod.netns, EVERYTHING);
        let (field, number) = of;
        for probe in probed.probes() {
            let hit = probe["name"] == exempt && probe["caller"][field] == number;
            assert_eq!(probe["result"] == "failed", hit, "{words:?}: {probe}");
            assert!(
                !hit || probe["found"]
                    .as_str()
                    .is_some_and(|found| found.contains("arrived at")),
                "{probe}"
            );
        }
    }
}

#[test]
fn what_the_proxy_passes_on_fails_in_the_family_whose_rule_is_missing() {
    for (words, failed) in [("127.0.0.6", "ipv4 tcp passthrough"), ("::6", "ipv6 tcp passthrough")] {
        let pod = Pod::new();
        apply(&pod.netns, "nftables", &[]);
        delete_rules(&pod.netns, &[words, "from the proxy to the application"]);
        let probed = probe(&pod.netns, &[]);
        probed.failed(&[failed]);
        assert!(
            probed
                .texts(failed, "meaning")
                .concat()
                .contains("connections of the proxy loop back to it"),
            "{probed:#?}"
        );
    }
}

#[test]
fn routes_and_addresses_that_rules_rely_on_are_missed() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &["--inbound-mode", "tproxy"]);
    pod.netns.ip("rule del fwmark 1337\n");
    probe_with_losses(&pod.netns, &["--inbound-mode", "tproxy"]).failed(&["ipv4 tcp passthrough"]);
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    pod.netns.ip("address del ::6/128 dev lo\n");
    let probed = probe(&pod.netns, &[]);
    probed.failed(&["ipv6 tcp passthrough"]);
    assert!(
        probed.texts("ipv6 tcp passthrough", "advice").concat().contains("::6"),
        "{probed:#?}"
    );
}

#[test]
fn missing_rules_of_ipv6_fail_ipv6_alone() {
    let failed = ["ipv6 tcp outbound", "ipv6 tcp inbound", "ipv6 tcp self-call"];
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &["--ip-family", "ipv4"]);
    // The address is there, as it was with rules for both families.
    pod.netns.ip("address add ::6/128 dev lo nodad\n");
    probe(&pod.netns, &["--ip-family", "auto"]).failed(&failed);
    for (backend, program) in [
        ("iptables-nft", "ip6tables-nft"),
        ("iptables-legacy", "ip6tables-legacy"),
    ] {
        let pod = Pod::new();
        apply(&pod.netns, backend, &[]);
        output_of(pod.netns.command(program).args(["-t", "nat", "-F"]));
        probe(&pod.netns, &[]).failed(&failed);
    }
}

#[test]
fn rules_for_other_proxy_ports_are_reported() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &["--proxy-outbound-port", "16001"]);
    let options = ["--proxy-outbound-port", "15001"];
    let nobody_there = probe(&pod.netns, &options);
    nobody_there.failed(&["ipv4 tcp outbound", "ipv6 tcp outbound"]);
    nobody_there.says("ipv4 tcp outbound", "was refused");
    let _other = Server::start(&pod.netns, "other", Owner::APP, &[16001]);
    let other_listener = probe(&pod.netns, &options);
    other_listener.failed(&["ipv4 tcp outbound", "ipv6 tcp outbound"]);
    other_listener.says("ipv4 tcp outbound", "arrived at 127.0.0.1:16001");
    other_listener.says("ipv6 tcp outbound", "arrived at [::1]:16001");
}

#[test]
fn foreign_redirection_before_ours_is_reported() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let foreign =
        "table ip foreign { chain catch { type nat hook output priority -150; tcp dport 15002 redirect to :9999; }; }";
    feed(&pod.netns, "nft", &["-f", "-"], foreign);
    let probed = probe(&pod.netns, &[]);
    let failed = probed.with_result("failed");
    assert!(
        failed.contains("ipv4 tcp outbound") && failed.contains("ipv4 tcp exempt"),
        "{probed:#?}"
    );
    assert!(failed.iter().all(|name| name.starts_with("ipv4")), "{probed:#?}");
    let notes = probed.report["notes"].to_string();
    assert!(notes.contains("ip foreign catch"), "{notes}");
}

#[test]
fn rules_of_other_meshes_are_named() {
    let pod = Pod::new();
    let foreign = "table ip nat {
        chain PROXY_INIT_OUTPUT { meta l4proto tcp redirect to :4140; }
        chain OUTPUT { type nat hook output priority -150; jump PROXY_INIT_OUTPUT; }
    }";
    apply(&pod.netns, "nftables", &[]);
    feed(&pod.netns, "nft", &["-f", "-"], foreign);
    let probed = probe(&pod.netns, &[]);
    assert!(
        probed.with_result("failed").contains("ipv4 tcp outbound"),
        "{probed:#?}"
    );
    assert!(probed.report["notes"].to_string().contains("Linkerd"), "{probed:#?}");
}

/// Rewrites packets on their own, as a program at the socket layer could, so that the proxy cannot ask where they went.
#[test]
fn redirection_that_loses_original_destination_is_reported() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let foreign = "table ip other { chain output { type filter hook output priority -301;
        meta skuid 1000 ip daddr 192.0.2.254 tcp dport 15002 ip daddr set 127.0.0.1 tcp dport set 15001
        ip daddr 10.99.0.2 tcp sport 15001 ip saddr set 192.0.2.254 tcp sport set 15002
    }; }";
    feed(&pod.netns, "nft", &["-f", "-"], foreign);
    let probed = probe_with_losses(&pod.netns, &[]);
    assert!(
        probed.with_result("failed").contains("ipv4 tcp outbound"),
        "{probed:#?}"
    );
    assert!(
        !probed.with_result("failed").contains("ipv6 tcp outbound"),
        "{probed:#?}"
    );
}

/// As a busy kernel delivers it late: the other end accepts the connection once it has repeated its part of the handshake.
#[test]
fn connection_that_is_accepted_late_is_not_one_from_outside() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let lossy = "table ip lossy { chain postrouting { type filter hook postrouting priority 300;
        oifname sidetrack-probe meta skuid 1337 tcp flags & (syn | ack | fin | rst) == ack quota until 60 bytes drop;
    }; }";
    feed(&pod.netns, "nft", &["-f", "-"], lossy);
    probe(&pod.netns, &[]).passed();
    let rules = output_of(pod.netns.command("nft").args(["list", "table", "ip", "lossy"]));
    assert!(rules.contains(" used "), "no packet was dropped: {rules}");
}

#[test]
fn dropped_packets_are_reported_as_timeout() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", EVERYTHING);
    let firewall = "table inet firewall { chain output { type filter hook output priority -400;
        meta skuid 1000 meta skgid 1000 tcp dport { 53, 15002 } drop; meta skuid 1000 meta skgid 1000 udp dport 53 drop;
    }; }";
    feed(&pod.netns, "nft", &["-f", "-"], firewall);
    let probed = probe_with_losses(&pod.netns, EVERYTHING);
    let failed = both(&["tcp outbound", "tcp lookup", "udp lookup"]);
    probed.failed(&failed.iter().map(String::as_str).collect::<Vec<_>>());
    probed.says("ipv4 tcp outbound", "got no answer in time");
}
