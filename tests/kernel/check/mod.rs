//! `sidetrack check` in real namespaces: each drift is told for what it is, looking changes nothing, applying repairs.

mod foreign;
mod iptables;
mod nftables;
mod report;

use std::fs;

use crate::cases;
use crate::common::{Netns, output_of};
use crate::program::{BACKENDS, Run, apply, feed, sidetrack, state};

/// What can be told from the plan of these options.
const TPROXY_AND_DNS: &[&str] = &["--inbound-mode", "tproxy", "--redirect-dns", "--dns-servers", "all"];

/// All that a look could change, in the words of others' tools.
fn everything(netns: &Netns) -> Vec<String> {
    let ip = |arguments: &str| output_of(netns.command("ip").args(arguments.split(' ')));
    let routing = [
        "-4 rule show",
        "-6 rule show",
        "-4 route show table all",
        "-6 route show table all",
    ];
    let tables = ["ip_tables_names", "ip6_tables_names"]
        .map(|names| netns.run(|| fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default()));
    let rules = BACKENDS.map(|backend| state(netns, backend));
    routing.map(ip).into_iter().chain(tables).chain(rules).collect()
}

/// Runs `sidetrack check` inside.
fn check(netns: &Netns, arguments: &[&str]) -> Run {
    sidetrack(netns, &[&["check"], arguments].concat())
}

/// All is as planned.
#[track_caller]
fn in_sync(netns: &Netns, backend: &str, options: &[&str]) {
    let run = check(netns, &[&["--backend", backend], options].concat()).succeeded();
    let expected = format!("in-sync: the installed rules match the plan, in {backend}\n");
    // What is planned may come to nothing, and is told then.
    let said: Vec<&str> = run
        .stderr
        .lines()
        .filter(|line| !line.contains(" has no effect"))
        .collect();
    assert_eq!((run.stdout, said), (expected, Vec::new()), "{options:?}");
}

/// The differences that are told; there must be some.
#[track_caller]
fn told(netns: &Netns, backend: &str, options: &[&str]) -> Vec<String> {
    let run = check(netns, &[&["--backend", backend], options].concat());
    assert_eq!(run.code, Some(3), "{run:?}");
    let lines = run.stdout.lines().filter_map(|line| line.strip_prefix("  "));
    lines.map(str::to_owned).collect()
}

/// What is done in a namespace where a plan is in force, and what is told of it.
struct Drift {
    options: &'static [&'static str],
    /// Commands without their first word: of `nft`, `ip`, or a program of iptables.
    done: &'static [(&'static str, &'static str)],
    told: &'static [&'static str],
}

/// Applies, does what the drift is, and looks at what is told before and after applying again.
#[track_caller]
fn is_told_and_repaired(backend: &str, drift: &Drift) {
    let netns = Netns::new();
    apply(&netns, backend, drift.options);
    in_sync(&netns, backend, drift.options);
    for (program, command) in drift.done {
        run(&netns, backend, program, command);
    }
    assert_eq!(told(&netns, backend, drift.options), drift.told, "{:?}", drift.done);
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
fn looking_changes_nothing() {
    for backend in BACKENDS {
        let netns = Netns::new();
        let look = |code| {
            let before = everything(&netns);
            for more in [&[] as &[&str], &["--json"]] {
                for other in BACKENDS {
                    let run = check(&netns, &[&["--backend", other], more, TPROXY_AND_DNS].concat());
                    assert_eq!(run.code, Some(if other == backend { code } else { 3 }), "{run:?}");
                }
            }
            assert_eq!(everything(&netns), before, "{backend}");
        };
        look(3);
        apply(&netns, backend, TPROXY_AND_DNS);
        look(0);
        match backend {
            "nftables" => run(&netns, backend, "nft", "delete rule inet sidetrack output #1"),
            backend => run(&netns, backend, "iptables", "nat -D SIDETRACK_OUTPUT 1"),
        }
        look(3);
    }
}

#[test]
fn what_was_applied_is_in_sync_whatever_the_options() {
    for (number, (_, options)) in cases::all_options().enumerate() {
        let netns = Netns::new();
        // Each on one backend, in turn; applying anything on any backend is the matter of other tests.
        let backend = BACKENDS[number % BACKENDS.len()];
        apply(&netns, backend, options);
        in_sync(&netns, backend, options);
    }
}
