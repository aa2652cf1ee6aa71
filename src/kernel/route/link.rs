//! Links and routes in general: the pair of interfaces that joins two namespaces (veth(4)), and where routes lead.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_packet_core::Parseable as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use nix::errno::Errno;

use super::{Answer, NLM_F_CREATE, NLM_F_EXCL, NetlinkError, Route, RouteError, malformed, request};

/// What the kernel says to a change.
type Change = Result<Result<(), Errno>, RouteError>;

impl Route {
    /// Adds a pair of interfaces, both of this name: one here, the other in `peer`. Both are down.
    ///
    /// # Errors
    /// The conversation failed; within: the kernel refused.
    pub fn add_pair(&mut self, name: &str, peer: &impl AsRawFd) -> Change {
        let named = || {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(name.to_owned()));
            message
        };
        let mut other = named();
        other.attributes.push(LinkAttribute::NetNsFd(peer.as_raw_fd()));
        let mut message = named();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]));
        self.change(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// As above.
    pub fn set_up(&mut self, index: u32) -> Change {
        let mut message = link(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(libc::RTM_NEWLINK, 0, &message)
    }

    /// Removes an interface; with it goes its peer.
    ///
    /// # Errors
    /// As above.
    pub fn remove_link(&mut self, index: u32) -> Change {
        self.change(libc::RTM_DELLINK, 0, &link(index))
    }

    /// Whether an interface is ready to send.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn is_running(&mut self, index: u32) -> Result<bool, RouteError> {
        self.socket.send(&request(libc::RTM_GETLINK, 0, &link(index)))?;
        for answer in self.socket.receive()? {
            if let Answer::Message { payload, .. } = answer {
                let header = LinkHeader::parse(&payload).map_err(malformed)?;
                return Ok(header.flags.contains(LinkFlags::Running));
            }
        }
        Err(NetlinkError::Malformed("no interface".to_owned()).into())
    }

    /// Gives an interface an address, and a route to the one at its other end. The address is in use at once.
    ///
    /// # Errors
    /// As above.
    pub fn add_ends(&mut self, index: u32, own: IpAddr, other: IpAddr) -> Change {
        let mut message = AddressMessage::default();
        let (family, length) = match own {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.family = family;
        message.header.prefix_len = length;
        message.header.index = index;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![AddressAttribute::Local(own), AddressAttribute::Address(other)];
        self.change(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// The destinations of all routes, of all tables and both families.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn destinations(&mut self) -> Result<Vec<IpNet>, RouteError> {
        let payloads = self.list(libc::RTM_GETROUTE, &RouteMessage::default())?;
        Ok(payloads.iter().filter_map(|payload| destination(payload)).collect())
    }
}

fn link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// The destination of a route, unless it is a default route, which has none, or another protocol's.
fn destination(payload: &[u8]) -> Option<IpNet> {
    let route = RouteMessage::parse(payload).ok()?;
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}
