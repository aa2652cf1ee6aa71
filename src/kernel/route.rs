//! Addresses of the loopback interface, over rtnetlink(7).
//!
//! The messages are those of the crate below rtnetlink; a handful of requests needs no asynchronous runtime.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::{
    Emitable, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NlasIterator, Parseable as _,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkHeader, LinkMessage};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use thiserror::Error;

use super::netlink::{Answer, NetlinkError, Socket};
use crate::facts::{Ipv6, UsableAddresses};
use crate::plan::{LOOPBACK_ADDRESS_METRIC, PASSTHROUGH_V6};

/// The loopback interface is the first of any network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK_INDEX: u32 = 1;

/// How often a list that changed while it was read is read again.
const ATTEMPTS: usize = 32;

/// What could not be done about the loopback interface.
#[derive(Debug, Error)]
pub enum RouteError {
    /// We may not.
    #[error("the kernel does not allow changes to the loopback interface here ({0})")]
    NotPermitted(Errno),
    /// IPv6 was switched off after it was observed to be on.
    #[error(
        "the address {address} cannot be put on the loopback interface: IPv6 is switched off there. \
         Set net.ipv6.conf.lo.disable_ipv6 to 0, or pass --ip-family ipv4 to leave IPv6 alone"
    )]
    Ipv6Off {
        /// The address.
        address: Ipv6Addr,
    },
    /// The kernel refused.
    #[error("{what} was refused by the kernel: {errno}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Why.
        errno: Errno,
    },
    /// The conversation itself failed.
    #[error("speaking to rtnetlink: {0}")]
    Netlink(#[from] NetlinkError),
}

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

/// A conversation about the network namespace that the thread was in when it was opened.
pub struct Route {
    socket: Socket,
}

impl Route {
    /// Opens the conversation.
    ///
    /// # Errors
    /// No netlink socket could be had.
    pub fn open() -> Result<Self, RouteError> {
        let socket = Socket::open(SockProtocol::NetlinkRoute)?;
        Ok(Self { socket })
    }

    /// Observes the loopback interface, and whether others have IPv6 addresses. Changes nothing.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn loopback(&mut self) -> Result<Loopback, RouteError> {
        let (up, enabled) = self.link()?;
        let addresses = self.addresses()?;
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

    /// Puts an address on the loopback interface, known for ours by its metric. Returns whether it was not there yet.
    ///
    /// # Errors
    /// The kernel cannot or may not.
    pub fn add_address(&mut self, address: Ipv6Addr) -> Result<bool, RouteError> {
        let mut message = address_message(address);
        message
            .attributes
            .push(AddressAttribute::RoutePriority(LOOPBACK_ADDRESS_METRIC));
        match self.change(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message)? {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(Errno::EPERM) => Err(RouteError::NotPermitted(Errno::EPERM)),
            Err(Errno::EACCES) => Err(RouteError::Ipv6Off { address }),
            Err(errno) => Err(RouteError::Refused {
                what: format!("adding the address {address} to the loopback interface"),
                errno,
            }),
        }
    }

    /// Takes an address from the loopback interface. Returns whether it was there.
    ///
    /// # Errors
    /// The kernel cannot or may not.
    pub fn remove_address(&mut self, address: Ipv6Addr) -> Result<bool, RouteError> {
        match self.change(libc::RTM_DELADDR, 0, &address_message(address))? {
            Ok(()) => Ok(true),
            Err(Errno::EADDRNOTAVAIL) => Ok(false),
            Err(Errno::EPERM) => Err(RouteError::NotPermitted(Errno::EPERM)),
            Err(errno) => Err(RouteError::Refused {
                what: format!("removing the address {address} from the loopback interface"),
                errno,
            }),
        }
    }

    /// Whether the loopback interface is up, and whether it takes IPv6 addresses (`None`: the kernel has no IPv6).
    fn link(&mut self) -> Result<(bool, Option<bool>), RouteError> {
        let mut message = LinkMessage::default();
        message.header.index = LOOPBACK_INDEX;
        self.socket.send(&request(libc::RTM_GETLINK, 0, &message))?;
        for answer in self.socket.receive()? {
            match answer {
                Answer::Message { payload, .. } => {
                    let header = LinkHeader::parse(&payload).map_err(malformed)?;
                    let attributes = payload.get(header.buffer_len()..).unwrap_or_default();
                    return Ok((header.flags.contains(LinkFlags::Up), ipv6_enabled(attributes)));
                }
                Answer::Status { result: Err(errno), .. } => {
                    return Err(RouteError::Refused {
                        what: "reading the loopback interface".to_owned(),
                        errno,
                    });
                }
                Answer::Status { result: Ok(()), .. } => {}
            }
        }
        Err(NetlinkError::Malformed("no loopback interface".to_owned()).into())
    }

    fn addresses(&mut self) -> Result<Vec<AddressMessage>, RouteError> {
        let request = request(libc::RTM_GETADDR, NLM_F_DUMP, &AddressMessage::default());
        let mut result = Err(NetlinkError::Interrupted);
        for _ in 0..ATTEMPTS {
            result = self.socket.dump(&request);
            if !matches!(result, Err(NetlinkError::Interrupted)) {
                break;
            }
        }
        let parse = |(_, payload): (u16, Vec<u8>)| AddressMessage::parse(&payload).map_err(|e| malformed(e).into());
        result?.into_iter().map(parse).collect()
    }

    fn change(&mut self, kind: u16, flags: u16, message: &impl Emitable) -> Result<Result<(), Errno>, RouteError> {
        self.socket.send(&request(kind, flags | NLM_F_ACK, message))?;
        for answer in self.socket.receive()? {
            if let Answer::Status { result, .. } = answer {
                return Ok(result);
            }
        }
        Err(NetlinkError::Malformed("no answer to a change".to_owned()).into())
    }
}

fn malformed(error: netlink_packet_core::DecodeError) -> NetlinkError {
    NetlinkError::Malformed(error.to_string())
}

fn address_message(address: Ipv6Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = 128;
    message.header.index = LOOPBACK_INDEX;
    message.attributes = vec![AddressAttribute::Local(IpAddr::V6(address))];
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

fn usable(addresses: impl Iterator<Item = IpAddr>) -> UsableAddresses {
    let mut usable = UsableAddresses::default();
    for address in addresses.filter(|address| !address.is_loopback()) {
        match address {
            IpAddr::V4(address) => usable.v4 |= !address.is_link_local(),
            // ::6 is not loopback by the book, but it is ours.
            IpAddr::V6(address) => usable.v6 |= !address.is_unicast_link_local() && address != PASSTHROUGH_V6,
        }
    }
    usable
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

fn request(kind: u16, flags: u16, message: &impl Emitable) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | flags;
    header.length = (header.buffer_len() + message.buffer_len()) as u32;
    let mut bytes = vec![0; header.length as usize];
    header.emit(&mut bytes);
    message.emit(&mut bytes[header.buffer_len()..]);
    bytes
}
