//! The record of the options: written with the rules, and what check compares with where no options are given.

use std::fs;

use serde_json::{Value, json};

use super::{TPROXY_AND_DNS, check, in_sync, run};
use crate::cni::request;
use crate::common::{Netns, output_of};
use crate::program::{BACKENDS, Run, apply, feed, sidetrack};

const COMPARED: &str = "Compared with the options recorded with the rules: ";

/// Options, and how they are recorded.
const RECORDED: [(&[&str], &str); 4] = [
    (&[], "the defaults."),
    (
        &[
            "--exclude-outbound-ports",
            "8443,443",
            "--proxy-uid",
            "1337",
            "--drop-invalid",
        ],
        "--exclude-outbound-ports=443,8443 --drop-invalid",
    ),
    (TPROXY_AND_DNS, "--inbound-mode=tproxy --redirect-dns --dns-servers=all"),
    (
        &["--mesh", "linkerd", "--ip-family", "ipv6"],
        "--mesh=linkerd --ip-family=ipv6",
    ),
];

fn report(netns: &Netns, options: &[&str]) -> Value {
    let run = check(netns, &[&["--json"], options].concat());
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Deletes a rule of the chain `outbound`.
fn delete_rule(netns: &Netns, backend: &str) {
    match backend {
        "nftables" => run(netns, backend, "nft", "delete rule inet sidetrack outbound #1"),
        backend => run(netns, backend, "ip6tables", "nat -D SIDETRACK_OUTBOUND 1"),
    }
}

/// Writes other comments into the chain of the record.
fn forge(netns: &Netns, backend: &str, comments: &[&str]) {
    match backend {
        "nftables" => {
            let rule = |comment: &&str| format!("add rule inet sidetrack options return comment \"{comment}\"\n");
            let rules: String = comments.iter().map(rule).collect();
            feed(
                netns,
                "nft",
                &["-f", "-"],
                &format!("flush chain inet sidetrack options\n{rules}"),
            );
        }
        backend => {
            let rule = |comment: &&str| format!("-A SIDETRACK_OPTIONS -m comment --comment \"{comment}\" -j RETURN\n");
            let rules: String = comments.iter().map(rule).collect();
            for program in ["iptables", "ip6tables"] {
                let rest = format!("nat :SIDETRACK_OPTIONS - [0:0]\n{rules}");
                run(netns, backend, program, rest.trim_end());
            }
        }
    }
}

#[test]
fn check_without_options_compares_with_what_was_applied() {
    for backend in BACKENDS {
        let netns = Netns::new();
        for (options, recorded) in RECORDED {
            apply(&netns, backend, options);
            let run = check(&netns, &[]).succeeded();
            let expected = format!("in-sync: the installed rules match the plan, in {backend}\n{COMPARED}{recorded}\n");
            assert_eq!(run.stdout, expected);
            delete_rule(&netns, backend);
            let run = check(&netns, &[]);
            assert_eq!(run.code, Some(3), "{run:?}");
            assert!(run.stdout.starts_with("drifted: 1 difference from the plan"), "{run:?}");
            assert!(run.stdout.contains(&format!("{COMPARED}{recorded}\n")), "{run:?}");
        }
    }
}

#[test]
fn given_options_win_over_the_record() {
    for backend in BACKENDS {
        let netns = Netns::new();
        apply(&netns, backend, &["--exclude-uids", "7"]);
        let source = |options: &[&str]| {
            let report = report(&netns, options);
            let text = |key: &str| report[key].as_str().expect("text").to_owned();
            (text("state"), text("source"), report["recordedOptions"].clone())
        };
        let of_options = |state: &str| (state.to_owned(), "options".to_owned(), Value::Null);
        assert_eq!(
            source(&[]),
            ("in-sync".to_owned(), "record".to_owned(), json!(["--exclude-uids=7"]))
        );
        assert_eq!(
            source(&["--backend", backend, "--exclude-uids", "8"]),
            of_options("drifted")
        );
        assert_eq!(
            source(&["--backend", backend, "--exclude-uids", "7"]),
            of_options("in-sync")
        );
        assert_eq!(source(&["--backend", backend]), of_options("drifted"));
        assert_eq!(source(&["istio-iptables"]).1, "options");
        // Options of the run select no rules.
        assert_eq!(source(&["--log-level", "warn", "-v"]).1, "record");
        let mut command = netns.command(crate::SIDETRACK);
        command
            .args(["check", "--backend", backend])
            .env("SIDETRACK_EXCLUDE_UIDS", "7");
        assert!(!Run::of(&mut command).succeeded().stdout.contains(COMPARED));
    }
}

#[test]
fn other_options_with_the_same_rules_are_no_drift_and_apply_records_them() {
    for backend in BACKENDS {
        let netns = Netns::new();
        apply(&netns, backend, &[]);
        // DNS is not captured, so its port has no effect.
        let same = &["--dns-port", "1053"];
        in_sync(&netns, backend, same);
        assert!(apply(&netns, backend, same).contains("the previous redirection is replaced"));
        assert!(apply(&netns, backend, same).contains("traffic is already redirected this way"));
        let run = check(&netns, &[]).succeeded();
        assert!(run.stdout.ends_with(&format!("{COMPARED}--dns-port=1053\n")), "{run:?}");
        in_sync(&netns, backend, &[]);
    }
}

#[test]
fn record_is_shown_by_the_tools_of_the_backend() {
    for (backend, program, arguments) in [
        ("nftables", "nft", &["list", "ruleset"][..]),
        ("iptables-nft", "iptables-nft-save", &[]),
        ("iptables-nft", "ip6tables-nft-save", &[]),
        ("iptables-legacy", "iptables-legacy-save", &[]),
    ] {
        let netns = Netns::new();
        apply(&netns, backend, &["--exclude-outbound-ports", "443"]);
        let text = output_of(netns.command(program).args(arguments));
        let line = text
            .lines()
            .find(|line| line.contains("\"sidetrack 1 "))
            .unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(": --exclude-outbound-ports=443\""), "{line}");
    }
}

#[test]
fn unusable_records_are_ignored_with_the_reason() {
    const NEWER: &str = "sidetrack 9 in another form: x";
    for backend in BACKENDS {
        let netns = Netns::new();
        apply(&netns, backend, &[]);
        for (comments, reason) in [
            (&["hello"][..], "it is damaged: it does not begin as one of sidetrack"),
            (&[NEWER], "it has version 9, and this sidetrack reads version 1"),
            (
                &["sidetrack 1 cbf29ce484222325: --exclude-uids=7"],
                "it is damaged: its digest is not that of its options",
            ),
        ] {
            forge(&netns, backend, comments);
            let run = check(&netns, &[]);
            let ignored =
                format!("Compared with the defaults: the record of the options is ignored, since {reason}.\n");
            assert!(run.stdout.contains(&ignored), "{backend}: {run:?}");
            let report = report(&netns, &[]);
            assert_eq!(
                (&report["source"], &report["ignoredRecord"]),
                (&json!("defaults"), &json!(reason))
            );
            // A record is no rule: nothing has drifted.
            in_sync(&netns, backend, &[]);
        }
        // The next apply writes it again.
        apply(&netns, backend, &[]);
        check(&netns, &[]).succeeded();
    }
}

#[test]
fn rules_without_a_record_are_compared_with_the_defaults_as_before() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    run(&netns, "nftables", "nft", "delete chain inet sidetrack options");
    let run = check(&netns, &[]).succeeded();
    assert_eq!(run.stdout, "in-sync: the installed rules match the plan, in nftables\n");
    assert_eq!(report(&netns, &[])["source"], "defaults");
}

#[test]
fn chain_of_the_record_that_has_an_effect_is_drift() {
    let netns = Netns::new();
    const CALLED: &str = "add chain inet sidetrack options { type nat hook output priority -150; }";
    for changes in [
        &["insert rule inet sidetrack options tcp dport 22 accept"][..],
        &["delete chain inet sidetrack options", CALLED],
    ] {
        apply(&netns, "nftables", &[]);
        for change in changes {
            run(&netns, "nftables", "nft", change);
        }
        let differences = super::reported(&netns, "nftables", &[]);
        assert!(
            differences.len() == 1 && differences[0].starts_with("extra: chain options in inet sidetrack"),
            "{differences:?}"
        );
    }
    for backend in ["iptables-nft", "iptables-legacy"] {
        let netns = Netns::new();
        apply(&netns, backend, &[]);
        run(
            &netns,
            backend,
            "iptables",
            "nat -I SIDETRACK_OPTIONS 1 -p tcp -j ACCEPT",
        );
        let differences = super::reported(&netns, backend, &[]);
        assert_eq!(differences, ["extra: chain SIDETRACK_OPTIONS in iptables nat"]);
    }
}

#[test]
fn lists_that_are_too_long_to_be_recorded_are_named() {
    let file = std::env::temp_dir().join(format!("sidetrack-{}-record.yaml", std::process::id()));
    let cidrs: Vec<String> = (0..300)
        .map(|number| format!("10.{}.{}.0/25", number / 256, number % 256))
        .collect();
    fs::write(
        &file,
        format!("exclude-outbound-cidrs: \"{}\"\nproxy-uid: 7\n", cidrs.join(",")),
    )
    .expect("a file");
    let config = file.to_str().expect("text");
    for backend in BACKENDS {
        let netns = Netns::new();
        apply(&netns, backend, &["--config", config]);
        let run = check(&netns, &[]);
        run.failed(
            1,
            &[
                "the options recorded with the rules are incomplete: --exclude-outbound-cidrs is too long to be recorded",
                "hint: Give the options that the rules were applied with",
            ],
        );
        in_sync(&netns, backend, &["--config", config]);
    }
    fs::remove_file(file).expect("it may be removed");
}

/// The longest comments that nft takes, and the most of them.
#[test]
fn longest_record_is_written_and_read_on_every_backend() {
    // Each element is 16 bytes with its comma: after the first comment, each one has 8 of them, to the last byte.
    let cidrs: Vec<String> = (0..121)
        .map(|number| format!("10.{}.{}.0/25", 100 + number / 50, 100 + number % 50))
        .collect();
    let options = ["--exclude-outbound-cidrs", &cidrs.join(",")];
    for backend in BACKENDS {
        let netns = Netns::new();
        apply(&netns, backend, &options);
        assert!(apply(&netns, backend, &options).contains("already redirected"));
        let run = check(&netns, &[]).succeeded();
        assert!(run.stdout.contains("10.100.107.0/25 and 113 more\n"), "{run:?}");
        let report = report(&netns, &[]);
        let recorded = report["recordedOptions"][0].as_str().expect("text");
        assert!(recorded.ends_with(",10.102.120.0/25"), "{recorded}");
    }
    // nft reads what it would refuse if a comment were longer by a byte.
    let netns = Netns::new();
    let script = sidetrack(&netns, &[&["apply", "--dry-run"], &options[..]].concat())
        .succeeded()
        .stdout;
    let comments = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("return comment \""));
    let lengths: Vec<usize> = comments.map(|comment| comment.trim_end_matches('"').len()).collect();
    assert_eq!(
        lengths.iter().filter(|length| **length == 128).count(),
        14,
        "{lengths:?}"
    );
    assert_eq!(lengths.len(), 16);
    feed(&netns, "nft", &["-f", "-"], &script);
    assert!(apply(&netns, "nftables", &options).contains("already redirected"));
    check(&netns, &[]).succeeded();
}

#[test]
fn rules_of_front_ends_are_compared_without_their_flags() {
    let programs: [&[&str]; 3] = [
        &["istio-iptables", "-u", "1337,7", "-i", "*", "-b", "*", "-d", "15090"],
        &["linkerd-proxy-init", "-p", "4143", "-o", "4140", "-u", "2102"],
        &[
            "kuma-init",
            "--kuma-dp-user",
            "5678",
            "--redirect-all-dns-traffic",
            "--vnet",
            "docker0:172.17.0.0/16",
        ],
    ];
    for program in programs {
        let netns = Netns::new();
        netns.ip("address add 10.0.0.2/32 dev lo");
        sidetrack(&netns, program).succeeded();
        let run = check(&netns, &[]).succeeded();
        assert!(run.stdout.starts_with("in-sync: "), "{program:?}: {run:?}");
        assert!(run.stdout.contains(COMPARED), "{run:?}");
    }
}

/// The node has other name servers and no options; the runtime told the plugin those of the pod.
#[test]
fn rules_of_the_plugin_are_compared_without_annotations_and_from_the_node() {
    let (node, pod) = (Netns::new(), Netns::new());
    let mut add = request("ADD", &pod.path())
        .annotated("traffic.sidecar.istio.io/excludeOutboundPorts", "3306")
        .annotated("traffic.sidetrack.dev/redirect-dns", "true");
    add.netconf["runtimeConfig"]["dns"] = json!({ "servers": ["10.96.0.10"] });
    add.succeeds();
    let path = pod.path();
    let netns = ["--netns", path.to_str().expect("text")];
    let recorded = "--exclude-outbound-ports=3306 --redirect-dns --dns-servers=10.96.0.10";
    let run = check(&node, &netns).succeeded();
    assert!(run.stdout.ends_with(&format!("{COMPARED}{recorded}\n")), "{run:?}");
    let given = [&netns[..], &["--exclude-outbound-ports", "3306", "--redirect-dns"]].concat();
    check(&node, &given).succeeded();
}
