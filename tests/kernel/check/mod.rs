//! `sidetrack check` in real namespaces: it reports each kind of drift, changes nothing, and apply repairs the drift.

mod effect;
mod foreign;
mod iptables;
mod nftables;
mod record;
mod report;

use std::fs;

use crate::cases;
use crate::common::{Netns, output_of};
use crate::program::{BACKENDS, Run, apply, feed, sidetrack, state};

/// Options that make a plan with every kind of object.
const TPROXY_AND_DNS: &[&str] = &["--inbound-mode", "tproxy", "--redirect-dns", "--dns-servers", "all"];

/// All state that reading could change, as printed by other tools.
fn everything(netns: &Netns) -> Vec<String> {
    let routing = ["-4", "-6"].map(|family| {
        let rules = output_of(netns.command("ip").args([family, "rule", "show"]));
        rules + &netns.routes(family)
    });
    let tables = ["ip_tables_names", "ip6_tables_names"]
        .map(|names| netns.run(|| fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default()));
    let rules = BACKENDS.map(|backend| state(netns, backend));
    routing.into_iter().chain(tables).chain(rules).collect()
}

/// Runs `sidetrack check` inside.
fn check(netns: &Netns, arguments: &[&str]) -> Run {
    sidetrack(netns, &[&["check"], arguments].concat())
}

/// Asserts that check reports no difference.
#[track_caller]
fn in_sync(netns: &Netns, backend: &str, options: &[&str]) {
    let run = check(netns, &[&["--backend", backend], options].concat()).succeeded();
    let expected = format!("in-sync: the installed rules match the plan, in {backend}\n");
    // Options without effect are warned of.
    let said: Vec<&str> = run
        .stderr
        .lines()
        .filter(|line| !line.contains(" has no effect"))
        .collect();
    assert_eq!((run.stdout, said), (expected, Vec::new()), "{options:?}");
}

/// The reported differences; there must be some.
#[track_caller]
fn reported(netns: &Netns, backend: &str, options: &[&str]) -> Vec<String> {
    let run = check(netns, &[&["--backend", backend], options].concat());
    assert_eq!(run.code, Some(3), "{run:?}");
    let lines = run.stdout.lines().filter_map(|line| line.strip_prefix("  "));
    lines.map(str::to_owned).collect()
}

/// Changes to a namespace with an applied plan, and the differences that check reports.
struct Drift {
    options: &'static [&'static str],
    /// Commands without their first word: of `nft`, `ip`, or a program of iptables.
    done: &'static [(&'static str, &'static str)],
    reported: &'static [&'static str],
}

/// Applies a plan, makes the drift, and compares the reports before and after another apply.
#[track_caller]
fn is_reported_and_repaired(backend: &str, drift: &Drift) {
    let netns = Netns::new();
    apply(&netns, backend, drift.options);
    in_sync(&netns, backend, drift.options);
    for (program, command) in drift.done {
        run(&netns, backend, program, command);
    }
    assert_eq!(
        reported(&netns, backend, drift.options),
        drift.reported,
        "{:?}",
        drift.done
    );
    apply(&netns, backend, drift.options);
    in_sync(&netns, backend, drift.options);
}

/// Runs a command. Programs of iptables are those of the backend; `CHAIN #3` is the third rule of a chain to nft.
fn run(netns: &Netns, backend: &str, program: &str, command: &str) {
    match program {
        "nft" => feed(netns, "nft", &["-f", "-"], &with_handle(netns, command)),
        "ip" => drop(output_of(netns.command("ip").args(command.split(' ')))),
        program => {
            let program = format!("{program}-{}", backend.strip_prefix("iptables-").unwrap_or("nft"));
            let mut restore = "*".to_owned();
            let (table, rest) = command.split_once(' ').expect("a table");
            restore += &format!("{table}\n{rest}\nCOMMIT\n");
            feed(netns, &format!("{program}-restore"), &["--noflush"], &restore);
        }
    }
}

fn with_handle(netns: &Netns, command: &str) -> String {
    let Some((before, after)) = command.split_once('#') else {
        return command.to_owned();
    };
    let digits = after.split(' ').next().expect("a number");
    let number: usize = digits.parse().expect("a number");
    let chain = before.trim_end().rsplit(' ').next().expect("a chain");
    let listing = output_of(
        netns
            .command("nft")
            .args(["-a", "list", "chain", "inet", "sidetrack", chain]),
    );
    let rules = listing
        .lines()
        .filter(|line| line.starts_with("\t\t") && line.contains("# handle"));
    let rule = rules
        .clone()
        .nth(number - 1)
        .unwrap_or_else(|| panic!("no rule {number} in {listing}"));
    let (_, handle) = rule.rsplit_once(' ').expect("a handle");
    format!("{before}handle {handle}{}", &after[digits.len()..])
}

#[test]
fn check_changes_nothing() {
    for backend in BACKENDS {
        let netns = Netns::new();
        let exits_with = |code| {
            let before = everything(&netns);
            for more in [&[] as &[&str], &["--json"]] {
                for other in BACKENDS {
                    let run = check(&netns, &[&["--backend", other], more, TPROXY_AND_DNS].concat());
                    assert_eq!(run.code, Some(if other == backend { code } else { 3 }), "{run:?}");
                }
            }
            assert_eq!(everything(&netns), before, "{backend}");
        };
        exits_with(3);
        apply(&netns, backend, TPROXY_AND_DNS);
        exits_with(0);
        match backend {
            "nftables" => run(&netns, backend, "nft", "delete rule inet sidetrack output #1"),
            backend => run(&netns, backend, "iptables", "nat -D SIDETRACK_OUTPUT 1"),
        }
        exits_with(3);
    }
}

#[test]
fn applied_plan_is_in_sync_with_any_options() {
    for (number, (_, options)) in cases::all_options().enumerate() {
        let netns = Netns::with_interfaces();
        // Each case on one backend, in turn: other tests cover every case on every backend.
        let backend = BACKENDS[number % BACKENDS.len()];
        apply(&netns, backend, options);
        in_sync(&netns, backend, options);
        let run = check(&netns, &[]).succeeded();
        assert!(run.stdout.starts_with("in-sync: "), "{options:?}: {run:?}");
        assert!(
            run.stdout.contains("the options recorded with the rules: "),
            "{options:?}: {run:?}"
        );
    }
}
