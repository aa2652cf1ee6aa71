//! The number of system calls and transactions of a run.

use crate::common::{Netns, Pod};
use crate::faults::injection::traced;
use crate::program::static_program;

/// The system calls of a run of the program as released, and of programs that it starts, in order.
fn calls(netns: &Netns, arguments: &[&str]) -> Vec<String> {
    let (run, trace) = traced(netns, &["-f"], &static_program(), arguments);
    run.succeeded();
    let is_call = |line: &&str| line.contains('(') && line.contains(" = ");
    trace.lines().filter(is_call).map(str::to_owned).collect()
}

fn transactions(calls: &[String]) -> usize {
    calls
        .iter()
        .filter(|call| call.contains("NFNL_MSG_BATCH_BEGIN"))
        .count()
}

#[test]
fn a_first_apply_makes_at_most_60_system_calls() {
    let pod = Pod::new();
    let calls = calls(&pod.netns, &["apply"]);
    assert!(calls.len() <= 60, "{}: {calls:#?}", calls.len());
    assert!(calls[0].contains("execve("), "{calls:#?}");
    assert_eq!(transactions(&calls), 1);
}

#[test]
fn each_apply_is_one_transaction_and_a_repeated_one_none() {
    let pod = Pod::new();
    let transactions = |options: &[&str]| transactions(&calls(&pod.netns, &[&["apply"], options].concat()));
    for options in [&[][..], &["--exclude-uids", "7"], &["--inbound-mode", "tproxy"]] {
        assert_eq!(transactions(options), 1, "{options:?}");
        assert_eq!(transactions(options), 0, "{options:?} again");
    }
}
