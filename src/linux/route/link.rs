//! Links and routes: the pair of interfaces that connects two namespaces (veth(4)), and the destinations of routes.
//!
//! The link messages are written by hand: the crate for the others supports every kind of link, and would add
//! a hundred kilobytes for this one.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_packet_core::{Emitable, Parseable as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use nix::errno::Errno;

use super::{Answer, NLM_F_CREATE, NLM_F_EXCL, NetlinkError, Refusal, Route, RouteError, malformed, request};

/// The attribute of a veth's data that describes its other end (linux/veth.h).
const VETH_INFO_PEER: u16 = 1;

/// The length of `struct ifinfomsg`, which comes before the attributes.
pub const LINK_HEADER: usize = 16;

/// A message about a link: `struct ifinfomsg` and attributes (rtnetlink(7)).
pub struct LinkRequest(Vec<u8>);

impl LinkRequest {
    /// A request about the interface with this index; 0 for one that does not exist yet.
    pub fn about(index: u32) -> Self {
        Self::with_flags(index, 0)
    }

    /// The same, which sets these flags.
    fn with_flags(index: u32, flags: u32) -> Self {
        const FAMILY_AND_TYPE: u32 = 0;
        let fields = [FAMILY_AND_TYPE, index, flags, flags];
        Self(fields.iter().flat_map(|field| field.to_ne_bytes()).collect())
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Result<Self, NetlinkError> {
        attribute(&mut self.0, kind, value)?;
        Ok(self)
    }
}

/// Appends an attribute to a message.
pub fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<(), NetlinkError> {
    const HEADER: usize = 4;
    let length = u16::try_from(HEADER + value.len()).map_err(|_| NetlinkError::TooLong("an attribute of a link"))?;
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    Ok(())
}

impl Emitable for LinkRequest {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.0.len()].copy_from_slice(&self.0);
    }
}

/// A list of attributes alone.
fn attributes() -> LinkRequest {
    LinkRequest(Vec::new())
}

/// Whether the header of a link message has this flag.
pub fn has_flag(payload: &[u8], flag: libc::c_int) -> Result<bool, NetlinkError> {
    const FLAGS: usize = 8;
    match payload.get(FLAGS..).and_then(|rest| rest.first_chunk()) {
        Some(flags) => Ok(u32::from_ne_bytes(*flags) & flag as u32 != 0),
        None => Err(NetlinkError::Malformed("a link without flags".to_owned())),
    }
}

/// The kernel's answer to a change.
pub type Change = Result<Result<(), Refusal>, RouteError>;

impl Route {
    /// Adds a pair of interfaces with this name: one in this namespace, the other in `peer`. Both are down.
    ///
    /// # Errors
    /// The netlink exchange failed; inner error: the kernel refused.
    pub fn add_pair(&mut self, name: &str, peer: &impl AsRawFd) -> Change {
        let name = [name.as_bytes(), b"\0"].concat();
        let other = LinkRequest::about(0)
            .with(libc::IFLA_IFNAME, &name)?
            .with(libc::IFLA_NET_NS_FD, &peer.as_raw_fd().to_ne_bytes())?;
        let data = attributes().with(VETH_INFO_PEER, &other.0)?;
        let info = attributes()
            .with(libc::IFLA_INFO_KIND, b"veth")?
            .with(libc::IFLA_INFO_DATA, &data.0)?;
        let message = LinkRequest::about(0)
            .with(libc::IFLA_IFNAME, &name)?
            .with(libc::IFLA_LINKINFO, &info.0)?;
        self.change(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// As above.
    pub fn set_up(&mut self, index: u32) -> Change {
        let message = LinkRequest::with_flags(index, libc::IFF_UP as u32);
        self.change(libc::RTM_NEWLINK, 0, &message)
    }

    /// Removes an interface and its peer.
    ///
    /// # Errors
    /// As above.
    pub fn remove_link(&mut self, index: u32) -> Change {
        self.change(libc::RTM_DELLINK, 0, &LinkRequest::about(index))
    }

    /// Whether an interface is ready to send.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn is_running(&mut self, index: u32) -> Result<bool, RouteError> {
        self.socket
            .send(request(libc::RTM_GETLINK, 0, &LinkRequest::about(index))?)?;
        for answer in self.socket.receive()? {
            if let Answer::Message { payload, .. } = answer {
                return Ok(has_flag(&payload, libc::IFF_RUNNING)?);
            }
        }
        Err(NetlinkError::Malformed("no interface".to_owned()).into())
    }

    /// Adds an address to an interface, and a route to the peer's address. The address is usable at once.
    ///
    /// # Errors
    /// As above.
    pub fn add_ends(&mut self, index: u32, own: IpAddr, other: IpAddr) -> Change {
        let mut message = AddressMessage::default();
        (message.header.family, message.header.prefix_len) = host(own);
        message.header.index = index;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![AddressAttribute::Local(own), AddressAttribute::Address(other)];
        self.change(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// Adds a route to one address by an interface, and by a router if there is one. The kernel removes it with the
    /// interface.
    ///
    /// # Errors
    /// As above.
    pub fn add_route(&mut self, index: u32, destination: IpAddr, router: Option<IpAddr>) -> Change {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = host(destination);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = match router {
            None => RouteScope::Link,
            Some(_) => RouteScope::Universe,
        };
        message.attributes = vec![
            RouteAttribute::Destination(destination.into()),
            RouteAttribute::Oif(index),
        ];
        message
            .attributes
            .extend(router.map(|router| RouteAttribute::Gateway(router.into())));
        self.change(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// Adds a route to one address by an interface, for the sockets of [`Selected`] alone. The kernel removes it with
    /// the interface.
    ///
    /// # Errors
    /// As above. Linux without `CONFIG_IPV6_SUBTREES` refuses it for IPv6.
    pub fn add_selective_route(&mut self, index: u32, to: &Selected) -> Change {
        let mut message = to.message();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.header.scope = RouteScope::Link;
        message.header.protocol = RouteProtocol::Static;
        message.attributes.push(RouteAttribute::Oif(index));
        if to.source.is_ipv4() {
            message.attributes.push(RouteAttribute::PrefSource(to.source.into()));
        }
        self.change(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    /// The interface by which packets of these sockets leave.
    ///
    /// # Errors
    /// As above; inner error: there is no route.
    pub fn outgoing_interface(&mut self, to: &Selected) -> Result<Result<u32, Refusal>, RouteError> {
        self.socket.send(request(libc::RTM_GETROUTE, 0, &to.message())?)?;
        for answer in self.socket.receive()? {
            let payload = match answer {
                Answer::Message { payload, .. } => payload,
                Answer::Status {
                    result: Err(refusal), ..
                } => return Ok(Err(refusal)),
                Answer::Status { .. } | Answer::Interrupted { .. } => continue,
            };
            let route = RouteMessage::parse(&payload).map_err(malformed)?;
            let index = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            return Ok(index.ok_or_else(|| Errno::ENETUNREACH.into()));
        }
        Err(NetlinkError::Malformed("no route".to_owned()).into())
    }

    /// The destinations of all routes in all tables, of both families.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn destinations(&mut self) -> Result<Vec<IpNet>, RouteError> {
        let payloads = self.list(libc::RTM_GETROUTE, &RouteMessage::default())?;
        Ok(payloads.iter().filter_map(|payload| destination(payload)).collect())
    }
}

/// Sockets that send to one address: over IPv4 with [`SELECTED_TOS`], over IPv6 from this source. Other sockets have
/// neither, so that a route for these leaves the traffic of the pod alone.
#[derive(Clone, Copy, Debug)]
pub struct Selected {
    /// The destination.
    pub destination: IpAddr,
    /// The source address, of the same family.
    pub source: IpAddr,
}

/// The type of service (`IP_TOS`) that selects a route. No program is known to use it; the kernel compares these bits
/// (`IPTOS_RT_MASK`, linux/in_route.h).
pub const SELECTED_TOS: u8 = 0x0c;

impl Selected {
    /// A route message with the destination and the selector.
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let (family, length) = host(self.destination);
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.attributes = vec![RouteAttribute::Destination(self.destination.into())];
        match self.source {
            IpAddr::V4(_) => message.header.tos = SELECTED_TOS,
            IpAddr::V6(_) => {
                message.header.source_prefix_length = length;
                message.attributes.push(RouteAttribute::Source(self.source.into()));
            }
        }
        message
    }
}

/// The family of an address, and the prefix length of a network that has no other address.
pub fn host(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

/// The destination of a route; none for a default route or a route of another address family.
fn destination(payload: &[u8]) -> Option<IpNet> {
    let route = RouteMessage::parse(payload).ok()?;
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}
