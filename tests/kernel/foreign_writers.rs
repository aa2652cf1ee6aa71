//! Other programs that constantly change rules in the same network namespace: tables of their own with nft, rules in
//! the built-in chains and whole tables with iptables, as kube-proxy writes them.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sidetrack::backend::check::State;
use sidetrack::backend::nftables::transaction::NftablesError;
use sidetrack::backend::{KernelError, Namespace};
use sidetrack::facts::Facts;
use sidetrack::options::Settings;
use sidetrack::plan::Plan;
use sidetrack::types::{Backend, InboundMode};

use crate::SIDETRACK;
use crate::common::{Netns, output_of};
use crate::program::{Run, state};
use crate::regressions::iptables;

/// How often the rules are replaced and checked while other processes write.
const ROUNDS: usize = 12;

/// The least number of foreign changes for the test to be meaningful.
const CHANGES: usize = ROUNDS;

/// Another program, which changes something whenever it is asked to.
trait Neighbour: Send {
    fn change(&mut self);
}

/// nft, which reads command after command: it begins the next transaction as soon as the last is done.
struct Nft(Child);

impl Nft {
    fn start(netns: &Netns) -> Box<dyn Neighbour> {
        let mut command = netns.command("nft");
        command
            .arg("--interactive")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Box::new(Self(command.spawn().expect("nft")))
    }
}

impl Neighbour for Nft {
    fn change(&mut self) {
        const COMMANDS: &str = "\
add table inet moving
add chain inet moving output { type nat hook output priority -100; }
add set inet moving ports { type inet_service; flags interval; }
add element inet moving ports { 7000-7100, 7777 }
add rule inet moving output tcp dport @ports accept
flush chain inet moving output
delete table inet moving
";
        let input = self.0.stdin.as_mut().expect("a pipe");
        input.write_all(COMMANDS.as_bytes()).expect("nft reads its commands");
    }
}

impl Drop for Nft {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Rules before and after all others in the built-in chains, by one run of iptables each.
struct Rules {
    netns: Netns,
    programs: [String; 2],
}

impl Neighbour for Rules {
    fn change(&mut self) {
        for program in &self.programs {
            for change in ["-I OUTPUT 1", "-A PREROUTING", "-D OUTPUT", "-D PREROUTING"] {
                let mut command = self.netns.command(program);
                command.args(["-w", "-t", "nat"]).args(change.split(' '));
                output_of(command.args(["-p", "tcp", "--dport", "7777", "-j", "RETURN"]));
            }
        }
    }
}

/// Chains of its own in the nat table, all in one text, as kube-proxy has them.
struct Tables {
    netns: Netns,
    restores: [String; 2],
    number: usize,
}

impl Neighbour for Tables {
    fn change(&mut self) {
        self.number += 1;
        let text = format!(
            "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SEP - [0:0]\n-A KUBE-SERVICES -p tcp --dport 80 -j KUBE-SEP\n\
             -A KUBE-SEP -p tcp -m tcp --dport {} -j RETURN\nCOMMIT\n",
            1 + self.number % 1000
        );
        for restore in &self.restores {
            let mut command = self.netns.command(restore);
            let mut child = command
                .args(["--noflush", "-w", "60"])
                .stdin(Stdio::piped())
                .spawn()
                .expect(restore);
            let mut input = child.stdin.take().expect("a pipe");
            input.write_all(text.as_bytes()).expect("it reads its text");
            drop(input);
            assert!(child.wait().expect("its end").success(), "{restore}");
        }
    }
}

/// All that may live beside the rules of a backend.
fn neighbours(netns: &Netns, backend: &str) -> Vec<Box<dyn Neighbour>> {
    // Rules that nft adds to iptables tables are covered elsewhere.
    let backend = if backend == "nftables" { "iptables-nft" } else { backend };
    vec![
        Nft::start(netns),
        Box::new(Rules {
            netns: netns.clone(),
            programs: iptables(backend, ""),
        }),
        Box::new(Tables {
            netns: netns.clone(),
            restores: iptables(backend, "-restore"),
            number: 0,
        }),
    ]
}

fn plan(mode: InboundMode) -> Plan {
    let mut settings = Settings::default();
    settings.config.inbound.mode = mode;
    Plan::new(&settings.config, &Facts::default()).expect("a plan")
}

/// The state without the other writers' rules, which come and go.
fn ours(state: &str) -> String {
    let of_others = |line: &&str| {
        ["KUBE-", "7777", "moving", " - [", "packets", "bytes"]
            .iter()
            .any(|word| line.contains(word))
    };
    let lines = state
        .lines()
        .filter(|line| !of_others(line))
        .map(|line| line.split(" [").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn apply_and_cleanup_work_beside_concurrent_writers(backend: &str, wanted_backend: Backend) {
    let netns = Netns::new();
    let modes = [InboundMode::Redirect, InboundMode::Tproxy];
    let references = modes.map(|mode| {
        let reference = Netns::new();
        let mode = mode.to_string();
        let mut command = reference.command(SIDETRACK);
        Run::of(command.args(["apply", "--backend", backend, "--inbound-mode", &mode])).succeeded();
        ours(&state(&reference, backend))
    });
    let (changes, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        // The other threads end even if this one panics.
        let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
        for mut neighbour in neighbours(&netns, backend) {
            let (changes, done) = (&changes, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    neighbour.change();
                    changes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while changes.load(Ordering::Relaxed) < 3 {
            thread::sleep(Duration::from_millis(1));
        }
        let run = |arguments: &[&str]| Run::of(netns.command(SIDETRACK).args(arguments)).succeeded().stderr;
        let mut round = 0;
        while round < ROUNDS || changes.load(Ordering::Relaxed) < CHANGES {
            let mode = modes[round % 2].to_string();
            run(&["apply", "--backend", backend, "--inbound-mode", &mode]);
            let found = observed_state(&netns, modes[round % 2], wanted_backend);
            // An iptables rule that another process inserted before ours meanwhile is drift.
            let expected = if backend == "nftables" {
                &[State::InSync][..]
            } else {
                &[State::InSync, State::Drifted]
            };
            assert!(expected.contains(&found), "round {round}: {found:?}");
            if round % 4 == 3 {
                let log = run(&["cleanup"]);
                assert!(log.contains("the rules were removed"), "{log}");
                assert_eq!(
                    observed_state(&netns, modes[0], wanted_backend),
                    State::Absent,
                    "round {round}"
                );
            }
            round += 1;
        }
    });
    // The other writers have all their rules, and ours come first in shared chains.
    for (mode, reference) in modes.into_iter().zip(&references) {
        let mut command = netns.command(SIDETRACK);
        Run::of(command.args(["apply", "--backend", backend, "--inbound-mode", &mode.to_string()])).succeeded();
        assert_eq!(observed_state(&netns, mode, wanted_backend), State::InSync);
        let found = state(&netns, backend);
        if backend != "nftables" {
            assert!(found.contains("KUBE-SEP"), "{found}");
            assert_eq!(&ours(&found), reference);
        }
    }
}

/// The state that check reports, once a read succeeds: the neighbour with nft hardly pauses.
fn observed_state(netns: &Netns, mode: InboundMode, backend: Backend) -> State {
    let read = || {
        let mut namespace = Namespace::default();
        let observed = namespace.observe()?;
        namespace.check(&plan(mode), backend, &observed)
    };
    let begun = Instant::now();
    let mut results = std::iter::repeat_with(|| netns.run(read)).skip_while(|result| {
        let is_busy = matches!(result, Err(KernelError::Nftables(NftablesError::Busy)));
        is_busy && begun.elapsed() < Duration::from_secs(60)
    });
    results.next().expect("a successful read").expect("an answer").state
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn apply_and_cleanup_work_beside_concurrent_writers_with_nftables() {
    apply_and_cleanup_work_beside_concurrent_writers("nftables", Backend::Nftables);
}

#[test]
fn apply_and_cleanup_work_beside_concurrent_writers_with_iptables_nft() {
    apply_and_cleanup_work_beside_concurrent_writers("iptables-nft", Backend::IptablesNft);
}

#[test]
fn apply_and_cleanup_work_beside_concurrent_writers_with_iptables_legacy() {
    apply_and_cleanup_work_beside_concurrent_writers("iptables-legacy", Backend::IptablesLegacy);
}
