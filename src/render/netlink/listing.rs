//! What a table holds, read from nf_tables messages: those of a plan, or those that the kernel answers with.
//!
//! Both sides go through the same reading, so equal listings mean equal tables.

use std::collections::BTreeMap;

use netlink_packet_core::{DefaultNla, Emitable as _, NLA_TYPE_MASK, Nla as _, NlasIterator, Parseable as _};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, DataAttribute, ExpressionAttribute, Hook, HookNumber, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, SetAttribute, SetElementAttribute, SetElementFlags, SetElementList, TableAttribute,
};

use super::Step;
use super::attributes::Attributes;

/// The contents of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// `NFT_TABLE_F_…`: a dormant table holds rules that do nothing.
    pub(super) flags: u32,
    pub(super) chains: BTreeMap<String, Chain>,
    pub(super) sets: BTreeMap<String, Set>,
}

/// A chain and its rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) hook: Option<BaseHook>,
    pub(super) rules: Vec<Rule>,
}

/// Where a base chain is called; numbers as in linux/netfilter.h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseHook {
    pub(super) kind: String,
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) policy: u32,
}

/// An expression: its name, and its attributes that are not zero.
pub(super) type Expression = (String, BTreeMap<u16, Vec<u8>>);

/// The expressions of a rule, each a name and its attributes, and the comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) expressions: Vec<Expression>,
    pub(super) user_data: Vec<u8>,
}

/// A set: the type of its keys, and where its intervals begin and end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) datatype: u32,
    pub(super) flags: u32,
    /// Sorted by key; at one key an end comes before a beginning.
    pub(super) boundaries: Vec<(Vec<u8>, Boundary)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Boundary {
    End,
    Begin,
}

impl Listing {
    /// What a table holds that these steps have made from nothing.
    pub fn of_steps(steps: &[Step]) -> Self {
        let messages: Vec<NfTablesMessage> = steps.iter().flat_map(Step::message).collect();
        Self::of(&messages)
    }

    /// Reads messages that create things. Others are passed over.
    pub fn of<'m>(messages: impl IntoIterator<Item = &'m NfTablesMessage>) -> Self {
        let mut listing = Self::default();
        for message in messages {
            match message {
                NfTablesMessage::NewTable(table) => listing.read_table(&table.attributes),
                NfTablesMessage::NewChain(chain) => listing.read_chain(&chain.attributes),
                NfTablesMessage::NewRule(rule) => listing.read_rule(&rule.attributes),
                NfTablesMessage::NewSet(set) => listing.read_set(&set.attributes),
                NfTablesMessage::NewSetElement(elements) => listing.read_elements(&elements.attributes),
                _ => {}
            }
        }
        for set in listing.sets.values_mut() {
            set.boundaries.sort_unstable();
            // An end without a beginning: nft puts one at 0 where no interval begins there.
            if let Some((_, Boundary::End)) = set.boundaries.first() {
                set.boundaries.remove(0);
            }
        }
        listing
    }

    /// The names of the chains.
    pub fn chain_names(&self) -> impl Iterator<Item = &str> {
        self.chains.keys().map(String::as_str)
    }

    /// The names of the sets.
    pub fn set_names(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// The set called `name`.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.get(name)
    }

    /// Whether both listings have a chain of this name that is called at the same place.
    pub fn chain_has_same_hook(&self, other: &Self, name: &str) -> bool {
        match (self.chains.get(name), other.chains.get(name)) {
            (Some(one), Some(other)) => one.hook == other.hook,
            _ => false,
        }
    }

    fn read_table(&mut self, attributes: &[TableAttribute]) {
        for attribute in attributes {
            if let TableAttribute::Flags(flags) = attribute {
                self.flags = flags.bits();
            }
        }
    }

    fn read_chain(&mut self, attributes: &[ChainAttribute]) {
        let (mut name, mut kind, mut policy, mut hook) = (String::new(), String::new(), 0, None);
        for attribute in attributes {
            match attribute {
                ChainAttribute::Name(text) => name.clone_from(text),
                ChainAttribute::Type(text) => kind.clone_from(text),
                ChainAttribute::Policy(number) => policy = *number,
                ChainAttribute::Hook(attributes) => hook = Some(attributes),
                _ => {}
            }
        }
        let hook = hook.map(|attributes| {
            let (mut hook, mut priority) = (HookNumber::Inet(InetHookNumber::Other(u32::MAX)), 0);
            for attribute in attributes {
                match attribute {
                    Hook::Number(number) => hook = *number,
                    Hook::Priority(number) => priority = number.cast_signed(),
                    _ => {}
                }
            }
            BaseHook {
                kind,
                hook: hook.into(),
                priority,
                policy,
            }
        });
        self.chains.entry(name).or_default().hook = hook;
    }

    fn read_rule(&mut self, attributes: &[RuleAttribute]) {
        let (mut chain, mut expressions, mut user_data) = (String::new(), Vec::new(), Vec::new());
        for attribute in attributes {
            match attribute {
                RuleAttribute::Chain(name) => chain.clone_from(name),
                RuleAttribute::Expressions(list) => expressions = list.iter().filter_map(expression).collect(),
                RuleAttribute::UserData(bytes) => user_data.clone_from(bytes),
                _ => {}
            }
        }
        self.chains
            .entry(chain)
            .or_default()
            .rules
            .push(Rule { expressions, user_data });
    }

    fn read_set(&mut self, attributes: &[SetAttribute]) {
        let (mut name, mut set) = (String::new(), Set::default());
        for attribute in attributes {
            match attribute {
                SetAttribute::Name(text) => name.clone_from(text),
                SetAttribute::KeyType(number) => set.datatype = *number,
                SetAttribute::Flags(flags) => set.flags = flags.bits(),
                _ => {}
            }
        }
        self.sets.insert(name, set);
    }

    fn read_elements(&mut self, attributes: &[SetElementList]) {
        let (mut name, mut boundaries) = (String::new(), Vec::new());
        for attribute in attributes {
            match attribute {
                SetElementList::Set(text) => name.clone_from(text),
                SetElementList::Elements(elements) => boundaries = elements.iter().filter_map(boundary).collect(),
                _ => {}
            }
        }
        self.sets.entry(name).or_default().boundaries.extend(boundaries);
    }
}

/// The expressions of a list that is in bytes.
pub(super) fn expressions(list: &Attributes) -> Vec<Expression> {
    let elements = NlasIterator::new(list.as_bytes()).flatten();
    let elements = elements.filter_map(|element| ListAttribute::parse(&element).ok());
    elements.filter_map(|element| expression(&element)).collect()
}

fn expression(element: &ListAttribute<ExpressionAttribute>) -> Option<Expression> {
    let ListAttribute::Element(attributes) = element else {
        return None;
    };
    let (mut name, mut values) = (String::new(), BTreeMap::new());
    for attribute in attributes {
        match attribute {
            ExpressionAttribute::Name(text) => name.clone_from(text),
            ExpressionAttribute::Data(data) => {
                let mut bytes = vec![0; data.buffer_len()];
                data.emit(&mut bytes);
                values = self::values(&bytes);
            }
            _ => {}
        }
    }
    Some((name, values))
}

/// Attributes by their numbers, without those that are zero: the kernel states some that a sender may leave out.
fn values(attributes: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    NlasIterator::new(attributes)
        .flatten()
        .filter_map(|nla| DefaultNla::parse(&nla).ok())
        .map(|nla| (nla.kind() & NLA_TYPE_MASK, value(&nla)))
        .filter(|(_, value)| value.iter().any(|byte| *byte != 0))
        .collect()
}

fn value(nla: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    bytes
}

fn boundary(element: &ListAttribute<SetElementAttribute>) -> Option<(Vec<u8>, Boundary)> {
    let ListAttribute::Element(attributes) = element else {
        return None;
    };
    let (mut key, mut boundary) = (None, Boundary::Begin);
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => key = Some(bytes.clone()),
            SetElementAttribute::Flags(flags) if flags.contains(SetElementFlags::IntervalEnd) => {
                boundary = Boundary::End;
            }
            _ => {}
        }
    }
    key.map(|key| (key, boundary))
}
