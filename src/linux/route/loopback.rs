//! Routes that make the loopback address one of another interface, too. Sockets bound to that interface (SO_BINDTODEVICE)
//! look up routes of that interface only, and redirection changes their destination to the loopback address.

use std::fmt;

use netlink_packet_core::Parseable as _;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use nix::errno::Errno;

use super::policy::{OWN_PROTOCOL, address_family, family};
use super::{NLM_F_APPEND, NLM_F_CREATE, Refusal, Route, RouteError};
use crate::linux::interfaces;
use crate::plan::{LOOPBACK_ROUTE_METRIC, LoopbackRoute, POLICY_ROUTING_PROTOCOL, Prerequisite};
use crate::types::Family;

/// The table of addresses of this host (`RT_TABLE_LOCAL`, linux/rtnetlink.h).
const LOCAL_TABLE: u32 = 255;

/// The reason why an interface cannot have such a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// No interface has this name.
    Absent,
    /// The interface is down.
    Down,
    /// The family is disabled on the interface.
    FamilyOff,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "there is no such interface (see `ip link`)",
            Self::Down => "the interface is down",
            Self::FamilyOff => "the address family is disabled on the interface",
        })
    }
}

/// A route of the kernel that makes the loopback address one of an interface.
struct Found {
    family: Family,
    interface_index: u32,
    is_ours: bool,
}

impl Route {
    /// Whether the interface has a route to the loopback address, ours or a foreign one.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn has_loopback_route(&mut self, route: &LoopbackRoute) -> Result<bool, RouteError> {
        let Some(index) = interfaces::index(&route.interface) else {
            return Ok(false);
        };
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(route.family);
        let payloads = self.list(libc::RTM_GETROUTE, &request)?;
        let mut found = payloads.iter().filter_map(|payload| parse(payload));
        Ok(found.any(|found| (found.family, found.interface_index) == (route.family, index)))
    }

    pub(super) fn add_loopback_route(&mut self, route: &LoopbackRoute) -> Result<bool, RouteError> {
        let route = route.clone();
        let Some(index) = interfaces::index(&route.interface) else {
            let why = Unusable::Absent;
            return Err(RouteError::Unusable { route, why });
        };
        // All these routes have the same destination and metric. IPv4 accepts the second one only with NLM_F_APPEND.
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        let Err(refusal) = self.change(libc::RTM_NEWROUTE, flags, &message(route.family, index))? else {
            return Ok(true);
        };
        Err(match refusal.errno {
            Errno::EEXIST => return Ok(false),
            Errno::EPERM => RouteError::NotPermitted(refusal),
            Errno::ENETDOWN => RouteError::Unusable {
                route,
                why: Unusable::Down,
            },
            Errno::EACCES | Errno::ENODEV => RouteError::Unusable {
                route,
                why: Unusable::FamilyOff,
            },
            _ => RouteError::Refused {
                what: format!("adding {route}"),
                refusal,
            },
        })
    }

    /// Removes the route; the inner error is the kernel's refusal. The kernel removes the route with its interface.
    pub(super) fn remove_loopback_route(&mut self, route: &LoopbackRoute) -> Result<Result<(), Refusal>, RouteError> {
        match interfaces::index(&route.interface) {
            Some(index) => self.change(libc::RTM_DELROUTE, 0, &message(route.family, index)),
            None => Ok(Err(Errno::ESRCH.into())),
        }
    }
}

/// The route `local LOOPBACK dev INTERFACE table local`.
fn message(family: Family, interface_index: u32) -> RouteMessage {
    let (destination, prefix_length) = loopback(family);
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.destination_prefix_length = prefix_length;
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    message.header.protocol = RouteProtocol::Other(POLICY_ROUTING_PROTOCOL);
    message.attributes = vec![
        RouteAttribute::Destination(destination),
        RouteAttribute::Table(LOCAL_TABLE),
        RouteAttribute::Oif(interface_index),
        RouteAttribute::Priority(LOOPBACK_ROUTE_METRIC),
    ];
    message
}

fn loopback(family: Family) -> (RouteAddress, u8) {
    match family {
        Family::V4 => (RouteAddress::Inet(std::net::Ipv4Addr::LOCALHOST), 32),
        Family::V6 => (RouteAddress::Inet6(std::net::Ipv6Addr::LOCALHOST), 128),
    }
}

/// The route of a message, if it is marked as ours.
pub fn own_loopback_route(payload: &[u8]) -> Option<Prerequisite> {
    let found = parse(payload).filter(|found| found.is_ours)?;
    let interface = interfaces::name(found.interface_index)?;
    Some(Prerequisite::LoopbackRoute(LoopbackRoute {
        family: found.family,
        interface,
    }))
}

/// The route of a message, if it makes the loopback address one of an interface.
fn parse(payload: &[u8]) -> Option<Found> {
    let found = RouteMessage::parse(payload).ok()?;
    let family = family(found.header.address_family)?;
    let (destination, prefix_length) = loopback(family);
    let is_loopback = found.header.kind == RouteType::Local
        && found.header.destination_prefix_length == prefix_length
        && found.attributes.contains(&RouteAttribute::Destination(destination))
        && found.attributes.contains(&RouteAttribute::Table(LOCAL_TABLE));
    let index = found.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let has_metric = found
        .attributes
        .contains(&RouteAttribute::Priority(LOOPBACK_ROUTE_METRIC));
    index.filter(|_| is_loopback).map(|interface_index| Found {
        family,
        interface_index,
        is_ours: has_metric && found.header.protocol == OWN_PROTOCOL,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    fn bytes(message: &impl Emitable) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn only_routes_with_our_protocol_and_metric_are_ours() {
        for family in Family::BOTH {
            let ours = message(family, 7);
            let found = parse(&bytes(&ours)).unwrap();
            assert!(found.is_ours && found.family == family && found.interface_index == 7);
            let changes: [fn(&mut RouteMessage); 2] = [
                |route| route.header.protocol = RouteProtocol::Boot,
                |route| {
                    route
                        .attributes
                        .retain(|one| !matches!(one, RouteAttribute::Priority(_)))
                },
            ];
            for change in changes {
                let mut foreign = ours.clone();
                change(&mut foreign);
                assert!(!parse(&bytes(&foreign)).unwrap().is_ours, "{foreign:?}");
            }
            for missing in 0..3 {
                let mut other = ours.clone();
                other.attributes.remove(missing);
                assert!(parse(&bytes(&other)).is_none(), "{other:?}");
            }
        }
    }
}
