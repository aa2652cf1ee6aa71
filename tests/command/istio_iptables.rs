//! How `istio-iptables` is called: flags, variables, the name of the program. Only dry runs: these may read the
//! network namespace of the machine.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::SIDETRACK;
use crate::program::Run;
use crate::temporary::Directory;

const INJECTED: &[&str] = &[
    "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-b", "*",
];

fn istio_iptables(arguments: &[&str]) -> Command {
    let mut command = Command::new(SIDETRACK);
    command.arg("istio-iptables").args(arguments);
    command
}

fn run(arguments: &[&str]) -> Run {
    Run::of(&mut istio_iptables(arguments))
}

fn sidetrack(arguments: &[&str]) -> Run {
    Run::of(Command::new(SIDETRACK).args(arguments))
}

#[test]
fn flags_are_accepted_in_each_form_of_go() {
    let plan = |arguments: &[&str]| {
        run(&[arguments, &["-n", "--native-nftables"]].concat())
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
    let by_flag = run(&["-n", "-z", "16006", "-b", "*", "--redirect-dns", "--capture-all-dns"]).succeeded();
    let mut command = istio_iptables(&[]);
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
fn program_name_selects_the_front_end() {
    let directory = Directory::new("names");
    let link = |name| -> PathBuf {
        let link = directory.path().join(name);
        symlink(SIDETRACK, &link).expect("a link");
        link
    };
    let expected = run(&[INJECTED, &["--dry-run"]].concat()).succeeded().stdout;
    let mut by_name = Command::new(link("istio-iptables"));
    by_name.args(INJECTED).arg("--dry-run");
    let agent = link("pilot-agent");
    let mut in_place = Command::new(&agent);
    in_place.arg("istio-iptables").args(INJECTED).arg("--dry-run");
    let mut flag_first = Command::new(&agent);
    flag_first
        .args(["--log_as_json", "istio-iptables"])
        .args(INJECTED)
        .arg("--dry-run");
    for command in [&mut by_name, &mut in_place, &mut flag_first] {
        assert_eq!(Run::of(command).succeeded().stdout, expected);
    }
    Run::of(Command::new(&agent).args(["proxy", "sidecar"])).failed(255, &["unexpected argument 'proxy'"]);
}

#[test]
fn apply_runs_under_the_names_of_linkerd_and_kuma() {
    let plan = |options: &str| {
        let words = ["apply", "--dry-run", "--redirect-dns", "--dns-servers", "all"].into_iter();
        let arguments: Vec<&str> = words.chain(options.split_whitespace()).collect();
        sidetrack(&arguments).succeeded().stdout
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
    let simulated = sidetrack(&["apply", "--simulate"]).succeeded().stdout;
    assert_eq!(simulated, sidetrack(&["apply", "--dry-run"]).succeeded().stdout);
    let help = sidetrack(&["apply", "--help"]).succeeded().stdout;
    assert!(!help.contains("kuma") && !help.contains("simulate"), "{help}");
}
