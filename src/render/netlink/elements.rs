//! The elements of interval sets.

use netlink_packet_core::{NLA_ALIGNTO, NLA_F_NESTED, NLA_HEADER_SIZE};
use netlink_packet_netfilter::nftables::SetElementFlags;

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

/// The elements in lists of attributes, each short enough for one message.
pub fn lists(elements: &Elements) -> Vec<Vec<u8>> {
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

fn lists_of<const LENGTH: usize>(intervals: impl Iterator<Item = Interval<LENGTH>>) -> Vec<Vec<u8>> {
    let intervals: Vec<_> = intervals.collect();
    intervals.chunks(RANGES_A_MESSAGE).map(list).collect()
}

fn list<const LENGTH: usize>(intervals: &[Interval<LENGTH>]) -> Vec<u8> {
    let mut list = Vec::with_capacity(64 * intervals.len());
    for (first, after) in intervals {
        push_element(&mut list, first, false);
        if let Some(after) = after {
            push_element(&mut list, after, true);
        }
    }
    list
}

/// `enum nft_list_attributes`, `enum nft_set_elem_attributes` and `enum nft_data_attributes`.
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;

/// Writes an element in bytes at once. There may be tens of thousands of them, and values of the netlink crate's types
/// would take many times as long.
fn push_element(list: &mut Vec<u8>, key: &[u8], ends_interval: bool) {
    let key_length = NLA_HEADER_SIZE + key.len().next_multiple_of(NLA_ALIGNTO);
    let flags_length = if ends_interval { NLA_HEADER_SIZE + 4 } else { 0 };
    push_header(
        list,
        NFTA_LIST_ELEM | NLA_F_NESTED,
        flags_length + NLA_HEADER_SIZE + key_length,
    );
    if ends_interval {
        push_header(list, NFTA_SET_ELEM_FLAGS, 4);
        list.extend_from_slice(&SetElementFlags::IntervalEnd.bits().to_be_bytes());
    }
    push_header(list, NFTA_SET_ELEM_KEY | NLA_F_NESTED, key_length);
    push_header(list, NFTA_DATA_VALUE, key.len());
    list.extend_from_slice(key);
    list.resize(list.len().next_multiple_of(NLA_ALIGNTO), 0);
}

/// The header of an attribute whose value has this length.
fn push_header(list: &mut Vec<u8>, kind: u16, length: usize) {
    let header = [(NLA_HEADER_SIZE + length) as u16, kind];
    list.extend_from_slice(header.map(u16::to_ne_bytes).as_flattened());
}
