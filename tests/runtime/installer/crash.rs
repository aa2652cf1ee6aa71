//! Kills at any moment: files are complete, and the next start repairs the rest.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::fixture::{FLANNEL, Machine, WEAVE, names, plugins, program};
use crate::program::Run;

/// What a node begins with.
#[derive(Clone, Copy, Debug)]
struct Start {
    name: &'static str,
    text: &'static str,
    old_binary: bool,
}

const STARTS: [Start; 3] = [
    Start {
        name: "10-flannel.conflist",
        text: FLANNEL,
        old_binary: true,
    },
    Start {
        name: "10-weave.conf",
        text: WEAVE,
        old_binary: false,
    },
    Start {
        name: "10-weave.json",
        text: WEAVE,
        old_binary: true,
    },
];

impl Start {
    fn machine(self) -> Machine {
        let machine = Machine::with(&[(self.name, self.text)]);
        if self.old_binary {
            fs::write(machine.binary(), "old").expect("a file");
        }
        machine
    }

    /// What must be true of a node at every moment.
    fn check(self, machine: &Machine, when: &str) {
        let binary = fs::read(machine.binary()).ok();
        let is_ours = binary
            .as_ref()
            .is_some_and(|content| *content == fs::read(program()).expect("the program"));
        let is_old = binary == self.old_binary.then(|| b"old".to_vec());
        let is_gone = binary.is_none();
        assert!(is_ours || is_old || is_gone, "{when}: half a binary");
        let mut configurations = names(&machine.conf())
            .into_iter()
            .filter(|name| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end)));
        // The one that a runtime takes.
        let first = configurations.next().unwrap_or_else(|| panic!("{when}: no network"));
        let text = machine.read(&first);
        let chain = plugins(&text).unwrap_or_else(|| panic!("{when}: {first} is not whole: {text}"));
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            first.ends_with(".conflist"),
            value["plugins"].is_array(),
            "{when}: {first}"
        );
        let others: Vec<&String> = chain.iter().filter(|plugin| *plugin != "sidetrack").collect();
        assert_eq!(
            Some(others),
            plugins(self.text).as_ref().map(|all| all.iter().collect()),
            "{when}"
        );
        if chain.iter().any(|plugin| plugin == "sidetrack") {
            assert!(is_ours, "{when}: a chain names a binary that is not there");
        }
        for name in configurations {
            assert!(plugins(&machine.read(&name)).is_some(), "{when}: {name} is not whole");
        }
    }

    fn check_recovery(self, machine: &Machine, when: &str) {
        machine.install_once();
        assert!(machine.has_binary(), "{when}");
        machine.run(&["status"]).succeeded();
        assert_eq!(names(&machine.bin()), ["sidetrack"], "{when}");
        machine.run(&["uninstall"]).succeeded();
        assert_eq!(
            machine.files(),
            [(self.name.to_owned(), self.text.to_owned())],
            "{when}"
        );
        assert_eq!(names(&machine.bin()), Vec::<String>::new(), "{when}");
    }
}

/// The system calls by which files change. Opening one is left out: what it leaves is what the next call finds.
const CALLS: [&str; 7] = [
    "write",
    "copy_file_range",
    "fchown",
    "fchmod",
    "fsync",
    "rename",
    "unlink",
];

/// Runs a command, which is killed when it is about to make a system call for the `number`th time; returns whether it
/// came so far.
fn killed_at(command: &Command, call: &str, number: u32) -> bool {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(["-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stderr(Stdio::null());
    !strace.status().expect("strace").success()
}

/// Kills installing and uninstalling before each single change; returns how often.
fn kill_before_each_change(start: Start) -> u32 {
    let mut kills = 0;
    for (arguments, call) in [&["install", "--once"][..], &["uninstall"]]
        .iter()
        .flat_map(|arguments| CALLS.map(|call| (arguments, call)))
    {
        for number in 1.. {
            let machine = start.machine();
            if arguments.contains(&"uninstall") {
                machine.install_once();
            }
            let was_killed = killed_at(&machine.command(arguments), call, number);
            let when = format!("{arguments:?} of {start:?}, killed at {call} {number}");
            start.check(&machine, &when);
            if !was_killed {
                break;
            }
            start.check_recovery(&machine, &when);
            kills += 1;
        }
    }
    kills
}

#[test]
fn kill_before_each_change_of_a_conflist_leaves_valid_files() {
    let kills = kill_before_each_change(STARTS[0]);
    assert!(kills >= 15, "{kills}");
}

#[test]
fn kill_before_each_change_of_a_conf_leaves_valid_files() {
    let kills = kill_before_each_change(STARTS[1]);
    assert!(kills >= 18, "{kills}");
}

#[test]
fn kill_before_each_change_of_a_json_leaves_valid_files() {
    let kills = kill_before_each_change(STARTS[2]);
    assert!(kills >= 18, "{kills}");
}

/// A disk keeps what was synced. So each new file is synced before it is renamed, and the directory after that.
#[test]
fn each_step_is_synced_before_the_next() {
    for start in STARTS {
        let machine = start.machine();
        for arguments in [&["install", "--once"][..], &["uninstall"]] {
            let node = machine.command(arguments);
            let mut strace = Command::new("strace");
            strace
                .args(["-f", "-qq", "-y", "-e", "trace=fsync,rename,unlink"])
                .arg(node.get_program())
                .args(node.get_args())
                .envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let trace = Run::of(&mut strace).succeeded().stderr;
            let calls: Vec<&str> = trace
                .lines()
                .filter(|line| line.contains(") = 0") || line.contains(")  "))
                .collect();
            let synced = |call: Option<&&str>, path: &str| {
                call.is_some_and(|call| call.contains("fsync(") && call.contains(&format!("{path}>)")))
            };
            let mut changes = 0;
            for (number, call) in calls.iter().enumerate().filter(|(_, call)| !call.contains("fsync(")) {
                let path = call.split('"').nth(1).expect("a path");
                let directory = path.rsplit_once('/').expect("a directory").0;
                assert!(synced(calls.get(number + 1), directory), "{call} in {trace}");
                if path.contains("unfinished") {
                    assert!(number > 0 && synced(calls.get(number - 1), path), "{call} in {trace}");
                }
                changes += 1;
            }
            assert!(changes >= 2, "{trace}");
        }
    }
}

#[test]
fn repeated_kills_without_repair_leave_valid_files() {
    for start in STARTS {
        let machine = start.machine();
        // A Lehmer generator: the same delays in each run.
        let mut random: u64 = 42;
        for round in 0..40 {
            random = random * 48_271 % 0x7fff_ffff;
            let mut command = machine.command(if round % 4 == 3 {
                &["uninstall"]
            } else {
                &["install", "--once"]
            });
            let mut installer = command.stderr(Stdio::null()).spawn().expect("the program");
            thread::sleep(Duration::from_micros(random % 15_000));
            installer.kill().expect("a signal");
            installer.wait().expect("its end");
            start.check(&machine, &format!("{start:?}, round {round}"));
        }
        start.check_recovery(&machine, &format!("{start:?}"));
    }
}

#[test]
fn killed_installer_is_repaired_by_the_next() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let start = Start {
        old_binary: false,
        ..STARTS[0]
    };
    for round in 0..10 {
        let installer = machine.start(&[]);
        if round % 2 == 0 {
            installer.eventually_ready();
        }
        drop(installer);
        start.check(&machine, &format!("round {round}"));
        // While no installer runs.
        match round % 3 {
            0 => machine.write("10-flannel.conflist", FLANNEL),
            1 => fs::write(machine.binary(), "damaged").expect("a file"),
            _ => fs::remove_file(machine.binary()).expect("a file"),
        }
        let installer = machine.start(&[]);
        installer.eventually_ready();
    }
    assert!(machine.has_binary());
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(
        machine.files(),
        [("10-flannel.conflist".to_owned(), FLANNEL.to_owned())]
    );
}
