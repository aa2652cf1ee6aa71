//! The program under test, run inside a network namespace.

#[path = "schema.rs"]
pub mod schema;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::SIDETRACK;
use crate::common::{Netns, output_of};

/// The program as it is released.
pub fn static_program() -> PathBuf {
    std::env::var_os("STATIC_SIDETRACK")
        .expect("STATIC_SIDETRACK is the path of the static program: run scripts/test, or scripts/build first")
        .into()
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Runs a command to its end. JSON that it prints must conform to its schema.
    pub fn of(command: &mut Command) -> Self {
        let output = command
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let run = Self::from(output);
        schema::check_output(command, &run.stdout);
        run
    }

    /// The run, which must have succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The run, which must have failed like this, saying all of these.
    #[track_caller]
    pub fn failed(self, code: i32, said: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for text in said {
            assert!(self.stderr.contains(text), "{text:?} is not said in {self:?}");
        }
        assert_eq!(self.stdout, "", "standard output is for what was asked for");
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

/// Runs `sidetrack` with these arguments inside.
pub fn sidetrack(netns: &Netns, arguments: &[&str]) -> Run {
    Run::of(netns.command(SIDETRACK).args(arguments))
}

/// Runs `sidetrack apply` with these options inside, and returns what it logged.
#[track_caller]
pub fn apply(netns: &Netns, backend: &str, options: &[&str]) -> String {
    let arguments = [&["apply", "--backend", backend], options].concat();
    sidetrack(netns, &arguments).succeeded().stderr
}

/// Feeds a text to a program inside.
pub fn feed(netns: &Netns, program: &str, arguments: &[&str], text: &str) {
    let mut command = netns.command(program);
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("the program reads");
    let output = child.wait_with_output().expect("the end of the program");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {complaint}in\n{text}");
}

/// The rules in the kernel, as the backend's own tools print them, without parts that differ between runs.
pub fn state(netns: &Netns, backend: &str) -> String {
    let rules = match backend {
        "nftables" | "nftables-per-family" => nft_state(netns),
        "iptables-nft" => iptables_state(netns, "iptables-nft-save", "ip6tables-nft-save"),
        "iptables-legacy" => iptables_state(netns, "iptables-legacy-save", "ip6tables-legacy-save"),
        other => panic!("no backend {other}"),
    };
    let addresses = output_of(netns.command("ip").args(["-6", "-oneline", "address", "show", "lo"]));
    format!("{rules}\n{addresses}")
}

/// The ruleset as nft prints it in JSON, without handles. The order of chains and sets means nothing, so they are
/// sorted; that of rules in a chain stays.
pub fn nft_state(netns: &Netns) -> String {
    let listing = output_of(netns.command("nft").args(["-j", "list", "ruleset"]));
    let mut listing: Value = serde_json::from_str(&listing).expect("JSON from nft");
    without_handles(&mut listing);
    let objects = listing["nftables"].as_array_mut().expect("a list of objects");
    objects.sort_by_cached_key(place);
    format!("{listing:#}")
}

/// What an object of a listing is, and where it belongs: the same for all rules of a chain.
fn place(object: &Value) -> String {
    let (kind, object) = object
        .as_object()
        .and_then(|entry| entry.iter().next())
        .expect("an object");
    let owner = if kind == "rule" {
        &object["chain"]
    } else {
        &object["name"]
    };
    format!("{} {} {kind} {owner}", object["family"], object["table"])
}

fn without_handles(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|key, _| key != "handle");
            entries.values_mut().for_each(without_handles);
        }
        Value::Array(items) => items.iter_mut().for_each(without_handles),
        _ => {}
    }
}

/// The tables of iptables that hold anything: empty ones stay behind when the last rule is gone. They are printed in
/// the order in which they came to be, which means nothing.
fn iptables_state(netns: &Netns, v4: &str, v6: &str) -> String {
    [v4, v6]
        .map(|program| tables_in_use(&output_of(&mut netns.command(program))))
        .concat()
}

fn tables_in_use(saved: &str) -> String {
    let without_comments = |table: &str| {
        let lines = table.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let in_use = |table: &String| table.contains("\n-A ") || table.contains(" - [") || table.contains(" DROP [");
    // Links that are up send packets, which base chains count.
    let without_counters = |table: String| {
        let uncounted = |line: &str| match line.strip_prefix(':') {
            Some(_) => line.split(" [").next().map(str::to_owned),
            None => Some(line.to_owned()),
        };
        let lines = table.lines().filter_map(uncounted);
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let mut tables: Vec<String> = saved
        .split_inclusive("COMMIT\n")
        .map(without_comments)
        .filter(in_use)
        .map(without_counters)
        .collect();
    tables.sort();
    tables.concat()
}

/// The backends that every test of rules runs on.
pub const BACKENDS: [&str; 3] = ["nftables", "iptables-nft", "iptables-legacy"];

/// The writing end of a pipe without a reader.
pub fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}
