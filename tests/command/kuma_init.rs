//! How `kuma-init` is called: flags, files, variables, the name of the program. Only dry runs: these may read the
//! network namespace of the machine.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::SIDETRACK;
use crate::program::Run;
use crate::temporary::Directory;

/// The input of an injected pod's `kuma-init`: Kuma's own configuration.
const INJECTED: &str = "\
cniMode: false
ipFamilyMode: ipv4
kumaDPUser: \"5679\"
redirect:
  dns: {captureAll: true, enabled: true, port: 15054, resolvConfigPath: /etc/resolv.conf, skipConntrackZoneSplit: false}
  inbound: {enabled: true, excludePorts: [9001, 9902], port: 15007}
  outbound: {enabled: true, port: 15002}
retry: {maxRetries: 4, sleepBetweenRetries: 2s}
wait: 5
waitInterval: 0
";

fn kuma_init(arguments: &[&str]) -> Command {
    let mut command = Command::new(SIDETRACK);
    command.arg("kuma-init").args(arguments);
    command
}

/// The rules of a dry run.
fn plan(arguments: &[&str]) -> String {
    let all = [arguments, &["--dry-run", "--kuma-dp-user", "5678"]].concat();
    Run::of(&mut kuma_init(&all)).succeeded().stdout
}

fn of_file(directory: &Directory, text: &str) -> String {
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, text).expect("a file is written");
    path.display().to_string()
}

#[test]
fn flags_are_accepted_in_each_form_of_go() {
    let expected = plan(&["--redirect-inbound-port", "16001", "--redirect-all-dns-traffic"]);
    assert!(
        expected.contains("--to-ports 16001") && expected.contains("--to-ports 15053"),
        "{expected}"
    );
    for arguments in [
        &["--redirect-inbound-port=16001", "--redirect-all-dns-traffic=1"][..],
        &[
            "--redirect-inbound-port",
            "1",
            "--redirect-inbound-port",
            "16001",
            "--redirect-all-dns-traffic=T",
        ],
        &[
            "--redirect-inbound-port=16001",
            "--redirect-dns=false",
            "--redirect-all-dns-traffic",
            "--log-level",
            "debug",
        ],
    ] {
        assert_eq!(plan(arguments), expected, "{arguments:?}");
    }
    let twice = plan(&[
        "--exclude-outbound-ips",
        "10.0.0.1",
        "--exclude-outbound-ips",
        "10.0.2.1,10.0.4.1",
    ]);
    assert!(
        ["10.0.0.1", "10.0.2.1", "10.0.4.1"]
            .iter()
            .all(|address| twice.contains(address)),
        "{twice}"
    );
    let replaced = plan(&["--exclude-inbound-ports", "8181", "--exclude-inbound-ports", "8282"]);
    assert!(!replaced.contains("8181") && replaced.contains("8282"), "{replaced}");
}

#[test]
fn the_injectors_file_is_read_by_path_and_from_standard_input() {
    let directory = Directory::new("kuma-file");
    let path = of_file(&directory, INJECTED);
    let by_path = Run::of(&mut kuma_init(&["--dry-run", &format!("--config={path}")])).succeeded();
    for expected in [
        "--to-ports 15007",
        "--to-ports 15002",
        "--to-ports 15054",
        "--uid-owner 5679",
        "9902",
    ] {
        assert!(by_path.stdout.contains(expected), "{expected}: {}", by_path.stdout);
    }
    assert_eq!(by_path.stderr, "", "the injector writes every default");
    let mut child = kuma_init(&["--dry-run", "--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("standard input");
    input.write_all(INJECTED.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), by_path.stdout);
}

#[test]
fn variables_count_only_beside_a_file() {
    let with = |arguments: &[&str]| {
        let mut command = kuma_init(&[arguments, &["--dry-run", "--kuma-dp-user", "5678"]].concat());
        command.env("KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_PORT", "16006");
        Run::of(&mut command).succeeded().stdout
    };
    assert!(with(&[]).contains("--to-ports 15006"));
    assert!(with(&["--config", "/dev/null"]).contains("--to-ports 16006"));
}

#[test]
fn program_runs_in_place_of_kumactl() {
    let directory = Directory::new("kuma");
    let kumactl = directory.path().join("kumactl");
    symlink(SIDETRACK, &kumactl).expect("a link");
    let run = |arguments: &[&str]| Run::of(Command::new(&kumactl).args(arguments));
    let dry = ["--dry-run", "--kuma-dp-user=5678", "--redirect-all-dns-traffic"];
    let installed = run(&[&["install", "transparent-proxy"][..], &dry].concat()).succeeded();
    assert_eq!(installed.stdout, plan(&["--redirect-all-dns-traffic"]));
    let global = [&["--log-level", "info", "install", "transparent-proxy"][..], &dry].concat();
    assert_eq!(run(&global).succeeded().stdout, installed.stdout);
    run(&["uninstall", "transparent-proxy", "--dry-run"]).succeeded();
    run(&["get", "meshes"]).failed(1, &["get"]);
    let help = run(&["install", "transparent-proxy-validator", "--help"])
        .succeeded()
        .stdout;
    assert!(help.contains("--validation-server-port"), "{help}");
}

#[test]
fn all_errors_are_reported_with_exit_code_1() {
    for wrong in [
        &["--nonsense"][..],
        &["--redirect-inbound", "false"],
        &["--redirect-inbound-port"],
        &["--redirect-dns=yes"],
        &["--redirect-inbound-port", "0"],
        &["--config", "/nowhere/at/all"],
        &["--redirect-dns", "--redirect-all-dns-traffic"],
        &["--kuma-dp-user", "no-such-user"],
        &["--store-firewalld"],
    ] {
        let run = Run::of(&mut kuma_init(&[wrong, &["--dry-run"]].concat()));
        let run = run.failed(1, &[]);
        assert!(
            run.stderr.to_lowercase().contains("error") && run.stdout.is_empty(),
            "{wrong:?}: {run:?}"
        );
    }
    let both = [
        "--redirect-inbound-port",
        "0",
        "--exclude-outbound-ips",
        "x",
        "--dry-run",
    ];
    Run::of(&mut kuma_init(&both)).failed(
        1,
        &[
            "--redirect-inbound-port: \"0\" is not a port",
            "--exclude-outbound-ips: \"x\" is not an address",
        ],
    );
}
