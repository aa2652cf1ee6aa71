//! The effect of rules: where a fixed list of packets lands under them, compared with other rules.
//!
//! The list follows from the values that either side's rules distinguish: their ports, owners, addresses and marks, on every
//! interface and in both directions. Where a list of values is long, its first and last ones count.

mod packets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ptr;

use super::packet::{Origin, Packet, Pod, endpoint};
use super::path::{End, PacketPath, Step, TraceEntry, Verdict};
use super::{Simulation, TooComplex, simulate};
use crate::ruleset::netfilter::{Action, Netfilter, Rule, Table};
use crate::ruleset::{self, TABLE, TableFamily, Tracking};
use crate::types::Id as _;

/// How rules compare with others by their effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The number of packets that were followed.
    pub packets: usize,
    /// What differs, those with the same reason together.
    pub effects: Vec<Effect>,
}

/// Packets that land elsewhere than expected, or perhaps do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// One of them, in the words of `sidetrack explain`.
    pub packet: String,
    /// How many there are.
    pub packets: usize,
    /// What should happen to them: a phrase.
    pub expected: String,
    /// What happens: a phrase.
    pub found: String,
    /// The rule that decides: `rule 2 of chain OUTPUT in ip nat`; none if no rule does.
    pub rule: Option<String>,
    /// Where that rule is in relation to sidetrack's rules, if there are any.
    pub place: Option<&'static str>,
    /// What is unknown: phrases. Empty if the effect is certain.
    pub doubts: Vec<String>,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = match self.packets {
            0 | 1 => String::new(),
            packets => format!(" and {} more", packets - 1),
        };
        let Self {
            packet,
            expected,
            found,
            ..
        } = self;
        write!(f, "{packet}{more}: expected {expected}, found {found}")?;
        if let Some(rule) = &self.rule {
            write!(f, " by {rule}")?;
        }
        if let Some(place) = self.place {
            write!(f, ", {place}")?;
        }
        match self.doubts.as_slice() {
            [] => Ok(()),
            doubts => write!(f, "; not certain, it also depends on {}", doubts.join("; ")),
        }
    }
}

/// Compares the effect of rules with the effect of the expected rules.
///
/// # Errors
/// There are too many possibilities for a packet.
pub fn compare(expected: &Simulation, found: &Simulation) -> Result<Comparison, TooComplex> {
    let mut comparison = Comparison::default();
    let has_own = found.rules.tables.iter().any(has_own_chains);
    for packet in packets::list(&expected.rules, &found.rules, &expected.pod) {
        let wanted = simulate(&expected.rules, &expected.pod, &packet)?;
        let is = simulate(&found.rules, &found.pod, &packet)?;
        comparison.packets += 1;
        if is.certain && landing(&wanted) == landing(&is) {
            continue;
        }
        let effect = effect(&packet, &wanted, &is, has_own);
        let direction = |effect: &Effect| effect.packet.starts_with("inbound");
        let same = |known: &&mut Effect| {
            direction(known) == direction(&effect)
                && (&known.expected, &known.found, &known.rule, &known.doubts)
                    == (&effect.expected, &effect.found, &effect.rule, &effect.doubts)
        };
        match comparison.effects.iter_mut().find(same) {
            Some(known) => known.packets += 1,
            None => comparison.effects.push(effect),
        }
    }
    Ok(comparison)
}

/// The rules owned by sidetrack among these, as if they were alone. In shared chains of iptables, these are the jumps to
/// chains that it owns.
pub fn own_rules(all: &Netfilter) -> Netfilter {
    let is_own_jump = |rule: &Rule| {
        let mut actions = rule.actions();
        actions.any(|action| matches!(action, Action::Planned(ruleset::Action::Jump(chain)) if is_own_chain(chain)))
    };
    let mut own = all.clone();
    own.unreadable.clear();
    for table in own.tables.iter_mut().filter(|table| !is_own_table(&table.name)) {
        for chain in table.chains.iter_mut().filter(|chain| !is_own_chain(&chain.name)) {
            chain.rules.retain(is_own_jump);
            if let Some(base) = &mut chain.base {
                base.drops = false;
            }
        }
    }
    own
}

fn has_own_chains(table: &Table) -> bool {
    is_own_table(&table.name) || table.chains.iter().any(|chain| is_own_chain(&chain.name))
}

fn is_own_table(name: &str) -> bool {
    TableFamily::of_own_table(name).is_some()
}

fn is_own_chain(name: &str) -> bool {
    let prefix = TABLE.to_uppercase();
    name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('_'))
}

/// Where a packet ends, whatever translated it: two paths with the same landing have the same effect.
fn landing<'p>(path: &'p PacketPath) -> (&'p End, Option<Verdict>) {
    let transparent = matches!(path.verdict, Verdict::Tproxy(_)).then_some(path.verdict);
    (&path.end, transparent)
}

fn effect(packet: &Packet, wanted: &PacketPath, is: &PacketPath, has_own: bool) -> Effect {
    let (mut expected, mut found) = (happens(wanted), happens(is));
    if expected == found && landing(wanted) != landing(is) {
        expected += &format!(" ({})", end(&wanted.end));
        found += &format!(" ({})", end(&is.end));
    }
    let decisive = is.trace.iter().rev().find(|entry| decides(entry));
    Effect {
        packet: words(packet),
        packets: 1,
        expected,
        found,
        rule: decisive.map(rule),
        place: decisive.filter(|_| has_own).and_then(|decisive| place(is, decisive)),
        doubts: is.doubts.clone(),
    }
}

/// What rules do with a packet.
fn happens(path: &PacketPath) -> String {
    match path.verdict {
        Verdict::Redirect(port) => format!("redirected to port {port}"),
        Verdict::Tproxy(port) => format!("passed to the transparent socket on port {port}"),
        Verdict::Dnat(to) => format!("translated to {to}"),
        Verdict::Accept => "not redirected".to_owned(),
        Verdict::Drop => "dropped".to_owned(),
        Verdict::Reject => "rejected".to_owned(),
    }
}

fn end(end: &End) -> String {
    match end {
        End::Delivered(to) => format!("delivered at {to}"),
        End::Sent { to, interface } => format!("sent to {to} by {interface}"),
        End::PassedThrough(to) => format!("forwarded to {to}"),
        End::Dropped => "dropped".to_owned(),
        End::Rejected => "rejected".to_owned(),
    }
}

/// Whether a step of a trace decides the packet's fate.
fn decides(entry: &TraceEntry) -> bool {
    match &entry.step {
        Step::Taken(rule) => rule.actions().any(|action| match action {
            Action::Planned(
                ruleset::Action::Return
                | ruleset::Action::Accept
                | ruleset::Action::Drop
                | ruleset::Action::Reject(_)
                | ruleset::Action::Redirect(_)
                | ruleset::Action::Tproxy { .. },
            )
            | Action::Reject
            | Action::Queue
            | Action::Untrack
            | Action::Redirect(_)
            | Action::Dnat(..)
            | Action::Tproxy { .. } => true,
            Action::Planned(_)
            | Action::Goto(_)
            | Action::Mark(_)
            | Action::Snat(..)
            | Action::Map(..)
            | Action::Nothing(_)
            | Action::Unreadable(_) => false,
        }),
        Step::NowhereToRedirect(_) | Step::PolicyDrop => true,
        Step::NoMatch(..) | Step::Unknown(_) | Step::End | Step::Decided | Step::Untracked | Step::Excluded => false,
    }
}

fn rule(entry: &TraceEntry) -> String {
    let (chain, table) = (&entry.chain.name, &entry.table.name);
    let rules = entry.chain.rules.iter();
    let number = entry
        .step
        .rule()
        .and_then(|rule| rules.clone().position(|other| ptr::eq(other, rule)));
    match number {
        Some(number) => format!("rule {} of chain {chain} in {table}", number + 1),
        None => format!("the policy of chain {chain} in {table}"),
    }
}

/// Whether the rule of an entry is sidetrack's.
pub fn is_own(entry: &TraceEntry) -> bool {
    is_own_table(&entry.table.name) || is_own_chain(&entry.chain.name)
}

/// Where a foreign rule is in relation to sidetrack's; `None` for one of its own.
fn place(path: &PacketPath, decisive: &TraceEntry) -> Option<&'static str> {
    if is_own(decisive) {
        return None;
    }
    let before = path.trace.iter().take_while(|entry| !ptr::eq(*entry, decisive));
    let own: Vec<&TraceEntry> = before.filter(|entry| is_own(entry)).collect();
    Some(match own.as_slice() {
        [] => "in front of sidetrack's rules",
        own if own.iter().any(|entry| decides(entry)) => "behind sidetrack's rules, which had decided",
        _ => "behind sidetrack's rules",
    })
}

/// The packet as `sidetrack explain` reads it.
fn words(packet: &Packet) -> String {
    let protocol = packet.protocol.word();
    let to = endpoint(packet.destination, packet.destination_port);
    let mut words = match &packet.origin {
        Origin::Process { uid, gid, .. } => {
            format!("outbound {protocol} {to} --uid {} --gid {}", uid.get(), gid.get())
        }
        Origin::Interface(interface) => format!("inbound {protocol} {to} --interface {interface}"),
    };
    words += &format!(" --source {}", packet.source);
    if packet.mark != 0 {
        words += &format!(" --mark {}", packet.mark);
    }
    if packet.tracking == Tracking::Invalid {
        words += " --connection-state invalid";
    }
    words
}

/// Rules and the pod of which they decide.
pub fn simulation(source: &str, rules: Netfilter, pod: Pod) -> Simulation {
    Simulation {
        source: source.to_owned(),
        rules,
        pod,
        loopback_routes: Vec::new(),
    }
}
