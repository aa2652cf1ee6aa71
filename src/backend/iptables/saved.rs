//! Reads the installed rules from the text of `iptables-save`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use ipnet::IpNet;

use super::{Chain, InFront, Jump, PREFIX, Spec, Table, TableName, Tables};
use crate::types::Family;

/// Whether the network namespace has tables of legacy iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instantiated {
    /// No table, so no rules.
    None,
    /// At least one table.
    Some,
    /// The list of tables cannot be read.
    Unknown,
}

/// Reads the list of legacy tables. `iptables-save -t TABLE` would make the kernel create the table.
pub fn instantiated(family: Family) -> Instantiated {
    // The namespace of this thread, which the programs inherit.
    let proc = Path::new("/proc/thread-self/net");
    let names = match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    };
    match fs::read_to_string(proc.join(names)) {
        Ok(names) if names.trim().is_empty() => Instantiated::None,
        Ok(_) => Instantiated::Some,
        // Without the kernel module there is no file.
        Err(error) if error.kind() == io::ErrorKind::NotFound && proc.is_dir() => Instantiated::None,
        Err(_) => Instantiated::Unknown,
    }
}

/// The first of these tables that `iptables-nft-save` cannot print: another tool added rules that only nft can write.
pub fn incompatible(text: &str, tables: &[TableName]) -> Option<TableName> {
    let says_so = |table: &TableName| {
        let notice = format!("# Table `{}' is incompatible", table.as_str());
        text.lines().any(|line| line.starts_with(&notice))
    };
    tables.iter().copied().find(says_so)
}

/// Reads the text of `iptables-save` and keeps our part: chains whose names begin with [`PREFIX`], and the jumps
/// to them from other chains.
pub fn parse(text: &str) -> Tables {
    let mut tables = Tables::default();
    let mut current = None;
    let mut rules_in: HashMap<&str, usize> = HashMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            current = TableName::ALL.into_iter().find(|table| table.as_str() == name.trim());
            rules_in.clear();
        } else if let Some(table) = current {
            chain_or_rule(line, &mut rules_in, || tables.entry(table));
        }
    }
    tables
}

/// The text without the counters that `iptables-save -c` writes before rules.
pub fn without_counts(text: &str) -> String {
    text.lines().map(|line| counted(line).1.to_owned() + "\n").collect()
}

/// The number of packets that a line begins with, if it does, and the rest of the line.
pub fn counted(line: &str) -> (Option<u64>, &str) {
    let count = || {
        let (counters, rest) = line.strip_prefix('[')?.split_once("] ")?;
        let (packets, _) = counters.split_once(':')?;
        Some((packets.parse().ok()?, rest))
    };
    match count() {
        Some((packets, rest)) => (Some(packets), rest),
        None => (None, line),
    }
}

/// The foreign rules before the first jump to one of our chains, in the chain of the jump.
pub fn in_front(text: &str) -> Vec<InFront> {
    let mut found = Vec::new();
    let mut current = None;
    // For each chain, the rules so far; `None` after the first jump.
    let mut waiting: HashMap<&str, Option<Vec<InFront>>> = HashMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            current = TableName::ALL.into_iter().find(|table| table.as_str() == name.trim());
            waiting.clear();
        } else if let (Some(table), Some((chain, spec))) = (current, rule(line))
            && !chain.starts_with(PREFIX)
        {
            let before = waiting.entry(chain).or_insert_with(|| Some(Vec::new()));
            let spec = Spec::new(None, words(spec));
            if spec.is_jump_to_own_chain() {
                found.extend(before.take().into_iter().flatten());
            } else if let Some(before) = before {
                before.push(InFront {
                    table,
                    chain: chain.to_owned(),
                    position: before.len() + 1,
                    spec,
                });
            }
        }
    }
    found
}

/// The chain and the words of a rule.
pub(super) fn rule(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("-A ").and_then(|rule| rule.split_once(' '))
}

fn chain_or_rule<'t, 'l>(line: &'l str, rules_in: &mut HashMap<&'l str, usize>, table: impl FnOnce() -> &'t mut Table) {
    if let Some(chain) = line.strip_prefix(':') {
        let name = chain.split(' ').next().unwrap_or_default();
        if name.starts_with(PREFIX) {
            table().chains.push(Chain {
                name: name.to_owned(),
                rules: Vec::new(),
            });
        }
    } else if let Some((chain, spec)) = rule(line) {
        let position = rules_in.entry(chain).or_default();
        *position += 1;
        let spec = Spec::new(None, words(spec));
        if chain.starts_with(PREFIX) {
            let ours = table().chains.iter_mut().find(|ours| ours.name == chain);
            ours.into_iter().for_each(|ours| ours.rules.push(spec.clone()));
        } else if spec.is_jump_to_own_chain() {
            table().jumps.push(Jump {
                from: chain.to_owned(),
                position: *position,
                spec,
            });
        }
    }
}

/// Splits a rule into words: resolves the quoting of `iptables-save` and normalizes addresses, since C libraries differ
/// in how they write IPv6.
pub(super) fn words(rule: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut quoted, mut between) = (false, true);
    let mut chars = rule.chars();
    while let Some(char) = chars.next() {
        if char == ' ' && !quoted {
            between = true;
            continue;
        }
        if between {
            words.push(String::new());
            between = false;
        }
        let word = words.last_mut();
        match (char, word) {
            ('"', _) => quoted = !quoted,
            ('\\', Some(word)) if quoted => word.extend(chars.next()),
            (char, Some(word)) => word.push(char),
            (_, None) => {}
        }
    }
    for at in 1..words.len() {
        if matches!(words[at - 1].as_str(), "-s" | "-d")
            && let Ok(network) = words[at].parse::<IpNet>()
        {
            words[at] = network.to_string();
        }
    }
    words
}
