//! Bursts: each connection has a line, or is reported as lost.

use std::net::TcpStream;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;
use sidetrack::types::Family;

use super::{OPTIONS, Trace, servers};
use crate::common::{Pod, To};
use crate::program::apply;

/// Makes connections from many threads, and returns how many.
fn burst(pod: &Pod) -> usize {
    const THREADS: usize = 10;
    const CONNECTIONS: usize = 300;
    let to = To::Peer(81).address(Family::V4).expect("an address");
    pod.netns.run(|| {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..CONNECTIONS {
                        drop(TcpStream::connect(to).expect("a connection"));
                    }
                });
            }
        });
    });
    THREADS * CONNECTIONS
}

/// The lines, and the reported losses.
fn counted(lines: &[Value]) -> (usize, u64, u64) {
    let lost = |reason: &str| lines.iter().filter_map(|line| line["lost"][reason].as_u64()).sum();
    let connections = lines.iter().filter(|line| line["packet"].is_object()).count();
    (connections, lost("aboveRate"), lost("discarded"))
}

/// Lines and losses are all connections. Among losses, a retransmitted first packet counts too.
#[track_caller]
fn assert_all_are_reported(pod: &Pod, made: usize, reported: u64) {
    let made = made as u64;
    let retransmitted = retransmitted(pod);
    assert!(
        (made..=made + retransmitted).contains(&reported),
        "{reported} of {made}, and {retransmitted} again"
    );
}

/// How many first packets the kernel has retransmitted (`TCPSynRetrans`, net/ipv4/proc.c).
fn retransmitted(pod: &Pod) -> u64 {
    let statistics = pod
        .netns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/netstat"));
    let statistics = statistics.expect("statistics");
    let mut lines = statistics.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "TCPSynRetrans").expect("the counter");
    value.parse().expect("a number")
}

#[test]
fn no_connection_of_a_burst_is_lost_without_a_report() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", OPTIONS);
    let _servers = servers(&pod);
    for (rate, exceeds) in [("1000000", false), ("100", true)] {
        let trace = Trace::start(&pod.netns, &["--rate", rate]);
        let made = burst(&pod);
        let (lines, above_rate, discarded) = counted(&trace.end());
        assert_eq!(above_rate > 0, exceeds, "{above_rate}");
        assert_all_are_reported(&pod, made, lines as u64 + above_rate + discarded);
    }
}

/// A trace that is stopped cannot read, so that the kernel discards messages.
#[test]
fn discarded_messages_are_reported() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", OPTIONS);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &["--rate", "1000000"]);
    trace.signal(Signal::SIGSTOP);
    let made: usize = (0..4).map(|_| burst(&pod)).sum();
    trace.signal(Signal::SIGCONT);
    let ended = trace.end();
    let (lines, above_rate, discarded) = counted(&ended);
    assert!(discarded > 0, "{lines} of {made}: the buffer did not fill");
    assert_all_are_reported(&pod, made, lines as u64 + above_rate + discarded);
    // The verdict of each other line is right, or in doubt.
    for line in ended
        .iter()
        .filter(|line| line["packet"].is_object() && line["doubt"].is_null())
    {
        assert_eq!(line["rule"]["comment"], "excluded outbound ports", "{line:#}");
    }
}
