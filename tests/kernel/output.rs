//! Standard output with a closed pipe, and standard input that is not a file.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::SIDETRACK;
use crate::common::Netns;
use crate::program::{Run, apply, closed_pipe, nft_state, sidetrack};
use crate::temporary::Temporary;

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests");

#[test]
fn commands_exit_quietly_on_a_closed_pipe() {
    let netns = Netns::new();
    netns.ip("address add 10.0.0.2/32 dev lo");
    let manifest = format!("{MANIFESTS}/ST101.yaml");
    let question = ["outbound", "tcp", "10.0.0.5:443"];
    let commands: [&[&str]; 21] = [
        &["--help"],
        &["--version"],
        &["apply", "--help"],
        &["help"],
        &["help", "node", "install"],
        &["completions", "bash"],
        &["completions", "fish"],
        &["completions", "zsh"],
        &["graph"],
        &["graph", "--format", "svg"],
        &["apply", "--dry-run"],
        &["apply", "--dry-run", "--output", "iptables"],
        &["apply", "--dry-run", "--output", "json"],
        &["istio-iptables", "--dry-run"],
        &["istio-iptables", "--help"],
        &["lint", &manifest],
        &["lint", "--json", &manifest],
        &["check"],
        &["check", "--json"],
        &["check", "--json", "istio-iptables"],
        &["probe", "--json", "--timeout", "1m"],
    ];
    let explain = [&["explain"], &question[..]].concat();
    let explain_as_json = [&explain[..], &["--json"]].concat();
    for arguments in commands.into_iter().chain([&explain[..], &explain_as_json]) {
        let run = |stdout: Stdio| {
            let mut command = netns.command(SIDETRACK);
            Run::of(command.args(arguments).stdout(stdout))
        };
        let read = run(Stdio::piped());
        assert!(!read.stdout.is_empty(), "{arguments:?} prints something: {read:?}");
        let unread = run(closed_pipe());
        assert_eq!((unread.code, unread.stderr), (read.code, read.stderr), "{arguments:?}");
    }
}

#[test]
fn unwritable_output_is_an_error() {
    for arguments in [&["graph"][..], &["completions", "bash"]] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let mut command = Command::new(SIDETRACK);
        Run::of(command.args(arguments).stdout(full)).failed(1, &["No space left on device"]);
    }
}

#[test]
fn apply_completes_on_a_closed_pipe() {
    let (netns, reference) = (Netns::new(), Netns::new());
    apply(&reference, "nftables", &[]);
    Run::of(netns.command(SIDETRACK).arg("apply").stdout(closed_pipe())).succeeded();
    assert_eq!(nft_state(&netns), nft_state(&reference));
}

/// The output of explain with a socket as standard input, which cannot be opened by a path.
fn explain_over_socket(options: &[&str], input: &str) -> Run {
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    ours.write_all(input.as_bytes())
        .expect("it fits into the socket's buffer");
    drop(ours);
    let mut command = Command::new(SIDETRACK);
    command
        .args(["explain", "outbound", "tcp", "10.0.0.5:3306"])
        .args(options);
    let output = command.stdin(OwnedFd::from(theirs)).output().expect("sidetrack");
    Run::from(output)
}

#[test]
fn explain_reads_a_pod_from_a_socket() {
    let pod = "metadata: { annotations: { traffic.sidecar.istio.io/excludeOutboundPorts: '3306' } }\n";
    let file = Temporary::new("socket-pod.yaml", pod);
    let question = ["explain", "outbound", "tcp", "10.0.0.5:3306"];
    let expected = sidetrack(&Netns::new(), &[&question[..], &["--pod", file.path()]].concat()).succeeded();
    let run = explain_over_socket(&["--pod", "-"], pod).succeeded();
    assert_eq!(run.stdout, expected.stdout);
    explain_over_socket(&["--pod", "-"], "[").failed(2, &["--pod: -:"]);
}

#[test]
fn explain_reads_a_plan_from_a_socket() {
    let arguments = ["apply", "--dry-run", "--output", "json"];
    let plan = sidetrack(&Netns::new(), &arguments).succeeded().stdout;
    let run = explain_over_socket(&["--plan", "-"], &plan).succeeded();
    assert!(run.stdout.contains("the saved plan"), "{run:?}");
}
