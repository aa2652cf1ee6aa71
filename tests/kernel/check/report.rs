//! The report: states, exit codes, JSON, errors, and plans of `istio-iptables`.

use std::collections::BTreeSet;
use std::fs;

use caps::Capability;
use serde_json::Value;

use super::{check, in_sync, reported, run};
use crate::SIDETRACK;
use crate::common::{Netns, Owner};
use crate::istio::INJECTED;
use crate::program::{BACKENDS, Run, apply, feed, sidetrack};
use crate::sandbox::with_capabilities;

fn json(netns: &Netns, arguments: &[&str]) -> Value {
    let run = check(netns, &[&["--json"], arguments].concat());
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

#[test]
fn state_is_absent_before_apply_and_after_cleanup_or_deletion() {
    for backend in BACKENDS {
        let netns = Netns::new();
        let is_absent = || {
            let run = check(&netns, &["--backend", backend]);
            assert_eq!(run.code, Some(3), "{run:?}");
            assert!(
                run.stdout.starts_with("absent: no rules of sidetrack are installed\n"),
                "{run:?}"
            );
            let json = json(&netns, &["--backend", backend]);
            assert_eq!(json["state"], "absent");
            assert_eq!(
                (&json["backends"], &json["differences"]),
                (&Value::Array(vec![]), &Value::Array(vec![]))
            );
        };
        is_absent();
        apply(&netns, backend, &[]);
        in_sync(&netns, backend, &[]);
        sidetrack(&netns, &["cleanup"]).succeeded();
        is_absent();
        apply(&netns, backend, &[]);
        match backend {
            "nftables" => run(&netns, backend, "nft", "delete table inet sidetrack"),
            backend => {
                for program in ["iptables", "ip6tables"] {
                    let variant = backend.strip_prefix("iptables-").expect("a variant");
                    let flush = "*nat\nCOMMIT\n";
                    feed(&netns, &format!("{program}-{variant}-restore"), &[], flush);
                }
            }
        }
        is_absent();
    }
}

#[test]
fn rules_in_other_or_several_backends_are_reported() {
    let netns = Netns::new();
    apply(&netns, "iptables-nft", &[]);
    let run = check(&netns, &[]);
    assert_eq!(run.code, Some(3), "{run:?}");
    for line in [
        "  changed: the rules are in iptables-nft, expected in nftables\n",
        "To compare with the rules in iptables-nft, pass --backend iptables-nft.\n",
    ] {
        assert!(run.stdout.contains(line), "{run:?}");
    }
    // Rules of a dry run, loaded by hand besides.
    let dry_run = sidetrack(&netns, &["apply", "--dry-run"]).succeeded().stdout;
    feed(&netns, "nft", &["-f", "-"], &dry_run);
    assert_eq!(
        reported(&netns, "auto", &[]),
        ["extra: sidetrack has rules in iptables-nft too"]
    );
    assert_eq!(
        reported(&netns, "iptables-nft", &[]),
        ["extra: sidetrack has rules in nftables too"]
    );
    apply(&netns, "auto", &[]);
    in_sync(&netns, "nftables", &[]);
}

#[test]
fn auto_accepts_rules_in_legacy_iptables() {
    let netns = Netns::new();
    apply(&netns, "iptables-legacy", &[]);
    let run = check(&netns, &[]).succeeded();
    assert_eq!(
        run.stdout,
        "in-sync: the installed rules match the plan, in iptables-legacy\n"
    );
}

#[test]
fn options_come_from_the_sources_of_apply() {
    let netns = Netns::new();
    let file = std::env::temp_dir().join(format!("sidetrack-{}-check.yaml", std::process::id()));
    fs::write(&file, "proxyUid: 101\n").expect("a file");
    let config = file.to_str().expect("text");
    apply(&netns, "nftables", &["--config", config, "--exclude-uids", "5"]);
    in_sync(&netns, "nftables", &["--config", config, "--exclude-uids", "5"]);
    let mut command = netns.command(SIDETRACK);
    command
        .args(["check", "--config", config])
        .env("SIDETRACK_EXCLUDE_UIDS", "5");
    Run::of(&mut command).succeeded();
    assert!(!reported(&netns, "nftables", &["--config", config]).is_empty());
    fs::remove_file(file).expect("it may be removed");
    sidetrack(&netns, &["check", "--proxy-uid", "nobody-at-all"]).failed(2, &["--proxy-uid"]);
    sidetrack(&netns, &["check", "--no-such-flag"]).failed(2, &["--no-such-flag"]);
    // Options of output and action do not matter for check.
    sidetrack(&netns, &["check", "--dry-run"]).failed(2, &["--dry-run"]);
}

#[test]
fn check_runs_from_outside_the_namespace() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    let path = netns.path();
    let outside = Netns::new();
    let run = sidetrack(&outside, &["check", "--netns", path.to_str().expect("text")]).succeeded();
    assert_eq!(run.stdout, "in-sync: the installed rules match the plan, in nftables\n");
    sidetrack(&outside, &["check", "--netns", "no-such-namespace"]).failed(1, &["no-such-namespace"]);
}

#[test]
fn missing_capability_is_an_error() {
    let netns = Netns::new();
    let as_user = |capabilities: &[Capability], options: &[&str]| {
        let mut command = netns.command(SIDETRACK);
        with_capabilities(&mut command, Owner::APP, capabilities, &[]);
        Run::of(command.arg("check").args(options))
    };
    for _ in ["absent", "in sync"] {
        as_user(&[], &[]).failed(1, &["does not allow access to nf_tables", "CAP_NET_ADMIN is missing"]);
        apply(&netns, "nftables", &[]);
    }
    // Only root may read the list of legacy tables, and reading without it would create tables.
    let net_admin = [Capability::CAP_NET_ADMIN];
    let run = as_user(&net_admin, &[]).succeeded();
    assert!(
        run.stderr.contains("the rules of legacy iptables cannot be read here"),
        "{run:?}"
    );
    let legacy = as_user(&net_admin, &["--backend", "iptables-legacy"]);
    legacy.failed(1, &["cannot see which tables legacy iptables has", "Run as root"]);
    for names in ["ip_tables_names", "ip6_tables_names"] {
        let tables = netns.run(|| fs::read_to_string(format!("/proc/thread-self/net/{names}")));
        assert_eq!(tables.unwrap_or_default(), "");
    }
}

/// All three implementations, and objects that Istio's rules alone have.
#[test]
fn check_istio_iptables_compares_with_its_flags() {
    let backends: [(&[&str], &str); 3] = [
        (&[], "nftables"),
        (&["--force-iptables-binary", "nft"], "iptables-nft"),
        (&["--force-iptables-binary", "legacy"], "iptables-legacy"),
    ];
    for (more, backend) in backends {
        let netns = Netns::new();
        netns.ip("address add 10.0.0.2/32 dev lo");
        let flags = [INJECTED, more].concat();
        let apply = || sidetrack(&netns, &[&["istio-iptables"], flags.as_slice()].concat()).succeeded();
        let check = |json: &[&str]| check(&netns, &[json, &["istio-iptables"], &flags].concat());
        apply();
        let run = check(&[]).succeeded();
        assert_eq!(
            run.stdout,
            format!("in-sync: the installed rules match the plan, in {backend}\n")
        );
        // sidetrack's own dialect has other rules for the same ports.
        assert!(!reported(&netns, backend, &[]).is_empty());

        match backend {
            "nftables" => super::run(&netns, backend, "nft", "delete rule inet sidetrack inbound #1"),
            backend => super::run(&netns, backend, "iptables", "nat -D SIDETRACK_INBOUND 1"),
        }
        let run = check(&["--json"]);
        assert_eq!(run.code, Some(3), "{run:?}");
        let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
        let differences = report["differences"].as_array().expect("differences");
        assert_eq!(differences.len(), 1, "{run:?}");
        assert_eq!(
            (&differences[0]["kind"], &differences[0]["expectedPosition"]),
            (&"missing".into(), &1.into())
        );
        apply();
        check(&[]).succeeded();
    }
}

#[test]
fn flags_before_istio_iptables_are_refused() {
    let netns = Netns::new();
    sidetrack(&netns, &["check", "--proxy-uid", "5", "istio-iptables"])
        .failed(2, &["--proxy-uid", "before istio-iptables"]);
    sidetrack(&netns, &["check", "istio-iptables", "--proxy-gid", "x"]).failed(2, &["--proxy-gid"]);
    sidetrack(&netns, &["check", "istio-iptables", "--cleanup-only"]).failed(2, &["--cleanup-only", "no plan"]);
    sidetrack(&netns, &["check", "istio-iptables", "--exclude-uids", "5"]).failed(2, &["--exclude-uids"]);
}

/// Every field that is ever printed has its line in the documentation.
#[test]
fn json_fields_are_documented() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/check.md")).expect("docs/check.md");
    let netns = Netns::new();
    apply(&netns, "nftables", super::TPROXY_AND_DNS);
    let theirs = "table ip theirs { chain out { type filter hook output priority -200; policy drop; }; }";
    feed(&netns, "nft", &["-f", "-"], theirs);
    feed(
        &netns,
        "iptables-nft-restore",
        &["--noflush"],
        "*nat\n:ISTIO_OUTPUT - [0:0]\nCOMMIT\n",
    );
    for command in [
        "delete rule inet sidetrack outbound #3",
        "delete element inet sidetrack mesh_ports { 15090 }",
        "add set inet sidetrack more { type ipv4_addr; }",
        "add chain inet sidetrack more",
        "add table inet sidetrack { flags dormant; }",
    ] {
        run(&netns, "nftables", "nft", command);
    }
    for command in [
        "address delete ::6/128 dev lo",
        "-4 rule delete fwmark 1337",
        "-6 route flush table 133",
    ] {
        run(&netns, "nftables", "ip", command);
    }
    let drifted = json(&netns, super::TPROXY_AND_DNS);
    let elsewhere = json(&netns, &["--backend", "iptables-nft"]);
    let (mut words, mut objects) = (BTreeSet::new(), BTreeSet::new());
    for report in [&drifted, &elsewhere] {
        assert_eq!((&report["version"], &report["state"]), (&1.into(), &"drifted".into()));
        words.extend(report.as_object().expect("an object").keys().cloned());
        words.extend(report["redirectors"][0].as_object().expect("an object").keys().cloned());
        for difference in report["differences"].as_array().expect("differences") {
            let fields = difference.as_object().expect("an object");
            words.extend(fields.keys().cloned());
            words.extend(["kind", "object"].map(|key| fields[key].as_str().expect("text").to_owned()));
            objects.insert(fields["object"].clone().to_string());
            let (kind, text) = (&fields["kind"], fields["words"].as_str().expect("text"));
            assert!(
                text.starts_with(&format!("{}: ", kind.as_str().expect("text"))),
                "{difference}"
            );
        }
    }
    assert_eq!(objects.len(), 10, "one of each: {objects:?}");
    for word in words {
        assert!(
            page.contains(&format!("`{word}`")),
            "docs/check.md says nothing about {word}"
        );
    }
}
