//! The elements of sets: intervals, or single addresses.

use std::net::IpAddr;

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

/// The elements in lists, each short enough for one message.
pub fn lists(elements: &Elements) -> Vec<Attributes> {
    if let Some(addresses) = elements.single_addresses() {
        return lists_of(&addresses, |list, address| match address {
            IpAddr::V4(address) => write_element(list, &address.octets(), false),
            IpAddr::V6(address) => write_element(list, &address.octets(), false),
        });
    }
    match elements {
        Elements::Ipv4(nets) => lists_of(nets, |list, net| {
            let after = u32::from(net.broadcast()).checked_add(1);
            write_interval(list, net.network().octets(), after.map(u32::to_be_bytes));
        }),
        Elements::Ipv6(nets) => lists_of(nets, |list, net| {
            let after = u128::from(net.broadcast()).checked_add(1);
            write_interval(list, net.network().octets(), after.map(u128::to_be_bytes));
        }),
        Elements::Ports(ports) => lists_of(ports.iter(), |list, range| {
            let after = range.last().get().checked_add(1);
            write_interval(list, range.first().get().to_be_bytes(), after.map(u16::to_be_bytes));
        }),
        Elements::Uids(uids) => lists_of(uids.iter(), write_ids),
        Elements::Gids(gids) => lists_of(gids.iter(), write_ids),
    }
}

fn lists_of<E>(elements: impl IntoIterator<Item = E>, write: impl Fn(&mut Attributes, E)) -> Vec<Attributes> {
    let mut lists = Vec::new();
    let mut elements = elements.into_iter().peekable();
    while elements.peek().is_some() {
        let mut list = Attributes::default();
        for element in elements.by_ref().take(RANGES_A_MESSAGE) {
            write(&mut list, element);
        }
        lists.push(list);
    }
    lists
}

fn write_ids<I: Id>(list: &mut Attributes, range: &Range<I>) {
    let after = range.last().get().checked_add(1);
    write_interval(list, range.first().get().to_be_bytes(), after.map(u32::to_be_bytes));
}

/// Writes an interval as the kernel wants it: the first key that is in it, and the first one after it. That one is left
/// out where the interval reaches to the largest key.
fn write_interval<const LENGTH: usize>(list: &mut Attributes, first: [u8; LENGTH], after: Option<[u8; LENGTH]>) {
    write_element(list, &first, false);
    if let Some(after) = after {
        write_element(list, &after, true);
    }
}

fn write_element(list: &mut Attributes, key: &[u8], ends_interval: bool) {
    list.nest(NFTA_LIST_ELEM, |element| {
        if ends_interval {
            element.number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
        }
        element.nest(NFTA_SET_ELEM_KEY, |key_data| key_data.bytes(NFTA_DATA_VALUE, key));
    });
}
