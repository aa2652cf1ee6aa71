//! Probes without options: the record of the installed rules says what to expect, or else the rules themselves.

use super::{EVERYTHING, Probed, both, probe, wrong};
use crate::common::{Netns, Pod, output_of};
use crate::program::{BACKENDS, Run, apply, feed};
use crate::{SIDETRACK, cases};

/// Options other than the defaults, so that probes of the defaults would fail.
const OTHER: &[&str] = &[
    "--proxy-outbound-port",
    "16001",
    "--proxy-inbound-port",
    "16006",
    "--proxy-uid",
    "1500",
    "--proxy-gid",
    "1600",
];

fn source(probed: &Probed) -> &str {
    probed.report["source"].as_str().expect("text")
}

fn delete_record(netns: &Netns, backend: &str) {
    match backend {
        "nftables" => drop(output_of(netns.command("nft").args([
            "delete",
            "chain",
            "inet",
            "sidetrack",
            "options",
        ]))),
        backend => {
            let variant = backend.strip_prefix("iptables-").expect("a variant");
            for family in ["iptables", "ip6tables"] {
                let text = "*nat\n:SIDETRACK_OPTIONS - [0:0]\n-X SIDETRACK_OPTIONS\nCOMMIT\n";
                feed(netns, &format!("{family}-{variant}-restore"), &["--noflush"], text);
            }
        }
    }
}

#[test]
fn probe_without_options_expects_what_was_applied() {
    for backend in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            let pod = Pod::new();
            let options = [OTHER, EVERYTHING, &["--inbound-mode", mode]].concat();
            apply(&pod.netns, backend, &options);
            let probed = probe(&pod.netns, &[]);
            probed.passed();
            assert_eq!(source(&probed), "record");
            assert_eq!(probed.report["recordedOptions"][0], "--proxy-inbound-port=16006");
            let given = probe(&pod.netns, &options);
            assert_eq!(given.with_result("passed"), probed.with_result("passed"));
            assert_eq!(source(&given), "options");
        }
    }
}

#[test]
fn given_options_win_over_the_record() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", OTHER);
    let probed = probe(&pod.netns, &["--exclude-uids", "7"]);
    assert_eq!((probed.code, source(&probed)), (Some(3), "options"));
    let run = Run::of(pod.netns.command(SIDETRACK).arg("probe")).succeeded();
    let expected = "Expected by the options recorded with the rules: --proxy-inbound-port=16006 \
                    --proxy-outbound-port=16001 --proxy-uid=1500 --proxy-gid=1600\n";
    assert!(run.stdout.contains(expected), "{run:?}");
}

#[test]
fn missing_rule_fails_the_probes_of_the_recorded_options() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", OTHER);
    output_of(
        pod.netns
            .command("nft")
            .args(["flush", "chain", "inet", "sidetrack", "inbound"]),
    );
    let failed = both(&["tcp inbound", "tcp self-call"]);
    probe(&pod.netns, &[]).failed(&failed.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn rules_without_a_record_say_themselves_what_to_expect() {
    for backend in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            let pod = Pod::new();
            apply(
                &pod.netns,
                backend,
                &[OTHER, EVERYTHING, &["--inbound-mode", mode]].concat(),
            );
            delete_record(&pod.netns, backend);
            let probed = probe(&pod.netns, &[]);
            assert_eq!(source(&probed), "rules");
            assert!(wrong(&probed).is_empty(), "{backend} {mode}: {probed:#?}");
            let passed = probed.with_result("passed");
            let names = [
                "tcp outbound",
                "tcp exempt",
                "tcp excluded-outbound-port",
                "tcp lookup",
                "udp lookup",
                "tcp inbound",
                "tcp excluded-inbound-port",
                "tcp self-call",
                "tcp passthrough",
            ];
            for name in both(&names) {
                assert!(passed.contains(&name), "{backend} {mode}: no {name} in {probed:#?}");
            }
        }
    }
}

#[test]
fn rules_of_every_case_say_themselves_what_to_expect() {
    let pod = Pod::new();
    for (case, options) in cases::all_options() {
        apply(&pod.netns, "nftables", options);
        delete_record(&pod.netns, "nftables");
        let probed = probe(&pod.netns, &[]);
        if case == "nothing at all" {
            assert_eq!(source(&probed), "defaults");
            continue;
        }
        assert_eq!(source(&probed), "rules", "{case}");
        let wrong = wrong(&probed);
        assert!(wrong.is_empty(), "{case}: {wrong:#?}");
        assert!(!probed.with_result("passed").is_empty(), "{case}: {probed:#?}");
    }
}

#[test]
fn foreign_rule_fails_the_probes_of_rules_without_a_record() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", OTHER);
    delete_record(&pod.netns, "nftables");
    let foreign =
        "table inet foreign { chain out { type nat hook output priority -120; tcp dport 15002 redirect to :9; }; }";
    feed(&pod.netns, "nft", &["-f", "-"], foreign);
    let probed = probe(&pod.netns, &[]);
    assert_eq!((probed.code, source(&probed)), (Some(3), "rules"));
    assert!(
        probed.with_result("failed").contains("ipv4 tcp outbound"),
        "{probed:#?}"
    );
}

#[test]
fn unusable_record_leaves_the_expectation_to_the_rules() {
    let pod = Pod::new();
    let cidrs: Vec<String> = (0..300)
        .map(|number| format!("10.{}.{}.0/25", number / 256, number % 256))
        .collect();
    let cidrs = cidrs.join(",");
    let long = [OTHER, &["--exclude-outbound-cidrs", cidrs.as_str()]].concat();
    apply(&pod.netns, "nftables", &long);
    let probed = probe(&pod.netns, &[]);
    assert_eq!((probed.code, source(&probed)), (Some(0), "rules"), "{probed:#?}");
    assert_eq!(
        probed.report["ignoredRecord"],
        "--exclude-outbound-cidrs is too long to be recorded"
    );
    let forged = "flush chain inet sidetrack options\nadd rule inet sidetrack options return comment \"hello\"\n";
    feed(&pod.netns, "nft", &["-f", "-"], forged);
    let run = Run::of(pod.netns.command(SIDETRACK).arg("probe")).succeeded();
    let said = "Expected by the installed rules: the record of the options is ignored, since it is damaged";
    assert!(run.stdout.contains(said), "{run:?}");
}
