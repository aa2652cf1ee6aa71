//! Comparisons of what registers hold, as conditions.

use super::super::uapi::*;
use super::registers::{Loaded, Part, mark_field};
use super::sets::Element;
use crate::ruleset::netfilter::{Field, Lookup, Span};

/// An expression whose attributes make no sense here.
pub struct Undecodable;

/// The conditions of a comparison with these bytes, all of which must hold.
///
/// # Errors
/// The meaning of the comparison is unknown.
pub fn compare(loaded: Option<&Loaded>, operator: u32, data: &[u8]) -> Result<Vec<Lookup>, Undecodable> {
    let is_negated = operator == NFT_CMP_NEQ;
    let is_equality = is_negated || operator == NFT_CMP_EQ;
    let parts = match loaded.ok_or(Undecodable)? {
        Loaded::Ethertype if is_equality => {
            let family = match data {
                [0x08, 0x00] => NFPROTO_IPV4,
                [0x86, 0xdd] => NFPROTO_IPV6,
                _ => 0,
            };
            let lookup = Lookup::one_of(Field::Family, [(family.into(), family.into())]);
            return Ok(vec![lookup.negated_if(is_negated)]);
        }
        Loaded::Mark {
            of_connection,
            mask,
            xor,
        } if is_equality => {
            let value = data
                .as_array()
                .map(|bytes| u32::from_ne_bytes(*bytes))
                .ok_or(Undecodable)?;
            let lookup = Lookup::masked(mark_field(*of_connection), (*mask).into(), (value ^ xor).into());
            return Ok(vec![lookup.negated_if(is_negated)]);
        }
        Loaded::Fields(parts) => parts,
        _ => return Err(Undecodable),
    };
    if let ([part], false) = (parts.as_slice(), is_equality) {
        let value = part
            .number(data)
            .filter(|_| data.len() == part.length)
            .ok_or(Undecodable)?;
        let largest = u128::MAX >> (128 - 8 * part.length);
        let span = match operator {
            NFT_CMP_LT => value.checked_sub(1).map(|last| (0, last)),
            NFT_CMP_LTE => Some((0, value)),
            NFT_CMP_GT => (value < largest).then_some((value + 1, largest)),
            NFT_CMP_GTE => Some((value, largest)),
            _ => return Err(Undecodable),
        };
        // Host order compares other numbers.
        if part.is_host_order && part.length > 1 {
            return Err(Undecodable);
        }
        return Ok(vec![spans(*part, span)]);
    }
    if !is_equality {
        return Err(Undecodable);
    }
    let (mut keys, mut element, mut rest) = (Vec::new(), Vec::new(), data);
    for part in parts {
        let (bytes, after) = rest.split_at(part.length.min(rest.len()));
        rest = after;
        if bytes.is_empty() {
            break;
        }
        keys.push(part.key());
        element.push(prefix(*part, bytes).ok_or(Undecodable)?);
    }
    if is_negated {
        return Ok(vec![Lookup {
            keys,
            elements: vec![element],
            is_negated,
            if_missing: false,
        }]);
    }
    let each = keys.into_iter().zip(element).map(|(key, span)| Lookup {
        keys: vec![key],
        elements: vec![vec![span]],
        is_negated,
        if_missing: false,
    });
    Ok(each.collect())
}

/// The condition that a value is in a range.
///
/// # Errors
/// The meaning of the comparison is unknown.
pub fn range(loaded: Option<&Loaded>, first: &[u8], last: &[u8]) -> Result<Lookup, Undecodable> {
    let part = match loaded {
        Some(Loaded::Fields(parts)) => match parts.as_slice() {
            [part] if !part.is_host_order || part.length == 1 => *part,
            _ => return Err(Undecodable),
        },
        _ => return Err(Undecodable),
    };
    let bounds = part.number(first).zip(part.number(last)).ok_or(Undecodable)?;
    Ok(spans(part, Some(bounds)))
}

/// The condition that a part of a field has a value of this span; none has.
fn spans(part: Part, span: Option<Span>) -> Lookup {
    let shift = part.shift();
    let spans = span
        .into_iter()
        .map(|(first, last)| vec![(first << shift, last << shift)]);
    Lookup {
        keys: vec![part.key()],
        elements: spans.collect(),
        is_negated: false,
        if_missing: false,
    }
}

/// All values of a part that begin with these bytes.
fn prefix(part: Part, bytes: &[u8]) -> Option<Span> {
    let first = part.value(bytes)?;
    let is_whole_name = matches!(part.field, Field::InInterface | Field::OutInterface) && bytes.contains(&0);
    if bytes.len() == part.length || is_whole_name {
        return Some((first, first));
    }
    let mut last = bytes.to_vec();
    last.resize(part.length, u8::MAX);
    (!part.is_host_order).then_some((first, part.value(&last)?))
}

/// The spans of an element, one for each part of a key.
pub fn element_spans(parts: &[(usize, Part)], element: &Element) -> Option<Vec<Span>> {
    let span = |(offset, part): &(usize, Part)| {
        let bytes = |key: &[u8]| part.value(key.get(*offset..offset + part.length)?);
        match element.first.as_slice() {
            [] => Some((0, part.field.largest())),
            first => Some((bytes(first)?, bytes(&element.last)?)),
        }
    };
    parts.iter().map(span).collect()
}

/// The value that remains after a mask, with some bits inverted.
pub fn masked(loaded: &Loaded, mask: &[u8], xor: &[u8]) -> Option<Loaded> {
    let number = |bytes: &[u8]| bytes.as_array().map(|bytes| u32::from_ne_bytes(*bytes));
    match loaded {
        Loaded::Mark {
            of_connection,
            mask: before,
            xor: flipped,
        } => {
            let (mask, xor) = (number(mask)?, number(xor)?);
            Some(Loaded::Mark {
                of_connection: *of_connection,
                mask: before & mask,
                xor: flipped & mask ^ xor,
            })
        }
        Loaded::Fields(parts) => match parts.as_slice() {
            [part] if xor.iter().all(|byte| *byte == 0) && mask.len() == part.length => {
                let mask = part.mask & part.number(mask)?;
                Some(Loaded::Fields(vec![Part { mask, ..*part }]))
            }
            _ => None,
        },
        Loaded::Bytes(_) | Loaded::Ethertype | Loaded::Cgroup(_) | Loaded::Unknown(_) => None,
    }
}

/// The same in the other byte order.
pub fn swapped(loaded: &Loaded) -> Option<Loaded> {
    let part = match loaded {
        Loaded::Fields(parts) => match parts.as_slice() {
            [part] => *part,
            _ => return None,
        },
        Loaded::Mark {
            of_connection,
            mask,
            xor: 0,
        } => Part {
            mask: (*mask).into(),
            ..Part::whole(mark_field(*of_connection), true)
        },
        _ => return None,
    };
    let is_host_order = !part.is_host_order;
    Some(Loaded::Fields(vec![Part { is_host_order, ..part }]))
}
