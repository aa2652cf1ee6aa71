//! The neighbours that the kernel knows or looks for (arp(7)).

use std::net::IpAddr;

use netlink_packet_core::Parseable as _;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use super::link::{Change, host};
use super::{Route, RouteError, malformed};

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Its link-layer address.
    Known,
    /// Nothing: it asks for that, or has asked for it in vain, since it has something to send there.
    Sought,
}

impl Route {
    /// The neighbours that the kernel knows or has something for: the index of the interface, and the address.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn neighbours(&mut self) -> Result<Vec<(u32, IpAddr, Neighbour)>, RouteError> {
        let mut found = Vec::new();
        for payload in self.list(libc::RTM_GETNEIGH, &NeighbourMessage::default())? {
            let message = NeighbourMessage::parse(&payload).map_err(malformed)?;
            let neighbour = match message.header.state {
                NeighbourState::None => continue,
                NeighbourState::Incomplete | NeighbourState::Failed => Neighbour::Sought,
                _ => Neighbour::Known,
            };
            let addresses = message.attributes.iter().filter_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::from(*address)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::from(*address)),
                _ => None,
            });
            found.extend(addresses.map(|address| (message.header.ifindex, address, neighbour)));
        }
        Ok(found)
    }

    /// What the kernel knows of the neighbour with this address on the interface with this index; `None` if it has
    /// nothing to send there.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn neighbour(&mut self, index: u32, address: IpAddr) -> Result<Option<Neighbour>, RouteError> {
        let neighbours = self.neighbours()?;
        let mut found = neighbours
            .into_iter()
            .filter(|(on, of, _)| (*on, *of) == (index, address));
        Ok(found.next().map(|(_, _, neighbour)| neighbour))
    }

    /// Stops looking for a neighbour.
    ///
    /// # Errors
    /// The netlink exchange failed; inner error: the kernel refused.
    pub fn forget_neighbour(&mut self, index: u32, address: IpAddr) -> Change {
        let mut message = NeighbourMessage::default();
        message.header.family = host(address).0;
        message.header.ifindex = index;
        let destination = match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        };
        message.attributes = vec![NeighbourAttribute::Destination(destination)];
        self.change(libc::RTM_DELNEIGH, 0, &message)
    }
}
