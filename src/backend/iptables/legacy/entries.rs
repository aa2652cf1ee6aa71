//! The entries of a table of legacy iptables (linux/netfilter/x_tables.h, linux/netfilter_ipv4/ip_tables.h and its
//! twin for IPv6).

use crate::backend::iptables::PREFIX;
use crate::drift::{BaseChain, Catch, CatchEffect, Place};
use crate::ruleset::Hook;
use crate::types::Family;

/// The layout of `struct ipt_entry` or `struct ip6t_entry`. Up to the counters, it is the same on 64-bit and 32-bit
/// systems.
pub struct Layout {
    /// Offset of `char iniface[16]`, which follows the addresses and their masks.
    pub in_interface: usize,
    /// Offset of `__u16 proto`, which follows the interfaces and their masks.
    pub protocol: usize,
    /// Offset of `__u8 flags`, directly followed by `__u8 invflags`.
    pub flags: usize,
    /// `IPT_F_GOTO` or `IP6T_F_GOTO`.
    pub goto: u8,
    /// The flags that restrict no rule: it, and that the protocol is set (`IP6T_F_PROTO`).
    pub flags_without_condition: u8,
    /// Offset of `__u16 target_offset`, directly followed by `__u16 next_offset`.
    pub target_offset: usize,
    /// Size of the entry, without matches and target.
    pub size: usize,
}

/// The size of an entry whose `struct xt_counters`, two 64-bit numbers, follow the offset.
const fn size_with_counters(offset: usize) -> usize {
    offset.next_multiple_of(align_of::<u64>()) + 16
}

pub const IPV4: Layout = Layout {
    in_interface: 16,
    protocol: 80,
    flags: 82,
    goto: 0x02,
    flags_without_condition: 0x02,
    target_offset: 88,
    size: size_with_counters(96),
};

pub const IPV6: Layout = Layout {
    in_interface: 64,
    protocol: 128,
    flags: 131,
    goto: 0x04,
    flags_without_condition: 0x04 | 0x01,
    target_offset: 140,
    size: size_with_counters(148),
};

/// `struct xt_entry_target` and `struct xt_entry_match`: the offset of the name, which follows the size, and that of the
/// data.
pub const NAME: usize = 2;
pub const HEADER: usize = 32;

/// The target of a user-defined chain's first entry, whose data is the chain's name, and of the table's last entry.
const ERROR: &str = "ERROR";
/// The name in the table's last entry.
const END_OF_TABLE: &str = "ERROR";

/// A chain that the kernel calls.
pub struct BuiltIn {
    /// Netfilter hook.
    pub hook: Hook,
    /// Offset of its first entry.
    pub first: usize,
    /// Offset of its last entry, which is its policy.
    pub policy: usize,
}

/// A table.
pub struct Table {
    entries: Vec<Entry>,
    built_in: Vec<BuiltIn>,
    priority: i32,
    nat: bool,
}

/// An entry of a table: a rule, the start of a chain, or a policy.
pub struct Entry {
    offset: usize,
    /// The protocol that it matches, if only one.
    pub protocol: Option<u8>,
    /// What it does.
    pub target: Target,
}

/// What an entry does with the packets that it matches.
pub enum Target {
    /// The start of a user-defined chain.
    Chain(String),
    /// `XT_STANDARD_TARGET`: a verdict, or the offset of the next entry.
    Standard(i32),
    /// An extension, and its effect on packets that our rules would redirect.
    Extension(Option<CatchEffect>),
}

impl Table {
    /// Reads the entries of a table.
    pub fn new(layout: &Layout, bytes: &[u8], built_in: Vec<BuiltIn>, priority: i32, nat: bool) -> Self {
        let mut entries = Vec::new();
        let mut offset = 0;
        while let Some((entry, next)) = bytes.get(offset..).and_then(|rest| entry(layout, rest, offset)) {
            entries.push(entry);
            offset += next;
        }
        Self {
            entries,
            built_in,
            priority,
            nat,
        }
    }

    /// The user-defined chains.
    pub fn user_chains(&self) -> Vec<String> {
        let names = self.entries.iter().filter_map(|entry| match &entry.target {
            Target::Chain(name) => Some(name.clone()),
            Target::Standard(_) | Target::Extension(_) => None,
        });
        names.filter(|name| name != END_OF_TABLE).collect()
    }

    /// The built-in chains at the hooks that sidetrack uses, except those that jump to our chains.
    pub fn base_chains(&self, title: &str, family: Family) -> Vec<BaseChain> {
        let base_chain = |built_in: &BuiltIn| {
            let name = match built_in.hook {
                Hook::Prerouting => "PREROUTING",
                Hook::Input => "INPUT",
                Hook::Forward => "FORWARD",
                Hook::Output => "OUTPUT",
                Hook::Postrouting => "POSTROUTING",
            };
            let (mut seen, mut catches) = (Vec::new(), Vec::new());
            self.follow(name, built_in.first, Some(built_in.policy), &mut seen, &mut catches);
            let jumps_to_own_chain = seen.iter().any(|chain| chain.starts_with(PREFIX));
            (!jumps_to_own_chain).then(|| BaseChain {
                table: title.to_owned(),
                chain: name.to_owned(),
                family: Some(family),
                place: Place {
                    hook: built_in.hook,
                    priority: self.priority,
                    nat: self.nat,
                },
                catches,
            })
        };
        self.built_in.iter().filter_map(base_chain).collect()
    }

    /// Collects the rules of a chain, from its first entry on, and of the chains that it jumps to.
    fn follow(
        &self,
        name: &str,
        first: usize,
        policy: Option<usize>,
        seen: &mut Vec<String>,
        catches: &mut Vec<Catch>,
    ) {
        /// `NF_DROP` and `NF_QUEUE` as verdicts: -x - 1.
        const DROP: i32 = -1;
        const QUEUE: i32 = -4;
        if seen.iter().any(|seen| seen == name) {
            return;
        }
        seen.push(name.to_owned());
        let start = self.entries.partition_point(|entry| entry.offset < first);
        for (entry, number) in self.entries[start..].iter().zip(1..) {
            let effect = match &entry.target {
                Target::Chain(_) => return,
                Target::Extension(effect) => *effect,
                Target::Standard(DROP) => Some(CatchEffect::Drop),
                Target::Standard(QUEUE) => Some(CatchEffect::Queue),
                Target::Standard(verdict) => {
                    if let Some((name, first)) = usize::try_from(*verdict).ok().and_then(|to| self.chain_at(to)) {
                        self.follow(name, first, None, seen, catches);
                    }
                    None
                }
            };
            let is_policy = policy == Some(entry.offset);
            catches.extend(effect.map(|effect| Catch {
                effect,
                rule: (!is_policy).then(|| (name.to_owned(), number)),
                protocol: entry.protocol,
            }));
            if is_policy {
                return;
            }
        }
    }

    /// The chain whose first rule is at this offset.
    fn chain_at(&self, offset: usize) -> Option<(&str, usize)> {
        let at = self.entries.partition_point(|entry| entry.offset < offset);
        match &self.entries.get(at.checked_sub(1)?)?.target {
            Target::Chain(name) => Some((name, offset)),
            Target::Standard(_) | Target::Extension(_) => None,
        }
    }
}

/// The entry at the start of some bytes, and the offset of the next one.
pub fn entry(layout: &Layout, bytes: &[u8], offset: usize) -> Option<(Entry, usize)> {
    /// `IPT_INV_PROTO` and `IP6T_INV_PROTO`.
    const NOT_THIS_PROTOCOL: u8 = 0x40;
    let (target, next) = (
        short(bytes, layout.target_offset)?,
        short(bytes, layout.target_offset + 2)?,
    );
    if next == 0 {
        return None;
    }
    let target = bytes.get(usize::from(target)..).unwrap_or_default();
    let data = target.get(HEADER..).unwrap_or_default();
    let target = match text(target, NAME)? {
        ERROR => Target::Chain(text(data, 0).unwrap_or_default().to_owned()),
        "" => Target::Standard(number(data, 0)?.cast_signed()),
        name => Target::Extension(CatchEffect::of_target(name, data)),
    };
    let inverted = bytes.get(layout.flags + 1)? & NOT_THIS_PROTOCOL != 0;
    let protocol = short(bytes, layout.protocol).filter(|number| *number != 0 && !inverted);
    let entry = Entry {
        offset,
        protocol: protocol.and_then(|number| number.try_into().ok()),
        target,
    };
    Some((entry, next.into()))
}

/// The 16-bit number at an offset.
pub fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// The 32-bit number at an offset.
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// The zero-terminated text at an offset.
pub fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let bytes = bytes.get(at..)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}
