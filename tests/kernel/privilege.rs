//! Dropped capabilities.

use std::thread;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::get_no_new_privs;
use sidetrack::linux::privilege::keep_network_capabilities;

use crate::common::{Netns, Pod};
use crate::faults::injection::traced;
use crate::program::{apply, nft_state};

#[test]
fn unneeded_capabilities_are_dropped_in_one_thread() {
    let of_the_network = CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]);
    let held = |set| caps::read(None, set).expect("the capabilities of this thread");
    let before = held(CapSet::Permitted);
    assert!(before.len() > of_the_network.len(), "this test needs root");
    let inside = thread::spawn(move || {
        keep_network_capabilities().expect("nothing denies it");
        let sets = [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable].map(held);
        (sets, get_no_new_privs().expect("a flag"))
    });
    let (sets, no_new_privileges) = inside.join().expect("no panic");
    for kept in &sets[..2] {
        assert_eq!(*kept, of_the_network);
    }
    assert!(sets[2].is_subset(&sets[1]));
    assert!(no_new_privileges);
    assert_eq!(held(CapSet::Permitted), before);
    assert!(!get_no_new_privs().expect("a flag"));
}

/// Each command that enters another network namespace, by its own flag.
const ENTERING: [&[&str]; 7] = [
    &["trace", "--duration", "1s", "--netns"],
    &["apply", "--netns"],
    &["check", "--netns"],
    &["explain", "outbound", "tcp", "10.0.0.5:443", "--from-kernel", "--netns"],
    &["probe", "--netns"],
    &["istio-iptables", "--network-namespace"],
    &[
        "linkerd-proxy-init",
        "-p",
        "4143",
        "-o",
        "4140",
        "-u",
        "2102",
        "--netns",
    ],
];

#[test]
fn nothing_is_done_if_capabilities_cannot_be_dropped() {
    let elsewhere = Netns::new();
    for arguments in ENTERING {
        for call in ["capset", "prctl"] {
            let pod = Pod::new();
            let before = nft_state(&pod.netns);
            let path = pod.netns.path();
            let arguments = [arguments, &[path.to_str().expect("text")]].concat();
            let inject = format!("inject={call}:error=EPERM");
            let trace = format!("trace={call}");
            let options = ["-f", "-e", &trace, "-e", &inject];
            let (run, trace) = traced(&elsewhere, &options, crate::SIDETRACK.as_ref(), &arguments);
            assert!(trace.contains("(INJECTED)"), "{arguments:?}: {run:?}\n{trace}");
            run.failed(1, &["giving up privileges", "Nothing was done there"]);
            assert_eq!(nft_state(&pod.netns), before, "{arguments:?}");
        }
    }
}

/// What a command keeps in the last network namespace that it enters, as strace shows the last capset(2).
#[test]
fn commands_keep_only_needed_capabilities_in_another_namespace() {
    const RULES: &str = "1<<CAP_NET_ADMIN|1<<CAP_NET_RAW";
    const PROBES: &str =
        "1<<CAP_SETGID|1<<CAP_SETUID|1<<CAP_NET_BIND_SERVICE|1<<CAP_NET_ADMIN|1<<CAP_NET_RAW|1<<CAP_SYS_ADMIN";
    const TRACES: &str = "1<<CAP_DAC_READ_SEARCH|1<<CAP_NET_ADMIN|1<<CAP_SYS_PTRACE";
    let elsewhere = Netns::new();
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let path = pod.netns.path();
    for arguments in ENTERING {
        let kept = match arguments[0] {
            // The second one makes probes after it has applied its rules.
            "probe" | "istio-iptables" => PROBES,
            "trace" => TRACES,
            _ => RULES,
        };
        let arguments = [arguments, &[path.to_str().expect("text")]].concat();
        let options = ["-f", "-e", "trace=capset"];
        let (run, trace) = traced(&elsewhere, &options, crate::SIDETRACK.as_ref(), &arguments);
        let last = trace.lines().rfind(|line| line.contains("capset(")).unwrap_or_default();
        let sets = format!("effective={kept}, permitted={kept}, inheritable=0");
        assert!(last.contains(&sets), "{arguments:?}: {run:?}\n{trace}");
        run.succeeded();
    }
}
