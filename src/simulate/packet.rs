//! A packet, and the pod that it passes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::plan::PolicyRouting;
use crate::ruleset::{RTN_LOCAL, Tracking, Value};
use crate::types::{CgroupPath, Families, Family, Gid, InterfaceName, IpProtocol, Port, Uid};

/// The first packet of a connection, or a later one in the same direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub origin: Origin,
    /// The transport protocol. A packet of ICMP or ICMPv6 is an echo request.
    pub protocol: IpProtocol,
    /// The source address.
    pub source: IpAddr,
    /// The source port, if the protocol has ports.
    pub source_port: Option<Port>,
    /// The destination address, of the same family.
    pub destination: IpAddr,
    /// The destination port, if the protocol has ports.
    pub destination_port: Option<Port>,
    /// Its mark; 0 for none. A locally generated packet has the mark of its socket.
    pub mark: u32,
    /// Its conntrack state.
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
        /// The cgroup of the process; `None` for one that no rule names.
        cgroup: Option<CgroupPath>,
        /// The interface that leads to other hosts. Packets to the pod itself leave by the loopback interface.
        interface: InterfaceName,
    },
    /// An inbound packet, on this interface.
    Interface(InterfaceName),
}

impl Origin {
    /// The cgroup of the process, if one is given.
    pub fn cgroup(&self) -> Option<&CgroupPath> {
        match self {
            Self::Process { cgroup, .. } => cgroup.as_ref(),
            Self::Interface(_) => None,
        }
    }
}

impl Packet {
    /// The address family.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// The destination; its port is 0 if the protocol has none.
    pub fn to(&self) -> SocketAddr {
        (self.destination, self.destination_port.map_or(0, Port::get)).into()
    }
}

/// The addresses and policy routing of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The addresses of its interfaces, without 127.0.0.0/8 and ::1. A redirect in prerouting translates to the first
    /// address of the interface and family.
    pub addresses: Vec<(InterfaceName, IpAddr)>,
    /// The marks by which packets are delivered to this pod, whatever their destination.
    pub local_marks: Vec<LocalMark>,
    /// Whether an interface accepts IPv4 packets from other hosts to loopback addresses (sysctl route_localnet), as far as
    /// it is known.
    pub route_localnet: Vec<(InterfaceName, bool)>,
}

/// Policy routing that delivers packets with a mark to this pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalMark {
    /// The mark.
    pub mark: u32,
    /// The bits of the mark that count.
    pub mask: u32,
    /// The families.
    pub families: Families,
}

impl From<PolicyRouting> for LocalMark {
    fn from(routing: PolicyRouting) -> Self {
        Self {
            mark: routing.mark.get(),
            mask: u32::MAX,
            families: routing.families,
        }
    }
}

impl Pod {
    /// Whether the address belongs to this pod.
    pub fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|(_, own)| *own == address)
    }

    /// Whether a packet to `address` with this mark is for a process of this pod.
    pub fn is_local(&self, address: IpAddr, mark: u32) -> bool {
        let mut marks = self.local_marks.iter();
        let by_mark =
            marks.any(|local| mark & local.mask == local.mark && local.families.contains(Family::of(address)));
        by_mark || self.has(address)
    }

    /// Whether an interface accepts packets from other hosts to this loopback address; `None` if that is unknown.
    pub fn accepts_loopback(&self, address: IpAddr, interface: &InterfaceName) -> Option<bool> {
        let mut interfaces = self.route_localnet.iter().filter(|_| address.is_ipv4());
        interfaces
            .find(|(name, _)| name == interface)
            .map(|(_, accepts)| *accepts)
    }

    /// The type of an address (`RTN_…`, linux/rtnetlink.h), as far as it is known.
    pub fn address_type(&self, address: IpAddr) -> Value<u8> {
        const MULTICAST: u8 = 5;
        match address {
            address if self.has(address) => Value::Is(RTN_LOCAL),
            address if address.is_multicast() => Value::Is(MULTICAST),
            // Those of the pod are not among its addresses here.
            IpAddr::V6(address) if address.is_unicast_link_local() => Value::Unknown,
            _ => Value::IsNot(RTN_LOCAL),
        }
    }

    /// The source address that the kernel selects for an unbound socket with this mark that connects to `to` over
    /// `interface`; `None` if there is none and the connection fails.
    pub fn source(&self, to: IpAddr, mark: u32, interface: &InterfaceName) -> Option<IpAddr> {
        match to {
            IpAddr::V4(to) if to.is_loopback() => Some(Ipv4Addr::LOCALHOST.into()),
            to if self.has(to) => Some(to),
            // The mark makes a foreign address local: IPv4 would select it as the source too.
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

    /// An address at which other hosts reach the pod: of this interface, or else of another one.
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

/// An address, with the port that some protocols have.
pub fn endpoint(address: IpAddr, port: Option<Port>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port.get()).to_string(),
        None => address.to_string(),
    }
}

/// Whether this is the loopback interface.
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
