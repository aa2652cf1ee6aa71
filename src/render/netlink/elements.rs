//! The elements of interval sets.

use super::attributes::Attributes;
use super::uapi::*;
use crate::config::types::{Id, Range};
use crate::ruleset::Elements;

/// What the key of a set is, in nft's terms.
pub struct Key {
    /// The number of the data type (`enum datatypes` of nft, include/datatype.h); nft shows elements by it.
    pub datatype: u32,
    /// Its length in bytes.
    pub length: u32,
    /// In which order its bytes are shown (`enum byteorder` of nft): those of IDs are the host's.
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

/// How many ranges go into one message: the list is an attribute, so at most 65,535 bytes, and a range of IPv6
/// addresses takes 64 of them.
const RANGES_A_MESSAGE: usize = 800;

/// An interval as the kernel wants it: the first key that is in it, and the first one after it. That one is left out
/// where the interval reaches to the largest key.
type Interval<const LENGTH: usize> = ([u8; LENGTH], Option<[u8; LENGTH]>);

/// The elements in lists, each short enough for one message.
pub fn lists(elements: &Elements) -> Vec<Attributes> {
    match elements {
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
        Elements::Uids(uids) => lists_of(uids.iter().map(id_interval)),
        Elements::Gids(gids) => lists_of(gids.iter().map(id_interval)),
    }
}

fn id_interval<I: Id>(range: &Range<I>) -> Interval<4> {
    let after = range.last().get().checked_add(1);
    (range.first().get().to_be_bytes(), after.map(u32::to_be_bytes))
}

fn lists_of<const LENGTH: usize>(intervals: impl Iterator<Item = Interval<LENGTH>>) -> Vec<Attributes> {
    let mut lists = Vec::new();
    let mut intervals = intervals.peekable();
    while intervals.peek().is_some() {
        let mut list = Attributes::default();
        for (first, after) in intervals.by_ref().take(RANGES_A_MESSAGE) {
            write_element(&mut list, &first, false);
            if let Some(after) = after {
                write_element(&mut list, &after, true);
            }
        }
        lists.push(list);
    }
    lists
}

fn write_element(list: &mut Attributes, key: &[u8], ends_interval: bool) {
    list.nest(NFTA_LIST_ELEM, |element| {
        if ends_interval {
            element.number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
        }
        element.nest(NFTA_SET_ELEM_KEY, |key_data| key_data.bytes(NFTA_DATA_VALUE, key));
    });
}
