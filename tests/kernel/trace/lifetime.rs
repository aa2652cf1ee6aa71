//! The beginning and the end of a trace, its rights, and what it changes.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use sidetrack::types::Family;

use super::{TIMEOUT, Trace, servers};
use crate::SIDETRACK;
use crate::common::{Caller, Netns, Owner, Pod, To, Transport, call, output_of};
use crate::program::{Run, apply, feed, nft_state, sidetrack, state};

#[test]
fn a_killed_trace_leaves_nothing_behind() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let before = nft_state(&pod.netns);
    let mut trace = Trace::start(&pod.netns, &[]);
    assert_ne!(nft_state(&pod.netns), before);
    trace.signal(Signal::SIGKILL);
    trace.child.wait().expect("the end");
    if trace.is_owned {
        becomes(&pod.netns, &before);
    } else {
        assert_ne!(nft_state(&pod.netns), before);
    }
    // On older kernels, the next trace replaces the table, and removes it.
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut trace = Trace::start(&pod.netns, &[]);
        trace.signal(signal);
        assert_eq!(trace.child.wait().expect("the end").code(), Some(0));
        becomes(&pod.netns, &before);
    }
}

/// Waits until the ruleset is this again: the kernel deletes tables of closed sockets on a thread of its own.
#[track_caller]
fn becomes(netns: &Netns, before: &str) {
    let begun = Instant::now();
    while nft_state(netns) != before {
        assert!(begun.elapsed() < TIMEOUT, "{}", nft_state(netns));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_trace_changes_neither_check_nor_other_rules() {
    for backend in ["nftables", "iptables-nft"] {
        let pod = Pod::new();
        feed(
            &pod.netns,
            "nft",
            &["-f", "-"],
            "table inet foreign {\nchain in { type filter hook input priority 0; tcp dport 22 drop; }\n}",
        );
        apply(&pod.netns, backend, &[]);
        let foreign = |pod: &Pod| output_of(pod.netns.command("nft").args(["list", "table", "inet", "foreign"]));
        let before = (foreign(&pod), state(&pod.netns, backend));
        let ruleset = nft_state(&pod.netns);
        let trace = Trace::start(&pod.netns, &[]);
        // Older kernels have one table for all traces.
        let other = trace.is_owned.then(|| Trace::start(&pod.netns, &["inbound"]));
        sidetrack(&pod.netns, &["check", "--backend", backend]).succeeded();
        let log = apply(&pod.netns, backend, &[]);
        assert!(log.contains("already redirected this way"), "{log}");
        assert_eq!(foreign(&pod), before.0);
        trace.end();
        other.map(Trace::end);
        becomes(&pod.netns, &ruleset);
        assert_eq!((foreign(&pod), state(&pod.netns, backend)), before);
    }
}

#[test]
fn a_trace_ignores_packets_that_another_one_marked() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    if !trace.is_owned {
        return; // Older kernels have one table for all traces.
    }
    let inbound = Trace::start(&pod.netns, &["inbound"]);
    call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4).expect("a call");
    assert_eq!(trace.end().len(), 1);
    assert_eq!(inbound.end(), [Value::Null; 0]);
}

/// A namespace that does not track connections does not begin to because of a trace.
#[test]
fn a_trace_does_not_enable_connection_tracking() {
    let pod = Pod::new();
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(line["verdict"]["action"], "accept", "{line:#}");
    assert_eq!(line["doubt"], Value::Null, "{line:#}");
    let connections = pod
        .netns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack"));
    let connections = connections.unwrap_or_default();
    let found = connections
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next());
    assert!(matches!(found, None | Some("00000000")), "{connections}");
    trace.end();
}

#[test]
fn a_trace_ends_by_count_by_duration_and_without_a_reader() {
    let pod = Pod::new();
    let _servers = servers(&pod);
    let mut trace = Trace::start(&pod.netns, &["--count", "2"]);
    for _ in 0..3 {
        let _made = call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4);
    }
    assert_eq!(trace.child.wait().expect("the end").code(), Some(0));
    assert_eq!(trace.lines.iter().count(), 2);
    let run = Run::of(pod.netns.command(SIDETRACK).args(["trace", "--duration", "10ms"])).succeeded();
    assert_eq!(run.stdout, "");
    let mut command = pod.netns.command(SIDETRACK);
    let mut child = command
        .args(["trace"])
        .stdout(crate::program::closed_pipe())
        .stderr(File::create("/dev/null").expect("a file"))
        .spawn()
        .expect("the program");
    while child.try_wait().expect("a state").is_none() {
        let _made = call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4);
    }
    assert_eq!(child.wait().expect("the end").code(), Some(0));
}

/// The thread that traces is the one inside the network namespace.
#[test]
fn only_capabilities_that_tracing_needs_are_kept() {
    const NEEDED: u64 = 1 << 12 | 1 << 19 | 1 << 2; // CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH
    let (node, pod) = (Netns::new(), Pod::new());
    let path = pod.netns.path();
    for (netns, arguments) in [
        (&pod.netns, &[][..]),
        (&node, &["--netns", path.to_str().expect("text")]),
    ] {
        let trace = Trace::start(netns, arguments);
        let process = format!("/proc/{}", trace.child.id());
        let threads = std::fs::read_dir(format!("{process}/task")).expect("threads");
        let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status"));
        let statuses: Vec<String> = threads
            .map(|thread| status(thread.expect("a thread")).expect("text"))
            .collect();
        let permitted = statuses.iter().filter_map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        });
        assert_eq!(permitted.filter(|set| *set == NEEDED).count(), 1, "{statuses:#?}");
        trace.end();
    }
}

#[test]
fn a_trace_needs_rights_and_valid_arguments() {
    let pod = Pod::new();
    let mut command = pod.netns.command_of(Owner::APP, SIDETRACK);
    Run::of(command.arg("trace")).failed(1, &["CAP_NET_ADMIN"]);
    sidetrack(&pod.netns, &["trace", "sideways", "--rate", "0"]).failed(2, &["FILTER", "--rate"]);
    sidetrack(&pod.netns, &["trace", "--netns", "no-such"]).failed(1, &["/run/netns/no-such"]);
    assert!(!nft_state(&pod.netns).contains("sidetrack"));
}
