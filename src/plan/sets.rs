//! The named sets of a plan, one for each list of more than one element, and the matches that use them.

use std::net::IpAddr;

use crate::ruleset::{Addresses, Elements, GidMatch, Match, Name, PortMatch, Protocol, Set, UidMatch};
use crate::types::{Cidrs, Families, Family, Gids, Ports, Uids};

/// The sets added so far.
#[derive(Default)]
pub struct Sets(Vec<Set>);

impl Sets {
    /// All sets, in the order they were added.
    pub fn into_vec(self) -> Vec<Set> {
        self.0
    }

    fn add(&mut self, name: impl Into<Name>, elements: Elements) -> Name {
        let name = name.into();
        if !self.0.iter().any(|set| set.name == name) {
            self.0.push(Set {
                name: name.clone(),
                elements,
            });
        }
        name
    }

    /// The match for a destination port in `ports`: none where the list is empty, no condition beyond the protocol
    /// where it holds every port.
    pub fn destination_port(&mut self, name: impl Into<Name>, protocol: Protocol, ports: &Ports) -> Option<Match> {
        if ports.is_empty() {
            return None;
        }
        if ports.is_everything() {
            return Some(Match::Protocol(protocol));
        }
        let matched = match ports.only() {
            Some(port) => PortMatch::Port(port),
            None => PortMatch::Set(self.add(name, Elements::Ports(ports.clone()))),
        };
        Some(Match::DestinationPort(protocol, matched))
    }

    /// The match for a socket of one of `uids`, unless the list is empty.
    pub fn uid(&mut self, name: impl Into<Name>, uids: &Uids) -> Option<Match> {
        if uids.is_empty() {
            return None;
        }
        Some(Match::Uid(match uids.only() {
            Some(uid) => UidMatch::Uid(uid),
            None => UidMatch::Set(self.add(name, Elements::Uids(uids.clone()))),
        }))
    }

    /// The match for a socket of one of `gids`, unless the list is empty.
    pub fn gid(&mut self, name: impl Into<Name>, gids: &Gids) -> Option<Match> {
        if gids.is_empty() {
            return None;
        }
        Some(Match::Gid(match gids.only() {
            Some(gid) => GidMatch::Gid(gid),
            None => GidMatch::Set(self.add(name, Elements::Gids(gids.clone()))),
        }))
    }

    /// The matches for an address in `cidrs`, one for each family that has any. `on` is the side of the packet.
    /// The sets are called `name` and `_v4` or `_v6`.
    pub fn addresses(
        &mut self,
        name: &str,
        cidrs: &Cidrs,
        families: Families,
        on: fn(Addresses) -> Match,
    ) -> Vec<Match> {
        families
            .iter()
            .filter_map(|family| self.addresses_of(name, cidrs, family).map(on))
            .collect()
    }

    fn addresses_of(&mut self, name: &str, cidrs: &Cidrs, family: Family) -> Option<Addresses> {
        let (suffix, elements) = match family {
            Family::V4 => ("v4", Elements::Ipv4(cidrs.v4().to_vec())),
            Family::V6 => ("v6", Elements::Ipv6(cidrs.v6().to_vec())),
        };
        if elements.is_empty() {
            return None;
        }
        Some(match single(&elements) {
            Some(ip) => Addresses::Ip(ip),
            None => Addresses::Set(family, self.add(format!("{name}_{suffix}"), elements)),
        })
    }
}

/// The address, where there is only one.
fn single(elements: &Elements) -> Option<IpAddr> {
    match elements.networks().as_deref() {
        Some([net]) if net.prefix_len() == net.max_prefix_len() => Some(net.addr()),
        _ => None,
    }
}
