//! Each system call of a run fails once, and the run is killed once at each.

use super::injection::{Fault, Point, points, run_with_fault};
use super::snapshot::Snapshot;
use crate::common::Netns;
use crate::program::{Run, sidetrack};

const DEFAULT: &[&str] = &["apply", "--exclude-inbound-ports", "22"];
const OTHER: &[&str] = &["apply", "--exclude-outbound-ports", "1-3,7", "--drop-invalid"];
const TPROXY: &[&str] = &[
    "apply",
    "--inbound-mode",
    "tproxy",
    "--redirect-dns",
    "--dns-servers",
    "10.0.0.10",
];
const OTHER_TPROXY: &[&str] = &[
    "apply",
    "--inbound-mode",
    "tproxy",
    "--tproxy-mark",
    "7",
    "--tproxy-route-table",
    "134",
    "--ip-family",
    "ipv4",
];
const CLEANUP: &[&str] = &["cleanup"];

/// Errors of system calls for lack of memory, descriptors or permission.
fn error_of(call: &str) -> &'static str {
    match call {
        "sendto" | "recvfrom" => "ENOBUFS",
        "socket" | "openat" => "EMFILE",
        "read" | "close" => "EIO",
        "write" => "ENOSPC",
        "brk" | "mmap" | "munmap" | "mprotect" => "ENOMEM",
        _ => "EPERM",
    }
}

/// Runs `arguments` on what `before` has made, with every fault at every point. `None`: an untouched namespace.
fn every_fault(before: Option<&[&str]>, arguments: &[&str]) {
    let netns = Netns::new();
    let untouched = Snapshot::of(&netns);
    let prepare = || {
        sidetrack(&netns, before.unwrap_or(CLEANUP)).succeeded();
    };
    prepare();
    let old = Snapshot::of(&netns);
    let points = points(&netns, arguments);
    let new = Snapshot::of(&netns);
    assert_ne!(old, new);

    let mut now = new.clone();
    for point in &points {
        for fault in [Fault::Kill, Fault::Error(error_of(&point.call))] {
            if now != old {
                prepare();
            }
            let run = run_with_fault(&netns, arguments, point, fault);
            now = Snapshot::of(&netns);
            let what = format!("{point:?} {fault:?} of {}: {run:#?}", points.len());
            check(&run, point, fault, &now, &old, &new)
                .unwrap_or_else(|wrong| panic!("{wrong}\n{what}\nold {old:#?}\nnew {new:#?}\nfound {now:#?}"));
            if now != old && now != new {
                sidetrack(&netns, arguments).succeeded();
                now = Snapshot::of(&netns);
                assert!(now == new, "a rerun does not repair everything\n{what}\n{now:#?}");
            }
        }
    }
    sidetrack(&netns, CLEANUP).succeeded();
    assert_eq!(Snapshot::of(&netns), untouched);
}

/// Whether a run with a fault ended in an allowed state; if not, the reason.
fn check(
    run: &Run,
    point: &Point,
    fault: Fault,
    found: &Snapshot,
    old: &Snapshot,
    new: &Snapshot,
) -> Result<(), &'static str> {
    let (old_and_more, new_and_more) = (found.holds(old, new), found.holds(new, old));
    let of_memory = ["brk", "mmap"].contains(&point.call.as_str());
    let (fine, otherwise) = match (fault, run.code) {
        (Fault::Kill, None) => (old_and_more || new_and_more, "neither plan is whole"),
        // A process without memory ends like a killed one.
        (Fault::Error("ENOMEM"), None) if of_memory => (old_and_more || new_and_more, "neither plan is whole"),
        (Fault::Error(_), Some(0)) => (found == new, "it claims to have done what it has not"),
        (Fault::Error(errno), Some(1)) => {
            let cause = run.stderr.contains("error: ") && run.stderr.contains(text(errno));
            // A cleanup may be partial; an apply is undone, unless it reports that it is not.
            let may_stay = !new.rules.contains("sidetrack") || run.stderr.contains("the new rules are in force");
            (
                cause && (found == old || (new_and_more && may_stay)),
                "changes are neither undone nor reported, or the cause is not reported",
            )
        }
        _ => (false, "it ended in another way than it may"),
    };
    if fine { Ok(()) } else { Err(otherwise) }
}

fn text(errno: &str) -> &'static str {
    match errno {
        "ENOBUFS" => "No buffer space available",
        "EMFILE" => "Too many open files",
        "EIO" => "Input/output error",
        "EPERM" => "Operation not permitted",
        other => panic!("{other} is not in this table"),
    }
}

#[test]
fn first_apply_survives_a_fault_at_every_system_call() {
    every_fault(None, DEFAULT);
}

#[test]
fn replace_survives_a_fault_at_every_system_call() {
    every_fault(Some(DEFAULT), OTHER);
}

#[test]
fn first_apply_with_routes_survives_a_fault_at_every_system_call() {
    every_fault(None, TPROXY);
}

#[test]
fn replace_of_routes_survives_a_fault_at_every_system_call() {
    every_fault(Some(TPROXY), OTHER_TPROXY);
}

#[test]
fn cleanup_survives_a_fault_at_every_system_call() {
    every_fault(Some(TPROXY), CLEANUP);
}

/// A signal may come at any time, such as when the process is stopped and goes on.
#[test]
fn interrupted_system_call_is_retried() {
    let netns = Netns::new();
    sidetrack(&netns, TPROXY).succeeded();
    for (arguments, call) in [
        (TPROXY, "sendto"),
        (TPROXY, "recvfrom"),
        (CLEANUP, "sendto"),
        (CLEANUP, "recvfrom"),
    ] {
        sidetrack(&netns, CLEANUP).succeeded();
        if arguments == CLEANUP {
            sidetrack(&netns, TPROXY).succeeded();
        }
        let points = points(&netns, arguments);
        let after = Snapshot::of(&netns);
        for point in points.iter().filter(|point| point.call == call) {
            sidetrack(&netns, if arguments == CLEANUP { TPROXY } else { CLEANUP }).succeeded();
            run_with_fault(&netns, arguments, point, Fault::Error("EINTR")).succeeded();
            assert_eq!(Snapshot::of(&netns), after, "{point:?}");
        }
    }
}
