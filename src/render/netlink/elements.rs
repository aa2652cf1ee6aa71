//! The elements of interval sets.

use netlink_packet_netfilter::nftables::{DataAttribute, ListAttribute, SetElementAttribute, SetElementFlags};

use crate::config::types::{Id, Number, Ranges};
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

/// An element of a list in a message.
type Element = ListAttribute<SetElementAttribute>;

/// How many ranges go into one message: the list is an attribute, so at most 65,535 bytes, and a range of IPv6
/// addresses takes 64 of them.
const RANGES_A_MESSAGE: usize = 800;

/// An interval as the kernel wants it: the first key that is in it, and the first one after it. That one is left out
/// where the interval reaches to the largest key.
type Interval = (Vec<u8>, Option<Vec<u8>>);

/// The elements in lists, each short enough for one message.
pub fn messages(elements: &Elements) -> impl Iterator<Item = Vec<Element>> {
    let intervals = intervals(elements);
    let lists: Vec<Vec<Element>> = intervals
        .chunks(RANGES_A_MESSAGE)
        .map(|chunk| chunk.iter().flat_map(interval).collect())
        .collect();
    lists.into_iter()
}

fn intervals(elements: &Elements) -> Vec<Interval> {
    match elements {
        Elements::Ipv4(nets) => nets
            .iter()
            .map(|net| {
                let after = u32::from(net.broadcast()).checked_add(1);
                (
                    net.network().octets().to_vec(),
                    after.map(|after| after.to_be_bytes().to_vec()),
                )
            })
            .collect(),
        Elements::Ipv6(nets) => nets
            .iter()
            .map(|net| {
                let after = u128::from(net.broadcast()).checked_add(1);
                (
                    net.network().octets().to_vec(),
                    after.map(|after| after.to_be_bytes().to_vec()),
                )
            })
            .collect(),
        Elements::Ports(ports) => of_ranges(
            ports,
            |port| port.get().to_be_bytes().to_vec(),
            |last| last.get().checked_add(1).map(|after| after.to_be_bytes().to_vec()),
        ),
        Elements::Uids(uids) => of_ids(uids),
        Elements::Gids(gids) => of_ids(gids),
    }
}

fn of_ids<I: Id>(ids: &Ranges<I>) -> Vec<Interval> {
    of_ranges(
        ids,
        |id| id.get().to_be_bytes().to_vec(),
        |last| last.get().checked_add(1).map(|after| after.to_be_bytes().to_vec()),
    )
}

fn of_ranges<N: Number>(
    ranges: &Ranges<N>,
    key: impl Fn(N) -> Vec<u8>,
    after: impl Fn(N) -> Option<Vec<u8>>,
) -> Vec<Interval> {
    ranges
        .iter()
        .map(|range| (key(range.first()), after(range.last())))
        .collect()
}

fn interval((first, after): &Interval) -> impl Iterator<Item = Element> {
    let key = |bytes: &Vec<u8>| SetElementAttribute::Key(DataAttribute::Value(bytes.clone()));
    let start = vec![key(first)];
    let end = after
        .as_ref()
        .map(|after| vec![SetElementAttribute::Flags(SetElementFlags::IntervalEnd), key(after)]);
    [Some(start), end].into_iter().flatten().map(ListAttribute::Element)
}
