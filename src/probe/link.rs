//! The link to a host outside of the pod: the addresses of its ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::family_of;
use crate::options::Config;
use crate::types::Family;

/// The ends of the link in one family. The pod gets a route to the far one, and to no other address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The address in the pod.
    pub near: IpAddr,
    /// The address of the neighbour.
    pub far: IpAddr,
    /// Whether the pod does not use these addresses, so that the link may be created.
    pub free: bool,
}

/// Documentation addresses: TEST-NET-1 to 3 (RFC 5737).
const DOCUMENTATION_V4: [(Ipv4Addr, Ipv4Addr); 3] = [
    (Ipv4Addr::new(192, 0, 2, 253), Ipv4Addr::new(192, 0, 2, 254)),
    (Ipv4Addr::new(198, 51, 100, 253), Ipv4Addr::new(198, 51, 100, 254)),
    (Ipv4Addr::new(203, 0, 113, 253), Ipv4Addr::new(203, 0, 113, 254)),
];

/// Addresses for documentation (RFC 3849, RFC 9637), and the discard prefix (RFC 6666).
const RESERVED_V6: [(Ipv6Addr, Ipv6Addr); 3] = [
    (ipv6(0x2001, 0xdb8, 0xfffd), ipv6(0x2001, 0xdb8, 0xfffe)),
    (ipv6(0x3fff, 0xfff, 0xfffd), ipv6(0x3fff, 0xfff, 0xfffe)),
    (ipv6(0x100, 0, 0xfffd), ipv6(0x100, 0, 0xfffe)),
];

const fn ipv6(first: u16, second: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, last)
}

impl Ends {
    /// The family of both addresses.
    pub fn family(&self) -> Family {
        family_of(self.far)
    }

    /// More addresses of the host outside, beside the far end: for packets that arrive on other interfaces.
    pub(super) fn others(&self) -> impl Iterator<Item = IpAddr> {
        // The candidates end in 253 and 254, or in fffd and fffe.
        const DISTANCE: u8 = 2;
        let far = self.far;
        (DISTANCE..u8::MAX).map(move |distance| match far {
            IpAddr::V4(far) => Ipv4Addr::from(u32::from(far) - u32::from(distance)).into(),
            IpAddr::V6(far) => Ipv6Addr::from(u128::from(far) - u128::from(distance)).into(),
        })
    }

    /// Whether the host outside may have this address, or the pod has it for the link.
    pub(super) fn belongs_to_link(&self, address: IpAddr) -> bool {
        address == self.near || address == self.far || self.others().any(|other| other == address)
    }

    /// Addresses for documentation that the link does not use.
    pub(super) fn unused(&self) -> Vec<IpAddr> {
        let candidates = candidates(self.family()).into_iter().map(|(_, far)| far);
        candidates.filter(|address| *address != self.far).collect()
    }

    /// Chooses the ends: such that connections to and from the far one are captured, and such that no route of the pod
    /// leads to them, if there are any.
    pub fn choose(family: Family, config: &Config, routes: &[IpNet]) -> Self {
        let candidates = candidates(family);
        let free = |address: IpAddr| !routes.iter().any(|net| !is_default(net) && net.contains(&address));
        let ends = |(near, far)| Self {
            near,
            far,
            free: free(near) && free(far),
        };
        let captured = |ends: &Self| {
            let (outbound, inbound) = (&config.outbound, &config.inbound);
            let as_client = !inbound.exclude_cidrs.contains(ends.far);
            let as_server = outbound.include_cidrs.contains(ends.far) && !outbound.exclude_cidrs.contains(ends.far);
            (as_client, as_server)
        };
        let free_ones: Vec<Self> = candidates.into_iter().map(ends).filter(|ends| ends.free).collect();
        let Some(first) = free_ones.first() else {
            return ends(candidates[0]);
        };
        // Of those that are captured as often, the first one.
        let best = free_ones.iter().rev().max_by_key(|ends| {
            let (as_client, as_server) = captured(ends);
            u8::from(as_client) + u8::from(as_server)
        });
        *best.unwrap_or(first)
    }
}

fn candidates(family: Family) -> [(IpAddr, IpAddr); 3] {
    match family {
        Family::V4 => DOCUMENTATION_V4.map(|(near, far)| (near.into(), far.into())),
        Family::V6 => RESERVED_V6.map(|(near, far)| (near.into(), far.into())),
    }
}

/// Whether this is a default route, or one of the two halves that some tools make of it.
fn is_default(net: &IpNet) -> bool {
    net.prefix_len() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Settings;
    use crate::types::parse_cidrs;

    fn choose(included: &str, excluded: &str, routes: &[&str]) -> (String, bool) {
        let mut config = Settings::default().config;
        config.outbound.include_cidrs = parse_cidrs(included).unwrap();
        config.outbound.exclude_cidrs = parse_cidrs(excluded).unwrap();
        let routes: Vec<IpNet> = routes.iter().map(|net| net.parse().unwrap()).collect();
        let ends = Ends::choose(Family::V4, &config, &routes);
        assert_ne!(ends.near, ends.far);
        (ends.far.to_string(), ends.free)
    }

    #[test]
    fn addresses_that_the_pod_has_routes_to_are_left_to_it() {
        let is = |far: &str, free| (far.to_owned(), free);
        assert_eq!(choose("*", "", &["0.0.0.0/0", "10.0.0.0/8"]), is("192.0.2.254", true));
        assert_eq!(choose("*", "", &["0.0.0.0/1", "128.0.0.0/1"]), is("192.0.2.254", true));
        assert_eq!(choose("*", "", &["192.0.2.0/24"]), is("198.51.100.254", true));
        assert_eq!(
            choose("*", "", &["192.0.0.0/8", "198.51.100.253/32"]),
            is("203.0.113.254", true)
        );
        assert_eq!(choose("*", "", &["192.0.0.0/2"]), is("192.0.2.254", false));
    }

    #[test]
    fn an_address_that_is_captured_comes_first() {
        let is = |far: &str| (far.to_owned(), true);
        assert_eq!(choose("*", "192.0.2.0/24", &[]), is("198.51.100.254"));
        assert_eq!(choose("10.0.0.0/8", "", &[]), is("192.0.2.254"));
        assert_eq!(choose("203.0.0.0/8", "", &[]), is("203.0.113.254"));
        assert_eq!(choose("*", "0.0.0.0/0", &[]), is("192.0.2.254"));
    }
}
