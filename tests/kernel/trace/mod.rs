//! `sidetrack trace`: real connections, each with its line.

mod lifetime;
mod lines;
mod losses;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::SIDETRACK;
use crate::common::{Netns, Owner, Pod, Server};

/// Ends a wait that would never end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running trace with JSON lines.
struct Trace {
    child: Child,
    lines: Receiver<String>,
    /// Whether the kernel deletes its table with the process: since Linux 5.12.
    is_owned: bool,
}

impl Trace {
    /// Starts one; it traces when this returns.
    fn start(netns: &Netns, arguments: &[&str]) -> Self {
        Self::of(netns.command(SIDETRACK).args(["trace", "--json"]).args(arguments))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        while !said.contains("tracing new connections") {
            assert_ne!(log.read_line(&mut said).expect("text"), 0, "{said}");
        }
        let is_owned = said.contains(&format!("table=\"sidetrack-trace-{}\"", child.id()));
        assert_ne!(
            is_owned,
            said.contains("this kernel does not delete the table"),
            "{said}"
        );
        // The pipe stays open and is read, so that writing to it never fails.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let lines = lines(child.stdout.take().expect("a pipe"));
        Self { child, lines, is_owned }
    }

    /// The next line.
    #[track_caller]
    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(TIMEOUT).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a PID")), signal).expect("a signal");
    }

    /// Ends the trace, and returns the lines that were not taken.
    #[track_caller]
    fn end(mut self) -> Vec<Value> {
        self.signal(Signal::SIGINT);
        let code = self.child.wait().expect("the end").code();
        assert_eq!(code, Some(0));
        self.lines
            .iter()
            .map(|line| serde_json::from_str(&line).expect("JSON"))
            .collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if sender.send(line.expect("text")).is_err() {
                break;
            }
        }
    });
    receiver
}

const OPTIONS: &[&str] = &["--exclude-outbound-ports", "81"];

/// The servers of a pod and its neighbour.
fn servers(pod: &Pod) -> [Server; 3] {
    [
        Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]),
        Server::start(&pod.netns, "app", Owner::APP, &[8080, 15020]),
        Server::start(&pod.peer, "peer", Owner::ROOT, &[80, 81]),
    ]
}
