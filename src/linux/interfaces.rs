//! The addresses of the network namespace, and the source address of a connection.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_indextoname, if_nameindex, if_nametoindex};
use nix::sys::socket::SockaddrStorage;

use crate::types::InterfaceName;

/// The addresses of the interfaces of this network namespace, in the kernel's order, other than 127.0.0.0/8, ::1 and
/// link-local ones.
///
/// # Errors
/// The kernel did not list them.
pub fn addresses() -> io::Result<Vec<(InterfaceName, IpAddr)>> {
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let name = InterfaceName::parse(&interface.interface_name).ok()?;
        let ip = ip(&interface.address?)?;
        let of_the_link = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        (!ip.is_loopback() && !of_the_link).then_some((name, ip))
    };
    Ok(getifaddrs()?.filter_map(address).collect())
}

/// The interfaces of this network namespace that are up, except the loopback interface, and the networks of their
/// addresses without link-local ones.
///
/// # Errors
/// The kernel did not list them.
pub fn networks() -> io::Result<Vec<(InterfaceName, Vec<IpNet>)>> {
    let mut found: Vec<(InterfaceName, Vec<IpNet>)> = Vec::new();
    for interface in getifaddrs()? {
        let Ok(name) = InterfaceName::parse(&interface.interface_name) else {
            continue;
        };
        let flags = interface.flags;
        if !flags.contains(InterfaceFlags::IFF_UP) || flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let network = interface.address.as_ref().and_then(ip).and_then(|address| {
            let mask = interface.netmask.as_ref().and_then(ip)?;
            let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            IpNet::with_netmask(address, mask).ok().filter(|_| !is_link_local)
        });
        match found.iter_mut().find(|(other, _)| *other == name) {
            Some((_, networks)) => networks.extend(network),
            None => found.push((name, network.into_iter().collect())),
        }
    }
    Ok(found)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Whether this network namespace has an interface of this name.
pub fn exists(name: &InterfaceName) -> bool {
    index(name).is_some()
}

/// The index of the interface with this name, if this network namespace has one.
pub fn index(name: &InterfaceName) -> Option<u32> {
    if_nametoindex(name.as_str()).ok()
}

/// The name of the interface with this index, if this network namespace has one and its name is valid here.
pub fn name(index: u32) -> Option<InterfaceName> {
    let name = if_indextoname(index).ok()?;
    InterfaceName::parse(name.to_str().ok()?).ok()
}

/// The bridges of container engines and virtual machines that this network namespace has, known by their names.
pub fn bridges() -> Vec<InterfaceName> {
    const NAMES: [&str; 6] = ["docker0", "br-", "cni0", "podman", "virbr", "lxcbr"];
    let mut bridges = names();
    bridges.retain(|name| NAMES.iter().any(|start| name.as_str().starts_with(start)));
    bridges
}

/// The names of the interfaces of this network namespace; none where the kernel does not list them.
pub fn names() -> Vec<InterfaceName> {
    indexes().into_iter().map(|(_, name)| name).collect()
}

/// The indexes and names of the interfaces of this network namespace; none where the kernel does not list them.
pub fn indexes() -> Vec<(u32, InterfaceName)> {
    let interfaces = if_nameindex().ok();
    let interfaces = interfaces.iter().flat_map(|interfaces| interfaces.iter());
    let named = interfaces.filter_map(|interface| {
        let name = InterfaceName::parse(&interface.name().to_string_lossy()).ok()?;
        Some((interface.index(), name))
    });
    named.collect()
}

/// Whether each interface of this network namespace accepts IPv4 packets from other hosts to loopback addresses, without
/// those whose setting cannot be read (`IN_DEV_NET_ROUTE_LOCALNET`, include/linux/inetdevice.h).
pub fn route_localnet() -> Vec<(InterfaceName, bool)> {
    let setting = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet")).ok()?;
        Some(text.trim() != "0")
    };
    let Some(all) = setting("all") else {
        return Vec::new();
    };
    let accepts = |name: InterfaceName| {
        let own = setting(name.as_str())?;
        Some((name, all || own))
    };
    names().into_iter().filter_map(accepts).collect()
}

/// The interface, among those with these addresses, by which a connection to `destination` leaves, judged by its source
/// address. Nothing is sent.
pub fn leading_to(destination: SocketAddr, addresses: &[(InterfaceName, IpAddr)]) -> Option<InterfaceName> {
    let any: SocketAddr = match destination {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(destination).ok()?;
    let source = socket.local_addr().ok()?.ip();
    let owner = addresses.iter().find(|(_, address)| *address == source);
    owner.map(|(name, _)| name.clone())
}
