//! All rules of a network namespace that packets pass, whichever program wrote them.
//!
//! These types are a superset of a plan's: a rule is a list of statements, and a statement is either one that plans have
//! ([`Match::Planned`], [`Action::Planned`]), or one that only other programs write. A plan cannot contain the latter, so no
//! renderer has to write them. A statement that cannot be decoded is kept as such: evaluation then yields "unknown".

mod convert;
mod evaluate;

use std::borrow::Cow;
use std::net::IpAddr;

use super::{CgroupPaths, ChainType, Hook, Name, Set};
use crate::types::{Family, InterfaceName, Port};

pub use evaluate::{applicable_entry, holds};

/// All tables of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Netfilter {
    /// The tables, in the order in which the kernel lists them.
    pub tables: Vec<Table>,
    /// What could not be read and may concern any packet: sentences.
    pub unreadable: Vec<String>,
}

impl Netfilter {
    /// Replaces indexes of interfaces in conditions by the names that the interfaces have now.
    pub fn name_interfaces(&mut self, interfaces: &[(u32, InterfaceName)]) {
        let chains = self.tables.iter_mut().flat_map(|table| &mut table.chains);
        let rules = chains.flat_map(|chain| &mut chain.rules);
        for statement in rules.flat_map(|rule| &mut rule.statements) {
            match statement {
                Statement::Match(Match::Lookup(lookup)) => {
                    name_interfaces(&mut lookup.keys, lookup.elements.iter_mut(), interfaces);
                }
                Statement::Action(Action::Map(keys, entries)) => {
                    name_interfaces(keys, entries.iter_mut().map(|entry| &mut entry.spans), interfaces);
                }
                Statement::Match(_) | Statement::Action(_) => {}
            }
        }
    }

    /// Gives the cgroups that rules have by their IDs the paths that are found for them.
    pub fn name_cgroups(&mut self, path: CgroupPaths) {
        let chains = self.tables.iter_mut().flat_map(|table| &mut table.chains);
        let rules = chains.flat_map(|chain| &mut chain.rules);
        for statement in rules.flat_map(|rule| &mut rule.statements) {
            if let Statement::Match(Match::Planned(planned)) = statement {
                planned.name_cgroup(path);
            }
        }
    }
}

/// Names the interfaces of fields that are indexes, if all of them have names.
fn name_interfaces<'e>(
    keys: &mut [Key],
    elements: impl Iterator<Item = &'e mut Vec<Span>>,
    interfaces: &[(u32, InterfaceName)],
) {
    let mut elements: Vec<&mut Vec<Span>> = elements.collect();
    for (at, key) in keys.iter_mut().enumerate() {
        let named = match key.field {
            Field::InIndex => Field::InInterface,
            Field::OutIndex => Field::OutInterface,
            _ => continue,
        };
        let name = |(first, last): Span| {
            let mut interfaces = interfaces
                .iter()
                .filter(|(index, _)| first == last && u128::from(*index) == first);
            interfaces.next().map(|(_, name)| evaluate::name_as_number(name))
        };
        let names: Option<Vec<u128>> = elements.iter().map(|spans| name(*spans.get(at)?)).collect();
        let Some(names) = names.filter(|_| key.mask == key.field.largest()) else {
            continue;
        };
        *key = Key::whole(named);
        for (spans, name) in elements.iter_mut().zip(names) {
            spans[at] = (name, name);
        }
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Family and name in the syntax of nft, or the name and program of legacy iptables.
    pub name: String,
    /// The family of its packets, if it is only one.
    pub family: Option<Family>,
    /// The sets of statements that plans have.
    pub sets: Vec<Set>,
    /// The chains.
    pub chains: Vec<Chain>,
}

impl Table {
    /// The chain called `name`.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

/// A chain and its rules, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name, unique in the table.
    pub name: Name,
    /// The hook of a base chain.
    pub base: Option<Base>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// How the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Type. Chains of other programs may do more than it says, such as to drop packets in one of type NAT.
    pub kind: ChainType,
    /// Netfilter hook.
    pub hook: Hook,
    /// Priority among chains at one hook: lower is earlier.
    pub priority: i32,
    /// Whether the policy is to drop packets that no rule accepts.
    pub drops: bool,
}

/// A rule: statements in the order of evaluation. A match that does not hold ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The statements.
    pub statements: Vec<Statement>,
    /// The comment, or an empty string.
    pub comment: Cow<'static, str>,
}

impl Rule {
    /// The actions, in order.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::Action(action) => Some(action),
            Statement::Match(_) => None,
        })
    }

    /// Whether some part of the rule could not be decoded.
    pub fn is_unreadable(&self) -> bool {
        self.statements.iter().any(|statement| {
            matches!(
                statement,
                Statement::Match(Match::Unreadable(_)) | Statement::Action(Action::Unreadable(_))
            )
        })
    }
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A condition.
    Match(Match),
    /// An action.
    Action(Action),
}

/// A condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// One that plans have.
    Planned(super::Match),
    /// Whether fields of the packet have certain values.
    Lookup(Lookup),
    /// One that cannot be decoded: its text.
    Unreadable(String),
}

/// The smallest and the largest value of a range.
pub type Span = (u128, u128);

/// A condition on fields of a packet: an element that has the values of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The fields.
    pub keys: Vec<Key>,
    /// The elements, each with a span for every field.
    pub elements: Vec<Vec<Span>>,
    /// Whether the condition holds if there is no such element.
    pub is_negated: bool,
    /// Whether the condition holds if the packet has no such field.
    pub if_missing: bool,
}

impl Lookup {
    /// The condition that a field has a value of these spans.
    pub fn one_of(field: Field, spans: impl IntoIterator<Item = Span>) -> Self {
        Self {
            keys: vec![Key::whole(field)],
            elements: spans.into_iter().map(|span| vec![span]).collect(),
            is_negated: false,
            if_missing: false,
        }
    }

    /// The condition that the masked bits of a field have this value.
    pub fn masked(field: Field, mask: u128, value: u128) -> Self {
        Self {
            keys: vec![Key { field, mask }],
            elements: vec![vec![(value, value)]],
            is_negated: false,
            if_missing: false,
        }
    }

    /// The opposite, or the same.
    #[must_use]
    pub fn negated_if(mut self, is_negated: bool) -> Self {
        self.is_negated ^= is_negated;
        self
    }
}

/// A field of a packet, as far as a mask leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The field.
    pub field: Field,
    /// The bits that count.
    pub mask: u128,
}

impl Key {
    /// The whole field.
    pub fn whole(field: Field) -> Self {
        Self {
            field,
            mask: field.largest(),
        }
    }
}

/// A property of a packet, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The family, as `NFPROTO_…` of linux/netfilter.h.
    Family,
    /// The transport protocol.
    Protocol,
    /// The name of the interface that the packet arrived on: 16 bytes, padded with zeros.
    InInterface,
    /// The name of the interface that the packet leaves by.
    OutInterface,
    /// The index of the interface that the packet arrived on.
    InIndex,
    /// The index of the interface that the packet leaves by.
    OutIndex,
    /// The source address of a packet of this family.
    Source(Family),
    /// The destination address of a packet of this family.
    Destination(Family),
    /// The source port.
    SourcePort,
    /// The destination port.
    DestinationPort,
    /// The flags of the TCP header.
    TcpFlags,
    /// The user that owns the socket.
    Uid,
    /// The group that owns the socket.
    Gid,
    /// The packet's mark.
    Mark,
    /// The mark of its connection.
    ConntrackMark,
    /// The conntrack state, as bits: [`state`].
    ConntrackState,
    /// The conntrack status, as `IPS_…` of linux/netfilter/nf_conntrack_common.h.
    ConntrackStatus,
    /// The direction: 0 if the packet goes the same way as the first one of its connection.
    ConntrackDirection,
    /// The type of the source address, as `RTN_…` of linux/rtnetlink.h.
    SourceType,
    /// The type of the destination address.
    DestinationType,
    /// Whether the source address is reached by the interface that the packet arrived on: 1 if it is.
    ReversePath,
}

/// Bits of [`Field::ConntrackState`]: those of nf_tables, and two that only iptables has.
pub mod state {
    /// The packet belongs to no connection.
    pub const INVALID: u32 = 1;
    /// Packets have gone through in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// Another connection announced the packet's.
    pub const RELATED: u32 = 4;
    /// The first packet of a connection.
    pub const NEW: u32 = 8;
    /// The packet is not tracked.
    pub const UNTRACKED: u32 = 64;
    /// The connection's source is translated.
    pub const SNAT: u32 = 256;
    /// The connection's destination is translated.
    pub const DNAT: u32 = 512;
}

/// Bits of [`Field::ConntrackStatus`].
pub mod status {
    /// `IPS_CONFIRMED`: the first packet has passed all hooks.
    pub const CONFIRMED: u32 = 1 << 3;
    /// `IPS_SRC_NAT`.
    pub const SRC_NAT: u32 = 1 << 4;
    /// `IPS_DST_NAT`.
    pub const DST_NAT: u32 = 1 << 5;
    /// `IPS_SRC_NAT_DONE`.
    pub const SRC_NAT_DONE: u32 = 1 << 7;
    /// `IPS_DST_NAT_DONE`.
    pub const DST_NAT_DONE: u32 = 1 << 8;
}

impl Field {
    /// Its length in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Family | Self::Protocol | Self::TcpFlags | Self::ConntrackDirection | Self::ReversePath => 1,
            Self::SourcePort | Self::DestinationPort => 2,
            Self::Source(Family::V4) | Self::Destination(Family::V4) => 4,
            Self::InIndex | Self::OutIndex | Self::Uid | Self::Gid | Self::Mark | Self::ConntrackMark => 4,
            Self::ConntrackState | Self::ConntrackStatus | Self::SourceType | Self::DestinationType => 4,
            Self::InInterface | Self::OutInterface => 16,
            Self::Source(Family::V6) | Self::Destination(Family::V6) => 16,
        }
    }

    /// The largest value.
    pub fn largest(self) -> u128 {
        u128::MAX >> (128 - 8 * self.length())
    }
}

/// A value that a translation chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<T> {
    /// The packet keeps its own.
    Keep,
    /// This value.
    One(T),
    /// One of several, or an unknown one.
    Any,
}

/// A change of a packet's or a connection's mark: `(old & keep) ^ (other & copy) ^ xor`, where `other` is the mark of the
/// connection or packet, respectively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkChange {
    /// Whether the connection's mark changes, not the packet's.
    pub of_connection: bool,
    /// The bits of the old mark that stay.
    pub keep: u32,
    /// The bits that are copied from the other mark.
    pub copy: u32,
    /// The bits that are inverted then.
    pub xor: u32,
}

/// An action of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// One that plans have.
    Planned(super::Action),
    /// Continues in another chain, and returns to where this chain would return to.
    Goto(Name),
    /// Refuses the packet and says so to its sender.
    Reject,
    /// Hands the packet to a program, which decides.
    Queue,
    /// Excludes the packet from connection tracking.
    Untrack,
    /// Changes a mark; the next statement is evaluated.
    Mark(MarkChange),
    /// Translates the destination to the host itself.
    Redirect(Choice<Port>),
    /// Translates the destination.
    Dnat(Choice<IpAddr>, Choice<Port>),
    /// Translates the source.
    Snat(Choice<IpAddr>, Choice<Port>),
    /// Hands the packet, unchanged, to the transparent socket on a port.
    Tproxy {
        /// The port.
        port: Choice<Port>,
        /// The change of the packet's mark.
        mark: MarkChange,
        /// Whether this accepts the packet. Otherwise, the next statement is evaluated.
        is_final: bool,
    },
    /// Takes the action of the element that has the packet's values; if there is none, the rule ends.
    Map(Vec<Key>, Vec<Entry>),
    /// An action without effect on the packet's path: its text.
    Nothing(String),
    /// One that cannot be decoded: its text.
    Unreadable(String),
}

/// An element of a map, and its action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A span for every field.
    pub spans: Vec<Span>,
    /// The action.
    pub action: Action,
}
