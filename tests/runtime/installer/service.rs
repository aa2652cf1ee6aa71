//! The installer that stays: probes, metrics, reports of the plugin, signals, and one that takes another's place.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;

use super::fixture::{FLANNEL, Installer, Machine, eventually_runs, names};

const CHAINED: [&str; 3] = ["flannel", "portmap", "sidetrack"];

#[test]
fn installer_is_ready_once_it_has_joined_a_network() {
    let machine = Machine::new();
    let installer = machine.start(&[]);
    installer.eventually_not_ready("no valid network configuration yet");
    assert_eq!(installer.get("/healthz").0, 200);
    assert_eq!(installer.metric("sidetrack_node_ready"), 0.0);
    machine.write("10-flannel.conflist", FLANNEL);
    installer.eventually_ready();
    assert_eq!(machine.plugins("10-flannel.conflist").expect("a chain"), CHAINED);
    assert_eq!(installer.metric("sidetrack_node_ready"), 1.0);
    assert_eq!(
        installer.metric("sidetrack_node_repairs_total{reason=\"binary-missing\"}"),
        1.0
    );
    assert_eq!(
        installer.metric("sidetrack_node_repairs_total{reason=\"entry-missing\"}"),
        1.0
    );
    assert_eq!(
        installer.metric("sidetrack_node_repairs_total{reason=\"entry-different\"}"),
        0.0
    );
    assert_eq!(installer.metric("sidetrack_node_contended"), 0.0);
    let asked = machine.run(&["status", "--health-address", &installer.address().to_string()]);
    assert!(asked.succeeded().stdout.contains("installer      ok\n"));
}

/// Holds 1,000 connections open to the address: every second one sends a byte now and then, the others nothing. What is
/// closed is opened again.
const CROWD: &str = r#"
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
address = (sys.argv[1], int(sys.argv[2]))
open_ = [socket.create_connection(address) for _ in range(1000)]
print("there", flush=True)
while True:
    for number, connection in enumerate(open_):
        try:
            connection.setblocking(False)
            if number % 2:
                connection.send(b"G")
            if connection.recv(1) == b"":
                raise ConnectionError
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            open_[number] = socket.create_connection(address)
    time.sleep(0.05)
"#;

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn a_thousand_idle_and_slow_connections_do_not_starve_probes() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    let address = installer.address();
    let mut crowd = Command::new("python3");
    crowd.args(["-c", CROWD, &address.ip().to_string(), &address.port().to_string()]);
    let mut crowd = Ended(crowd.stdout(Stdio::piped()).spawn().expect("python3"));
    let mut said = [0; 6];
    let mut stdout = crowd.0.stdout.take().expect("its output");
    stdout.read_exact(&mut said).expect("a word");
    let answers: Vec<u16> = (0..50).map(|_| installer.get("/healthz").0).collect();
    assert_eq!(answers, [200; 50]);
}

#[test]
fn stop_signal_keeps_the_installation() {
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
fn restart_changes_nothing() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let first = machine.start(&[]);
    first.eventually_ready();
    drop(first);
    let files = machine.files();
    let second = machine.start(&[]);
    second.eventually_ready();
    let (_, metrics) = second.get("/metrics");
    let repairs: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("sidetrack_node_repairs_total{"))
        .collect();
    assert!(
        repairs.len() >= 6 && repairs.iter().all(|line| line.ends_with(" 0")),
        "{metrics}"
    );
    assert_eq!(machine.files(), files);
}

#[test]
fn uninstall_on_exit_removes_everything() {
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
    // Killed, it leaves its socket.
    drop(installer);
    assert!(machine.socket().exists());
    machine.run(&["uninstall"]).succeeded();
    assert!(!machine.socket().exists());
}

#[test]
fn last_started_installer_owns_the_node() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let old = machine.start(&["--uninstall-on-exit"]);
    old.eventually_ready();
    let newer = machine.other_build("newer");
    let new = Installer::start(machine.command_of(&newer, &["install"]));
    new.eventually_ready();
    let is_newer = || fs::read(machine.binary()).expect("a file") == fs::read(&newer).expect("a file");
    assert!(is_newer());
    // The old one sees the other binary, and leaves it.
    old.eventually_logs("a newer installer has taken over this node");
    assert_eq!(
        old.get("/readyz"),
        (503, "a newer installer has taken over this node\n".to_owned())
    );
    assert!(old.stop(Signal::SIGTERM).success());
    assert!(is_newer());
    assert_eq!(machine.plugins("10-flannel.conflist").expect("a chain"), CHAINED);
    assert_eq!(
        new.metric("sidetrack_node_repairs_total{reason=\"binary-different\"}"),
        1.0,
        "by its start"
    );
    assert!(machine.socket().exists(), "the new one's");
    machine.write("10-flannel.conflist", FLANNEL);
    eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
}

#[test]
fn installer_works_without_a_socket() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let mut command = machine.command(&["install"]);
    command.env("SIDETRACK_NODE_SOCKET", "/proc/nowhere/log.sock");
    let installer = Installer::start(command);
    installer.eventually_ready();
    assert!(
        installer.log().contains("without reports of plugin runs"),
        "{}",
        installer.log()
    );
}

/// Istio's agent may have the port; then nothing was installed on the node.
#[test]
fn used_health_address_does_not_prevent_installation() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    // An address that no other test uses: nobody takes the port while it is free.
    let taken = TcpListener::bind("127.15.0.14:0").expect("a listener");
    let address = taken.local_addr().expect("an address");
    let installer = thread::scope(|scope| {
        scope.spawn(|| {
            eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
            drop(taken);
            // Any change is a reason to try again.
            machine.write(
                "99-loopback.conf",
                r#"{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}"#,
            );
        });
        // By this thread: the installer ends with the one that started it.
        machine.start(&["--health-address", &address.to_string()])
    });
    assert_eq!(installer.address(), address);
    installer.eventually_ready();
    assert_eq!(installer.metric("sidetrack_node_degraded{part=\"health\"}"), 0.0);
}

/// A node without an inotify instance left got no plugin.
#[test]
fn changes_are_found_by_polling_without_inotify() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let install = machine.command(&["install"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-ec"]);
    command.args(["echo 0 > /proc/sys/user/max_inotify_instances; exec \"$@\"", "sh"]);
    command.arg(install.get_program()).args(install.get_args());
    for (name, value) in install.get_envs() {
        command.env(name, value.expect("a value"));
    }
    let installer = Installer::start(command);
    installer.eventually_ready();
    assert_eq!(installer.metric("sidetrack_node_degraded{part=\"inotify\"}"), 1.0);
    machine.write("10-flannel.conflist", FLANNEL);
    eventually_runs(&machine, "10-flannel.conflist", &CHAINED);
    assert!(installer.log().contains("fs.inotify.max_user_instances"));
}
