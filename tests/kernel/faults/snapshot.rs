//! Snapshots of a network namespace.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;

use crate::common::Netns;
use crate::program::nft_state;

/// The state of a network namespace: the rules, and addresses, rules of policy routing and routes, a line
/// each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub rules: String,
    pub beside: BTreeSet<String>,
}

impl Snapshot {
    pub fn of(netns: &Netns) -> Self {
        Self {
            rules: nft_state(netns),
            beside: beside_rules(netns),
        }
    }

    /// Whether this is the plan of `whole`: its rules, and all that they need; maybe more, of `other`.
    pub fn holds(&self, whole: &Self, other: &Self) -> bool {
        let known = whole.beside.union(&other.beside).cloned().collect();
        self.rules == whole.rules && self.beside.is_superset(&whole.beside) && self.beside.is_subset(&known)
    }
}

/// Addresses, rules of policy routing and routes, a line each.
pub fn beside_rules(netns: &Netns) -> BTreeSet<String> {
    let v4 = ["rule show", "route show table all"];
    let v6 = ["address show dev lo", "rule show", "route show table all"];
    let lists = [list(netns, "-4", &v4), list(netns, "-6", &v6)];
    // Routes of the kernel's own follow addresses some time later.
    let lines = lists.iter().zip(["-4", "-6"]).flat_map(|(list, family)| {
        let lines = list.lines().filter(|line| !line.contains("proto kernel"));
        lines.map(move |line| format!("{family} {line}"))
    });
    lines.collect()
}

/// What `ip` answers to these commands in one family.
fn list(netns: &Netns, family: &str, commands: &[&str]) -> String {
    let mut command = netns.command("ip");
    command.args([family, "-oneline", "-batch", "-"]);
    let mut ip = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ip (iproute2)");
    let mut input = ip.stdin.take().expect("a pipe");
    input
        .write_all(commands.join("\n").as_bytes())
        .expect("ip reads its commands");
    drop(input);
    let output = ip.wait_with_output().expect("the end of ip");
    assert!(output.status.success(), "{commands:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}
