//! Whether the attributes of an nf_tables message hold what the message crate takes for granted.
//!
//! netlink-packet-netfilter 0.4 checks the length of every attribute but those inside attributes that hold exactly one:
//! it would panic where the inner one is cut off. The kernel writes no such thing; what reads it should not rely on that.

use std::ops::RangeInclusive;

use netlink_packet_core::{NlaBuffer, NlasIterator};

/// `NFT_MSG_NEWRULE` to `NFT_MSG_DELRULE`, and so on, of linux/netfilter/nf_tables.h.
const RULES: RangeInclusive<u16> = 6..=8;
const SETS: RangeInclusive<u16> = 9..=11;
const SET_ELEMENTS: RangeInclusive<u16> = 12..=14;

/// The fixed part of a message, before its attributes (`struct nfgenmsg`).
const HEADER: usize = 4;

/// Expressions, and their attributes that hold one of data (`NFTA_CMP_DATA`, `NFTA_BITWISE_MASK`…).
const DATA_OF_EXPRESSIONS: [(&[u8], &[u16]); 3] = [(b"cmp", &[3]), (b"bitwise", &[4, 5, 7]), (b"immediate", &[2])];

/// Says so of a message of this type. What is cut off elsewhere, the crate finds itself.
pub fn are_whole(kind: u16, message: &[u8]) -> bool {
    let Some(attributes) = message.get(HEADER..) else {
        return true;
    };
    let kind = kind & 0xff;
    if RULES.contains(&kind) {
        each(attributes, 4, |list| each(list, 1, expression_is_whole))
    } else if SETS.contains(&kind) {
        each(attributes, 17, one_is_whole) && each(attributes, 18, |list| each(list, 1, expression_is_whole))
    } else if SET_ELEMENTS.contains(&kind) {
        each(attributes, 3, |list| each(list, 1, element_is_whole))
    } else {
        true
    }
}

/// `NFTA_SET_ELEM_KEY`, `_DATA`, `_EXPR`, and the list `_EXPRESSIONS`.
fn element_is_whole(element: &[u8]) -> bool {
    [1, 2, 7].into_iter().all(|kind| each(element, kind, one_is_whole))
        && each(element, 11, |list| each(list, 1, expression_is_whole))
}

/// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
fn expression_is_whole(expression: &[u8]) -> bool {
    DATA_OF_EXPRESSIONS.iter().all(|(name, kinds)| {
        let named = !each(expression, 1, |text| text.strip_suffix(b"\0").unwrap_or(text) != *name);
        let whole = |data: &[u8]| kinds.iter().all(|kind| each(data, *kind, one_is_whole));
        !named || each(expression, 2, whole)
    })
}

fn one_is_whole(bytes: &[u8]) -> bool {
    NlaBuffer::new_checked(bytes).is_ok()
}

/// Whether `holds` for all of these attributes that are of this type, as far as they can be told apart.
fn each(attributes: &[u8], kind: u16, holds: impl Fn(&[u8]) -> bool) -> bool {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .filter(|attribute| attribute.kind() == kind)
        .all(|attribute| holds(attribute.value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn rule(data: &[u8]) -> Vec<u8> {
        let data = attribute(2, &attribute(3, data));
        let expression = [attribute(1, b"cmp\0"), data].concat();
        [vec![0; HEADER], attribute(4, &attribute(1, &expression))].concat()
    }

    fn element(key: &[u8]) -> Vec<u8> {
        [vec![0; HEADER], attribute(3, &attribute(1, &attribute(1, key)))].concat()
    }

    #[test]
    fn data_that_is_cut_off_is_noticed_before_the_crate_reads_it() {
        let value = attribute(1, &[0, 80]);
        for (kind, message) in [
            (*RULES.start(), rule as fn(&[u8]) -> Vec<u8>),
            (*SET_ELEMENTS.end(), element),
        ] {
            assert!(are_whole(kind, &message(&value)));
            assert!(!are_whole(kind, &message(&value[..5])));
            assert!(!are_whole(kind, &message(&[2, 0, 1, 0])), "shorter than its own header");
            assert!(!are_whole(kind, &message(&[])));
        }
    }
}
