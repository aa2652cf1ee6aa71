//! `istio-iptables`: what Istio's injector and its users write is understood, and done.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use sidetrack::compat::istio::table::SETTINGS;

use crate::SIDETRACK;
use crate::common::{Netns, Owner};
use crate::program::{BACKENDS, Run, sidetrack, state};

/// What Istio's injection template writes, its values the defaults.
const INJECTED: &[&str] = &[
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

/// A directory that is removed when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sidetrack-istio-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }

    /// The program by another name.
    fn link(&self, name: &str) -> PathBuf {
        let link = self.0.join(name);
        symlink(SIDETRACK, &link).expect("a link");
        link
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_the_injector_writes_is_applied() {
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
fn flags_are_read_in_every_form_that_go_reads() {
    let pod = pod();
    let plan = |arguments: &[&str]| {
        run(&pod, &[arguments, &["-n", "--native-nftables"]].concat())
            .succeeded()
            .stdout
    };
    let expected = plan(&["--inbound-capture-port", "16001", "--redirect-dns", "--capture-all-dns"]);
    assert!(expected.contains(":16001") && expected.contains(":15053"), "{expected}");
    for arguments in [
        &[
            "--inbound-capture-port=16001",
            "--redirect-dns=true",
            "--capture-all-dns=1",
        ][..],
        &["-z", "16001", "--redirect-dns=T", "--capture-all-dns=TRUE"],
        &["-z16001", "--redirect-dns", "--capture-all-dns"],
        &["-z=16001", "--redirect-dns", "--capture-all-dns"],
        &["-nz", "16001", "--redirect-dns", "--capture-all-dns"],
        &[
            "-z",
            "16002",
            "-z",
            "16001",
            "--redirect-dns=false",
            "--redirect-dns",
            "--capture-all-dns",
        ],
    ] {
        assert_eq!(plan(arguments), expected, "{arguments:?}");
    }
}

#[test]
fn variables_of_the_environment_are_read() {
    let pod = pod();
    let by_flag = run(
        &pod,
        &["-n", "-z", "16006", "-b", "*", "--redirect-dns", "--capture-all-dns"],
    )
    .succeeded();
    let mut command = istio_iptables(&pod, &[]);
    command.envs([
        ("DRY_RUN", "true"),
        ("INBOUND_CAPTURE_PORT", "16006"),
        ("ISTIO_INBOUND_PORTS", "*"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("CAPTURE_ALL_DNS", "1"),
    ]);
    assert_eq!(Run::of(&mut command).succeeded().stdout, by_flag.stdout);
}

#[test]
fn the_name_of_the_program_may_say_it() {
    let directory = Directory::new("names");
    let pod = pod();
    let expected = run(&pod, &[INJECTED, &["--dry-run"]].concat()).succeeded().stdout;
    let mut by_name = pod.command(directory.link("istio-iptables"));
    by_name.args(INJECTED).arg("--dry-run");
    let agent = directory.link("pilot-agent");
    let mut in_place = pod.command(&agent);
    in_place.arg("istio-iptables").args(INJECTED).arg("--dry-run");
    let mut flag_first = pod.command(&agent);
    flag_first
        .args(["--log_as_json", "istio-iptables"])
        .args(INJECTED)
        .arg("--dry-run");
    for command in [&mut by_name, &mut in_place, &mut flag_first] {
        assert_eq!(Run::of(command).succeeded().stdout, expected);
    }
    Run::of(pod.command(&agent).args(["proxy", "sidecar"])).failed(255, &["unexpected argument 'proxy'"]);
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
        run(&pod, wrong_input).failed(1, &["ERROR"]);
    }
    let mut command = istio_iptables(&pod, INJECTED);
    Run::of(command.env("REDIRECT_DNS", "yes")).failed(1, &["REDIRECT_DNS: \"yes\" is not true or false"]);
    assert_eq!(state(&pod, "nftables"), before);
    let help = run(&pod, &["--help"]).succeeded().stdout;
    for setting in SETTINGS.iter().filter(|setting| setting.has_flag()) {
        assert!(help.contains(&format!("--{}", setting.name)), "{help}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
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
fn a_dry_run_prints_and_does_nothing() {
    let directory = Directory::new("dry-run");
    let file = directory.0.join("rules");
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
    let nowhere = directory.0.join("no/such/directory");
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
fn the_backend_is_that_of_the_flags() {
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
fn a_rerun_replaces_what_is_different_and_keeps_what_is_not() {
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
fn skipping_the_rules_leaves_them_as_they_are() {
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
fn the_validation_tells_redirected_traffic_by_its_exit_code() {
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
fn the_log_is_as_the_flags_say() {
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

#[test]
fn names_of_linkerd_and_kuma_are_taken_by_apply() {
    let netns = Netns::new();
    let plan = |options: &str| {
        let words = ["apply", "--dry-run", "--redirect-dns", "--dns-servers", "all"].into_iter();
        let arguments: Vec<&str> = words.chain(options.split_whitespace()).collect();
        sidetrack(&netns, &arguments).succeeded().stdout
    };
    let ours = plan(
        "--proxy-inbound-port 1 --proxy-outbound-port 2 --proxy-uid 3 --include-inbound-ports 5-9 \
         --exclude-inbound-ports 6 --exclude-outbound-ports 7 --exclude-inbound-cidrs 10.0.0.0/8 --dns-port 10",
    );
    let linkerd = plan(
        "--incoming-proxy-port 1 --outgoing-proxy-port 2 --proxy-uid 3 --ports-to-redirect 5-9 \
         --inbound-ports-to-ignore 6 --outbound-ports-to-ignore 7 --subnets-to-ignore 10.0.0.0/8 --dns-port 10",
    );
    let kuma = plan(
        "--redirect-inbound-port 1 --redirect-outbound-port 2 --kuma-dp-user 3 --include-inbound-ports 5-9 \
         --exclude-inbound-ports 6 --exclude-outbound-ports 7 --exclude-inbound-ips 10.0.0.0/8 --redirect-dns-port 10",
    );
    assert_eq!(linkerd, ours);
    assert_eq!(kuma, ours);
    let excluding = "--exclude-outbound-cidrs 10.0.0.0/8 --drop-invalid";
    assert_eq!(
        plan("--exclude-outbound-ips 10.0.0.0/8 --drop-invalid-packets"),
        plan(excluding)
    );
    let simulated = sidetrack(&netns, &["apply", "--simulate"]).succeeded().stdout;
    assert_eq!(simulated, sidetrack(&netns, &["apply", "--dry-run"]).succeeded().stdout);
    let help = sidetrack(&netns, &["apply", "--help"]).succeeded().stdout;
    assert!(!help.contains("kuma") && !help.contains("simulate"), "{help}");
}
