//! Decodes the entries of a table of legacy iptables into rules.

use std::collections::BTreeMap;

use super::entries::{number, short, text};
use crate::backend::xtables::{self, Extension};
use crate::ruleset::netfilter::{Action, Base, Chain, Field, Key, Lookup, Match, Rule, Statement, Table};
use crate::ruleset::{self, ChainType, Hook, priority};
use crate::types::Family;

/// A table of legacy iptables: its name, and when the kernel calls its chains.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// Name.
    pub name: &'static str,
    kind: ChainType,
    priority: i32,
    /// The priority at the hooks where sources are translated.
    late_priority: i32,
}

/// The tables that packets pass (`enum nf_ip_hook_priorities`, linux/netfilter_ipv4.h).
pub const TABLES: [Kinds; 5] = [
    kinds("raw", ChainType::Raw, priority::RAW, priority::RAW),
    kinds("mangle", ChainType::Mangle, priority::MANGLE, priority::MANGLE),
    kinds("nat", ChainType::Nat, priority::NAT, priority::NAT_SOURCE),
    kinds("filter", ChainType::Filter, priority::FILTER, priority::FILTER),
    kinds("security", ChainType::Filter, priority::SECURITY, priority::SECURITY),
];

const fn kinds(name: &'static str, kind: ChainType, priority: i32, late_priority: i32) -> Kinds {
    Kinds {
        name,
        kind,
        priority,
        late_priority,
    }
}

impl Kinds {
    fn base(self, hook: Hook, drops: bool) -> Base {
        Base {
            kind: self.kind,
            hook,
            priority: match hook {
                Hook::Input | Hook::Postrouting => self.late_priority,
                Hook::Prerouting | Hook::Forward | Hook::Output => self.priority,
            },
            drops,
        }
    }
}

/// Where the kernel enters a table: at a hook, the offset of the chain's first entry and that of its policy.
#[derive(Clone, Copy, Debug)]
pub struct EntryPoint {
    /// Hook.
    pub hook: Hook,
    /// Offset of the first entry.
    pub first: usize,
    /// Offset of the last entry, which is the policy.
    pub policy: usize,
}

/// The offsets of the fields of `struct ipt_entry` or `struct ip6t_entry`.
struct Offsets {
    address_length: usize,
    interfaces: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    /// Directly followed by `next_offset`.
    target: usize,
    matches: usize,
    /// The flag of a goto.
    goto: u8,
    /// Flags of conditions that are not decoded.
    unknown: u8,
}

const IPV4: Offsets = Offsets {
    address_length: 4,
    interfaces: 16,
    protocol: 80,
    flags: 82,
    inverted: 83,
    target: 88,
    matches: 112,
    goto: 2,
    unknown: 1,
};

const IPV6: Offsets = Offsets {
    address_length: 16,
    interfaces: 64,
    protocol: 128,
    flags: 131,
    inverted: 132,
    target: 140,
    matches: 168,
    goto: 4,
    unknown: 2,
};

/// Decodes a table.
pub fn table(title: &str, kinds: Kinds, family: Family, bytes: &[u8], entry_points: &[EntryPoint]) -> Table {
    let offsets = match family {
        Family::V4 => &IPV4,
        Family::V6 => &IPV6,
    };
    let entries = Entries::read(offsets, bytes);
    let mut chains = Vec::new();
    for point in entry_points {
        let policy = entries
            .at
            .get(&point.policy)
            .map(|bytes| standard_verdict(offsets, bytes));
        chains.push(Chain {
            name: point.hook.name().to_uppercase().into(),
            base: Some(kinds.base(point.hook, policy == Some(Some(DROP)))),
            rules: entries.rules(point.first, Some(point.policy), offsets, family),
        });
    }
    for (first, name) in &entries.chains {
        chains.push(Chain {
            name: name.clone().into(),
            base: None,
            rules: entries.rules(*first, None, offsets, family),
        });
    }
    Table {
        name: title.to_owned(),
        family: Some(family),
        sets: Vec::new(),
        chains,
    }
}

/// The entries of a table by their offsets.
struct Entries<'b> {
    at: BTreeMap<usize, &'b [u8]>,
    /// The user-defined chains by the offsets of their first rules.
    chains: BTreeMap<usize, String>,
}

/// `NF_DROP`, `NF_ACCEPT`, `NF_QUEUE` and `NF_REPEAT` as verdicts: -x - 1. `XT_RETURN` has the number of the last one.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const QUEUE: i32 = -4;
const RETURN: i32 = -5;

/// `struct xt_entry_match` and `struct xt_entry_target`: size, name, revision; then the data.
const NAME: usize = 2;
const REVISION: usize = 31;
const DATA: usize = 32;

/// The target of a user-defined chain's first entry, and of the table's last entry.
const ERROR: &str = "ERROR";

impl<'b> Entries<'b> {
    fn read(offsets: &Offsets, bytes: &'b [u8]) -> Self {
        let mut entries = Self {
            at: BTreeMap::new(),
            chains: BTreeMap::new(),
        };
        let mut offset = 0;
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            let next = short(rest, offsets.target + 2).map_or(0, usize::from);
            let Some(entry) = rest.get(..next).filter(|entry| entry.len() >= offsets.matches) else {
                break;
            };
            offset += next;
            let target = target(offsets, entry);
            match text(target, NAME) {
                Some(ERROR) => {
                    let name = target.get(DATA..).and_then(|data| text(data, 0)).unwrap_or_default();
                    entries.chains.insert(offset, printable(name));
                }
                _ => drop(entries.at.insert(offset - next, entry)),
            }
        }
        // The last one is the end of the table.
        entries.chains.remove(&offset);
        entries
    }

    /// The rules of a chain: entries without a gap, up to its policy or its implicit return.
    fn rules(&self, first: usize, policy: Option<usize>, offsets: &Offsets, family: Family) -> Vec<Rule> {
        let (mut rules, mut at) = (Vec::new(), first);
        while let Some(entry) = self.at.get(&at) {
            if Some(at) == policy {
                return rules;
            }
            rules.push(self.rule(entry, at + entry.len(), offsets, family));
            at += entry.len();
        }
        if policy.is_none() {
            rules.pop(); // The return at the end.
        }
        rules
    }

    fn rule(&self, entry: &[u8], next: usize, offsets: &Offsets, family: Family) -> Rule {
        let mut rule = Rule {
            statements: Vec::new(),
            comment: "".into(),
        };
        match conditions(entry, offsets, family) {
            Some(lookups) => rule.statements.extend(lookups.into_iter().map(matching)),
            None => rule
                .statements
                .push(Statement::Match(Match::Unreadable("entry".to_owned()))),
        }
        let mut at = offsets.matches;
        let end = short(entry, offsets.target).map_or(0, usize::from);
        while at < end {
            let Some(found) = entry.get(at..end) else { break };
            let size = short(found, 0).map_or(0, usize::from);
            match found.get(..size).and_then(|found| extension(found, family)) {
                Some(found) => match xtables::matches(&found) {
                    xtables::Decoded::Comment(comment) => rule.comment = comment.into(),
                    xtables::Decoded::Matches(matches) => {
                        rule.statements.extend(matches.into_iter().map(Statement::Match));
                    }
                },
                None => {
                    rule.statements
                        .push(Statement::Match(Match::Unreadable("match".to_owned())));
                    break;
                }
            }
            at += size;
        }
        let is_goto = entry.get(offsets.flags).is_some_and(|flags| flags & offsets.goto != 0);
        if let Some(action) = self.action(target(offsets, entry), next, is_goto, family) {
            rule.statements.push(Statement::Action(action));
        }
        rule
    }

    /// The action of a target; none for one that continues with the next rule.
    fn action(&self, target: &[u8], next: usize, is_goto: bool, family: Family) -> Option<Action> {
        use ruleset::Action as Planned;
        let unreadable = || Action::Unreadable("target".to_owned());
        let Some(found) = extension(target, family) else {
            return Some(unreadable());
        };
        if !found.name.is_empty() {
            return Some(xtables::target(&found));
        }
        let verdict = number(target, DATA)?.cast_signed();
        Some(match verdict {
            DROP => Action::Planned(Planned::Drop),
            ACCEPT => Action::Planned(Planned::Accept),
            QUEUE => Action::Queue,
            RETURN => Action::Planned(Planned::Return),
            offset => {
                let offset = usize::try_from(offset).ok()?;
                match self.chains.get(&offset) {
                    Some(chain) if is_goto => Action::Goto(chain.clone().into()),
                    Some(chain) => Action::Planned(Planned::Jump(chain.clone().into())),
                    None if offset == next => return None,
                    None => unreadable(),
                }
            }
        })
    }
}

fn matching(lookup: Lookup) -> Statement {
    Statement::Match(Match::Lookup(lookup))
}

fn target<'b>(offsets: &Offsets, entry: &'b [u8]) -> &'b [u8] {
    let at = short(entry, offsets.target).map_or(0, usize::from);
    entry.get(at..).unwrap_or_default()
}

fn standard_verdict(offsets: &Offsets, entry: &[u8]) -> Option<i32> {
    Some(number(target(offsets, entry), DATA)?.cast_signed())
}

fn extension(bytes: &[u8], family: Family) -> Option<Extension<'_>> {
    Some(Extension {
        name: text(bytes, NAME)?,
        revision: (*bytes.get(REVISION)?).into(),
        data: bytes.get(DATA..)?,
        family,
    })
}

fn printable(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

/// The conditions of an entry besides its matches: addresses, interfaces, protocol.
fn conditions(entry: &[u8], offsets: &Offsets, family: Family) -> Option<Vec<Lookup>> {
    const IN_INTERFACE: u8 = 0x01;
    const OUT_INTERFACE: u8 = 0x02;
    const SOURCE: u8 = 0x08;
    const DESTINATION: u8 = 0x10;
    const PROTOCOL: u8 = 0x40;
    const NAME_LENGTH: usize = 16;
    let (flags, inverted) = (*entry.get(offsets.flags)?, *entry.get(offsets.inverted)?);
    if flags & offsets.unknown != 0 {
        return None;
    }
    let big_endian = |at: usize, length: usize| {
        let bytes = entry.get(at..at + length)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    };
    let mut lookups = Vec::new();
    let mut add = |field: Field, mask: u128, value: u128, flag: u8| {
        let is_negated = inverted & flag != 0;
        if mask != 0 || is_negated {
            lookups.push(Lookup {
                keys: vec![Key { field, mask }],
                ..Lookup::one_of(field, [(value & mask, value & mask)]).negated_if(is_negated)
            });
        }
    };
    let length = offsets.address_length;
    let address = |index: usize| big_endian(index * length, length);
    add(Field::Source(family), address(2)?, address(0)?, SOURCE);
    add(Field::Destination(family), address(3)?, address(1)?, DESTINATION);
    let name = |index: usize| big_endian(offsets.interfaces + index * NAME_LENGTH, NAME_LENGTH);
    // A mask that covers the zero after a name compares the whole name.
    let whole = |mask: u128, name: u128| {
        let zeros = |number: u128| number.trailing_zeros() / u8::BITS;
        let is_whole = mask != 0 && zeros(name & mask) > zeros(mask);
        if is_whole { u128::MAX } else { mask }
    };
    add(Field::InInterface, whole(name(2)?, name(0)?), name(0)?, IN_INTERFACE);
    add(Field::OutInterface, whole(name(3)?, name(1)?), name(1)?, OUT_INTERFACE);
    let protocol = short(entry, offsets.protocol)?;
    let is_any = protocol == 0;
    if !is_any {
        add(Field::Protocol, Field::Protocol.largest(), protocol.into(), PROTOCOL);
    }
    Some(lookups)
}
