//! The installer that stays: probes, metrics, reports of the plugin, signals, and one that takes another's place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use sidetrack::node::{Decision, Run, report};

use super::machine::{FLANNEL, Installer, Machine, eventually, eventually_runs, names};

const CHAINED: [&str; 3] = ["flannel", "portmap", "sidetrack"];

#[test]
fn it_is_ready_once_there_is_a_network_that_it_has_joined() {
    let machine = Machine::new();
    let installer = machine.start(&[]);
    installer.eventually_not_ready("no valid network configuration yet");
    assert_eq!(installer.get("/healthz").0, 200);
    assert_eq!(installer.metric("sidetrack_node_ready"), 0.0);
    machine.write("10-flannel.conflist", FLANNEL);
    installer.eventually_ready();
    assert_eq!(machine.plugins("10-flannel.conflist").expect("a chain"), CHAINED);
    assert_eq!(installer.metric("sidetrack_node_ready"), 1.0);
    // Once for the binary, once for the entry. Neither is a repair.
    assert_eq!(
        installer.metric("sidetrack_node_installs_total{result=\"installed\"}"),
        2.0
    );
    assert!(installer.metric("sidetrack_node_last_change_timestamp_seconds") > 1.0e9);
    let (_, metrics) = installer.get("/metrics");
    let repairs = metrics
        .lines()
        .filter(|line| line.starts_with("sidetrack_node_repairs_total{"));
    assert!(
        repairs.clone().count() >= 6 && repairs.clone().all(|line| line.ends_with(" 0")),
        "{metrics}"
    );
    let (_, status) = installer.get("/status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((&status["ready"], &status["contended"]), (&true.into(), &false.into()));
    let asked = machine.run(&["status", "--health-address", &installer.address().to_string()]);
    assert!(asked.succeeded().stdout.contains("running, ready"));
}

#[test]
fn a_signal_to_stop_leaves_everything_installed() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
        let installer = machine.start(&[]);
        installer.eventually_ready();
        assert!(installer.stop(signal).success());
        assert!(machine.has_binary());
        assert_eq!(machine.plugins("10-flannel.conflist").expect("a chain"), CHAINED);
        assert!(!machine.socket().exists());
        machine.run(&["status"]).succeeded();
    }
}

#[test]
fn a_restart_finds_its_work_and_leaves_it_alone() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let first = machine.start(&[]);
    first.eventually_ready();
    drop(first);
    let files = machine.files();
    let second = machine.start(&[]);
    second.eventually_ready();
    assert_eq!(
        second.metric("sidetrack_node_installs_total{result=\"unchanged\"}"),
        1.0
    );
    assert_eq!(
        second.metric("sidetrack_node_installs_total{result=\"installed\"}"),
        0.0
    );
    assert_eq!(machine.files(), files);
}

#[test]
fn uninstalling_on_exit_takes_everything_away() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&["--uninstall-on-exit"]);
    installer.eventually_ready();
    assert!(installer.stop(Signal::SIGTERM).success());
    assert_eq!(
        machine.files(),
        [("10-flannel.conflist".to_owned(), FLANNEL.to_owned())]
    );
    assert_eq!(names(&machine.bin()), Vec::<String>::new());
}

#[test]
fn uninstalling_beside_an_installer_is_refused() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    machine
        .run(&["uninstall"])
        .failed(1, &["an installer is running", "stop it first"]);
    assert_eq!(machine.plugins("10-flannel.conflist").expect("a chain"), CHAINED);
    drop(installer);
    machine.run(&["uninstall"]).succeeded();
}

#[test]
fn the_installer_that_was_started_last_has_the_node() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let old = machine.start(&["--uninstall-on-exit"]);
    old.eventually_ready();
    let newer = machine.other_build("newer");
    let new = Installer::start(machine.command_of(&newer, &["install"]));
    new.eventually_ready();
    let is_newer = || fs::read(machine.binary()).expect("a file") == fs::read(&newer).expect("a file");
    assert!(is_newer());
    // The old one sees the other binary, and leaves it.
    old.eventually_not_ready("has taken over");
    assert!(old.stop(Signal::SIGTERM).success());
    assert!(is_newer());
    assert_eq!(machine.plugins("10-flannel.conflist").expect("a chain"), CHAINED);
    assert_eq!(
        new.metric("sidetrack_node_repairs_total{reason=\"binary-different\"}"),
        0.0
    );
    assert!(machine.socket().exists(), "the new one's");
    machine.write("10-flannel.conflist", FLANNEL);
    eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
}

fn run(command: &str, decision: Decision) -> Run {
    Run {
        command: command.to_owned(),
        namespace: "shop".to_owned(),
        pod: "web-0\nforged=line".to_owned(),
        decision,
        reason: "sidecar.istio.io/status".to_owned(),
        duration: Duration::from_millis(250),
    }
}

#[test]
fn runs_of_the_plugin_are_logged_and_counted() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let mode = fs::metadata(machine.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let runs = |command: &str, decision: &str| {
        let name = "sidetrack_node_plugin_runs_total";
        format!("{name}{{command=\"{command}\",decision=\"{decision}\"}}")
    };
    for _ in 0..3 {
        report(&machine.socket(), &run("ADD", Decision::Redirected));
    }
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.send_to(b"not a report", machine.socket()).expect("a datagram");
    report(&machine.socket(), &run("DEL", Decision::Failed));
    installer.eventually_logs("the plugin failed");
    assert_eq!(installer.metric(&runs("ADD", "redirected")), 3.0);
    assert_eq!(installer.metric(&runs("DEL", "failed")), 1.0);
    assert_eq!(
        installer.metric("sidetrack_node_plugin_run_seconds_total{command=\"ADD\"}"),
        0.75
    );
    let log = installer.log();
    let line = log
        .lines()
        .find(|line| line.contains("the plugin ran"))
        .expect("a line");
    for said in [
        "command=\"ADD\"",
        "namespace=\"shop\"",
        "decision=\"redirected\"",
        "web-0\\nforged",
    ] {
        assert!(line.contains(said), "{said}: {line}");
    }
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
}

#[test]
fn a_socket_that_somebody_removes_comes_back() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    fs::remove_dir_all(machine.socket().parent().expect("a directory")).expect("a directory");
    // Something happens, so that it looks.
    machine.write("10-flannel.conflist", FLANNEL);
    eventually("a socket", || {
        if machine.socket().exists() {
            Ok(())
        } else {
            Err(installer.log())
        }
    });
    report(&machine.socket(), &run("ADD", Decision::Passed));
    installer.eventually_logs("the plugin ran");
}

#[test]
fn without_a_place_for_the_socket_it_works_all_the_same() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let mut command = machine.command(&["install"]);
    command.env("SIDETRACK_NODE_SOCKET", "/proc/nowhere/log.sock");
    let installer = Installer::start(command);
    installer.eventually_ready();
    assert!(
        installer.log().contains("without reports of the plugin's runs"),
        "{}",
        installer.log()
    );
}
