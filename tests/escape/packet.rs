//! Packets, byte by byte.

use std::net::{IpAddr, SocketAddr};

/// An IP packet with this payload.
pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    const HOPS: u8 = 64;
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = (20 + payload.len()) as u16;
            packet.extend([0x45, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([0, 1, 0, 0, HOPS, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let sum = checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, HOPS]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("{from} and {to} are of different families"),
    }
    packet.extend(payload);
    packet
}

/// A UDP datagram.
pub fn udp_datagram(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut datagram = [from.port(), to.port(), (8 + data.len()) as u16, 0]
        .map(u16::to_be_bytes)
        .concat();
    datagram.extend(data);
    let sum = upper_checksum(from.ip(), to.ip(), libc::IPPROTO_UDP as u8, &datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// A TCP segment. `numbers` are those of its sequence and of its acknowledgement.
pub fn tcp_segment(from: SocketAddr, to: SocketAddr, flags: u8, numbers: (u32, u32), data: &[u8]) -> Vec<u8> {
    let mut segment = [from.port(), to.port()].map(u16::to_be_bytes).concat();
    segment.extend([numbers.0, numbers.1].map(u32::to_be_bytes).concat());
    segment.extend([5 << 4, flags, 0x10, 0, 0, 0, 0, 0]);
    segment.extend(data);
    let sum = upper_checksum(from.ip(), to.ip(), libc::IPPROTO_TCP as u8, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// "Port unreachable" about a packet, and the protocol that it is of.
pub fn icmp_error(from: IpAddr, to: IpAddr, about: &[u8]) -> (u8, Vec<u8>) {
    let (protocol, kind, code) = if from.is_ipv4() { (1, 3, 3) } else { (58, 1, 4) };
    icmp(from, to, protocol, &[&[kind, code, 0, 0, 0, 0, 0, 0], about].concat())
}

/// An echo request with this data, and the protocol that it is of.
pub fn echo_request(from: IpAddr, to: IpAddr, data: &[u8]) -> (u8, Vec<u8>) {
    let (protocol, kind) = if from.is_ipv4() { (1, 8) } else { (58, 128) };
    icmp(from, to, protocol, &[&[kind, 0, 0, 0, 0, 7, 0, 1], data].concat())
}

/// A message with its checksum, and the protocol that it is of.
fn icmp(from: IpAddr, to: IpAddr, protocol: u8, message: &[u8]) -> (u8, Vec<u8>) {
    let mut message = message.to_vec();
    let sum = if from.is_ipv4() {
        checksum(&message)
    } else {
        upper_checksum(from, to, protocol, &message)
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    (protocol, message)
}

/// "Packet too big" about a packet, and the protocol that it is of.
pub fn too_big(from: IpAddr, to: IpAddr, mtu: u16, about: &[u8]) -> (u8, Vec<u8>) {
    let (protocol, kind, code) = if from.is_ipv4() { (1, 3, 4) } else { (58, 2, 0) };
    let [high, low] = mtu.to_be_bytes();
    icmp(
        from,
        to,
        protocol,
        &[&[kind, code, 0, 0, 0, 0, high, low], about].concat(),
    )
}

/// An extension header in front of a payload of this protocol.
pub fn with_header(protocol: u8, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = [header, payload].concat();
    packet[0] = protocol;
    packet
}

fn upper_checksum(from: IpAddr, to: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let mut counted = [0, protocol].to_vec();
    counted.extend((message.len() as u16).to_be_bytes());
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => counted.extend(address.octets()),
            IpAddr::V6(address) => counted.extend(address.octets()),
        }
    }
    counted.extend(message);
    checksum(&counted)
}

/// The checksum of the Internet (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2);
    let mut sum: u32 = pairs
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
