//! The loopback interface and its addresses.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_DUMP, NlasIterator, Parseable as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};

use super::link::{LINK_HEADER, LinkRequest, has_flag};
use super::{LOOPBACK_INDEX, NetlinkError, Route, RouteError, malformed, request};
use crate::facts::{Facts, Ipv6, UsableAddresses};
use crate::plan::{LOOPBACK_ADDRESS_METRIC, PASSTHROUGH_V6};

/// Addresses that may turn out to be another host's too (RFC 4862).
const NOT_IN_USE: AddressHeaderFlags = AddressHeaderFlags::Tentative.union(AddressHeaderFlags::Dadfailed);

/// What the loopback interface is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loopback {
    /// Whether it is up. Redirected connections of local processes travel over it.
    pub up: bool,
    /// What the namespace can do with IPv6.
    pub ipv6: Ipv6,
    /// Which families the namespace has addresses of.
    pub addresses: UsableAddresses,
    /// The addresses on it that we put there.
    pub our_addresses: Vec<Ipv6Addr>,
}

impl Loopback {
    /// The facts that this observation gives, with the name servers that count in this namespace.
    pub fn facts(&self, resolvers: Vec<IpAddr>) -> Facts {
        Facts {
            ipv6: self.ipv6,
            addresses: self.addresses,
            resolvers,
        }
    }
}

impl Route {
    /// Observes the loopback interface, and whether others have IPv6 addresses. Changes nothing.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn loopback(&mut self) -> Result<Loopback, RouteError> {
        // One datagram asks for both.
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
            our_addresses: addresses.iter().filter_map(ours).collect(),
        })
    }

    /// The addresses of this host that others could reach: neither loopback nor link-local ones, nor any that are not
    /// in use yet.
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

    /// The addresses on the loopback interface that we put there.
    pub(super) fn our_addresses(&mut self) -> Result<Vec<Ipv6Addr>, RouteError> {
        Ok(self.addresses()?.iter().filter_map(ours).collect())
    }

    fn addresses(&mut self) -> Result<Vec<AddressMessage>, RouteError> {
        let payloads = self.list(libc::RTM_GETADDR, &AddressMessage::default())?;
        Ok(payloads
            .iter()
            .map(|payload| address(payload))
            .collect::<Result<_, _>>()?)
    }
}

/// Whether the interface is up, and whether it takes IPv6 addresses (`None`: the kernel has no IPv6).
fn parse_link(payload: &[u8]) -> Result<(bool, Option<bool>), NetlinkError> {
    let attributes = payload.get(LINK_HEADER..).unwrap_or_default();
    Ok((has_flag(payload, libc::IFF_UP)?, ipv6_enabled(attributes)))
}

fn address(payload: &[u8]) -> Result<AddressMessage, NetlinkError> {
    AddressMessage::parse(payload).map_err(malformed)
}

/// An address of the loopback interface, known for ours by its metric. Nobody else can have it, so it is in use at
/// once, without the detection of duplicates.
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

fn ours(message: &AddressMessage) -> Option<Ipv6Addr> {
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

/// The host's own address: at a link from point to point, the other one is that of the other end.
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
    // To Istio, whose rules alone depend on this, ::6 is an address like any other. Where it is the only one, somebody
    // has redirected IPv6 here.
    usable.v6 |= passthrough && !usable.v4;
    usable
}

fn is_usable(address: IpAddr) -> bool {
    let beyond_link = match address {
        IpAddr::V4(address) => !address.is_link_local(),
        // ::6 is not loopback by the book, but it is ours.
        IpAddr::V6(address) => !address.is_unicast_link_local() && address != PASSTHROUGH_V6,
    };
    beyond_link && !address.is_loopback()
}

/// Looks for `disable_ipv6` among the attributes of a link: IFLA_AF_SPEC, in it AF_INET6, in it IFLA_INET6_CONF, an
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
