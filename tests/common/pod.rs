//! A pod, and what surrounds it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sidetrack::types::Family;

use super::Netns;

/// An address in both families.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Address {
    /// The pod's, on eth0.
    pub const POD: Self = Self::new(Ipv4Addr::new(10, 99, 0, 2), Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2));
    /// The pod's on its second interface, eth1.
    pub const POD_SECOND: Self = Self::new(Ipv4Addr::new(10, 99, 1, 2), Ipv6Addr::new(0xfd99, 1, 0, 0, 0, 0, 0, 2));
    /// The neighbour's, on eth0.
    pub const PEER: Self = Self::new(Ipv4Addr::new(10, 99, 0, 1), Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1));
    /// The neighbour's, on eth1.
    pub const PEER_SECOND: Self = Self::new(Ipv4Addr::new(10, 99, 1, 1), Ipv6Addr::new(0xfd99, 1, 0, 0, 0, 0, 0, 1));
    /// A host in another network, reached by the default route (the neighbour again).
    pub const FAR: Self = Self::new(
        Ipv4Addr::new(198, 51, 100, 7),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
    );
    /// Loopback.
    pub const LOOPBACK: Self = Self::new(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    /// What the proxy binds to when it passes a connection on to the application.
    pub const PASSTHROUGH: Self = Self::new(Ipv4Addr::new(127, 0, 0, 6), Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

    pub const fn new(v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self { v4, v6 }
    }

    /// The IPv4 address, then the IPv6 address.
    pub fn both(self) -> [IpAddr; 2] {
        Family::BOTH.map(|family| self.of(family))
    }

    /// The address of one family.
    pub fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// A pod's network namespace, joined to that of its neighbour by two links.
///
/// ```text
///   pod  eth0 10.99.0.2 fd99::2 ──────── 10.99.0.1 fd99::1 eth0  peer    default route of the pod
///        eth1 10.99.1.2 fd99:1::2 ──── 10.99.1.1 fd99:1::1 eth1
///                                   198.51.100.7 2001:db8::7 lo
/// ```
pub struct Pod {
    /// The pod's side.
    pub netns: Netns,
    /// The neighbour's.
    pub peer: Netns,
}

impl Pod {
    /// Makes one, ready for traffic: no address is left waiting for duplicate address detection.
    pub fn new() -> Self {
        let pod = Self {
            netns: Netns::new(),
            peer: Netns::new(),
        };
        let veth = |name| {
            let peer = pod.peer.path();
            format!("link add {name} type veth peer name {name} netns {}\n", peer.display())
        };
        pod.netns.ip(&[veth("eth0"), veth("eth1")].concat());
        pod.peer.ip(&[
            up("eth0", Address::PEER),
            up("eth1", Address::PEER_SECOND),
            host("lo", Address::FAR),
        ]
        .concat());
        let gateway = Address::PEER;
        pod.netns.ip(&[
            up("eth0", Address::POD),
            up("eth1", Address::POD_SECOND),
            format!(
                "route add default via {}\nroute add ::/0 via {}\n",
                gateway.v4, gateway.v6
            ),
        ]
        .concat());
        pod
    }
}

fn up(interface: &str, Address { v4, v6 }: Address) -> String {
    format!("link set {interface} up\naddr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n")
}

fn host(interface: &str, Address { v4, v6 }: Address) -> String {
    format!("addr add {v4}/32 dev {interface}\naddr add {v6}/128 dev {interface} nodad\n")
}
