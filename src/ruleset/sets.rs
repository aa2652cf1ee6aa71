//! Named sets: addresses, ports, users or groups that rules match.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Name;
use crate::types::{Gids, Ports, Uids};

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Name, unique in the table.
    pub name: Name,
    /// Elements; never empty.
    pub elements: Elements,
}

/// The elements of a set. They never overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// IPv4 addresses.
    Ipv4(Vec<Ipv4Net>),
    /// IPv6 addresses.
    Ipv6(Vec<Ipv6Net>),
    /// TCP or UDP ports.
    Ports(Ports),
    /// Users.
    Uids(Uids),
    /// Groups.
    Gids(Gids),
}

impl Elements {
    /// The number of addresses, if the set is to hold single addresses instead of intervals: if there are many, and no
    /// more of them than these intervals have ends. The kernel keeps single addresses in a hash table and intervals in
    /// a tree, which takes twice as long to fill. Ports stay intervals: the kernel keeps single ports in a bitmap and a
    /// list, and traverses the list for each added one (`nft_bitmap_insert` in net/netfilter/nft_set_bitmap.c).
    pub fn single_addresses(&self) -> Option<usize> {
        const MIN_SINGLE_ADDRESSES: usize = 256;
        fn addresses(bits: u8, prefix_lengths: impl Iterator<Item = u8>) -> usize {
            prefix_lengths
                .map(|length| 1_usize.checked_shl((bits - length).into()).unwrap_or(usize::MAX))
                .fold(0, usize::saturating_add)
        }
        let addresses = match self {
            Self::Ipv4(nets) => addresses(32, nets.iter().map(Ipv4Net::prefix_len)),
            Self::Ipv6(nets) => addresses(128, nets.iter().map(Ipv6Net::prefix_len)),
            Self::Ports(_) | Self::Uids(_) | Self::Gids(_) => return None,
        };
        (self.len() >= MIN_SINGLE_ADDRESSES && addresses <= 2 * self.len()).then_some(addresses)
    }

    /// The networks of a set of addresses.
    pub fn networks(&self) -> Option<Vec<IpNet>> {
        match self {
            Self::Ipv4(nets) => Some(nets.iter().copied().map(IpNet::from).collect()),
            Self::Ipv6(nets) => Some(nets.iter().copied().map(IpNet::from).collect()),
            Self::Ports(_) | Self::Uids(_) | Self::Gids(_) => None,
        }
    }

    /// The ports, if these are ports.
    pub fn ports(&self) -> Option<&Ports> {
        match self {
            Self::Ports(ports) => Some(ports),
            Self::Ipv4(_) | Self::Ipv6(_) | Self::Uids(_) | Self::Gids(_) => None,
        }
    }

    /// The users, if these are users.
    pub fn uids(&self) -> Option<&Uids> {
        match self {
            Self::Uids(uids) => Some(uids),
            Self::Ipv4(_) | Self::Ipv6(_) | Self::Ports(_) | Self::Gids(_) => None,
        }
    }

    /// The groups, if these are groups.
    pub fn gids(&self) -> Option<&Gids> {
        match self {
            Self::Gids(gids) => Some(gids),
            Self::Ipv4(_) | Self::Ipv6(_) | Self::Ports(_) | Self::Uids(_) => None,
        }
    }

    /// The number of ranges or networks.
    pub fn len(&self) -> usize {
        match self {
            Self::Ipv4(nets) => nets.len(),
            Self::Ipv6(nets) => nets.len(),
            Self::Ports(ports) => ports.len(),
            Self::Uids(uids) => uids.len(),
            Self::Gids(gids) => gids.len(),
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Every address of a network, the first and the last ones included.
pub fn ipv4_addresses(net: &Ipv4Net) -> impl Iterator<Item = Ipv4Addr> + use<> {
    (net.network().to_bits()..=net.broadcast().to_bits()).map(Ipv4Addr::from_bits)
}

/// Every address of a network, the first and the last ones included.
pub fn ipv6_addresses(net: &Ipv6Net) -> impl Iterator<Item = Ipv6Addr> + use<> {
    (net.network().to_bits()..=net.broadcast().to_bits()).map(Ipv6Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::parse_cidrs;

    fn count(cidrs: impl Iterator<Item = String>) -> [Option<usize>; 2] {
        let cidrs = parse_cidrs(&cidrs.collect::<Vec<_>>().join(",")).unwrap();
        let elements = [Elements::Ipv4(cidrs.v4().to_vec()), Elements::Ipv6(cidrs.v6().to_vec())];
        elements.map(|elements| elements.single_addresses())
    }

    #[test]
    fn many_hosts_and_pairs_are_single_addresses() {
        let v4 = |number| format!("10.0.{}.{}/31", number / 64, number % 64 * 4);
        let v6 = |number| format!("fd00::{number:x}:0");
        assert_eq!(count((0..256).map(v4).chain((0..300).map(v6))), [Some(512), Some(300)]);
        assert_eq!(count((0..255).map(v4).chain((0..255).map(v6))), [None, None]);
    }

    #[test]
    fn one_network_that_is_larger_makes_all_of_them_intervals() {
        let hosts = (0..300).map(|number| format!("10.0.{}.{}", number / 64, number % 64 * 4));
        assert_eq!(count(hosts.clone()), [Some(300), None]);
        assert_eq!(count(hosts.chain(["128.0.0.0/1".to_owned()])), [None, None]);
        let hosts = (0..300).map(|number| format!("fd00::{number:x}:0"));
        assert_eq!(count(hosts.chain(["8000::/1".to_owned()])), [None, None]);
    }
}
