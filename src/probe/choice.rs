//! Selection of numbers and addresses that are in some sets and not in others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::types::{Cidrs, Family, Number, Ranges};

/// The first number that is accepted: a preferred one, or else the first of an interval within which every set contains
/// all numbers or none. If acceptance depends on the sets alone, a number is found wherever one exists.
pub fn number<N: Number>(preferred: &[N], sets: &[&Ranges<N>], is_accepted: impl Fn(N) -> bool) -> Option<N> {
    let starts = sets
        .iter()
        .flat_map(|set| set.iter())
        .flat_map(|range| [Some(range.first()), range.last().next()])
        .flatten();
    let mut candidates = preferred.iter().copied().chain([N::MIN]).chain(starts);
    candidates.find(|number| is_accepted(*number))
}

/// A unicast address that is accepted: the first of those within the networks of the sets and next to them. Those at the
/// end of a network come first: they are the least likely to be assigned.
pub fn address(family: Family, sets: &[&Cidrs], is_accepted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let networks: Vec<(u128, u128)> = sets.iter().flat_map(|set| networks(set, family)).collect();
    let within = networks.iter().flat_map(|(first, last)| {
        let before_last = (last - first > 1).then(|| last - 1);
        before_last.into_iter().chain([*last, *first])
    });
    let around = networks
        .iter()
        .flat_map(|(first, last)| [first.checked_sub(1), last.checked_add(1)])
        .flatten();
    within
        .chain(around)
        .filter_map(|number| from_number(family, number))
        .find(|address| is_ordinary(*address) && is_accepted(*address))
}

/// The first and last addresses of the networks of a family.
fn networks(cidrs: &Cidrs, family: Family) -> impl Iterator<Item = (u128, u128)> {
    let v4 = cidrs.v4().iter().copied().map(IpNet::from);
    let v6 = cidrs.v6().iter().copied().map(IpNet::from);
    v4.chain(v6)
        .filter(move |net| family.is_of(net.addr()))
        .map(|net| (to_number(net.network()), to_number(net.broadcast())))
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn from_number(family: Family, number: u128) -> Option<IpAddr> {
    match family {
        Family::V4 => u32::try_from(number).ok().map(|number| Ipv4Addr::from(number).into()),
        Family::V6 => Some(Ipv6Addr::from(number).into()),
    }
}

/// Whether the address could belong to another host.
fn is_ordinary(address: IpAddr) -> bool {
    let of_family = match address {
        IpAddr::V4(address) => !address.is_broadcast() && !address.is_link_local() && address.octets()[0] < 240,
        IpAddr::V6(address) => !address.is_unicast_link_local() && address.to_ipv4_mapped().is_none(),
    };
    of_family && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Port, Ports, parse_cidrs, parse_ports};

    fn port(number: u16) -> Port {
        Port::new(number).unwrap()
    }

    #[test]
    fn a_number_is_found_wherever_there_is_one() {
        let included = parse_ports("100-200,300").unwrap();
        let excluded = parse_ports("1-150,160-200").unwrap();
        let find = |preferred: &[Port], excluded: &Ports| {
            number(preferred, &[&included, excluded], |port| {
                included.contains(port) && !excluded.contains(port)
            })
        };
        assert_eq!(find(&[], &excluded), Some(port(300)));
        assert_eq!(find(&[port(155)], &excluded), Some(port(155)));
        assert_eq!(find(&[], &parse_ports("1-150,160-300").unwrap()), Some(port(151)));
        assert_eq!(find(&[port(7)], &Ports::everything()), None);
    }

    #[test]
    fn an_address_is_found_wherever_there_is_one() {
        let find = |family, included, excluded| {
            let (included, excluded) = (parse_cidrs(included).unwrap(), parse_cidrs(excluded).unwrap());
            let found = address(family, &[&included, &excluded], |address| {
                included.contains(address) && !excluded.contains(address)
            });
            found.map(|address| address.to_string())
        };
        let (v4, v6) = (Family::V4, Family::V6);
        assert_eq!(find(v4, "10.0.0.0/8", "").as_deref(), Some("10.255.255.254"));
        assert_eq!(find(v4, "10.0.0.0/8", "10.128.0.0/9").as_deref(), Some("10.0.0.0"));
        assert_eq!(find(v4, "10.0.0.0/31", "10.0.0.1").as_deref(), Some("10.0.0.0"));
        assert_eq!(find(v4, "10.0.0.7", "").as_deref(), Some("10.0.0.7"));
        assert_eq!(find(v4, "10.0.0.0/8", "10.0.0.0/7"), None);
        assert_eq!(find(v4, "127.0.0.0/8,fd00::/8", ""), None);
        assert_eq!(
            find(v4, "10.0.0.0/8", "10.0.0.0/9,10.192.0.0/10").as_deref(),
            Some("10.128.0.0")
        );
        assert_eq!(find(v6, "10.0.0.0/8,fd00::/126", "").as_deref(), Some("fd00::2"));
        assert_eq!(find(v6, "::1", ""), None);
        assert_eq!(find(v4, "0.0.0.0/0", "192.0.2.0/24").as_deref(), Some("192.0.1.255"));
    }
}
