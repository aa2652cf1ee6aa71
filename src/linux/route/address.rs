//! The loopback interface and its addresses.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_DUMP, NlasIterator, Parseable as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};

use super::link::{LINK_HEADER, LinkRequest, has_flag};
use super::{LOOPBACK_INDEX, NetlinkError, Route, RouteError, malformed, request};
use crate::facts::{Facts, Ipv6, UsableAddresses};
use crate::plan::{LOOPBACK_ADDRESS_METRIC, PASSTHROUGH_V6};

/// Flags of addresses that are not usable yet or at all, by duplicate address detection (RFC 4862).
const NOT_IN_USE: AddressHeaderFlags = AddressHeaderFlags::Tentative.union(AddressHeaderFlags::Dadfailed);

/// The state of the loopback interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loopback {
    /// Whether it is up. Redirected connections of local processes pass over it.
    pub up: bool,
    /// The IPv6 support of the namespace.
    pub ipv6: Ipv6,
    /// The families of which the namespace has usable addresses.
    pub addresses: UsableAddresses,
    /// The addresses on it that sidetrack added.
    pub own_addresses: Vec<Ipv6Addr>,
}

impl Loopback {
    /// The facts of this observation, with the name servers of this namespace.
    pub fn facts(&self, resolvers: Vec<IpAddr>) -> Facts {
        Facts {
            ipv6: self.ipv6,
            addresses: self.addresses,
            resolvers,
            proxy_cgroup: None,
        }
    }
}

impl Route {
    /// Observes the loopback interface, and whether other interfaces have IPv6 addresses, read-only.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn loopback(&mut self) -> Result<Loopback, RouteError> {
        // One datagram requests both.
        let link = LinkRequest::about(LOOPBACK_INDEX);
        let requests = [
            request(libc::RTM_GETLINK, 0, &link)?,
            request(libc::RTM_GETADDR, NLM_F_DUMP, &AddressMessage::default())?,
        ];
        let (mut links, mut addresses) = (Vec::new(), Vec::new());
        for (kind, payload) in self.dump(&requests.concat())? {
            match kind {
                libc::RTM_NEWLINK => links.push(payload),
                _ => addresses.push(address(&payload)?),
            }
        }
        let [link] = links.as_slice() else {
            return Err(NetlinkError::Malformed("no loopback interface".to_owned()).into());
        };
        let (up, enabled) = parse_link(link)?;
        let ipv6 = match enabled {
            None => Ipv6::Absent,
            Some(true) => Ipv6::Usable,
            Some(false) => Ipv6::OffOnLoopback {
                used_elsewhere: addresses.iter().any(|address| {
                    address.header.family == AddressFamily::Inet6 && address.header.index != LOOPBACK_INDEX
                }),
            },
        };
        Ok(Loopback {
            up,
            ipv6,
            addresses: usable(addresses.iter().filter_map(ip)),
            own_addresses: addresses.iter().filter_map(own_address).collect(),
        })
    }

    /// The addresses of this host that other hosts can reach: neither loopback nor link-local ones, nor any that are
    /// not in use yet.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn usable_addresses(&mut self) -> Result<Vec<IpAddr>, RouteError> {
        let addresses = self.addresses()?;
        let in_use = addresses
            .iter()
            .filter(|address| !address.header.flags.intersects(NOT_IN_USE));
        Ok(in_use.filter_map(local).filter(|address| is_usable(*address)).collect())
    }

    /// The addresses on the loopback interface that sidetrack added.
    pub(super) fn own_addresses(&mut self) -> Result<Vec<Ipv6Addr>, RouteError> {
        Ok(self.addresses()?.iter().filter_map(own_address).collect())
    }

    fn addresses(&mut self) -> Result<Vec<AddressMessage>, RouteError> {
        let payloads = self.list(libc::RTM_GETADDR, &AddressMessage::default())?;
        Ok(payloads
            .iter()
            .map(|payload| address(payload))
            .collect::<Result<_, _>>()?)
    }
}

/// Whether the interface is up, and whether it accepts IPv6 addresses (`None`: the kernel has no IPv6).
fn parse_link(payload: &[u8]) -> Result<(bool, Option<bool>), NetlinkError> {
    let attributes = payload.get(LINK_HEADER..).unwrap_or_default();
    Ok((has_flag(payload, libc::IFF_UP)?, ipv6_enabled(attributes)))
}

fn address(payload: &[u8]) -> Result<AddressMessage, NetlinkError> {
    AddressMessage::parse(payload).map_err(malformed)
}

/// An address of the loopback interface, owned by its metric. No other host can have it, so it is usable at
/// once, without duplicate address detection.
pub fn message(address: Ipv6Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = 128;
    message.header.index = LOOPBACK_INDEX;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V6(address)),
        AddressAttribute::RoutePriority(LOOPBACK_ADDRESS_METRIC),
    ];
    message
}

fn own_address(message: &AddressMessage) -> Option<Ipv6Addr> {
    let marked = AddressAttribute::RoutePriority(LOOPBACK_ADDRESS_METRIC);
    if message.header.index != LOOPBACK_INDEX || !message.attributes.contains(&marked) {
        return None;
    }
    match ip(message) {
        Some(IpAddr::V6(address)) => Some(address),
        _ => None,
    }
}

fn ip(message: &AddressMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })
}

/// The host's own address: on a point-to-point link, the other one is that of the peer.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let mut attributes = message.attributes.iter();
    let local = attributes.find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| ip(message))
}

fn usable(addresses: impl Iterator<Item = IpAddr>) -> UsableAddresses {
    let (mut usable, mut passthrough) = (UsableAddresses::default(), false);
    for address in addresses {
        match address {
            address if address == PASSTHROUGH_V6 => passthrough = true,
            IpAddr::V6(address) if address.is_unicast_link_local() => usable.v6_link_local = true,
            address if !is_usable(address) => {}
            IpAddr::V4(_) => usable.v4 = true,
            IpAddr::V6(_) => usable.v6 = true,
        }
    }
    // Only Istio's rules depend on this, and Istio counts ::6 like any other address. If it is the only one, IPv6 was
    // already redirected here.
    usable.v6 |= passthrough && !usable.v4;
    usable
}

fn is_usable(address: IpAddr) -> bool {
    let beyond_link = match address {
        IpAddr::V4(address) => !address.is_link_local(),
        // By the RFCs ::6 is not a loopback address, but sidetrack and Istio use it as one.
        IpAddr::V6(address) => !address.is_unicast_link_local() && address != PASSTHROUGH_V6,
    };
    beyond_link && !address.is_loopback()
}

/// Reads `disable_ipv6` from the attributes of a link: IFLA_AF_SPEC, in it AF_INET6, in it IFLA_INET6_CONF, an
/// array of 32-bit numbers (linux/if_link.h, linux/ipv6.h).
fn ipv6_enabled(attributes: &[u8]) -> Option<bool> {
    const IFLA_INET6_CONF: u16 = 2;
    const DEVCONF_DISABLE_IPV6: usize = 26;
    let families = nested(attributes, libc::IFLA_AF_SPEC)?;
    let ipv6 = nested(&families, libc::AF_INET6 as u16)?;
    let conf = nested(&ipv6, IFLA_INET6_CONF)?;
    let (numbers, _) = conf.as_chunks::<4>();
    numbers
        .get(DEVCONF_DISABLE_IPV6)
        .map(|number| i32::from_ne_bytes(*number) == 0)
}

fn nested(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .flatten()
        .find(|attribute| attribute.kind() & NLA_TYPE_MASK == kind)
        .map(|attribute| attribute.value().to_vec())
}
