//! Faults of other redirectors that sidetrack does not have.
//!
//! [`table`] describes each fault and names the tests for it; tests that no other file has are in this directory.

mod environments;
mod lifecycle;
mod option_values;
mod packets;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::table::REGRESSIONS;
use crate::common::{Netns, output_of, write_program};
use crate::istio::INJECTED;
use crate::program::{BACKENDS, Run, state};
use crate::{SIDETRACK, cases};

/// As much as can be asked for at once, of options that need more than NAT rules.
const EVERYTHING: &[&str] = &[
    "-m",
    "TPROXY",
    "-b",
    "*",
    "-d",
    "15090,15021",
    "-i",
    "10.0.0.0/8,fd00::/8",
    "-x",
    "10.9.0.0/16,fd09::/16",
    "-q",
    "8443",
    "-o",
    "3306",
    "-k",
    "tap0,bridge",
    "-c",
    "eth9",
    "--redirect-dns",
    "--capture-all-dns",
    "--drop-invalid",
    "--dual-stack",
];

/// The flags of `istio-iptables` for a backend.
fn flags(backend: &str) -> &'static [&'static str] {
    match backend {
        "nftables" => &["--native-nftables"],
        "iptables-nft" => &["--force-iptables-binary", "nft"],
        _ => &["--force-iptables-binary", "legacy"],
    }
}

/// `sidetrack istio-iptables` on a backend, with these arguments.
fn istio_iptables(netns: &Netns, backend: &str, arguments: &[&str]) -> Command {
    let mut command = netns.command(SIDETRACK);
    command.arg("istio-iptables").args(flags(backend)).args(arguments);
    command
}

#[track_caller]
fn run(netns: &Netns, backend: &str, arguments: &[&str]) -> Run {
    Run::of(&mut istio_iptables(netns, backend, arguments)).succeeded()
}

/// All state that a backend could have changed: rules, addresses, policy routing, without iptables counters. On
/// the other backends must hold nothing owned by sidetrack.
#[track_caller]
fn everything(netns: &Netns, backend: &str) -> String {
    for other in BACKENDS.iter().filter(|other| **other != backend) {
        let rules = state(netns, other);
        let ours = match *other {
            // What iptables-nft has written is there, too.
            "nftables" => rules.contains("\"table\": \"sidetrack\""),
            _ => rules.contains("SIDETRACK_"),
        };
        assert!(!ours, "{backend} and {other}: {rules}");
    }
    let rules = state(netns, backend);
    let counts = |line: &&str| line.contains("\"packets\": ") || line.contains("\"bytes\": ");
    let uncounted = rules.lines().filter(|line| !counts(line));
    let uncounted = uncounted.filter_map(|line| line.split(" [").next());
    let ip = |arguments: &[&str]| output_of(netns.command("ip").args(arguments));
    let mut lines: Vec<String> = uncounted.map(str::to_owned).collect();
    for family in ["-4", "-6"] {
        lines.push(ip(&[family, "rule", "show"]));
        lines.extend(netns.routes(family).lines().map(str::to_owned));
    }
    lines.join("\n")
}

/// Prints only the differences, since the whole state is too long to read.
#[track_caller]
fn assert_same(found: &str, expected: &str, what: &str) {
    let only_in = |one: &str, other: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|other| other == *line));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert!(
        found == expected,
        "{what}: found\n{}\ninstead of\n{}\nin\n{found}",
        only_in(found, expected),
        only_in(expected, found)
    );
}

/// The programs of iptables of a backend, for IPv4 and IPv6, with this suffix.
pub fn iptables(backend: &str, suffix: &str) -> [String; 2] {
    let variant = backend.strip_prefix("iptables-").expect("a backend of iptables");
    ["iptables", "ip6tables"].map(|program| format!("{program}-{variant}{suffix}"))
}

/// A directory with programs of our own. It goes with the value.
pub struct Programs(PathBuf);

impl Programs {
    pub fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("sidetrack-regressions-{}-{name}", std::process::id()));
        fs::create_dir(&directory).expect("a temporary directory");
        Self(directory)
    }

    /// Adds a shell script.
    pub fn put(&self, name: &str, script: &str) {
        write_program(&self.0.join(name), &format!("#!/bin/sh\n{script}\n"));
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A `PATH` on which they precede others of the same names.
    pub fn before_others(&self) -> String {
        let path = std::env::var("PATH").expect("PATH");
        format!("{}:{path}", self.0.display())
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The functions of a file that are tests.
fn tests_in(path: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let after_mark = text.split("#[test]\n").skip(1);
    after_mark
        .filter_map(|text| text.trim_start().strip_prefix("fn ")?.split_once('('))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn tests_named_in_the_table_exist() {
    let cases: Vec<&str> = cases::all().map(|case| case.name).collect();
    for regression in REGRESSIONS {
        let what = format!("{}: {}", regression.numbers, regression.broke);
        assert!(!regression.shown_by.is_empty(), "{what}");
        for shown_by in regression.shown_by {
            let exists = match shown_by.split_once("::") {
                // The name of a test, or where it ends with `*` what those for each backend begin with.
                Some((path, name)) => match name.strip_suffix('*') {
                    Some(start) => {
                        tests_in(path).iter().filter(|name| name.starts_with(start)).count() >= BACKENDS.len()
                    }
                    None => tests_in(path).iter().any(|test| test == name),
                },
                None => cases.contains(shown_by),
            };
            assert!(exists, "{what}: there is no {shown_by:?}");
        }
    }
}

#[test]
fn tests_of_this_directory_are_in_the_table() {
    let named: Vec<&str> = REGRESSIONS
        .iter()
        .flat_map(|regression| regression.shown_by)
        .copied()
        .collect();
    for file in ["environments", "lifecycle", "option_values", "packets"] {
        let path = format!("tests/kernel/regressions/{file}.rs");
        let tests = tests_in(&path);
        assert!(!tests.is_empty(), "{path}");
        for test in tests {
            let name = format!("{path}::{test}");
            assert!(named.contains(&name.as_str()), "{name}");
        }
    }
}
