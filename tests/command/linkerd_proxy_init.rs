//! How `linkerd-proxy-init` is called: flags, the name of the program, exit codes. Only dry runs: these may look at the
//! network namespace of the machine.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::process::Command;

use sidetrack::mesh::linkerd::front_end::table::SETTINGS;

use crate::SIDETRACK;
use crate::program::Run;
use crate::temporary::Directory;

/// What Linkerd's chart writes.
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

/// A dry run: nothing after `--simulate` can make it another one.
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
fn flags_are_read_in_every_form_that_go_reads() {
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
fn what_the_chart_writes_is_what_apply_writes_for_the_mesh() {
    // Which ports the mesh serves itself, the flags do not say.
    let ours = ["apply", "--dry-run", "--mesh", "linkerd", "--mesh-ports", ""];
    let inbound = ["--exclude-inbound-ports", "4190,4191,4567,4568"];
    let ours = Run::of(Command::new(SIDETRACK).args(ours).args(inbound)).succeeded();
    assert_eq!(plan(CHART), ours.stdout);
}

#[test]
fn the_name_of_the_program_may_say_it() {
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
fn every_mistake_exits_with_1() {
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
fn a_simulation_prints_what_the_backend_of_the_flags_would_get() {
    assert!(plan(CHART).contains("table inet sidetrack {"));
    for backend in [["--iptables-mode", "legacy"], ["--iptables-mode", "plain"]] {
        let rules = plan(&[CHART, &backend].concat());
        assert_eq!(rules.contains("\n*nat\n"), backend[1] == "legacy", "{rules}");
    }
}

#[test]
fn a_timeout_is_part_of_what_is_simulated() {
    run(&[CHART, &["--timeout-close-wait-secs", "bogus"]].concat()).failed(1, &["--timeout-close-wait-secs"]);
    let simulated = plan(&[CHART, &["--timeout-close-wait-secs", "77"]].concat());
    assert!(simulated.contains("close_wait : 77"), "{simulated}");
}

#[test]
fn the_log_is_as_the_flags_say() {
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
