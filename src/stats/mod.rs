//! Connections by reason, from the counters of the installed rules.

mod json;
#[cfg(test)]
mod tests;
mod text;

pub use json::document;
pub use text::table;

use crate::ruleset::{Action, ChainType, Counted, Counter, Counts, Hook, Ruleset};
use crate::types::Port;

/// The reason of connections that rules see and none of them matches.
pub const NO_RULE: &str = "no rule matches";

/// The reason of a rule without a comment: some kernels lack comments in iptables.
const UNNAMED: &str = "a rule without a comment";

/// The counted connections of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By hook, unit, verdict and reason, in the order of evaluation; each combination once.
    pub rows: Vec<Row>,
}

/// The connections with one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is counted by what.
    pub key: Key,
    /// The number.
    pub count: u64,
}

/// What a number counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The hook of the rules.
    pub hook: Hook,
    /// What is counted.
    pub unit: Unit,
    /// What happens to them.
    pub verdict: Verdict,
    /// Why: the comment of the rule that decides, or [`NO_RULE`].
    pub reason: String,
}

/// What a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// First packets of connections; for UDP, of flows.
    Connections,
    /// All packets.
    Packets,
}

impl Unit {
    /// The unit of a rule. NAT chains see the first packet of each connection. With TPROXY, the rule for the proxy sees
    /// packets of new connections alone; a SYN that is sent again counts again.
    fn of(kind: ChainType, action: &Action) -> Self {
        match (kind, action) {
            (ChainType::Nat, _) | (ChainType::Mangle, Action::Tproxy { .. }) => Self::Connections,
            (ChainType::Mangle | ChainType::Raw | ChainType::Filter, _) => Self::Packets,
        }
    }

    /// The name for people and machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Packets => "packets",
        }
    }
}

/// What rules do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It is redirected to this port of the pod.
    Redirect(Port),
    /// It is passed unchanged to the transparent socket on this port.
    Tproxy(Port),
    /// It is not redirected.
    Accept,
    /// It is dropped.
    Drop,
    /// It is rejected.
    Reject,
}

impl Verdict {
    /// The verdict of a rule; `None` if it only passes packets on.
    fn of(action: &Action) -> Option<Self> {
        match action {
            Action::Return | Action::Accept => Some(Self::Accept),
            Action::Drop => Some(Self::Drop),
            Action::Reject(_) => Some(Self::Reject),
            Action::Redirect(port) => Some(Self::Redirect(*port)),
            Action::Tproxy { port, .. } => Some(Self::Tproxy(*port)),
            Action::Jump(_)
            | Action::SetMark(_)
            | Action::SaveMark
            | Action::RestoreMark
            | Action::SetZone(_)
            | Action::SetTimeouts => None,
        }
    }

    /// The name for machines: that of `sidetrack explain --json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redirect(_) => "redirect",
            Self::Tproxy(_) => "tproxy",
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }

    /// The port of the proxy, if there is one.
    pub fn port(self) -> Option<Port> {
        match self {
            Self::Redirect(port) | Self::Tproxy(port) => Some(port),
            Self::Accept | Self::Drop | Self::Reject => None,
        }
    }
}

impl Key {
    fn of(counter: &Counter) -> Option<Self> {
        Some(Self {
            hook: counter.base.hook,
            unit: Unit::of(counter.base.kind, &counter.rule.action),
            verdict: Verdict::of(&counter.rule.action)?,
            reason: match counter.rule.comment.as_ref() {
                "" => UNNAMED.to_owned(),
                comment => comment.to_owned(),
            },
        })
    }

    fn of_the_rest(hook: Hook) -> Self {
        Self {
            hook,
            unit: Unit::Connections,
            verdict: Verdict::Accept,
            reason: NO_RULE.to_owned(),
        }
    }

    /// The direction of the packets: those that arrive on an interface that is rerouted are inbound here, too.
    pub fn direction(&self) -> &'static str {
        match self.hook {
            Hook::Prerouting | Hook::Input | Hook::Forward => "inbound",
            Hook::Output | Hook::Postrouting => "outbound",
        }
    }

    /// The reason as a word of lower-case letters, digits and underscores, for machines.
    pub fn reason_word(&self) -> String {
        let mut word = String::new();
        for char in self.reason.chars().filter(|char| *char != '\'') {
            match char.to_ascii_lowercase() {
                char @ ('a'..='z' | '0'..='9') => word.push(char),
                _ if word.is_empty() || word.ends_with('_') => {}
                _ => word.push('_'),
            }
        }
        word.trim_end_matches('_').to_owned()
    }

    /// Whether connections with both keys have the same reason, whatever the port of the proxy is.
    fn is_same_reason(&self, other: &Self) -> bool {
        (self.hook, self.unit, self.verdict.name(), &self.reason)
            == (other.hook, other.unit, other.verdict.name(), &other.reason)
    }
}

impl Stats {
    /// The numbers that the rules of a ruleset have counted.
    pub fn new(ruleset: &Ruleset, counts: &Counts) -> Self {
        let mut stats = Self::default();
        let mut rest: Vec<(Hook, u64, u64)> = Vec::new();
        for counter in ruleset.counters() {
            let Some(count) = counts.get(counter.chain, counter.position) else {
                continue;
            };
            let hook = counter.base.hook;
            let at = rest.iter().position(|(of, ..)| *of == hook);
            if counter.counted == Counted::Enters {
                match at {
                    Some(at) => rest[at].1 += count,
                    None => rest.push((hook, count, 0)),
                }
            } else if let Some(at) = at.filter(|_| counter.is_entered) {
                rest[at].2 += count;
            }
            if let Some(key) = Key::of(&counter) {
                stats.add(Row { key, count });
            }
        }
        for (hook, entered, decided) in rest {
            // Other packets may have passed the rules while they were read.
            let count = entered.saturating_sub(decided);
            let key = Key::of_the_rest(hook);
            stats.add(Row { key, count });
        }
        stats
    }

    /// Adds the numbers of other rules in the same network namespace.
    pub fn merge(&mut self, other: Self) {
        other.rows.into_iter().for_each(|row| self.add(row));
    }

    fn add(&mut self, row: Row) {
        match self.rows.iter_mut().find(|known| known.key == row.key) {
            Some(known) => known.count += row.count,
            None => self.rows.push(row),
        }
    }

    /// The number with the same reason.
    fn count(&self, key: &Key) -> u64 {
        let same = self.rows.iter().filter(|row| row.key.is_same_reason(key));
        same.map(|row| row.count).sum()
    }

    /// The values that the counters of other rules begin with, so that they continue these numbers. The number of a reason
    /// that no rule of them has is lost.
    pub fn carried_over(&self, ruleset: &Ruleset) -> Counts {
        let mut counts = Counts::default();
        let mut carried: Vec<Key> = Vec::new();
        let mut entered: Vec<(Hook, u64)> = Vec::new();
        let counters = ruleset.counters();
        for counter in counters.iter().filter(|counter| counter.rule.has_counter) {
            let Some(key) = Key::of(counter) else { continue };
            if carried.iter().any(|known| known.is_same_reason(&key)) {
                continue;
            }
            let count = self.count(&key);
            counts.set(counter.chain.clone(), counter.position, count);
            if counter.is_entered {
                entered.push((counter.base.hook, count));
            }
            carried.push(key);
        }
        let mut done: Vec<Hook> = Vec::new();
        for counter in counters.iter().filter(|counter| counter.counted == Counted::Enters) {
            let hook = counter.base.hook;
            if counter.rule.has_counter && !done.contains(&hook) {
                let decided: u64 = entered
                    .iter()
                    .filter(|(of, _)| *of == hook)
                    .map(|(_, count)| count)
                    .sum();
                let rest = self.count(&Key::of_the_rest(hook));
                counts.set(counter.chain.clone(), counter.position, decided + rest);
                done.push(hook);
            }
        }
        counts
    }
}
