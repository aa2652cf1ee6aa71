//! The contents of a table, read from nf_tables messages: those of a plan, or those of a dump.
//!
//! Both go through the same code, so equal listings mean equal tables.

use std::collections::BTreeMap;

use libc::{NFT_MSG_NEWCHAIN, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE};

use super::attributes::{Attributes, Malformed, number, read, text};
use super::encode::{number as family_number, timeout_attribute};
use super::uapi::*;
use super::{Message, Step};
use crate::ruleset::{TableFamily, TcpState};

/// The contents of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The family of the table, if it is one that sidetrack writes to.
    pub(super) family: TableFamily,
    /// `NFT_TABLE_F_…`: a dormant table holds rules that do nothing.
    pub(super) flags: u32,
    pub(super) chains: BTreeMap<String, Chain>,
    pub(super) sets: BTreeMap<String, Set>,
    /// By name and type: names are unique for each type.
    pub(super) objects: BTreeMap<(String, u32), Object>,
}

/// A chain and its rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) hook: Option<BaseHook>,
    pub(super) rules: Vec<Rule>,
}

/// The hook of a base chain; numbers as in linux/netfilter.h.
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

/// A named object, as far as it is a ct timeout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// `NFPROTO_…` (linux/netfilter.h).
    pub(super) family: u16,
    /// The protocol (linux/in.h).
    pub(super) protocol: u8,
    /// The timeouts of the states that sidetrack sets, in seconds. The kernel lists the other states too, with the
    /// value of its sysctl when the object was created, or nft's default.
    pub(super) timeouts: BTreeMap<u16, u32>,
}

/// A set: the type of its keys, and the boundaries of its intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) datatype: u32,
    pub(super) flags: u32,
    /// Sorted by key; at the same key an end comes before a beginning.
    pub(super) boundaries: Vec<(Vec<u8>, Boundary)>,
}

impl Set {
    /// Whether the set holds single keys, not intervals.
    pub(super) fn holds_single_keys(&self) -> bool {
        self.flags == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Boundary {
    End,
    Begin,
}

impl Listing {
    /// An empty or absent table.
    pub fn empty(family: TableFamily) -> Self {
        Self {
            family,
            ..Self::default()
        }
    }

    /// The contents of a table that these steps create.
    pub fn of_steps(steps: &[Step]) -> Self {
        let messages = steps
            .iter()
            .map(|step| (step.family, step.kind, step.attributes.as_bytes()));
        Self::read(messages).unwrap_or_default() // Our own messages are not truncated.
    }

    /// Reads messages that create objects; others are skipped.
    ///
    /// # Errors
    /// An attribute is truncated.
    pub fn of<'m>(messages: impl IntoIterator<Item = &'m Message>) -> Result<Self, Malformed> {
        let messages = messages.into_iter();
        Self::read(messages.map(|message| (message.family, message.kind, message.attributes.as_slice())))
    }

    fn read<'m>(messages: impl Iterator<Item = (u8, i32, &'m [u8])>) -> Result<Self, Malformed> {
        let mut listing = Self::default();
        for (family, kind, attributes) in messages {
            let mut known = TableFamily::ALL.into_iter();
            listing.family = known.find(|known| family_number(*known) == family).unwrap_or_default();
            match kind {
                NFT_MSG_NEWTABLE => listing.read_table(attributes)?,
                NFT_MSG_NEWCHAIN => listing.read_chain(attributes)?,
                NFT_MSG_NEWRULE => listing.read_rule(attributes)?,
                NFT_MSG_NEWSET => listing.read_set(attributes)?,
                NFT_MSG_NEWOBJ => listing.read_object(attributes)?,
                NFT_MSG_NEWSETELEM => listing.read_elements(attributes)?,
                _ => {}
            }
        }
        for set in listing.sets.values_mut() {
            set.boundaries.sort_unstable();
            // An end without a beginning: nft adds one at 0 if no interval begins there.
            if let Some((_, Boundary::End)) = set.boundaries.first() {
                set.boundaries.remove(0);
            }
        }
        Ok(listing)
    }

    /// The names of the chains.
    pub fn chain_names(&self) -> impl Iterator<Item = &str> {
        self.chains.keys().map(String::as_str)
    }

    /// The names of the sets.
    pub fn set_names(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// The names and types of the objects.
    pub fn objects(&self) -> impl Iterator<Item = (&str, u32)> {
        self.objects.keys().map(|(name, kind)| (name.as_str(), *kind))
    }

    /// The object of timeouts called `name`.
    pub fn object(&self, name: &str) -> Option<&Object> {
        self.objects.get(&(name.to_owned(), NFT_OBJECT_CT_TIMEOUT))
    }

    /// The set called `name`.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.get(name)
    }

    /// Whether both listings have a chain of this name with the same hook.
    pub fn chain_has_same_hook(&self, other: &Self, name: &str) -> bool {
        match (self.chains.get(name), other.chains.get(name)) {
            (Some(one), Some(other)) => one.hook == other.hook,
            _ => false,
        }
    }

    fn read_table(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        for attribute in read(attributes) {
            if let (NFTA_TABLE_FLAGS, value) = attribute? {
                self.flags = number(value)?;
            }
        }
        Ok(())
    }

    fn read_chain(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let (mut name, mut kind, mut policy, mut place) = (String::new(), String::new(), 0, None);
        for attribute in read(attributes) {
            match attribute? {
                (NFTA_CHAIN_NAME, value) => name = text(value),
                (NFTA_CHAIN_TYPE, value) => kind = text(value),
                (NFTA_CHAIN_POLICY, value) => policy = number(value)?,
                (NFTA_CHAIN_HOOK, value) => place = Some(hook_and_priority(value)?),
                _ => {}
            }
        }
        let hook = place.map(|(hook, priority)| BaseHook {
            kind,
            hook,
            priority,
            policy,
        });
        self.chains.entry(name).or_default().hook = hook;
        Ok(())
    }

    fn read_rule(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let (mut chain, mut expressions, mut user_data) = (String::new(), Vec::new(), Vec::new());
        for attribute in read(attributes) {
            match attribute? {
                (NFTA_RULE_CHAIN, value) => chain = text(value),
                (NFTA_RULE_EXPRESSIONS, list) => expressions = expressions_of(list)?,
                (NFTA_RULE_USERDATA, value) => user_data = value.to_vec(),
                _ => {}
            }
        }
        let rule = Rule { expressions, user_data };
        self.chains.entry(chain).or_default().rules.push(rule);
        Ok(())
    }

    fn read_set(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let (mut name, mut set) = (String::new(), Set::default());
        for attribute in read(attributes) {
            match attribute? {
                (NFTA_SET_NAME, value) => name = text(value),
                (NFTA_SET_KEY_TYPE, value) => set.datatype = number(value)?,
                (NFTA_SET_FLAGS, value) => set.flags = number(value)?,
                _ => {}
            }
        }
        self.sets.insert(name, set);
        Ok(())
    }

    fn read_object(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let (mut name, mut kind, mut data) = (String::new(), 0, &[][..]);
        for attribute in read(attributes) {
            match attribute? {
                (NFTA_OBJ_NAME, value) => name = text(value),
                (NFTA_OBJ_TYPE, value) => kind = number(value)?,
                (NFTA_OBJ_DATA, value) => data = value,
                _ => {}
            }
        }
        let object = match kind {
            NFT_OBJECT_CT_TIMEOUT => timeouts(data)?,
            _ => Object::default(),
        };
        self.objects.insert((name, kind), object);
        Ok(())
    }

    fn read_elements(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let (mut name, mut boundaries) = (String::new(), Vec::new());
        for attribute in read(attributes) {
            match attribute? {
                (NFTA_SET_ELEM_LIST_SET, value) => name = text(value),
                (NFTA_SET_ELEM_LIST_ELEMENTS, list) => {
                    for element in read(list) {
                        boundaries.extend(boundary(element?.1)?);
                    }
                }
                _ => {}
            }
        }
        self.sets.entry(name).or_default().boundaries.extend(boundaries);
        Ok(())
    }
}

fn timeouts(data: &[u8]) -> Result<Object, Malformed> {
    let mut object = Object::default();
    for attribute in read(data) {
        match attribute? {
            (NFTA_CT_TIMEOUT_L3PROTO, value) => {
                object.family = value
                    .as_array()
                    .map(|bytes| u16::from_be_bytes(*bytes))
                    .unwrap_or_default();
            }
            (NFTA_CT_TIMEOUT_L4PROTO, value) => object.protocol = value.first().copied().unwrap_or_default(),
            (NFTA_CT_TIMEOUT_DATA, values) => {
                let ours = TcpState::ALL.map(timeout_attribute);
                for value in read(values) {
                    let (state, value) = value?;
                    if ours.contains(&state) {
                        object.timeouts.insert(state, number(value)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(object)
}

fn hook_and_priority(attributes: &[u8]) -> Result<(u32, i32), Malformed> {
    let (mut hook, mut priority) = (u32::MAX, 0);
    for attribute in read(attributes) {
        match attribute? {
            (NFTA_HOOK_HOOKNUM, value) => hook = number(value)?,
            (NFTA_HOOK_PRIORITY, value) => priority = number(value)?.cast_signed(),
            _ => {}
        }
    }
    Ok((hook, priority))
}

/// The expressions of a rule as the kernel lists them.
pub(super) fn expressions(list: &Attributes) -> Vec<Expression> {
    expressions_of(list.as_bytes()).unwrap_or_default() // Our own messages are not truncated.
}

fn expressions_of(list: &[u8]) -> Result<Vec<Expression>, Malformed> {
    read(list).map(|element| expression(element?.1)).collect()
}

fn expression(attributes: &[u8]) -> Result<Expression, Malformed> {
    let (mut name, mut data) = (String::new(), &[][..]);
    for attribute in read(attributes) {
        match attribute? {
            (NFTA_EXPR_NAME, value) => name = text(value),
            (NFTA_EXPR_DATA, value) => data = value,
            _ => {}
        }
    }
    let values = values(&name, data)?;
    Ok((name, values))
}

/// Attributes by number, without zeros: the kernel lists some that a sender may leave out.
fn values(expression: &str, attributes: &[u8]) -> Result<BTreeMap<u16, Vec<u8>>, Malformed> {
    let mut values = BTreeMap::new();
    for attribute in read(attributes) {
        let (kind, value) = attribute?;
        let value = match (expression, kind) {
            ("cmp", NFTA_CMP_DATA)
            | ("bitwise", NFTA_BITWISE_MASK | NFTA_BITWISE_XOR | NFTA_BITWISE_DATA)
            | ("immediate", NFTA_IMMEDIATE_DATA) => without_flags(value)?,
            _ => value.to_vec(),
        };
        if value.iter().any(|byte| *byte != 0) {
            values.insert(kind, value);
        }
    }
    Ok(values)
}

/// Attributes without the nested flag, which the kernel does not set.
fn without_flags(attributes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut same = Attributes::default();
    for attribute in read(attributes) {
        let (kind, value) = attribute?;
        same.bytes(kind, value);
    }
    Ok(same.as_bytes().to_vec())
}

fn boundary(element: &[u8]) -> Result<Option<(Vec<u8>, Boundary)>, Malformed> {
    let (mut key, mut boundary) = (None, Boundary::Begin);
    for attribute in read(element) {
        match attribute? {
            (NFTA_SET_ELEM_KEY, data) => {
                for value in read(data) {
                    if let (NFTA_DATA_VALUE, value) = value? {
                        key = Some(value.to_vec());
                    }
                }
            }
            (NFTA_SET_ELEM_FLAGS, value) if number(value)? & NFT_SET_ELEM_INTERVAL_END != 0 => {
                boundary = Boundary::End;
            }
            _ => {}
        }
    }
    Ok(key.map(|key| (key, boundary)))
}
