//! Concurrency: parallel runs on one network namespace, parallel network namespaces, and many runs in sequence.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};

use sidetrack::backend::{Change, Namespace, RuleBackend, install};
use sidetrack::facts::Facts;
use sidetrack::linux::lock::Lock;
use sidetrack::options::Settings;
use sidetrack::plan::Plan;
use sidetrack::types::InboundMode;

use crate::SIDETRACK;
use crate::common::{Netns, output_of};
use crate::faults::snapshot::beside_rules;
use crate::program::{BACKENDS, Run, nft_state, sidetrack, state};

/// Plans that differ in rules, addresses and routes.
const PLANS: [&[&str]; 6] = [
    &[],
    &["--exclude-outbound-ports", "1-3", "--drop-invalid"],
    &["--ip-family", "ipv4"],
    &["--inbound-mode", "tproxy"],
    &[
        "--inbound-mode",
        "tproxy",
        "--tproxy-mark",
        "7",
        "--tproxy-route-table",
        "134",
    ],
    &[
        "--inbound-mode",
        "tproxy",
        "--ip-family",
        "ipv4",
        "--redirect-dns",
        "--dns-servers",
        "all",
    ],
];

/// Everything that a run could have changed.
type Everything = (Vec<String>, BTreeSet<String>);

fn everything(netns: &Netns) -> Everything {
    let rules = BACKENDS.map(|backend| state(netns, backend));
    (rules.to_vec(), beside_rules(netns))
}

fn start(netns: &Netns, arguments: &[&str]) -> Child {
    let mut command = netns.command(SIDETRACK);
    let piped = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().expect("sidetrack")
}

/// Starts all of them, then waits for all. Each must succeed.
fn at_once(netns: &Netns, runs: impl Iterator<Item = Vec<&'static str>>) {
    for log in logs_of(netns, runs) {
        assert!(!log.contains("WARN"), "{log}");
    }
}

/// The same; what each has logged.
fn logs_of(netns: &Netns, runs: impl Iterator<Item = Vec<&'static str>>) -> Vec<String> {
    let children: Vec<Child> = runs.map(|arguments| start(netns, &arguments)).collect();
    let ended: Vec<Run> = children
        .into_iter()
        .map(|child| Run::from(child.wait_with_output().expect("its end")))
        .collect();
    ended.into_iter().map(|run| run.succeeded().stderr).collect()
}

fn apply(backend: &'static str, plan: &[&'static str]) -> Vec<&'static str> {
    [&["apply", "--backend", backend], plan].concat()
}

/// What each plan gives on a fresh namespace.
fn alone(backend: &'static str) -> Vec<Everything> {
    let of_plan = |plan: &&[&'static str]| {
        let netns = Netns::new();
        sidetrack(&netns, &apply(backend, plan)).succeeded();
        everything(&netns)
    };
    PLANS.iter().map(of_plan).collect()
}

/// Each time another one is the last.
#[test]
fn concurrent_applies_leave_one_consistent_plan() {
    let wanted = alone("nftables");
    for _ in 0..3 {
        let netns = Netns::new();
        at_once(
            &netns,
            (0..64).map(|number| apply("nftables", PLANS[number % PLANS.len()])),
        );
        let found = everything(&netns);
        assert!(wanted.contains(&found), "{found:#?}");
    }
}

/// With iptables a run takes long, and tables change one after the other.
#[test]
fn concurrent_applies_on_all_backends_leave_one_consistent_plan() {
    // Empty iptables tables stay, and which ones depends on the order of runs.
    let without_empty_tables = |(rules, beside): &Everything| (rules[1..].to_vec(), beside.clone());
    let wanted: Vec<_> = BACKENDS.into_iter().flat_map(alone).collect();
    let netns = Netns::new();
    // All backends take part from beginning to end.
    let runs = [0, 3, 5]
        .iter()
        .flat_map(|plan| BACKENDS.map(|backend| apply(backend, PLANS[*plan])));
    at_once(&netns, runs);
    let found = everything(&netns);
    let known = wanted
        .iter()
        .any(|wanted| without_empty_tables(wanted) == without_empty_tables(&found));
    let holders = [
        found.0[0].contains("\"table\": \"sidetrack\""),
        found.0[1].contains("SIDETRACK_"),
        found.0[2].contains("SIDETRACK_"),
    ];
    assert_eq!(
        holders.iter().filter(|holds| **holds).count(),
        1,
        "one backend holds rules: {found:#?}"
    );
    assert!(known, "{found:#?}");
}

#[test]
fn concurrent_applies_and_cleanups_leave_one_plan_or_none() {
    let mut wanted = alone("nftables");
    wanted.push(everything(&Netns::new()));
    let netns = Netns::new();
    let runs = (0..64).map(|number| match number % 2 {
        0 => apply("nftables", PLANS[number / 2 % PLANS.len()]),
        _ => vec!["cleanup"],
    });
    at_once(&netns, runs);
    let found = everything(&netns);
    assert!(wanted.contains(&found), "{found:#?}");
}

/// Any process in the pod can hold the lock for ever. Then tables and sets may vanish between the steps of a run.
#[test]
fn without_lock_applies_and_cleanups_succeed_and_another_apply_repairs() {
    let netns = Netns::new();
    let _kept = netns.run(|| Lock::wait().expect("the lock"));
    let runs = (0..32).map(|number| match number % 2 {
        0 => apply("nftables", PLANS[number / 2 % PLANS.len()]),
        _ => vec!["cleanup"],
    });
    for log in logs_of(&netns, runs) {
        assert!(log.contains("waiting for another sidetrack"), "{log}");
    }
    sidetrack(&netns, &apply("nftables", PLANS[5])).succeeded();
    assert_eq!(everything(&netns), alone("nftables")[5]);
}

#[test]
fn concurrent_applies_in_two_hundred_namespaces_succeed() {
    let wanted = PLANS.map(|plan| {
        let netns = Netns::new();
        sidetrack(&netns, &apply("nftables", plan)).succeeded();
        (nft_state(&netns), beside_rules(&netns))
    });
    let namespaces: Vec<Netns> = (0..200).map(|_| Netns::new()).collect();
    let plan = |number: usize| number % PLANS.len();
    let children: Vec<Child> = namespaces
        .iter()
        .enumerate()
        .map(|(number, netns)| start(netns, &apply("nftables", PLANS[plan(number)])))
        .collect();
    for child in children {
        Run::from(child.wait_with_output().expect("its end")).succeeded();
    }
    for (number, netns) in namespaces.iter().enumerate() {
        assert!(
            (nft_state(netns), beside_rules(netns)) == wanted[plan(number)],
            "namespace {number}"
        );
    }
}

/// How often rules come and go.
const CYCLES: usize = 1000;

/// The numbers of what a process and its network namespace have open.
fn open() -> [usize; 3] {
    let lines = |path: &str| fs::read_to_string(path).expect(path).lines().count();
    [
        fs::read_dir("/proc/self/fd").expect("open files").count(),
        lines("/proc/thread-self/net/netlink"),
        lines("/proc/thread-self/net/unix"),
    ]
}

fn plan(mode: InboundMode) -> Plan {
    let mut settings = Settings::default();
    settings.config.inbound.mode = mode;
    settings.config.dns.redirect = true;
    let facts = Facts {
        resolvers: vec!["10.0.0.10".parse().expect("an address")],
        ..Facts::default()
    };
    Plan::new(&settings.config, &facts).expect("a plan")
}

/// By one process, which is another one than that of the other tests: they open and close things meanwhile.
#[test]
#[ignore = "the test after it runs it in a process of its own"]
fn cycles_in_this_process() {
    let netns = Netns::new();
    let untouched = everything(&netns);
    let plans = [InboundMode::Redirect, InboundMode::Tproxy].map(plan);
    netns.run(|| {
        let cycle = |number: usize| {
            let mut namespace = Namespace::claim();
            let observed = namespace.observe().expect("an observation");
            let applied = install::apply_with(&mut namespace, &plans[number % 2], RuleBackend::Nftables, &observed);
            assert_eq!(applied.expect("applied").change, Change::Created);
            let observed = namespace.observe().expect("an observation");
            let removed = install::cleanup(&mut namespace, &observed).expect("cleaned up");
            assert_eq!(removed.rules.len(), 1);
        };
        // What is opened once and kept is no leak.
        (0..2).for_each(cycle);
        let before = open();
        (0..CYCLES).for_each(cycle);
        assert_eq!(open(), before, "open files, netlink sockets, Unix sockets");
    });
    let connections = netns.run(|| fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"));
    assert_eq!(
        connections.expect("conntrack").trim(),
        "0",
        "in no zone is a connection left"
    );
    assert_eq!(everything(&netns), untouched);
    assert_eq!(output_of(netns.command("nft").args(["list", "ruleset"])), "");
}

#[test]
fn thousand_apply_and_cleanup_cycles_leak_nothing() {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "concurrency::cycles_in_this_process"]);
    let printed = output_of(&mut command);
    assert!(printed.contains("1 passed"), "{printed}");
}
