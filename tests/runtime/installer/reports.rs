//! The plugin's reports to the installer: real runs of the plugin in real namespaces.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};
use serde_json::Value;
use sidetrack::linux::unix_messages::{self, Listener};

use super::fixture::{FLANNEL, Installer, Machine, eventually};
use crate::SIDETRACK;
use crate::cni::{Request, has_rules, plugin, request};
use crate::common::{Netns, output_of};
use crate::program::static_program;

/// A request as a runtime derives it from the conflist that was installed.
fn installed_request(machine: &Machine, verb: &str, netns: &Path) -> Request {
    let list: Value = serde_json::from_str(&machine.read("10-flannel.conflist")).expect("JSON");
    let entry = list["plugins"][2].as_object().expect("our entry").clone();
    entry
        .into_iter()
        .fold(request(verb, netns), |request, (key, value)| request.with(&key, value))
}

fn runs(command: &str, outcome: &str) -> String {
    format!("sidetrack_node_plugin_runs_total{{command=\"{command}\",outcome=\"{outcome}\"}}")
}

/// Waits for a line of the log with all of these.
#[track_caller]
fn eventually_says(installer: &Installer, said: &[&str]) {
    eventually("a line", || {
        let log = installer.log();
        let says_all = |line: &str| said.iter().all(|text| line.contains(text));
        if log.lines().any(says_all) {
            Ok(())
        } else {
            Err((said, log))
        }
    });
}

#[test]
fn each_run_of_the_installed_plugin_is_logged_and_counted() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&["-v"]);
    installer.eventually_ready();
    let mode = fs::metadata(machine.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let netns = Netns::new();
    let ask = |verb, netns: &Path| installed_request(&machine, verb, netns);
    // An alert on an increase misses the first failure where the counter begins with it.
    assert_eq!(installer.metric(&runs("ADD", "failed")), 0.0);

    ask("ADD", &netns.path()).run_by(machine.binary()).succeeded();
    let redirected = "reason=\"Istio injected a sidecar (sidecar.istio.io/status)\"";
    eventually_says(
        &installer,
        &[
            "INFO",
            "pod=\"shop/web-0\"",
            "container=\"0f1e\"",
            redirected,
            "milliseconds=",
        ],
    );
    assert!(has_rules(&netns));
    assert_eq!(installer.metric(&runs("ADD", "redirected")), 1.0);
    assert!(installer.metric("sidetrack_node_plugin_run_duration_seconds_sum{command=\"ADD\"}") > 0.0);

    let exempt = ask("ADD", &netns.path()).variable("CNI_ARGS", "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns");
    exempt.run_by(machine.binary()).succeeded();
    eventually_says(
        &installer,
        &["INFO", "pod=\"kube-system/dns\"", "let-through", "excludeNamespaces"],
    );

    // The error is reported even where the input is not a NetConf, and forges no log lines.
    let hosts = ask("ADD", Path::new("/proc/1/ns/net")).variable("CNI_ARGS", "K8S_POD_NAME=a\nforged=line");
    assert_eq!(hosts.run_by(machine.binary()).code, Some(1));
    eventually_says(
        &installer,
        &["ERROR", "pod=\"-/a\\nforged=line\"", "outcome=\"failed\"", "CNI_NETNS"],
    );
    ask("ADD", &netns.path())
        .with("cniVersion", "9.0.0".into())
        .run_by(machine.binary());
    eventually_says(&installer, &["ERROR", "incompatible CNI version", "9.0.0"]);
    assert_eq!(installer.metric(&runs("ADD", "failed")), 2.0);

    for verb in ["CHECK", "STATUS", "GC", "DEL", "VERSION"] {
        ask(verb, &netns.path()).run_by(machine.binary()).succeeded();
        let command = format!("command=\"{verb}\"");
        eventually_says(&installer, &["DEBUG", &command, "outcome=\"done\""]);
        assert_eq!(installer.metric(&runs(verb, "done")), 1.0);
    }
    let log = installer.log();
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
}

#[test]
fn plugin_warnings_are_logged() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let netns = Netns::new();
    netns.ip("link set lo down");
    installed_request(&machine, "ADD", &netns.path())
        .run_by(machine.binary())
        .succeeded();
    eventually_says(
        &installer,
        &["WARN", "pod=\"shop/web-0\"", "the loopback interface is down"],
    );
}

#[test]
fn only_reports_are_counted() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let report = |command: &str| {
        format!(
            "{{\"command\":{command:?},\"namespace\":\"\",\"pod\":\"\",\"container\":\"\",\"outcome\":\"failed\",\
             \"reason\":\"because\",\"warnings\":[],\"seconds\":0.25}}"
        )
    };
    // An empty message, too, does not end the reading.
    for message in ["", "no report", "{}", &report("made up\"} 1\nx"), &report("ADD")] {
        unix_messages::send(&machine.socket(), message.as_bytes()).expect("a message");
    }
    eventually_says(
        &installer,
        &["ERROR", "command=\"ADD\"", "reason=\"because\"", "milliseconds=250"],
    );
    let (_, metrics) = installer.get("/metrics");
    let counted: Vec<&str> = metrics
        .lines()
        .filter(|line| {
            line.starts_with("sidetrack_node_plugin_") && !line.contains("_bucket{") && !line.ends_with(" 0")
        })
        .collect();
    let expected = [
        &format!("{} 1", runs("ADD", "failed")),
        &format!("{} 1", runs("other", "failed")),
        "sidetrack_node_plugin_run_duration_seconds_sum{command=\"ADD\"} 0.25",
        "sidetrack_node_plugin_run_duration_seconds_count{command=\"ADD\"} 1",
        "sidetrack_node_plugin_run_duration_seconds_sum{command=\"other\"} 0.25",
        "sidetrack_node_plugin_run_duration_seconds_count{command=\"other\"} 1",
    ];
    assert_eq!(counted, expected);
}

/// On a busy node it gets no processor time while many pods start. The static program, whose C library has limits of its own.
#[test]
fn reports_wait_for_an_installer_that_does_not_run() {
    const RUNS: usize = 50;
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = Installer::start(machine.command_of(static_program(), &["install"]));
    installer.eventually_ready();
    installer.signal(Signal::SIGSTOP);
    for _ in 0..RUNS {
        let request = installed_request(&machine, "DEL", Path::new("/proc/self/ns/net"));
        request.run_by(machine.binary()).succeeded();
    }
    installer.signal(Signal::SIGCONT);
    eventually("all runs are counted", || {
        match installer.metric(&runs("DEL", "done")) {
            count if count == RUNS as f64 => Ok(()),
            count => Err(count),
        }
    });
}

/// The plugin may get no processor time either, between its connection and its report.
#[test]
fn a_plugin_that_stands_still_for_seconds_loses_no_report() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let flags = SockFlag::SOCK_CLOEXEC;
    let stopped = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    let address = UnixAddr::new(&machine.socket()).expect("an address");
    connect(stopped.as_raw_fd(), &address).expect("a connection");
    let report = "{\"command\":\"GC\",\"namespace\":\"\",\"pod\":\"\",\"container\":\"\",\"outcome\":\"done\",\
                  \"reason\":\"\",\"warnings\":[],\"seconds\":2}";
    thread::sleep(Duration::from_secs(2));
    send(stopped.as_raw_fd(), report.as_bytes(), MsgFlags::MSG_NOSIGNAL).expect("the installer still waits for it");
    eventually("it is counted", || match installer.metric(&runs("GC", "done")) {
        1.0 => Ok(()),
        count => Err(count),
    });
}

#[test]
fn removed_socket_is_recreated() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    fs::remove_dir_all(machine.socket().parent().expect("a directory")).expect("a directory");
    // An event, which causes a check.
    machine.write("10-flannel.conflist", FLANNEL);
    let has_our_entry = || machine.read("10-flannel.conflist").contains("sidetrack");
    eventually("a socket, and our entry", || {
        if machine.socket().exists() && has_our_entry() {
            Ok(())
        } else {
            Err(installer.log())
        }
    });
    let netns = Netns::new();
    installed_request(&machine, "ADD", &netns.path())
        .run_by(machine.binary())
        .succeeded();
    eventually_says(&installer, &["redirected", "shop/web-0"]);
}

#[test]
fn pods_start_without_or_with_a_slow_listener() {
    let machine = Machine::new();
    let path = machine.root().join("log.sock");
    let add = || {
        let netns = Netns::new();
        let request = request("ADD", &netns.path()).with("logSocket", path.to_str().into());
        // Where it waits for ever, so would the test.
        let mut command = request.command_of("timeout");
        command.args(["120", SIDETRACK]);
        plugin(&mut command, request.netconf.to_string().as_bytes()).succeeded();
        assert!(has_rules(&netns));
    };
    add();
    fs::write(&path, "no socket").expect("a file");
    add();
    fs::remove_file(&path).expect("a file");
    let listener = Listener::bind(&path, 1, Duration::from_secs(60)).expect("a socket");
    let full = loop {
        if let Err(error) = unix_messages::send(&path, b"x") {
            break error;
        }
    };
    assert_eq!(full, Errno::EAGAIN);
    add();
    drop(listener);
    add();
}

/// The parser of Prometheus' own client library refuses what the specification does not allow.
const STRICT_PARSER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = {family.name: family for family in text_string_to_metric_families(open(sys.argv[1]).read())}
runs = families['sidetrack_node_plugin_run_duration_seconds']
print(runs.type, runs.unit, *sorted({sample.labels['command'] for sample in runs.samples}))
print(families['sidetrack_node_plugin_runs'].type, families['sidetrack_node_ready'].samples[0].value)
";

#[test]
fn metrics_pass_a_strict_parser_of_openmetrics() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let netns = Netns::new();
    for verb in ["ADD", "DEL"] {
        let asked = installed_request(&machine, verb, &netns.path());
        asked.run_by(machine.binary()).succeeded();
    }
    eventually("both runs", || match installer.metric(&runs("DEL", "done")) {
        1.0 => Ok(()),
        count => Err(count),
    });
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    let (status, text) = installer.get_as("/metrics", accept);
    assert_eq!(status, 200);
    let file = machine.conf().join("../metrics.txt");
    fs::write(&file, text).expect("a file");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let parsed = output_of(Command::new(python).args(["-c", STRICT_PARSER]).arg(&file));
    assert_eq!(parsed, "histogram seconds ADD DEL\ncounter 1\n");
}
