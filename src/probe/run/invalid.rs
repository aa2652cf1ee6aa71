//! A packet that belongs to no known connection: a SYN/ACK that answers no SYN. A socket that gets one answers with a
//! reset, so a valid SYN is sent after it: if that is answered and the SYN/ACK is not, the SYN/ACK was dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getsockname, recv, sendto, socket,
};

use super::link::Link;
use super::socket::open;
use crate::probe::{Ends, Finding, Outcome};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const SYN_ACK: u8 = 0x12;

/// Length of a TCP header without options, in bytes.
const TCP_HEADER: usize = 20;

/// The number of observations without a reset, after the answer to the SYN, that decide.
const DECISIVE_OBSERVATIONS: u32 = 8;

/// The sockets of the host outside that sent the two packets.
pub struct InvalidPacket {
    raw: OwnedFd,
    /// Keep their ports from other connections.
    reserved: [(OwnedFd, u16); 2],
    destination: SocketAddr,
    is_syn_answered: bool,
    observations: u32,
}

impl InvalidPacket {
    /// Sends the packets from the host outside to `destination`, an address of the pod. The error is the outcome.
    ///
    /// # Errors
    /// The sockets cannot be opened, or sending failed.
    pub fn send(link: &Link, destination: SocketAddr, ends: Option<&Ends>) -> Result<Self, Outcome> {
        let Some(ends) = ends else {
            return Err(Outcome::NotMade("there is no link".to_owned()));
        };
        let sent = link.far.run(|| Self::send_from(ends.far, destination));
        sent.map_err(|error| Outcome::NotMade(error.to_string()))?
            .map_err(|errno| {
                Outcome::NotMade(match errno {
                    Errno::EPERM => "sending an invalid packet takes CAP_NET_RAW: run as root".to_owned(),
                    errno => format!("sending an invalid packet: {errno}"),
                })
            })
    }

    fn send_from(source: IpAddr, destination: SocketAddr) -> Result<Self, Errno> {
        let domain = match source {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let raw = socket(domain, SockType::Raw, flags, SockProtocol::Tcp)?;
        bind(raw.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
        let packet = Self {
            raw,
            reserved: [reserve(source)?, reserve(source)?],
            destination,
            is_syn_answered: false,
            observations: 0,
        };
        let [(_, invalid), (_, valid)] = packet.reserved;
        for (port, flags) in [(invalid, SYN_ACK), (valid, SYN)] {
            let segment = segment(SocketAddr::new(source, port), destination, flags);
            // Raw IPv6 sockets take no port.
            let to = SockaddrStorage::from(SocketAddr::new(destination.ip(), 0));
            sendto(packet.raw.as_raw_fd(), &segment, &to, MsgFlags::empty())?;
        }
        Ok(packet)
    }

    /// The outcome, once the answers decide.
    pub fn observe(&mut self) -> Option<Outcome> {
        let [(_, invalid), (_, valid)] = self.reserved;
        let mut buffer = [0; 256];
        loop {
            match recv(self.raw.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    let answer = Answer::parse(&buffer[..length], self.destination)?;
                    if answer.to == invalid && answer.flags & RST != 0 {
                        return Some(Outcome::Found(Finding::Answered));
                    }
                    self.is_syn_answered |= answer.to == valid;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Some(Outcome::NotMade(format!("reading answers to a packet: {errno}"))),
            }
        }
        self.observations += u32::from(self.is_syn_answered);
        (self.observations >= DECISIVE_OBSERVATIONS).then_some(Outcome::Found(Finding::Dropped))
    }
}

/// A port that no other socket of this namespace uses, and will not use while the returned one is open.
pub fn reserve(address: IpAddr) -> Result<(OwnedFd, u16), Errno> {
    let socket = open(SocketAddr::new(address, 0), SockType::Stream)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0)))?;
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = bound.as_sockaddr_in().map(|address| address.port());
    let port = v4.or_else(|| bound.as_sockaddr_in6().map(|address| address.port()));
    Ok((socket, port.ok_or(Errno::EAFNOSUPPORT)?))
}

/// A TCP segment without data.
fn segment(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    const SEQUENCE_AND_ACKNOWLEDGEMENT: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
    const WINDOW: [u8; 2] = [0xff, 0xff];
    let mut segment = source.port().to_be_bytes().to_vec();
    segment.extend(destination.port().to_be_bytes());
    segment.extend(SEQUENCE_AND_ACKNOWLEDGEMENT);
    segment.extend([(TCP_HEADER as u8 / 4) << 4, flags]);
    segment.extend(WINDOW);
    segment.extend([0; 4]); // checksum, urgent pointer
    let sum = checksum(&[pseudo_header(source.ip(), destination.ip()), segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// What the checksum covers besides the segment (RFC 9293, section 3.1; RFC 8200, section 8.1).
fn pseudo_header(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    let length = (TCP_HEADER as u32).to_be_bytes().to_vec();
    let protocol = u32::from(libc::IPPROTO_TCP as u8).to_be_bytes().to_vec();
    // For IPv4 both numbers have 16 bits; zeros do not change the sum.
    [octets(source), octets(destination), length, protocol].concat()
}

/// The internet checksum of an even number of bytes (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// A segment from the pod.
struct Answer {
    to: u16,
    flags: u8,
}

impl Answer {
    /// The segment that a raw socket received; over IPv4 it comes with its IP header. `to` is 0 if it is not an answer
    /// from this address.
    fn parse(packet: &[u8], from: SocketAddr) -> Option<Self> {
        let skipped = match from {
            SocketAddr::V4(_) => usize::from(packet.first()? & 0x0f) * 4,
            SocketAddr::V6(_) => 0,
        };
        let segment = packet.get(skipped..)?.first_chunk::<TCP_HEADER>()?;
        let is_answer = u16::from_be_bytes([segment[0], segment[1]]) == from.port();
        let to = u16::from_be_bytes([segment[2], segment[3]]);
        Some(Self {
            to: if is_answer { to } else { 0 },
            flags: segment[13],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_a_valid_checksum() {
        for (source, destination) in [("192.0.2.254:40000", "192.0.2.253:80"), ("[::2]:40000", "[::1]:80")] {
            let (source, destination): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            let segment = segment(source, destination, SYN_ACK);
            assert_eq!(segment.len(), TCP_HEADER);
            let whole = [pseudo_header(source.ip(), destination.ip()), segment].concat();
            assert_eq!(checksum(&whole), 0);
        }
        // The example of RFC 1071, section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn answers_of_other_ports_are_skipped() {
        let (pod, host): (SocketAddr, SocketAddr) =
            ("192.0.2.253:80".parse().unwrap(), "192.0.2.254:40000".parse().unwrap());
        let with_header = |segment: Vec<u8>| [vec![0x45], vec![0; 19], segment].concat();
        let answer = Answer::parse(&with_header(segment(pod, host, RST)), pod).unwrap();
        assert_eq!((answer.to, answer.flags), (40000, RST));
        let other = SocketAddr::new(pod.ip(), 81);
        assert_eq!(
            Answer::parse(&with_header(segment(other, host, RST)), pod).unwrap().to,
            0
        );
        assert!(Answer::parse(&[0x45], pod).is_none());
    }
}
