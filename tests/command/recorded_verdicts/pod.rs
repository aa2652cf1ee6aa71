//! The oracle's pod: its links, and its listening ports.

use std::net::IpAddr;

use sidetrack::types::InterfaceName;

/// A link of the oracle's pod: its interface, the pod's addresses, the neighbour's interface and addresses.
pub struct Link {
    pub interface: &'static str,
    pub pod: [&'static str; 2],
    pub neighbour: &'static str,
    pub peer: [&'static str; 2],
    pub networks: [&'static str; 2],
    pub hosts: &'static [&'static str],
}

pub const LINKS: [Link; 4] = [
    Link {
        interface: "eth0",
        pod: ["172.16.0.10", "fd00:a::10"],
        neighbour: "near-eth0",
        peer: ["172.16.0.1", "fd00:a::1"],
        networks: ["172.16.0.0/24", "fd00:a::/64"],
        hosts: &[], // And everything that is nowhere else.
    },
    Link {
        interface: "eth1",
        pod: ["10.11.0.10", "2001:db8:11::10"],
        neighbour: "far-eth1",
        peer: ["10.11.0.1", "2001:db8:11::1"],
        networks: ["10.11.0.0/24", "2001:db8:11::/64"],
        hosts: &["9.9.21.5", "10.21.0.5", "2001:db8:21::5", "fd00:21::5"],
    },
    Link {
        interface: "eth2",
        pod: ["192.168.12.10", "fd00:c::10"],
        neighbour: "far-eth2",
        peer: ["192.168.12.1", "fd00:c::1"],
        networks: ["192.168.12.0/24", "fd00:c::/64"],
        hosts: &["192.168.22.5", "fd00:22::5"],
    },
    Link {
        interface: "not-istio-nic",
        pod: ["172.16.13.10", "fd00:d::10"],
        neighbour: "far-nic",
        peer: ["172.16.13.1", "fd00:d::1"],
        networks: ["172.16.13.0/24", "fd00:d::/64"],
        hosts: &[
            "9.9.13.13",
            "9.9.213.13",
            "10.13.0.13",
            "10.213.0.13",
            "192.0.2.13",
            "2001:db8:13::13",
            "2001:db8:ff13::13",
            "fd00:13::13",
        ],
    },
];

pub const POD_TCP: [u16; 19] = [
    53, 4000, 5000, 6000, 7000, 8080, 9090, 15001, 15006, 15008, 15020, 15021, 15053, 15090, 16001, 16006, 16008,
    31000, 32000,
];
pub const POD_UDP: [u16; 3] = [53, 8080, 15053];

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn interface(name: &str) -> InterfaceName {
    InterfaceName::parse(name).expect("an interface")
}

/// The link that leads to an address.
pub fn link_to(address: IpAddr) -> &'static Link {
    let behind = |link: &&Link| {
        let network = |net: &&str| net.parse::<ipnet::IpNet>().expect("a network").contains(&address);
        link.networks.iter().any(network) || link.hosts.iter().any(|host| ip(host) == address)
    };
    LINKS.iter().find(behind).unwrap_or(&LINKS[0])
}
