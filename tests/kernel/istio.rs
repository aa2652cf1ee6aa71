//! `istio-iptables`: the flags and variables that Istio's injector and its users set.

use std::fs;
use std::process::Command;

use sidetrack::mesh::istio::front_end::table::SETTINGS;

use crate::SIDETRACK;
use crate::common::{Netns, Owner};
use crate::program::{BACKENDS, Run, state};
use crate::temporary::Directory;

/// The arguments of Istio's injection template with default values.
pub const INJECTED: &[&str] = &[
    "-p",
    "15001",
    "-z",
    "15006",
    "-u",
    "1337",
    "-m",
    "REDIRECT",
    "-i",
    "*",
    "-x",
    "",
    "-b",
    "*",
    "-d",
    "15090,15021,15020",
    "--log_output_level=default:info",
];

/// `sidetrack istio-iptables` with these arguments inside.
fn istio_iptables(netns: &Netns, arguments: &[&str]) -> Command {
    let mut command = netns.command(SIDETRACK);
    command.arg("istio-iptables").args(arguments);
    command
}

#[track_caller]
fn run(netns: &Netns, arguments: &[&str]) -> Run {
    Run::of(&mut istio_iptables(netns, arguments))
}

/// A namespace with an address, like a pod's.
fn pod() -> Netns {
    let netns = Netns::new();
    netns.ip("link add eth0 type veth peer name host0\nlink set eth0 up\nlink set host0 up\naddress add 10.0.0.2/24 dev eth0\n");
    netns
}

#[test]
fn injected_arguments_are_applied() {
    let annotated = [
        INJECTED,
        &["-o", "3306", "-q", "8443", "-k", "tap0", "-c", "eth9", "--force-apply"],
    ]
    .concat();
    for arguments in [INJECTED, &annotated] {
        let pod = pod();
        run(&pod, arguments).succeeded();
        assert!(state(&pod, "nftables").contains("sidetrack"));
        run(&pod, arguments).succeeded();
        run(&pod, &[arguments, &["--cleanup-only"]].concat()).succeeded();
        assert!(!state(&pod, "nftables").contains("sidetrack"));
    }
}

#[test]
fn exit_codes_are_those_of_istio() {
    let pod = pod();
    let before = state(&pod, "nftables");
    for wrong_usage in [
        &["--nonsense"][..],
        &["-p"],
        &["--redirect-dns=yes"],
        &["--redirect-dns", "false"],
        &["--iptables-probe-port", "99999"],
        &["--probe-timeout", "5"],
        &["--log_output_level", "loud"],
        &["-p", "0", "--dry-run=maybe"],
    ] {
        run(&pod, wrong_usage).failed(255, &[]);
    }
    for wrong_input in [
        &["-p", "http"][..],
        &["-x", "*"],
        &["-i", "10.0.0.0/33"],
        &["-m", "tproxy"],
        &["--force-iptables-binary", "iptables"],
        &["--network-namespace", "/nowhere/at/all"],
    ] {
        run(&pod, wrong_input).failed(1, &["error: "]);
    }
    let mut command = istio_iptables(&pod, INJECTED);
    Run::of(command.env("REDIRECT_DNS", "yes")).failed(1, &["REDIRECT_DNS: \"yes\" is not true or false"]);
    assert_eq!(state(&pod, "nftables"), before);
    let help = run(&pod, &["--help"]).succeeded().stdout;
    for setting in SETTINGS.iter().filter(|setting| setting.has_flag()) {
        assert!(help.contains(&format!("--{}", setting.name)), "{help}");
    }
}

/// Rules for IPv4 alone were written where there was no address yet, and IPv6 that came later bypassed the proxy.
#[test]
fn namespace_without_addresses_is_refused() {
    let netns = Netns::new();
    netns.ip("link add eth0 type veth peer name host0\nlink set eth0 up\nlink set host0 up\naddress add 169.254.1.2/16 dev eth0\n");
    let before = state(&netns, "nftables");
    for flags in [
        &["--dual-stack"][..],
        &["--dry-run"],
        &["--cleanup-only"],
        &["--skip-rule-apply"],
        &["--run-validation", "--skip-rule-apply"],
    ] {
        run(&netns, &[INJECTED, flags].concat()).failed(1, &["no valid local IP address found"]);
    }
    assert_eq!(state(&netns, "nftables"), before);
    // To Istio, ::6 is an address, and the first one.
    netns.ip("address add ::6/128 dev lo");
    let both = run(&netns, INJECTED).succeeded().stderr;
    assert!(both.contains("IPv4 and IPv6"), "{both}");
}

/// Values that iptables accepts, and lists that Istio does not check.
#[test]
fn numbers_and_ranges_of_iptables_are_accepted() {
    let mut command = istio_iptables(
        &pod(),
        &["-n", "-p", "0x3a99", "-i", "*", "-b", "*", "-d", "0x50,8000:8080"],
    );
    command.env("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "200:210,0x1f5");
    let text = Run::of(&mut command).succeeded().stdout;
    for taken in [
        "--gid-owner 200-210",
        "--gid-owner 501",
        "--to-ports 15001",
        "8000:8080",
    ] {
        assert!(text.contains(taken), "{taken}: {text}");
    }
    let mut command = istio_iptables(&pod(), INJECTED);
    command.envs([
        ("ISTIO_OUTBOUND_OWNER_GROUPS", "200:210"),
        ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "no-such-group"),
    ]);
    Run::of(&mut command).succeeded();
}

#[test]
fn all_errors_are_reported_at_once() {
    let mut command = istio_iptables(&pod(), &["-p", "0", "-i", "10.0.0.0/8,x", "-k", "tap+", "-m", "NONE"]);
    command.envs([
        ("INBOUND_CAPTURE_PORT", "tcp://10.96.0.1:80"),
        ("ISTIO_OUTBOUND_OWNER_GROUPS", "no-such-group"),
    ]);
    let run = Run::of(&mut command).failed(
        1,
        &[
            "--envoy-port: \"0\" is not a port",
            "INBOUND_CAPTURE_PORT: \"tcp://10.96.0.1:80\" is not a port",
            "--istio-inbound-interception-mode: \"NONE\" is not REDIRECT or TPROXY",
            "--istio-service-cidr: \"x\" is not an address",
            "--kube-virt-interfaces: \"tap+\" is not an interface name",
            "ISTIO_OUTBOUND_OWNER_GROUPS: \"no-such-group\" is not a GID",
        ],
    );
    assert_eq!(run.stderr.lines().count(), 6, "{run:?}");
}

#[test]
fn dry_run_prints_and_changes_nothing() {
    let directory = Directory::new("dry-run");
    let file = directory.path().join("rules");
    let pod = pod();
    let everything = [
        INJECTED,
        &[
            "--dry-run",
            "--redirect-dns",
            "--capture-all-dns",
            "--dual-stack",
            "--run-validation",
        ],
    ]
    .concat();
    let before = BACKENDS.map(|backend| state(&pod, backend));
    let iptables = Run::of(istio_iptables(&pod, &everything).env("DRY_RUN_FILE_PATH", &file)).succeeded();
    assert!(
        iptables.stdout.contains("\n*nat\n") && iptables.stdout.contains("\nCOMMIT\n"),
        "{iptables:?}"
    );
    assert_eq!(fs::read_to_string(&file).expect("the file"), iptables.stdout);
    let nft = run(&pod, &[&everything, &["--native-nftables"][..]].concat()).succeeded();
    assert!(nft.stdout.contains("table inet sidetrack {"), "{nft:?}");
    assert_eq!(run(&pod, &["-n", "--cleanup-only"]).succeeded().stdout, "");
    assert_eq!(BACKENDS.map(|backend| state(&pod, backend)), before);
    let mut as_nobody = pod.command_of(Owner::new(65534, 65534), SIDETRACK);
    as_nobody.arg("istio-iptables").args(&everything);
    assert_eq!(Run::of(&mut as_nobody).succeeded().stdout, iptables.stdout);
    let nowhere = directory.path().join("no/such/directory");
    Run::of(istio_iptables(&pod, &everything).env("DRY_RUN_FILE_PATH", nowhere)).failed(1, &["DRY_RUN_FILE_PATH"]);
}

#[test]
fn the_network_namespace_is_entered() {
    let (host, pod) = (pod(), pod());
    let path = pod.path();
    let elsewhere = ["--network-namespace", path.to_str().expect("text"), "--cni-mode"];
    run(&host, &[INJECTED, &elsewhere].concat()).succeeded();
    assert!(state(&pod, "nftables").contains("sidetrack"));
    assert!(!state(&host, "nftables").contains("sidetrack"));
    run(&host, &[&elsewhere[..], &["--cleanup-only"]].concat()).succeeded();
    assert!(!state(&pod, "nftables").contains("sidetrack"));
}

#[test]
fn flags_select_the_backend() {
    for (flags, backend) in [
        (&[][..], "nftables"),
        (&["--native-nftables"], "nftables"),
        (&["--force-iptables-binary", "nft"], "iptables-nft"),
        (&["--force-iptables-binary", "legacy"], "iptables-legacy"),
        (&["--force-iptables-binary", "legacy", "--native-nftables"], "nftables"),
    ] {
        let pod = pod();
        let said = run(&pod, &[INJECTED, flags].concat()).succeeded().stderr;
        assert!(said.contains(&format!("backend={backend} ")), "{flags:?}: {said}");
        run(&pod, &["--cleanup-only"]).succeeded();
        assert!(
            BACKENDS
                .iter()
                .all(|backend| !state(&pod, backend).to_lowercase().contains("sidetrack"))
        );
    }
}

#[test]
fn rerun_replaces_only_changed_rules() {
    let pod = pod();
    run(&pod, INJECTED).succeeded();
    let first = state(&pod, "nftables");
    pod.command("nft")
        .args(["flush", "chain", "inet", "sidetrack", "output"])
        .status()
        .expect("nft");
    assert_ne!(state(&pod, "nftables"), first);
    run(&pod, INJECTED).succeeded();
    assert_eq!(state(&pod, "nftables"), first);
    assert!(run(&pod, INJECTED).succeeded().stderr.contains("already"));
    run(&pod, &[INJECTED, &["-o", "3306"]].concat()).succeeded();
    assert_ne!(state(&pod, "nftables"), first);
}

#[test]
fn skip_rule_apply_changes_nothing() {
    let pod = pod();
    let before = state(&pod, "nftables");
    run(&pod, &[INJECTED, &["--skip-rule-apply"]].concat()).succeeded();
    assert_eq!(state(&pod, "nftables"), before);
    run(&pod, INJECTED).succeeded();
    let applied = state(&pod, "nftables");
    run(&pod, &["--skip-rule-apply", "--cleanup-only"]).succeeded();
    assert_eq!(state(&pod, "nftables"), applied);
}

/// What the injector writes for `istio-validation`, which runs as the proxy's user.
fn validation(pod: &Netns, flags: &[&str]) -> Run {
    let mut command = pod.command_of(Owner::PROXY, SIDETRACK);
    command.arg("istio-iptables").args(INJECTED);
    Run::of(command.args(["--run-validation", "--skip-rule-apply"]).args(flags))
}

#[test]
fn validation_reports_redirection_by_exit_code() {
    let pod = pod();
    let impatient = ["--probe-timeout", "100ms"];
    validation(&pod, &impatient).failed(126, &["traffic is not redirected"]);
    run(&pod, INJECTED).succeeded();
    validation(&pod, &[]).succeeded();
    run(&pod, &["-z", "16006"]).succeeded();
    validation(&pod, &impatient).failed(126, &["traffic is not redirected"]);
    validation(&pod, &["-z", "16006", "--iptables-probe-port", "9"]).succeeded();
}

#[test]
fn log_format_and_level_follow_flags() {
    let pod = pod();
    let json = run(
        &pod,
        &[
            INJECTED,
            &["--log_as_json", "--log_output_level=default:debug", "--vklog=9"],
        ]
        .concat(),
    );
    let json = json.succeeded();
    assert!(json.stderr.lines().count() >= 2, "{json:?}");
    for line in json.stderr.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(event["level"].is_string(), "{line}");
    }
    let quiet = run(
        &pod,
        &[INJECTED, &["--log_output_level", "all:none", "--log_target", "stdout"]].concat(),
    );
    assert_eq!(quiet.succeeded().stderr, "");
}
