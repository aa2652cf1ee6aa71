//! Runs in which one system call fails, or in which the process is killed as it makes it (strace(1), "Tampering").

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::SIDETRACK;
use crate::common::Netns;
use crate::program::Run;

/// A system call of a run: the `number`th of its name, from 1.
#[derive(Clone, Debug)]
pub struct Point {
    pub call: String,
    pub number: usize,
}

/// The fault at that point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed, and the call not made.
    Kill,
    /// The call is not made, and returns this error.
    Error(&'static str),
}

/// The system calls that a run makes, from its first socket on: before, the program starts and reads its options, and
/// there is nothing that it could have done to the network namespace.
pub fn points(netns: &Netns, arguments: &[&str]) -> Vec<Point> {
    let (run, trace) = traced(netns, &[], SIDETRACK.as_ref(), arguments);
    run.succeeded();
    let mut points: Vec<Point> = Vec::new();
    for line in trace.lines() {
        let Some((call, _)) = line.split_once('(') else {
            continue; // How it ended.
        };
        let number = 1 + points.iter().filter(|point| point.call == call).count();
        let call = call.to_owned();
        points.push(Point { call, number });
    }
    // How often the heap grows depends on where it happens to begin: the last time may not come.
    if let Some(last) = points.iter().rposition(|point| point.call == "brk") {
        points.remove(last);
    }
    let first = points.iter().position(|point| point.call == "socket");
    points.split_off(first.expect("a socket"))
}

/// Runs the program with a fault.
pub fn run_with_fault(netns: &Netns, arguments: &[&str], point: &Point, fault: Fault) -> Run {
    let Point { call, number } = point;
    let tampering = match fault {
        Fault::Kill => "signal=KILL".to_owned(),
        Fault::Error(errno) => format!("error={errno}"),
    };
    let options = [
        format!("trace={call}"),
        format!("inject={call}:{tampering}:when={number}"),
    ];
    let options: Vec<&str> = options.iter().flat_map(|option| ["-e", option]).collect();
    let (run, trace) = traced(netns, &options, SIDETRACK.as_ref(), arguments);
    match fault {
        Fault::Kill => assert_eq!(run.code, None, "{point:?} was not reached: {run:?}"),
        Fault::Error(_) => assert!(
            trace.contains("(INJECTED)"),
            "{point:?} was not reached: {run:?}\n{trace}"
        ),
    }
    run
}

/// A run of a program, and the output of strace with these options.
pub fn traced(netns: &Netns, options: &[&str], program: &Path, arguments: &[&str]) -> (Run, String) {
    let path = scratch_file();
    let mut command = netns.command("strace");
    command
        .arg("-qq")
        .arg("-o")
        .arg(&path)
        .args(options)
        .arg(program)
        .args(arguments);
    let run = Run::of(&mut command);
    let trace = fs::read_to_string(&path).expect("the trace");
    fs::remove_file(&path).expect("the trace can be removed");
    (run, trace)
}

fn scratch_file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("sidetrack-{}-trace-{number}", std::process::id()))
}
