//! How `linkerd-proxy-init` is called: flags, the name of the program, exit codes. Only dry runs: these may read the
//! network namespace of the machine.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::process::Command;

use sidetrack::mesh::linkerd::front_end::table::SETTINGS;

use crate::SIDETRACK;
use crate::program::Run;
use crate::temporary::Directory;

/// The arguments of Linkerd's chart.
const CHART: &[&str] = &[
    "--firewall-bin-path",
    "iptables-nft",
    "--firewall-save-bin-path",
    "iptables-nft-save",
    "--ipv6=false",
    "--incoming-proxy-port",
    "4143",
    "--outgoing-proxy-port",
    "4140",
    "--proxy-uid",
    "2102",
    "--inbound-ports-to-ignore",
    "4190,4191,4567,4568",
    "--outbound-ports-to-ignore",
    "4567,4568",
];

/// A dry run: no flag after `--simulate` overrides it.
fn dry(program: impl AsRef<OsStr>, words: &[&str], arguments: &[&str]) -> Run {
    Run::of(Command::new(program).args(words).arg("--simulate").args(arguments))
}

fn run(arguments: &[&str]) -> Run {
    dry(SIDETRACK, &["linkerd-proxy-init"], arguments)
}

/// The rules of these flags.
fn plan(arguments: &[&str]) -> String {
    run(arguments).succeeded().stdout
}

#[test]
fn flags_are_accepted_in_each_form_of_go() {
    let expected = plan(&["-p", "4143", "-o", "4140", "-u", "2102", "-r", "80,81"]);
    assert!(expected.contains(":4143") && expected.contains("2102"), "{expected}");
    for arguments in [
        "--incoming-proxy-port 4143 --outgoing-proxy-port 4140 --proxy-uid 2102 --ports-to-redirect 80,81",
        "-p=4143 -o4140 --proxy-uid=0x836 -r 80 -r 81 --proxy-gid -1",
        "-wp 4143 -o 1 -o 4140 -u 2102 -r80,81 --ipv6 false some words",
        "-p 4143 -o 4140 -u 2102 -r 80,81 --use-wait-flag=false --ipv6=false --ipv6 -- --nope",
    ] {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        assert_eq!(plan(&arguments), expected, "{arguments:?}");
    }
}

#[test]
fn chart_flags_give_the_plan_of_mesh_linkerd() {
    // The flags do not name the ports that the mesh itself serves.
    let ours = ["apply", "--dry-run", "--mesh", "linkerd", "--mesh-ports", ""];
    let inbound = ["--exclude-inbound-ports", "4190,4191,4567,4568"];
    let ours = Run::of(Command::new(SIDETRACK).args(ours).args(inbound)).succeeded();
    assert_eq!(plan(CHART), ours.stdout);
}

#[test]
fn program_name_selects_the_front_end() {
    let directory = Directory::new("linkerd");
    let expected = plan(CHART);
    for name in ["proxy-init", "linkerd2-proxy-init", "linkerd-proxy-init"] {
        let link = directory.path().join(name);
        symlink(SIDETRACK, &link).expect("a link");
        assert_eq!(dry(&link, &[], CHART).succeeded().stdout, expected, "{name}");
        dry(&link, &[], &["--nope"]).failed(1, &["--nope"]);
    }
}

#[test]
fn each_error_exits_with_1() {
    for arguments in [
        "--nope",
        "-p",
        "-p 4143",
        "-p 4143 -o 4140",
        "-p 4143 -o 4140 -u root",
        "-p 4143 -o 4140 -u 2102 --ipv6=no",
        "-p 4143 -o 4140 -u 2102 --subnets-to-ignore 10.0.0.1",
        "-p 4143 -o 4140 -u 2102 --iptables-mode bogus",
        "-p 4143 -o 4140 -u 2102 --log-level loud",
        "-p 4143 -o 4140 -u 2102 --inbound-ports-to-ignore http",
    ] {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let run = run(&arguments).failed(1, &[]);
        assert_ne!(run.stderr, "", "{arguments:?}");
    }
    let both = [
        "error: --incoming-proxy-port: \"http\" is not an integer",
        "error: --outgoing-proxy-port: it is required",
    ];
    run(&["-p", "http"]).failed(1, &both);
    run(&["-u", "2102"]).failed(1, &["--incoming-proxy-port: it is required", "--outgoing-proxy-port"]);
}

#[test]
fn invalid_ports_to_ignore_are_skipped_and_logged() {
    let with = |ports: &str| run(&[CHART, &["--outbound-ports-to-ignore", ports]].concat()).succeeded();
    let output = with("25, 80,443");
    assert_eq!(output.stdout, with("25,443").stdout);
    let message =
        "ERROR --outbound-ports-to-ignore: \" 80\" is not a port from 0 to 65535 or a range a-b of them; ignored";
    assert!(output.stderr.contains(message), "{output:?}");
}

#[test]
fn simulate_prints_the_input_of_the_selected_backend() {
    assert!(plan(CHART).contains("table inet sidetrack {"));
    for backend in [["--iptables-mode", "legacy"], ["--iptables-mode", "plain"]] {
        let rules = plan(&[CHART, &backend].concat());
        assert_eq!(rules.contains("\n*nat\n"), backend[1] == "legacy", "{rules}");
    }
}

#[test]
fn simulate_prints_the_timeout() {
    run(&[CHART, &["--timeout-close-wait-secs", "bogus"]].concat()).failed(1, &["--timeout-close-wait-secs"]);
    let simulated = plan(&[CHART, &["--timeout-close-wait-secs", "77"]].concat());
    assert!(simulated.contains("close_wait : 77"), "{simulated}");
}

#[test]
fn log_format_and_level_follow_flags() {
    let log = |flags: &[&str]| run(&[CHART, flags].concat()).succeeded().stderr;
    for line in log(&["--log-format", "json"]).lines() {
        serde_json::from_str::<serde_json::Value>(line).expect(line);
    }
    assert!(log(&["--log-format", "whatever"]).contains("INFO --firewall-save-bin-path is accepted"));
    assert_eq!(log(&["--log-level", "PANIC"]), "");
}

#[test]
fn help_names_every_flag() {
    let help = run(&["--help"]).succeeded().stdout;
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{}", setting.name)), "{help}");
    }
    assert!(!help.contains("[ignored]"), "{help}");
}
