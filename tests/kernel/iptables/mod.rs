//! The iptables backend against this machine's kernel and programs, each test in a network namespace of its own.

mod programs;
mod rules;

use std::io::Write;
use std::panic;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use sidetrack::backend::iptables::Variant;
use sidetrack::backend::iptables::isolation::isolate_this_thread;
use sidetrack::facts::Facts;
use sidetrack::options::{Config, Settings};
use sidetrack::plan::Plan;
use sidetrack::ruleset::Ruleset;
use sidetrack::types::Family;

/// Every variant.
const VARIANTS: [Variant; 2] = [Variant::Nft, Variant::Legacy];

/// Runs `test` once for each variant, in a thread with a fresh network namespace, which dies with the thread.
fn in_namespace(test: fn(Variant)) {
    for variant in VARIANTS {
        let inside = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root, to make a network namespace");
            // The lock of the machine would be waited for while other tests hold it.
            isolate_this_thread().expect("a lock of this namespace's own");
            test(variant);
        };
        let thread = thread::Builder::new().name(format!("{variant} variant"));
        if let Err(failure) = thread.spawn(inside).unwrap().join() {
            panic::resume_unwind(failure);
        }
    }
}

fn plan(change: impl FnOnce(&mut Config)) -> Plan {
    let mut config = Settings::default().config;
    change(&mut config);
    Plan::new(&config, &Facts::default()).unwrap()
}

fn ruleset(change: impl FnOnce(&mut Config)) -> Ruleset {
    plan(change).ruleset
}

fn tool(variant: Variant, family: Family, suffix: &str) -> String {
    let plain = plain_name(family);
    let variant = match variant {
        Variant::Nft => "nft",
        Variant::Legacy => "legacy",
    };
    format!("{plain}-{variant}{suffix}")
}

/// The plain names of the programs, which are of the system's default variant.
fn plain_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// Runs a program of iptables, which must succeed.
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `iptables` with these arguments in both families.
fn iptables(variant: Variant, arguments: &str) {
    for family in Family::BOTH {
        run(
            &tool(variant, family, ""),
            &arguments.split(' ').collect::<Vec<_>>(),
            "",
        );
    }
}

/// All rules of both families, without dates and counters.
fn dump(variant: Variant) -> String {
    let texts = Family::BOTH.map(|family| run(&tool(variant, family, "-save"), &[], ""));
    let lines = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(" [").next().unwrap_or_default().to_owned() + "\n")
        .collect()
}

/// The foreign lines of a dump.
fn foreign(dump: &str) -> String {
    let ours = |line: &str| {
        let target = line.rsplit(' ').next().unwrap_or_default();
        line.starts_with(":SIDETRACK_") || line.starts_with("-A SIDETRACK_") || target.starts_with("SIDETRACK_")
    };
    dump.lines()
        .filter(|line| !ours(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Foreign rules with names similar to sidetrack's, in every table that sidetrack reads.
fn add_foreign_rules(variant: Variant) {
    let text: String = ["raw", "mangle", "nat", "filter"]
        .map(|table| {
            format!(
                "*{table}
:SIDETRACKER - [0:0]
:MY_SIDETRACK_X - [0:0]
-A OUTPUT -p tcp -m tcp --dport 7777 -m comment --comment \"not a jump to SIDETRACK_OUTPUT\" -j SIDETRACKER
-A OUTPUT -m comment --comment \"quotes \\\" and 'such' \\\\ too\" -j MY_SIDETRACK_X
-A SIDETRACKER -m owner --uid-owner 4711 -j RETURN
COMMIT
"
            )
        })
        .concat();
    for family in Family::BOTH {
        run(&tool(variant, family, "-restore"), &["--noflush"], &text);
    }
}
