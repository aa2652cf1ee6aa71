//! Packets, and the pod that they travel through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plan::PolicyRouting;
use crate::ruleset::{Protocol, Tracking};
use crate::types::{Family, Gid, InterfaceName, Port, Uid};

/// The first packet of a connection, or a later one in the same direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub origin: Origin,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The source address.
    pub source: IpAddr,
    /// The source port.
    pub source_port: Port,
    /// The destination address, of the same family.
    pub destination: IpAddr,
    /// The destination port.
    pub destination_port: Port,
    /// Its mark; 0 for none. One that is sent has the mark of its socket.
    pub mark: u32,
    /// What connection tracking will say of it.
    pub tracking: Tracking,
}

/// Where a packet comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A process in the pod sends it.
    Process {
        /// The user that owns the socket.
        uid: Uid,
        /// The group that owns the socket.
        gid: Gid,
        /// The interface by which other hosts are reached. What is for the pod itself leaves by the loopback interface.
        interface: InterfaceName,
    },
    /// It arrives on an interface.
    Interface(InterfaceName),
}

impl Packet {
    /// The address family.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }
}

/// What routing depends on in a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The addresses of its interfaces, other than 127.0.0.0/8 and ::1. Connections that are redirected where they
    /// arrive get the first one of their interface and family for their destination.
    pub addresses: Vec<(InterfaceName, IpAddr)>,
    /// How marked packets are routed, where they are routed in a way of their own.
    pub routing: Option<PolicyRouting>,
}

impl Pod {
    /// Whether an address is one of this pod.
    pub fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|(_, own)| *own == address)
    }

    /// Whether a packet to `address` with this mark is for a process of this pod.
    pub fn is_local(&self, address: IpAddr, mark: u32) -> bool {
        let by_mark = self
            .routing
            .is_some_and(|routing| routing.mark.get() == mark && routing.families.contains(Family::of(address)));
        by_mark || self.has(address)
    }

    /// The address that the kernel gives to a socket with this mark which calls `to` over `interface` without having
    /// chosen one; `None` where there is none, so that the call fails.
    pub fn source(&self, to: IpAddr, mark: u32, interface: &InterfaceName) -> Option<IpAddr> {
        match to {
            IpAddr::V4(to) if to.is_loopback() => Some(Ipv4Addr::LOCALHOST.into()),
            to if self.has(to) => Some(to),
            // The mark makes somebody else's address one of this host: IPv4 would take that for the source too.
            IpAddr::V4(_) if self.is_local(to, mark) => None,
            IpAddr::V6(_) if self.is_local(to, mark) => self.address(&InterfaceName::loopback(), Family::V6),
            to => self.own_address(interface, Family::of(to)),
        }
    }

    /// The first address of an interface and family.
    pub fn address(&self, interface: &InterfaceName, family: Family) -> Option<IpAddr> {
        let found = self.addresses.iter();
        let mut found = found.filter(|(name, address)| name == interface && family.is_of(*address));
        found.next().map(|(_, address)| *address)
    }

    /// An address that the pod is known by to others: of this interface, or else of another one.
    pub fn own_address(&self, interface: &InterfaceName, family: Family) -> Option<IpAddr> {
        let others = self
            .addresses
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !is_loopback(name));
        [interface]
            .into_iter()
            .chain(others)
            .find_map(|name| self.address(name, family))
    }
}

/// Whether an interface is the one that leads back to this host.
pub fn is_loopback(interface: &InterfaceName) -> bool {
    *interface == InterfaceName::loopback()
}

/// The loopback address of a family.
pub fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}
