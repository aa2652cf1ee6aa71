//! Sockets of an application without any capability.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use nix::sys::socket::MsgFlags;
use sidetrack::types::Family;

use crate::common::Address;
use crate::lab::{LINK_LOCAL, MARKER, PORT, Stage};
use crate::sys::{bind, bind_to_device, connect_stream, internet, send, send_to, send_with, set, set_bytes, socket};
use crate::wire::index;

/// linux/in.h; libc has no names for these.
const IPPROTO_UDPLITE: i32 = 136;
const IPV6_FREEBIND: i32 = 78;
const TCP_FASTOPEN_NO_COOKIE: i32 = 34;

fn datagram(stage: &Stage) -> io::Result<OwnedFd> {
    internet(stage.family, libc::SOCK_DGRAM, 0)
}

fn stream(family: Family, protocol: i32, to: SocketAddr) -> io::Result<()> {
    let socket = internet(family, libc::SOCK_STREAM, protocol)?;
    connect_stream(&socket, to)?;
    send(&socket, MARKER)
}

pub fn tcp(stage: &Stage) -> io::Result<()> {
    stream(stage.family, 0, stage.far(PORT))
}

/// Data in the first segment.
pub fn tcp_fast_open(stage: &Stage) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_STREAM, 0)?;
    set(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)?;
    send_with(
        &socket,
        MARKER,
        stage.far(PORT),
        MsgFlags::from_bits_retain(libc::MSG_FASTOPEN),
    )
}

pub fn mptcp(stage: &Stage) -> io::Result<()> {
    stream(stage.family, libc::IPPROTO_MPTCP, stage.far(PORT))
}

pub fn sctp(stage: &Stage) -> io::Result<()> {
    stream(stage.family, libc::IPPROTO_SCTP, stage.far(PORT))
}

pub fn dccp(stage: &Stage) -> io::Result<()> {
    const SOCK_DCCP: i32 = 6;
    let socket = internet(stage.family, SOCK_DCCP, libc::IPPROTO_DCCP)?;
    connect_stream(&socket, stage.far(PORT))
}

pub fn udp(stage: &Stage) -> io::Result<()> {
    send_to(&datagram(stage)?, MARKER, stage.far(PORT))
}

pub fn quic(stage: &Stage) -> io::Result<()> {
    send_to(&datagram(stage)?, MARKER, stage.far(443))
}

pub fn udp_lite(stage: &Stage) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_DGRAM, IPPROTO_UDPLITE)?;
    send_to(&socket, MARKER, stage.far(PORT))
}

pub fn dns_over_udp(stage: &Stage) -> io::Result<()> {
    send_to(&datagram(stage)?, MARKER, stage.near(53))
}

pub fn dns_over_tcp(stage: &Stage) -> io::Result<()> {
    stream(stage.family, 0, stage.near(53))
}

/// An echo request, by a socket that needs no capability.
pub fn ping(stage: &Stage) -> io::Result<()> {
    let (protocol, kind) = match stage.family {
        Family::V4 => (libc::IPPROTO_ICMP, 8),
        Family::V6 => (libc::IPPROTO_ICMPV6, 128),
    };
    let socket = internet(stage.family, libc::SOCK_DGRAM, protocol)?;
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 1][..], MARKER].concat();
    send_to(&socket, &message, stage.far(0))
}

pub fn broadcast(_: &Stage) -> io::Result<()> {
    let socket = internet(Family::V4, libc::SOCK_DGRAM, 0)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
    let addresses = [[255, 255, 255, 255], [10, 99, 0, 255]];
    let results = addresses.map(|address| send_to(&socket, MARKER, (address, PORT).into()));
    results.into_iter().collect()
}

pub fn multicast(stage: &Stage) -> io::Result<()> {
    let to: SocketAddr = match stage.family {
        Family::V4 => ([224, 0, 0, 251], 5353).into(),
        Family::V6 => on_link("ff02::fb", 5353),
    };
    send_to(&datagram(stage)?, MARKER, to)
}

/// An address that means something on eth0 alone.
fn on_link(address: &str, port: u16) -> SocketAddr {
    let address: Ipv6Addr = address.parse().expect("an address");
    SocketAddrV6::new(address, port, 0, index("eth0")).into()
}

/// The kernel reports to routers which groups have members: the group is what the application chooses.
pub fn join_group(stage: &Stage) -> io::Result<()> {
    let socket = datagram(stage)?;
    let eth0 = index("eth0").to_ne_bytes();
    match stage.family {
        Family::V4 => {
            let request = [&[239, 1, 2, 3, 0, 0, 0, 0][..], &eth0].concat();
            set_bytes(&socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)?;
        }
        Family::V6 => {
            let group: Ipv6Addr = "ff05::1:3".parse().expect("an address");
            let request = [&group.octets()[..], &eth0].concat();
            set_bytes(&socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)?;
        }
    }
    // The report is sent by a timer, soon.
    thread::sleep(Duration::from_millis(200));
    Ok(())
}

pub fn udp_bound_to_interface(stage: &Stage) -> io::Result<()> {
    let socket = datagram(stage)?;
    bind_to_device(&socket, "eth0")?;
    send_to(&socket, MARKER, stage.far(PORT))
}

pub fn tcp_bound_to_interface(stage: &Stage) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_STREAM, 0)?;
    bind_to_device(&socket, "eth0")?;
    connect_stream(&socket, stage.far(PORT))?;
    send(&socket, MARKER)
}

/// To a loopback address, but by eth0: the default route takes it out.
pub fn loopback_address_by_interface(stage: &Stage) -> io::Result<()> {
    let socket = datagram(stage)?;
    bind_to_device(&socket, "eth0")?;
    send_to(&socket, MARKER, (Address::LOOPBACK.of(stage.family), PORT).into())
}

/// To the pod's own address on eth1, but by eth0.
pub fn own_address_by_interface(stage: &Stage) -> io::Result<()> {
    let socket = datagram(stage)?;
    bind_to_device(&socket, "eth0")?;
    send_to(&socket, MARKER, (Address::POD_SECOND.of(stage.family), PORT).into())
}

pub fn second_interface(stage: &Stage) -> io::Result<()> {
    let to = (Address::PEER_SECOND.of(stage.family), PORT);
    send_to(&datagram(stage)?, MARKER, to.into())
}

/// From the address that a proxy passes inbound connections on from.
pub fn source_of_passthrough(stage: &Stage) -> io::Result<()> {
    let from = (Address::PASSTHROUGH.of(stage.family), 0).into();
    let from_there = |kind| {
        let socket = internet(stage.family, kind, 0)?;
        match stage.family {
            Family::V4 => set(&socket, libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?,
            Family::V6 => set(&socket, libc::IPPROTO_IPV6, IPV6_FREEBIND, 1)?,
        }
        bind(&socket, from)?;
        Ok::<_, io::Error>(socket)
    };
    let by_udp = from_there(libc::SOCK_DGRAM).and_then(|socket| send_to(&socket, MARKER, stage.far(PORT)));
    let by_tcp = from_there(libc::SOCK_STREAM).and_then(|socket| connect_stream(&socket, stage.far(PORT)));
    by_udp.and(by_tcp)
}

/// From an address of an accomplice: any user may bind to it over IPv6.
pub fn foreign_source(stage: &Stage) -> io::Result<()> {
    let socket = datagram(stage)?;
    set(&socket, libc::IPPROTO_IPV6, IPV6_FREEBIND, 1)?;
    bind(&socket, (accomplice(stage.family), PORT).into())?;
    send_to(&socket, MARKER, stage.far(PORT))
}

/// An address outside, reached by the default route.
pub fn accomplice(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, 9).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 9).into(),
    }
}

/// IPv4 by a socket of IPv6.
pub fn mapped(_: &Stage) -> io::Result<()> {
    let IpAddr::V4(far) = Address::FAR.of(Family::V4) else {
        unreachable!("an IPv4 address")
    };
    let socket = internet(Family::V6, libc::SOCK_DGRAM, 0)?;
    send_to(&socket, MARKER, (far.to_ipv6_mapped(), PORT).into())
}

pub fn link_local(_: &Stage) -> io::Result<()> {
    let socket = internet(Family::V6, libc::SOCK_DGRAM, 0)?;
    send_to(&socket, MARKER, on_link(LINK_LOCAL, PORT))
}

/// More than fits in a frame.
pub fn fragments(stage: &Stage) -> io::Result<()> {
    send_to(&datagram(stage)?, &MARKER.repeat(300), stage.far(PORT))
}

/// By way of the neighbour: a loose source route (RFC 791), which needs NET_RAW, or a segment routing header (RFC 8754).
pub fn source_route(stage: &Stage) -> io::Result<()> {
    let socket = datagram(stage)?;
    route_by(&socket, Address::PEER.of(stage.family))?;
    send_to(&socket, MARKER, stage.far(PORT))
}

/// By way of the pod itself, where routes forbid it by default.
pub fn source_route_by_loopback(stage: &Stage) -> io::Result<()> {
    let socket = datagram(stage)?;
    route_by(&socket, Address::LOOPBACK.of(stage.family))?;
    send_to(&socket, MARKER, stage.far(PORT))
}

fn route_by(socket: &OwnedFd, first: IpAddr) -> io::Result<()> {
    match first {
        IpAddr::V4(first) => {
            const LOOSE_ROUTE: [u8; 4] = [1, 0x83, 7, 4];
            let options = [&LOOSE_ROUTE[..], &first.octets()].concat();
            set_bytes(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &options)
        }
        IpAddr::V6(first) => {
            // Next header, length in 8 bytes, type, segments left, last entry, flags, tag; the last segment comes first.
            const HEADER: [u8; 8] = [0, 4, 4, 1, 1, 0, 0, 0];
            let header = [&HEADER[..], &[0; 16], &first.octets()].concat();
            set_bytes(socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header)
        }
    }
}

/// Families of sockets that the rules of IP do not see, where the kernel has them.
pub fn other_families(_: &Stage) -> io::Result<()> {
    let families = [
        libc::AF_PACKET,
        libc::AF_XDP,
        libc::AF_LLC,
        libc::AF_APPLETALK,
        libc::AF_X25,
        libc::AF_TIPC,
        libc::AF_CAN,
    ];
    for (family, kind) in families
        .into_iter()
        .flat_map(|family| [(family, libc::SOCK_RAW), (family, libc::SOCK_DGRAM)])
    {
        if let Ok(socket) = socket(family, kind, 0) {
            // Each would need an address of its own. That the kernel gives one out is what counts.
            return Err(io::Error::other(format!("a socket of family {family}: {socket:?}")));
        }
    }
    Ok(())
}
