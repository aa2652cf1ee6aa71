//! A flood: while rules are replaced, and from the first instruction of the application.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;
use sidetrack::backend::{Change, Namespace, RuleBackend, install};
use sidetrack::plan::Plan;
use sidetrack::types::Family;

use crate::cni::request;
use crate::column::LOCK;
use crate::common::{Address, Netns, Owner};
use crate::lab::{Lab, MARKER, PORT};
use crate::plans::plan;
use crate::program::apply;
use crate::sys::{connect, internet, send_to};

/// How many packets an application sends at least, of each kind.
const PACKETS: usize = 500;

/// Sends a datagram, and begins a connection that it leaves half-open. No answer is waited for, and no error ends it.
fn strike(family: Family) {
    let to = (Address::FAR.of(family), PORT).into();
    let datagram = internet(family, libc::SOCK_DGRAM, 0).and_then(|socket| send_to(&socket, MARKER, to));
    let connection = internet(family, libc::SOCK_STREAM, 0).and_then(|socket| connect(&socket, to));
    // Whether anything got out is counted outside.
    let _: [io::Result<()>; 2] = [datagram, connection];
}

/// Floods as an application until `enough` says so.
fn flood(netns: &Netns, enough: impl Fn(usize) -> bool + Sync) -> usize {
    netns.run(|| {
        Owner::APP.assume().expect("another user");
        let mut sent = 0;
        while !enough(sent) {
            Family::BOTH.into_iter().for_each(strike);
            sent += 1;
        }
        sent
    })
}

fn replace(namespace: &mut Namespace, plan: &Plan, backend: RuleBackend) {
    let observed = namespace.observe().expect("an observation");
    let applied = install::apply_with(namespace, plan, backend, &observed).expect("applied");
    assert_eq!(applied.change, Change::Replaced);
}

#[test]
fn nothing_leaves_while_rules_are_replaced_a_thousand_times() {
    nothing_leaves_while_rules_are_replaced(RuleBackend::Nftables, 1000);
}

/// Its tables are replaced one by one, by a program for each family.
#[test]
fn nothing_leaves_while_rules_of_iptables_nft_are_replaced() {
    nothing_leaves_while_rules_are_replaced(RuleBackend::IptablesNft, 50);
}

#[test]
fn nothing_leaves_while_rules_of_iptables_legacy_are_replaced() {
    nothing_leaves_while_rules_are_replaced(RuleBackend::IptablesLegacy, 50);
}

fn nothing_leaves_while_rules_are_replaced(backend: RuleBackend, times: usize) {
    let mut lab = Lab::new();
    let excluded = [LOCK, &["--exclude-outbound-ports", "1-3"]].concat();
    apply(&lab.pod.netns, &backend.to_string(), LOCK);
    let plans = [plan(&excluded), plan(LOCK)];
    let (done, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let netns = &lab.pod.netns;
    thread::scope(|scope| {
        scope.spawn(|| {
            flood(netns, |number| {
                sent.store(number, Ordering::Relaxed);
                done.load(Ordering::Relaxed) && number >= PACKETS
            })
        });
        // The flood ends even if a replacement fails.
        let replaced = thread::scope(|scope| {
            let work = || {
                netns.run(|| {
                    let mut namespace = Namespace::claim();
                    (0..times).for_each(|number| replace(&mut namespace, &plans[number % 2], backend));
                });
            };
            scope.spawn(work).join()
        });
        done.store(true, Ordering::Relaxed);
        replaced.expect("replacements");
    });
    assert!(sent.load(Ordering::Relaxed) >= PACKETS);
    assert_eq!(lab.wire.escaped(), [""; 0]);
}

/// As a runtime does it: the plugin returns before the first process starts.
#[test]
fn nothing_leaves_from_the_first_instruction_with_the_plugin() {
    let mut lab = Lab::new();
    let path = lab.pod.netns.path();
    let policy = json!({ "outbound-policy": "proxy-only" });
    request("ADD", &path).with("redirect", policy).succeeds();
    flood(&lab.pod.netns, |sent| sent >= PACKETS);
    assert_eq!(lab.wire.escaped(), [""; 0]);
}

/// What runs before an init container is not locked in: this is why the plugin is what locks.
#[test]
fn a_process_that_is_older_than_the_rules_sends_until_they_are_there() {
    let mut lab = Lab::new();
    flood(&lab.pod.netns, |sent| sent >= 1);
    assert_ne!(lab.wire.escaped(), [""; 0]);
    apply(&lab.pod.netns, "nftables", LOCK);
    // Begun before the rules: what is repeated of it is not counted as later.
    lab.wire.escaped();
    flood(&lab.pod.netns, |sent| sent >= PACKETS);
    let later = lab.wire.escaped();
    assert!(!later.iter().any(|frame| frame.contains("protocol 17")), "{later:?}");
}
