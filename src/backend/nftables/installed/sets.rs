//! The sets and maps of a table, with their elements.

use std::collections::BTreeMap;

use libc::{NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM};

use super::super::Message;
use super::super::attributes::{Malformed, find, number, read, text};
use super::super::uapi::*;

/// A set or map.
#[derive(Clone, Debug, Default)]
pub struct ElementSet {
    /// Length of a key in bytes.
    pub key_length: usize,
    /// Whether the elements are intervals.
    is_interval: bool,
    /// The elements as listed.
    listed: Vec<Listed>,
}

/// An element: all keys from the first to the last one, and the value of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The smallest key; empty for the element that any key has.
    pub first: Vec<u8>,
    /// The largest key. In a concatenation, each part has its own range.
    pub last: Vec<u8>,
    /// The attributes of its value, or nothing.
    pub data: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Listed {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    data: Vec<u8>,
    ends_interval: bool,
}

/// Reads the sets of a table.
///
/// # Errors
/// An attribute is truncated.
pub fn read_sets(messages: &[Message]) -> Result<BTreeMap<String, ElementSet>, Malformed> {
    let mut sets = BTreeMap::<String, ElementSet>::new();
    for message in messages {
        let attributes = &message.attributes;
        match message.kind {
            NFT_MSG_NEWSET => {
                let name = find(attributes, NFTA_SET_NAME).map(text).unwrap_or_default();
                let value = |kind| find(attributes, kind).map_or(Ok(0), number);
                let set = sets.entry(name).or_default();
                set.key_length = value(NFTA_SET_KEY_LEN)? as usize;
                set.is_interval = value(NFTA_SET_FLAGS)? & NFT_SET_INTERVAL != 0;
            }
            NFT_MSG_NEWSETELEM => {
                let name = find(attributes, NFTA_SET_ELEM_LIST_SET).map(text).unwrap_or_default();
                let list = find(attributes, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
                let set = sets.entry(name).or_default();
                for element in read(list) {
                    set.listed.push(listed(element?.1)?);
                }
            }
            _ => {}
        }
    }
    Ok(sets)
}

fn listed(element: &[u8]) -> Result<Listed, Malformed> {
    let mut listed = Listed {
        key: Vec::new(),
        key_end: None,
        data: Vec::new(),
        ends_interval: false,
    };
    let value = |data: &[u8]| find(data, NFTA_DATA_VALUE).unwrap_or_default().to_vec();
    for attribute in read(element) {
        match attribute? {
            (NFTA_SET_ELEM_KEY, data) => listed.key = value(data),
            (NFTA_SET_ELEM_KEY_END, data) => listed.key_end = Some(value(data)),
            (NFTA_SET_ELEM_DATA, data) => listed.data = data.to_vec(),
            (NFTA_SET_ELEM_FLAGS, flags) => {
                listed.ends_interval = number(flags)? & NFT_SET_ELEM_INTERVAL_END != 0;
            }
            _ => {}
        }
    }
    Ok(listed)
}

impl ElementSet {
    /// The elements. One that any key has comes last.
    pub fn elements(&self) -> Vec<Element> {
        let mut elements = Vec::new();
        let (catch_all, listed): (Vec<&Listed>, Vec<&Listed>) =
            self.listed.iter().partition(|listed| listed.key.is_empty());
        let has_ranges = listed.iter().any(|listed| listed.key_end.is_some());
        if self.is_interval && !has_ranges {
            elements.extend(self.intervals(listed));
        } else {
            elements.extend(listed.into_iter().map(|listed| Element {
                first: listed.key.clone(),
                last: listed.key_end.clone().unwrap_or_else(|| listed.key.clone()),
                data: listed.data.clone(),
            }));
        }
        elements.extend(catch_all.into_iter().map(|listed| Element {
            first: Vec::new(),
            last: Vec::new(),
            data: listed.data.clone(),
        }));
        elements
    }

    /// Intervals are listed as the first key of each, and the first key after it.
    fn intervals(&self, mut listed: Vec<&Listed>) -> Vec<Element> {
        listed.sort_by(|one, other| (&one.key, !one.ends_interval).cmp(&(&other.key, !other.ends_interval)));
        let mut intervals: Vec<Element> = Vec::new();
        let mut is_open = false;
        for boundary in listed {
            if is_open && let Some(open) = intervals.last_mut() {
                open.last = predecessor(&boundary.key);
            }
            is_open = !boundary.ends_interval;
            if is_open {
                intervals.push(Element {
                    first: boundary.key.clone(),
                    last: vec![u8::MAX; boundary.key.len()],
                    data: boundary.data.clone(),
                });
            }
        }
        intervals
    }
}

/// The key before this one.
fn predecessor(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (previous, borrows) = byte.overflowing_sub(1);
        *byte = previous;
        if !borrows {
            break;
        }
    }
    key
}
