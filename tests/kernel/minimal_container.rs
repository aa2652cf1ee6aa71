//! Minimal environments: an empty image, one capability, no root, user namespaces.

use std::process::{Command, Stdio};

use caps::Capability::CAP_NET_ADMIN;

use crate::SIDETRACK;
use crate::common::{Netns, Owner, output_of};
use crate::program::{Run, apply, nft_state, state, static_program};
use crate::sandbox::{Scratch, with_capabilities};

/// The release binary has no unwind tables: a request for a backtrace caused an abort instead of the error.
#[test]
fn errors_are_printed_with_backtraces_enabled() {
    let mut command = Command::new(static_program());
    command
        .args(["cleanup", "--netns", "/nonexistent"])
        .env("RUST_BACKTRACE", "full");
    Run::of(&mut command).failed(1, &["/nonexistent"]);
}

#[test]
fn apply_runs_in_an_empty_image_with_one_capability() {
    let scratch = Scratch::with(&static_program());
    let (pod, reference) = (Netns::new(), Netns::new());
    apply(&reference, "nftables", &["--exclude-uids", "7,9-12"]);
    let run = |arguments: &[&str]| {
        let mut command = pod.command("/sidetrack");
        command.args(arguments).env_clear();
        scratch.confine(&mut command);
        with_capabilities(&mut command, Owner::APP, &[CAP_NET_ADMIN], &[]);
        Run::of(&mut command)
    };
    run(&["apply", "--exclude-uids", "7,9-12"]).succeeded();
    assert_eq!(state(&pod, "nftables"), state(&reference, "nftables"));
    let log = run(&["apply", "--exclude-uids", "7,9-12"]).succeeded().stderr;
    assert!(log.contains("already redirected this way"), "{log}");
    run(&["apply", "--dry-run"]).succeeded();
    run(&["apply", "--proxy-uid", "envoy"]).failed(2, &["/etc/passwd does not exist; give the number"]);
    run(&["cleanup"]).succeeded();
    assert!(!state(&pod, "nftables").contains("sidetrack"));
}

#[test]
fn the_nftables_backend_starts_no_other_program() {
    let pod = Netns::new();
    let mut command = pod.command("strace");
    command.args([
        "-f",
        "-qq",
        "-e",
        "trace=execve,clone,clone3,fork,vfork,openat,open,creat",
        SIDETRACK,
        "apply",
    ]);
    let run = Run::of(&mut command).succeeded();
    let calls: Vec<&str> = run.stderr.lines().collect();
    let started = calls.iter().filter(|call| !call.contains("openat(")).count();
    let is_call = |call: &&&str| call.contains("execve(") || call.contains("clone") || call.contains("fork(");
    assert_eq!(calls.iter().filter(is_call).count(), 1, "only itself: {calls:#?}");
    assert!(started >= 1);
    let writes = calls
        .iter()
        .filter(|call| call.contains("O_WRONLY") || call.contains("O_RDWR") || call.contains("O_CREAT"));
    assert_eq!(writes.collect::<Vec<_>>(), Vec::<&&str>::new(), "no file is written");
}

/// A process that holds user and network namespaces of its own, as a pod with `hostUsers: false` does.
struct UserNamespace(std::process::Child);

impl UserNamespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--net",
            "sh",
            "-c",
            "ip link set lo up && echo ready && exec cat",
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux)");
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.0.id()))
            .args(["--user", "--net", "--preserve-credentials", "--"]);
        command.arg(program);
        command
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn apply_runs_inside_another_user_namespace() {
    let pod = UserNamespace::new();
    Run::of(pod.command(SIDETRACK).arg("apply")).succeeded();
    let rules = output_of(pod.command("nft").args(["list", "table", "inet", "sidetrack"]));
    assert!(rules.contains("redirect to :15001"), "{rules}");
    Run::of(pod.command(SIDETRACK).arg("cleanup")).succeeded();
}

#[test]
fn apply_enters_a_network_namespace_of_another_user_namespace() {
    let pod = UserNamespace::new();
    Run::of(Command::new(SIDETRACK).args(["apply", "--netns", &pod.netns()])).succeeded();
    let rules = output_of(pod.command("nft").args(["list", "table", "inet", "sidetrack"]));
    assert!(rules.contains("redirect to :15001"), "{rules}");
}

/// The nftables backend never touches the lock of legacy iptables.
#[test]
fn nftables_backend_does_not_take_the_xtables_lock() {
    let pod = Netns::new();
    let mut command = pod.command("strace");
    command.args(["-f", "-qq", "-e", "trace=openat,flock", SIDETRACK, "apply"]);
    let run = Run::of(&mut command).succeeded();
    assert!(
        !run.stderr.contains("xtables.lock") && !run.stderr.contains("flock("),
        "{run:?}"
    );
    assert!(nft_state(&pod).contains("sidetrack"));
}
