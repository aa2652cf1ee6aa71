//! Packets that an application with NET_RAW makes itself.

use std::io;
use std::net::{IpAddr, SocketAddr};

use sidetrack::types::Family;

use super::plain::accomplice;
use crate::column::PROXY_MARK;
use crate::common::Address;
use crate::lab::{APP_PORT, MARKER, PORT, Stage, Step};
use crate::packet::{echo_request, icmp_error, packet, tcp_segment, udp_datagram, with_header};
use crate::sys::{bind, connect_stream, internet, send_frame, send_to, set, set_bytes};
use crate::wire::index;

/// linux/in.h, linux/in6.h; libc has no names for these.
const IP_NODEFRAG: i32 = 22;
const IPV6_DSTOPTS: i32 = 59;
const IPV6_HOPOPTS: i32 = 54;
const SYN: u8 = 2;
const ACK: u8 = 0x10;
/// The default mark of TPROXY.
const TPROXY_MARK: i32 = 1337;

/// Sends with a header of its own.
fn send_packet(packet: &[u8], to: IpAddr) -> io::Result<()> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    // IPPROTO_RAW: the header is in what is sent.
    let socket = internet(family, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    send_to(&socket, packet, (to, 0).into())
}

/// Data in echo requests.
pub fn icmp_tunnel(stage: &Stage) -> io::Result<()> {
    let (protocol, kind) = match stage.family {
        Family::V4 => (libc::IPPROTO_ICMP, 8),
        Family::V6 => (libc::IPPROTO_ICMPV6, 128),
    };
    let socket = internet(stage.family, libc::SOCK_RAW, protocol)?;
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 1][..], MARKER].concat();
    send_to(&socket, &message, stage.far(0))
}

/// Messages that look like those of the kernel that find a neighbour or a router.
pub fn forged_discovery(stage: &Stage) -> io::Result<()> {
    let socket = internet(Family::V6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)?;
    let messages: [u8; 5] = [133, 134, 135, 136, 143];
    let sent = messages.map(|kind| {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 1][..], MARKER].concat();
        send_to(&socket, &message, stage.far(0))
    });
    sent.into_iter().collect()
}

pub fn own_header(stage: &Stage) -> io::Result<()> {
    let from = Address::POD.of(stage.family);
    let to = stage.far(PORT);
    let datagram = udp_datagram((from, PORT).into(), to, MARKER);
    send_packet(&packet(from, to.ip(), libc::IPPROTO_UDP as u8, &datagram), to.ip())
}

pub fn tcp_syn(stage: &Stage) -> io::Result<()> {
    let from = SocketAddr::from((Address::POD.of(stage.family), 1234));
    let to = stage.far(PORT);
    let segment = tcp_segment(from, to, SYN, (1, 0), MARKER);
    send_packet(&packet(from.ip(), to.ip(), libc::IPPROTO_TCP as u8, &segment), to.ip())
}

/// TCP from an address that is not the pod's: whoever answers or refuses it sends to that address.
pub fn tcp_from_foreign_source(stage: &Stage) -> io::Result<()> {
    let from = SocketAddr::from((accomplice(stage.family), 1234));
    let to = stage.far(PORT);
    let segment = tcp_segment(from, to, SYN, (1, 0), MARKER);
    send_packet(&packet(from.ip(), to.ip(), libc::IPPROTO_TCP as u8, &segment), to.ip())
}

/// To the pod's own port, from an address that is not the pod's.
pub fn own_port_from_foreign_source(stage: &Stage) -> io::Result<()> {
    let from = SocketAddr::from((accomplice(stage.family), 1234));
    let to = SocketAddr::from((Address::POD.of(stage.family), PORT));
    let segment = tcp_segment(from, to, SYN, (1, 0), MARKER);
    send_packet(&packet(from.ip(), to.ip(), libc::IPPROTO_TCP as u8, &segment), to.ip())?;
    let datagram = udp_datagram(from, to, MARKER);
    send_packet(&packet(from.ip(), to.ip(), libc::IPPROTO_UDP as u8, &datagram), to.ip())
}

/// Data in an echo request to the pod, whose answer goes to an address that is not the pod's.
pub fn echo_from_foreign_source(stage: &Stage) -> io::Result<()> {
    let (from, to) = (accomplice(stage.family), Address::POD.of(stage.family));
    let (protocol, request) = echo_request(from, to, MARKER);
    send_packet(&packet(from, to, protocol, &request), to)
}

/// An answer in the name of the pod, to whoever sent it a packet.
pub fn answer_of_the_pod(stage: &Stage) -> io::Result<()> {
    stage.after(Step::Packet(stage.family))?;
    let from = SocketAddr::from((Address::POD.of(stage.family), APP_PORT));
    let to = stage.far(PORT + 1);
    let datagram = udp_datagram(from, to, MARKER);
    send_packet(&packet(from.ip(), to.ip(), libc::IPPROTO_UDP as u8, &datagram), to.ip())
}

/// UDP from an address that is not the pod's.
pub fn foreign_source(stage: &Stage) -> io::Result<()> {
    let from = accomplice(stage.family);
    let to = stage.far(PORT);
    let datagram = udp_datagram((from, PORT).into(), to, MARKER);
    send_packet(&packet(from, to.ip(), libc::IPPROTO_UDP as u8, &datagram), to.ip())
}

/// The same by IP_TRANSPARENT.
pub fn transparent_source(stage: &Stage) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_DGRAM, 0)?;
    match stage.family {
        Family::V4 => set(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)?,
        Family::V6 => set(&socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)?,
    }
    bind(&socket, (accomplice(stage.family), PORT).into())?;
    send_to(&socket, MARKER, stage.far(PORT))
}

/// Protocols that carry other packets, or that have no socket of their own.
fn protocol(stage: &Stage, number: i32) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_RAW, number)?;
    let inner = [&[0x45, 0, 0, 36][..], MARKER, MARKER].concat();
    send_to(&socket, &inner, stage.far(0))
}

pub fn ip_in_ip(stage: &Stage) -> io::Result<()> {
    match stage.family {
        Family::V4 => protocol(stage, libc::IPPROTO_IPIP),
        Family::V6 => protocol(stage, libc::IPPROTO_IPV6),
    }
}

pub fn gre(stage: &Stage) -> io::Result<()> {
    protocol(stage, libc::IPPROTO_GRE)
}

pub fn esp(stage: &Stage) -> io::Result<()> {
    protocol(stage, libc::IPPROTO_ESP)
}

pub fn raw_sctp(stage: &Stage) -> io::Result<()> {
    protocol(stage, libc::IPPROTO_SCTP)
}

/// A protocol that nothing knows.
pub fn unknown_protocol(stage: &Stage) -> io::Result<()> {
    protocol(stage, 253)
}

/// With the marks that the rules know.
pub fn marked(stage: &Stage) -> io::Result<()> {
    let of = |kind, mark| {
        let socket = internet(stage.family, kind, 0)?;
        // Linux 5.17: CAP_NET_RAW is enough.
        set(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark)?;
        Ok::<_, io::Error>(socket)
    };
    let sent = [TPROXY_MARK, PROXY_MARK].map(|mark| {
        let by_udp = of(libc::SOCK_DGRAM, mark).and_then(|socket| send_to(&socket, MARKER, stage.far(PORT)));
        let by_tcp = of(libc::SOCK_STREAM, mark).and_then(|socket| connect_stream(&socket, stage.far(PORT)));
        by_udp.and(by_tcp)
    });
    sent.into_iter().collect()
}

/// Fragments that connection tracking does not put together: the second has no ports.
pub fn own_fragments(stage: &Stage) -> io::Result<()> {
    let from = Address::POD.of(stage.family);
    let to = stage.far(PORT);
    let socket = internet(stage.family, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    match stage.family {
        Family::V4 => {
            set(&socket, libc::IPPROTO_IP, IP_NODEFRAG, 1)?;
            let datagram = udp_datagram((from, PORT).into(), to, &MARKER.repeat(2));
            for (offset, part) in [(0x2000, &datagram[..24]), (3, &datagram[24..])] {
                let mut fragment = packet(from, to.ip(), libc::IPPROTO_UDP as u8, part);
                fragment[6..8].copy_from_slice(&u16::to_be_bytes(offset));
                send_to(&socket, &fragment, (to.ip(), 0).into())?;
            }
            Ok(())
        }
        Family::V6 => {
            const FRAGMENT: u8 = 44;
            // A fragment that is the whole, and one whose first part never comes.
            let datagram = udp_datagram((from, PORT).into(), to, MARKER);
            let sent = [[0, 0], [0, 8]].map(|offset| {
                let header = [libc::IPPROTO_UDP as u8, 0, offset[0], offset[1], 0, 0, 0, 7];
                let fragment = packet(from, to.ip(), FRAGMENT, &[&header[..], &datagram].concat());
                send_to(&socket, &fragment, (to.ip(), 0).into())
            });
            sent.into_iter().collect()
        }
    }
}

/// Options for every hop and for the destination, and routing header 0 (which RFC 5095 forbids).
pub fn extension_headers(stage: &Stage) -> io::Result<()> {
    /// No next header yet, no more than 8 bytes, an option that pads 4.
    const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    let with = |name| {
        let socket = internet(Family::V6, libc::SOCK_DGRAM, 0)?;
        set_bytes(&socket, libc::IPPROTO_IPV6, name, &PADDING)?;
        send_to(&socket, MARKER, stage.far(PORT))
    };
    let by_options = with(IPV6_HOPOPTS).and(with(IPV6_DSTOPTS));
    by_options.and(routing_header_0(stage))
}

fn routing_header_0(stage: &Stage) -> io::Result<()> {
    const ROUTING: u8 = 43;
    let from = Address::POD.of(Family::V6);
    let (first, last) = (stage.near(PORT).ip(), stage.far(PORT));
    let IpAddr::V6(final_address) = last.ip() else {
        return Err(io::Error::other("IPv6 alone has it"));
    };
    let header = [&[0, 2, 0, 1, 0, 0, 0, 0][..], &final_address.octets()].concat();
    let datagram = udp_datagram((from, PORT).into(), last, MARKER);
    let with_route = with_header(libc::IPPROTO_UDP as u8, &header, &datagram);
    send_packet(&packet(from, first, ROUTING, &with_route), first)
}

/// A segment of the proxy's own connection, which connection tracking knows.
pub fn forged_segment(stage: &Stage) -> io::Result<()> {
    const ACK_AND_PUSH: u8 = ACK | 8;
    let from = SocketAddr::from((Address::POD.of(stage.family), 40_001));
    let numbers = stage.after(Step::ProxyConnects(from))?;
    let to = stage.far(PORT);
    let segment = tcp_segment(from, to, ACK_AND_PUSH, numbers, MARKER);
    send_packet(&packet(from.ip(), to.ip(), libc::IPPROTO_TCP as u8, &segment), to.ip())
}

/// An error about a packet that the proxy received: connection tracking calls it related.
pub fn forged_error(stage: &Stage) -> io::Result<()> {
    let proxy = SocketAddr::from((Address::POD.of(stage.family), 40_002));
    let (sent, received) = stage.after(Step::ProxyConnects(proxy))?;
    let server = stage.far(PORT);
    let about = packet(
        server.ip(),
        proxy.ip(),
        libc::IPPROTO_TCP as u8,
        &tcp_segment(server, proxy, ACK, (received, sent), MARKER),
    );
    let (protocol, error) = icmp_error(proxy.ip(), server.ip(), &about);
    send_packet(&packet(proxy.ip(), server.ip(), protocol, &error), server.ip())
}

/// A frame past the IP stack.
pub fn packet_socket(stage: &Stage) -> io::Result<()> {
    let from = Address::POD.of(stage.family);
    let to = stage.far(PORT);
    let datagram = udp_datagram((from, PORT).into(), to, MARKER);
    let ethertype: [u8; 2] = match stage.family {
        Family::V4 => [0x08, 0],
        Family::V6 => [0x86, 0xdd],
    };
    let packet = packet(from, to.ip(), libc::IPPROTO_UDP as u8, &datagram);
    let frame = [&[0xff; 12][..], &ethertype, &packet].concat();
    send_frame(index("eth0"), &frame)
}
