//! The elements of sets: intervals, or single addresses.

use super::attributes::Attributes;
use super::uapi::*;
use crate::ruleset::{Elements, ipv4_addresses, ipv6_addresses};
use crate::types::{Id, Range};

/// The type of a set's key, in nft's terms.
pub struct Key {
    /// The number of the data type (`enum datatypes` of nft, include/datatype.h); nft shows elements by it.
    pub datatype: u32,
    /// Length in bytes.
    pub length: u32,
    /// The byte order in which nft shows it (`enum byteorder` of nft): host order for IDs.
    pub byte_order: u32,
}

pub(super) const IPV4_ADDRESS: u32 = 7;
pub(super) const IPV6_ADDRESS: u32 = 8;
pub(super) const PORT: u32 = 13;
pub(super) const UID: u32 = 24;
pub(super) const GID: u32 = 25;

const HOST: u32 = 1;
const BIG_ENDIAN: u32 = 2;

/// The key of a set with these elements.
pub fn key(elements: &Elements) -> Key {
    let (datatype, length, byte_order) = match elements {
        Elements::Ipv4(_) => (IPV4_ADDRESS, 4, BIG_ENDIAN),
        Elements::Ipv6(_) => (IPV6_ADDRESS, 16, BIG_ENDIAN),
        Elements::Ports(_) => (PORT, 2, BIG_ENDIAN),
        Elements::Uids(_) => (UID, 4, HOST),
        Elements::Gids(_) => (GID, 4, HOST),
    };
    Key {
        datatype,
        length,
        byte_order,
    }
}

/// The most ranges in one message: the list is an attribute, so at most 65,535 bytes, and a range of IPv6
/// addresses takes 64 of them.
const MAX_RANGES_PER_MESSAGE: usize = 800;

/// The elements in lists, each short enough for one message.
pub fn lists(elements: &Elements) -> Vec<Attributes> {
    let singles = elements.single_addresses().is_some();
    match elements {
        Elements::Ipv4(nets) if singles => lists_of(nets.iter().flat_map(ipv4_addresses).map(|a| (a.octets(), None))),
        Elements::Ipv6(nets) if singles => lists_of(nets.iter().flat_map(ipv6_addresses).map(|a| (a.octets(), None))),
        Elements::Ipv4(nets) => lists_of(nets.iter().map(|net| {
            let after = u32::from(net.broadcast()).checked_add(1);
            (net.network().octets(), after.map(u32::to_be_bytes))
        })),
        Elements::Ipv6(nets) => lists_of(nets.iter().map(|net| {
            let after = u128::from(net.broadcast()).checked_add(1);
            (net.network().octets(), after.map(u128::to_be_bytes))
        })),
        Elements::Ports(ports) => lists_of(ports.iter().map(|range| {
            let after = range.last().get().checked_add(1);
            (range.first().get().to_be_bytes(), after.map(u16::to_be_bytes))
        })),
        Elements::Uids(uids) => lists_of(uids.iter().map(ids)),
        Elements::Gids(gids) => lists_of(gids.iter().map(ids)),
    }
}

/// An element as the kernel expects it: the first key of an interval, and the first key after it. The latter is left
/// out if the interval reaches to the largest key, or if the set has no intervals.
type Keys<const LENGTH: usize> = ([u8; LENGTH], Option<[u8; LENGTH]>);

fn ids<I: Id>(range: &Range<I>) -> Keys<4> {
    let after = range.last().get().checked_add(1);
    (range.first().get().to_be_bytes(), after.map(u32::to_be_bytes))
}

fn lists_of<const LENGTH: usize>(ranges: impl Iterator<Item = Keys<LENGTH>>) -> Vec<Attributes> {
    let (begins, ends) = (element::<LENGTH>(0), element::<LENGTH>(NFT_SET_ELEM_INTERVAL_END));
    let mut lists = Vec::new();
    let mut ranges = ranges.peekable();
    while ranges.peek().is_some() {
        let mut list = Attributes::default();
        for (first, after) in ranges.by_ref().take(MAX_RANGES_PER_MESSAGE) {
            list.copy(&begins, &first);
            if let Some(after) = after {
                list.copy(&ends, &after);
            }
        }
        lists.push(list);
    }
    lists
}

/// The template of an element, which is copied for each key.
fn element<const LENGTH: usize>(flags: u32) -> Attributes {
    let mut list = Attributes::default();
    list.nest(NFTA_LIST_ELEM, |element| {
        if flags != 0 {
            element.number(NFTA_SET_ELEM_FLAGS, flags);
        }
        element.nest(NFTA_SET_ELEM_KEY, |key| key.bytes(NFTA_DATA_VALUE, &[0; LENGTH]));
    });
    list
}
