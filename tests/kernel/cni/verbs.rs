//! Every CNI verb, and every kind of refused request.

use std::fs::{self, File};
use std::process::Command;

use serde_json::{Value, json};

use super::{ANNOTATIONS, error, has_rules, plugin, request};
use crate::common::{Netns, Owner, output_of};
use crate::program::{BACKENDS, Run, feed, sidetrack, state};
use crate::sandbox::with_capabilities;

#[test]
fn previous_result_is_passed_on_unchanged_in_each_version() {
    let netns = Netns::new();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let previous = format!(
            "{{ \"ips\":[ {{\"version\":\"4\" ,\"address\":\"10.0.0.2/24\"}}],\n\t\"cniVersion\":\"{version}\", \
             \"x\":12345678901234567890123.10e5,\"dns\":{{}} , \"\\u00e9\": null}}"
        );
        let mut add = request("ADD", &netns.path()).with("cniVersion", version.into());
        add.netconf.as_object_mut().expect("an object").remove("prevResult");
        let empty: Value = serde_json::from_str(&add.succeeds().stdout).expect("JSON");
        assert_eq!(empty["cniVersion"], version);
        assert_eq!(empty["ips"], json!([]));

        let stdin = add
            .netconf
            .to_string()
            .replacen('{', &format!("{{\"prevResult\": {previous} ,"), 1);
        let run = plugin(&mut add.command(), stdin.as_bytes()).succeeded();
        assert_eq!(run.stdout, previous);
        assert!(
            run.stderr.contains("redirected reason=\"Istio injected a sidecar"),
            "{run:?}"
        );
    }
}

#[test]
fn check_distinguishes_present_missing_and_changed_rules_on_every_backend() {
    for backend in BACKENDS {
        let netns = Netns::new();
        let of = |verb| {
            request(verb, &netns.path())
                .annotated("sidecar.istio.io/interceptionMode", "TPROXY")
                .with("redirect", json!({ "backend": backend }))
        };
        of("CHECK").fails(104);
        of("ADD").succeeds();
        let before = state(&netns, backend);
        assert_eq!(of("CHECK").succeeds().stdout, "");
        assert_eq!(state(&netns, backend), before, "{backend}");
        of("CHECK")
            .annotated("traffic.sidetrack.dev/exclude-uids", "7")
            .fails(105);
        output_of(netns.command("ip").args(["-6", "rule", "delete", "fwmark", "1337"]));
        of("CHECK").fails(105);
        of("ADD").succeeds();
        netns.ip("address delete ::6/128 dev lo");
        let error = of("CHECK").fails(105);
        let missing = ": missing: the address ::6 on the loopback interface";
        assert!(error["msg"].as_str().expect("text").ends_with(missing), "{error}");
        of("ADD").succeeds();
        match backend {
            "nftables" => feed(&netns, "nft", &["-f", "-"], "insert rule inet sidetrack inbound accept"),
            backend => {
                let text = "*nat\n-A SIDETRACK_OUTBOUND -j ACCEPT\nCOMMIT\n";
                feed(&netns, &format!("{backend}-restore"), &["--noflush"], text);
            }
        }
        let error = of("CHECK").fails(105);
        assert!(
            error["details"].as_str().expect("text").contains("delete the pod"),
            "{error}"
        );
        of("ADD").succeeds();
        of("CHECK").succeeds();
        // Rules of another backend are not those that ADD would write.
        let other = BACKENDS.iter().find(|other| **other != backend).expect("another");
        of("CHECK").with("redirect", json!({ "backend": other })).fails(105);
        sidetrack(&netns, &["cleanup"]).succeeded();
        of("CHECK").fails(104);
        of("CHECK").with("select", "never".into()).succeeds();
    }
}

#[test]
fn check_lists_first_differences_and_counts_the_rest() {
    let netns = Netns::new();
    request("ADD", &netns.path()).succeeds();
    feed(
        &netns,
        "nft",
        &["-f", "-"],
        "flush chain inet sidetrack inbound; flush chain inet sidetrack self_calls",
    );
    let error = request("CHECK", &netns.path()).fails(105);
    let message = error["msg"].as_str().expect("text");
    let first = "missing: rule 1 of chain inbound in inet sidetrack: tcp dport @mesh_ports return";
    assert!(message.contains(first) && message.ends_with("; and 2 more"), "{error}");
}

/// ADD would not repair them, and if the plugin runs last they may belong to a firewall.
#[test]
fn check_logs_foreign_rules_without_failing() {
    let netns = Netns::new();
    request("ADD", &netns.path()).succeeds();
    let theirs = "table ip theirs { chain out { type filter hook output priority -200; tcp dport 25 drop; }; }";
    feed(&netns, "nft", &["-f", "-"], theirs);
    let run = request("CHECK", &netns.path()).succeeds();
    assert!(
        run.stderr.contains("WARN") && run.stderr.contains("chain out in ip theirs"),
        "{run:?}"
    );
    sidetrack(&netns, &["cleanup"]).succeeded();
    request("CHECK", &netns.path()).fails(104);
}

#[test]
fn del_succeeds_repeatedly_and_without_namespace() {
    let path = {
        let netns = Netns::new();
        request("ADD", &netns.path()).succeeds();
        request("DEL", &netns.path()).succeeds();
        netns.path()
    };
    // The namespace is gone now.
    let mut again = request("DEL", &path);
    again.succeeds();
    again.netconf.as_object_mut().expect("an object").remove("prevResult");
    let again = again.variable("CNI_NETNS", "").variable("CNI_IFNAME", "");
    assert_eq!(again.succeeds().stdout, "");
    assert_eq!(plugin(&mut again.command(), b"{\"cniVer").succeeded().stdout, "");
}

#[test]
fn gc_and_status_succeed_without_output() {
    let netns = Netns::new();
    let before = BACKENDS.map(|backend| state(&netns, backend));
    for verb in ["GC", "STATUS"] {
        for backend in ["auto", "nftables", "iptables-nft", "iptables-legacy"] {
            let mut request = request(verb, &netns.path()).with("redirect", json!({ "backend": backend }));
            request
                .variables
                .retain(|(name, _)| matches!(*name, "CNI_COMMAND" | "CNI_PATH"));
            assert_eq!(
                request.with("cni.dev/valid-attachments", json!([])).succeeds().stdout,
                "",
                "{verb} {backend}"
            );
        }
    }
    assert_eq!(BACKENDS.map(|backend| state(&netns, backend)), before);
}

#[test]
fn status_reports_why_no_pod_could_start() {
    let netns = Netns::new();
    let status = request("STATUS", &netns.path());
    let mut command = status.command();
    with_capabilities(&mut command, Owner::APP, &[caps::Capability::CAP_NET_ADMIN], &[]);
    let error = error(&plugin(&mut command, status.netconf.to_string().as_bytes()), 50);
    assert!(
        error["msg"].as_str().expect("text").contains("CAP_SYS_ADMIN"),
        "{error}"
    );
    let without = |key| request("STATUS", &netns.path()).with(key, json!({})).fails(50);
    assert!(
        without("capabilities")["msg"]
            .as_str()
            .expect("text")
            .contains(ANNOTATIONS)
    );
    let legacy = request("STATUS", &netns.path())
        .with("redirect", json!({ "backend": "iptables-legacy" }))
        .variable("PATH", "/nowhere");
    assert!(legacy.fails(50)["msg"].as_str().expect("text").contains("iptables"));
}

#[test]
fn invalid_arguments_are_refused_before_any_change() {
    let netns = Netns::new();
    let file = std::env::temp_dir().join(format!("sidetrack-{}-no-namespace", std::process::id()));
    fs::write(&file, "").expect("a file");
    let cases = [
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", "sixteen-letters1"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "a b"),
        ("CNI_ARGS", "K8S_POD_NAME"),
        ("CNI_NETNS", ""),
        ("CNI_NETNS", "/no/such/namespace"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_NETNS", "/proc/1/ns/net"),
        ("CNI_NETNS", "/proc/self/ns/mnt"),
        ("CNI_NETNS", file.to_str().expect("text")),
    ];
    let own = || output_of(Command::new("nft").args(["list", "ruleset"]));
    let before = own();
    for verb in ["ADD", "CHECK"] {
        for (name, value) in cases {
            let error = request(verb, &netns.path()).variable(name, value).fails(4);
            assert!(error["msg"].as_str().expect("text").contains(name), "{error}");
            assert!(!has_rules(&netns), "{name}={value}");
        }
    }
    assert_eq!(own(), before);
    fs::remove_file(file).expect("it may be removed");
    let add = request("ADD", &netns.path());
    add.with("redirect", json!({ "proxy-uid": "nobody" })).fails(7);
    request("ADD", &netns.path())
        .annotated("config.linkerd.io/proxy-uid", "root")
        .fails(100);
    // A directory can be opened, and not read.
    let run = Run::from({
        let mut command = request("ADD", &netns.path()).command();
        command
            .stdin(File::open("/").expect("a directory"))
            .output()
            .expect("the program")
    });
    error(&run, 5);
    assert!(!has_rules(&netns));
}

#[test]
fn impossible_redirection_is_an_error_and_changes_nothing() {
    let netns = Netns::new();
    netns.ip("link add eth0 type veth peer name eth1\nlink set eth0 up\naddress add fd99::2/64 dev eth0");
    netns
        .run(|| fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1"))
        .expect("a sysctl");
    let error = request("ADD", &netns.path()).fails(102);
    assert!(error["msg"].as_str().expect("text").contains("IPv6"), "{error}");
    assert!(!has_rules(&netns));
}

/// The hook that turns panics into errors, in a process of its own.
#[test]
fn panic_becomes_a_cni_error() {
    const CHILD: &str = "SIDETRACK_TEST_PANICS";
    if std::env::var_os(CHILD).is_some() {
        sidetrack::cni::answer_panics();
        panic!("a test that {} panics", 1);
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "cni::verbs::panic_becomes_a_cni_error", "--nocapture"])
        .env(CHILD, "1");
    let output = command.output().expect("the end of it");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdout = String::from_utf8(output.stdout).expect("text");
    let object = &stdout[stdout.find("{\"cniVersion\"").unwrap_or_else(|| panic!("{stdout}"))..];
    let error: Value = serde_json::from_str(object).expect("JSON");
    assert_eq!(error["code"], 199);
    assert!(
        error["msg"]
            .as_str()
            .expect("text")
            .contains("a test that 1 panics (tests/kernel/cni/verbs.rs:"),
        "{error}"
    );
}
