//! The iptables backends: each program that a run starts fails once, or is killed, alone or with the run.
//!
//! Tables change one after the other there, so that a run that is killed may leave some of them by the old plan and
//! others by the new. Each is one or the other, and inbound connections are captured throughout.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use sidetrack::linux::lock::Lock;
use sidetrack::types::Family;

use super::injection::{Fault, Point, points, run_with_fault};
use super::snapshot::beside_rules;
use crate::SIDETRACK;
use crate::common::{Caller, Netns, Owner, Pod, Server, To, Transport, call, output_of};
use crate::program::{Run, sidetrack};
use crate::regressions::{Programs, iptables};

const TPROXY: &[&str] = &["--inbound-mode", "tproxy", "--drop-invalid"];
const REDIRECT: &[&str] = &["--drop-invalid", "--exclude-inbound-ports", "22"];

/// What happens instead of a program; `$real` is the program itself.
const FAULTS: [(&str, &str, Outcome); 7] = [
    ("it fails", "echo Permission denied >&2; exit 1", Outcome::Error),
    (
        "it fails after its work",
        "$real \"$@\"; echo Permission denied >&2; exit 1",
        Outcome::Error,
    ),
    ("it is killed", "kill -9 $$", Outcome::Error),
    (
        "it is killed after its first table",
        "sed /COMMIT/q | $real \"$@\"; kill -9 $$",
        Outcome::Error,
    ),
    ("all are killed", "kill -9 $PPID $$", Outcome::Killed),
    (
        "all are killed after its first table",
        "sed /COMMIT/q | $real \"$@\"; kill -9 $PPID $$",
        Outcome::Killed,
    ),
    (
        "the run is killed, and it goes on",
        "kill -9 $PPID; exec $real \"$@\"",
        Outcome::Killed,
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Error,
    Killed,
}

/// Each table of each program, without what was counted.
type Tables = BTreeMap<(String, String), String>;

/// Everything that a run could have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    tables: Tables,
    beside: std::collections::BTreeSet<String>,
}

impl State {
    fn of(netns: &Netns, backend: &str) -> Self {
        let mut tables = Tables::new();
        for program in iptables(backend, "-save") {
            let saved = output_of(&mut netns.command(&program));
            for table in saved
                .split_inclusive("COMMIT\n")
                .filter(|table| table.contains("SIDETRACK"))
            {
                let lines = table.lines().filter(|line| !line.starts_with('#'));
                let lines: Vec<&str> = lines.filter_map(|line| line.split(" [").next()).collect();
                tables.insert((program.clone(), lines[0].to_owned()), lines.join("\n"));
            }
        }
        let beside = beside_rules(netns);
        Self { tables, beside }
    }

    /// Whether each table is that of one plan or the other, and what they need is there.
    fn is_between(&self, one: &Self, other: &Self) -> bool {
        let tables = [self, one, other].into_iter().flat_map(|state| state.tables.keys());
        let mut known = tables.map(|key| {
            [one, other]
                .iter()
                .any(|state| state.tables.get(key) == self.tables.get(key))
        });
        known.all(|known| known)
            && self
                .beside
                .is_superset(&one.beside.intersection(&other.beside).cloned().collect())
    }

    /// Whether inbound connections of each family are captured, by whichever table.
    fn captures_inbound(&self, backend: &str) -> bool {
        let table = |program: &String, name: &str| self.tables.get(&(program.clone(), name.to_owned()));
        iptables(backend, "-save").iter().all(|program| {
            let redirects =
                table(program, "*nat").is_some_and(|nat| nat.contains("-A PREROUTING -j SIDETRACK_PREROUTING"));
            let intercepts = table(program, "*mangle").is_some_and(|mangle| mangle.contains("-j TPROXY"));
            redirects || intercepts
        })
    }
}

fn apply(netns: &Netns, backend: &str, options: &[&str]) -> Command {
    let mut command = netns.command(SIDETRACK);
    command.args(["apply", "--backend", backend]).args(options);
    command
}

/// Waits until no program is left that a run has started.
fn wait_for_programs(netns: &Netns) {
    netns.run(|| drop(Lock::wait().expect("the lock")));
}

/// Programs that count how often they are started, and at the time that is written in a file do something else.
fn counting(backend: &str, name: &str) -> Programs {
    let programs = Programs::new(&format!("{name}-{backend}"));
    let directory = programs.path().display().to_string();
    let path = std::env::var("PATH").expect("PATH");
    for program in ["-save", "-restore"].map(|suffix| iptables(backend, suffix)).concat() {
        let script = format!(
            "n=$(cat {directory}/count); n=$((n + 1)); echo $n >{directory}/count
real=$(PATH={path} command -v {program})
[ $n = \"$(cat {directory}/at)\" ] || exec $real \"$@\"
. {directory}/fault"
        );
        programs.put(&program, &script);
    }
    programs
}

/// Runs with each fault, in place of each program that a run starts.
fn every_fault(backend: &str, old_options: &[&str], new_options: &[&str]) {
    let netns = Netns::new();
    let untouched = State::of(&netns, backend);
    Run::of(&mut apply(&netns, backend, new_options)).succeeded();
    let new = State::of(&netns, backend);
    Run::of(&mut apply(&netns, backend, old_options)).succeeded();
    let old = State::of(&netns, backend);
    assert_ne!(old, new);

    let programs = counting(
        backend,
        if old_options == TPROXY {
            "from-tproxy"
        } else {
            "to-tproxy"
        },
    );
    let write = |file: &str, text: &str| fs::write(programs.path().join(file), text).expect("a file");
    let run = |at: usize, fault: &str| {
        write("count", "0");
        write("at", &at.to_string());
        write("fault", fault);
        let run = Run::of(apply(&netns, backend, new_options).env("PATH", programs.before_others()));
        wait_for_programs(&netns);
        let count = fs::read_to_string(programs.path().join("count")).expect("a count");
        (run, count.trim().parse::<usize>().expect("a number"))
    };
    let (unharmed, started) = run(0, "");
    unharmed.succeeded();
    assert_eq!(State::of(&netns, backend), new);
    assert_eq!(started, 4, "to read and to write, for each family");

    for (at, (what, fault, outcome)) in (1..=started).flat_map(|at| FAULTS.map(|fault| (at, fault))) {
        Run::of(&mut apply(&netns, backend, old_options)).succeeded();
        let (run, _) = run(at, fault);
        let found = State::of(&netns, backend);
        let what = format!("{backend}: {what}, program {at}: {run:#?}\n{found:#?}");
        match outcome {
            Outcome::Error => {
                assert!(run.code == Some(1) && run.stderr.contains("error: "), "{what}");
                assert!(found == old, "what was done is undone\n{what}");
            }
            Outcome::Killed => {
                assert_eq!(run.code, None, "{what}");
                assert!(found.is_between(&old, &new), "{what}");
                assert!(found.captures_inbound(backend), "{what}");
                Run::of(&mut apply(&netns, backend, new_options)).succeeded();
                assert!(State::of(&netns, backend) == new, "a rerun repairs everything\n{what}");
            }
        }
    }
    sidetrack(&netns, &["cleanup"]).succeeded();
    assert_eq!(State::of(&netns, backend), untouched);
}

#[test]
fn apply_survives_a_fault_of_each_iptables_nft_program() {
    every_fault("iptables-nft", TPROXY, REDIRECT);
    every_fault("iptables-nft", REDIRECT, TPROXY);
}

#[test]
fn apply_survives_a_fault_of_each_iptables_legacy_program() {
    every_fault("iptables-legacy", TPROXY, REDIRECT);
    every_fault("iptables-legacy", REDIRECT, TPROXY);
}

/// A limit on processes, or on descriptors, or no memory for another thread.
#[test]
fn missing_processes_threads_or_pipes_are_reported() {
    let backend = "iptables-nft";
    let netns = Netns::new();
    let arguments = |options: &[&'static str]| [&["apply", "--backend", backend], options].concat();
    sidetrack(&netns, &arguments(REDIRECT)).succeeded();
    let new = State::of(&netns, backend);
    sidetrack(&netns, &arguments(TPROXY)).succeeded();
    let old = State::of(&netns, backend);
    let points = points(&netns, &arguments(REDIRECT));
    let of_programs = |point: &&Point| ["clone3", "clone", "vfork", "pipe2"].contains(&point.call.as_str());
    let points: Vec<&Point> = points.iter().filter(of_programs).collect();
    assert!(points.len() >= 4 * (3 + 4), "{points:?}");
    for point in points {
        let errno = if point.call == "pipe2" { "EMFILE" } else { "EAGAIN" };
        sidetrack(&netns, &arguments(TPROXY)).succeeded();
        let run = run_with_fault(&netns, &arguments(REDIRECT), point, Fault::Error(errno));
        wait_for_programs(&netns);
        let found = State::of(&netns, backend);
        match run.code {
            // Where one way to start a program fails, the C library may know another.
            Some(0) => assert!(found == new, "{point:?}: {run:#?}\n{found:#?}"),
            Some(1) => assert!(
                found == old && run.stderr.contains("cannot run"),
                "{point:?}: {run:#?}\n{found:#?}"
            ),
            _ => panic!("{point:?}: {run:#?}"),
        }
    }
}

/// Between the tables of a family, and between the families, with real connections.
#[test]
fn no_connection_bypasses_the_proxy_after_a_kill_between_tables() {
    for backend in ["iptables-nft", "iptables-legacy"] {
        let pod = Pod::new();
        let _servers = [
            Server::start_transparent(&pod.netns, "proxy", &[15001, 15006]),
            Server::start(&pod.netns, "app", Owner::APP, &[8080]),
            Server::start(&pod.peer, "peer", Owner::ROOT, &[9090]),
        ];
        let programs = counting(backend, "traffic");
        for (old, new) in [(TPROXY, REDIRECT), (REDIRECT, TPROXY)] {
            for at in 3..=4 {
                Run::of(&mut apply(&pod.netns, backend, old)).succeeded();
                fs::write(programs.path().join("count"), "0").expect("a file");
                fs::write(programs.path().join("at"), at.to_string()).expect("a file");
                let fault = "sed /COMMIT/q | $real \"$@\"; kill -9 $PPID $$";
                fs::write(programs.path().join("fault"), fault).expect("a file");
                let run = Run::of(apply(&pod.netns, backend, new).env("PATH", programs.before_others()));
                assert_eq!(run.code, None, "{run:?}");
                wait_for_programs(&pod.netns);
                for family in Family::BOTH {
                    for (caller, to) in [(Caller::Peer, To::Pod(8080)), (Caller::App, To::Peer(9090))] {
                        let made = call(&pod, Transport::Tcp, caller, to, family).expect("a connection");
                        let arrival = made.arrival.expect("an answer");
                        assert_eq!(arrival.server, "proxy", "{backend} {new:?} {at}: {family} {to:?}");
                    }
                }
            }
        }
    }
}
