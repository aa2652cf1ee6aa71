//! An echo request of ICMP or ICMPv6 (RFC 792; RFC 4443, section 4.1), and its answer.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::invalid::checksum;
use crate::types::Family;

/// What follows the header of the request: an even number of bytes.
const PAYLOAD: &[u8] = b"sidetrack-probe\0";
/// The identifier of requests by a raw socket. For a ping socket the kernel sets one.
const IDENTIFIER: [u8; 2] = *b"st";
/// Length of the header, in bytes.
const HEADER: usize = 8;

/// A connected socket that sends echo requests.
pub struct Echo {
    socket: OwnedFd,
    family: Family,
}

/// Opens a socket for echo requests that needs no capability, if the group of this thread may (sysctl
/// net.ipv4.ping_group_range, icmp(7)).
///
/// # Errors
/// It may not (EACCES).
pub fn open_unprivileged(family: Family) -> Result<OwnedFd, Errno> {
    open(family, SockType::Datagram)
}

/// Opens a raw socket, which takes CAP_NET_RAW.
///
/// # Errors
/// This thread lacks it (EPERM).
pub fn open_raw(family: Family) -> Result<OwnedFd, Errno> {
    open(family, SockType::Raw)
}

fn open(family: Family, kind: SockType) -> Result<OwnedFd, Errno> {
    let (domain, protocol) = match family {
        Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
        Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    socket(domain, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)
}

impl Echo {
    /// Takes a connected socket.
    pub fn new(socket: OwnedFd, destination: IpAddr) -> Self {
        Self {
            socket,
            family: Family::of(destination),
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn send(&self) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), &request(self.family), MsgFlags::empty()).map(drop)
    }

    /// Whether an answer has arrived.
    ///
    /// # Errors
    /// An error about the request has arrived.
    pub fn is_answered(&self) -> Result<bool, Errno> {
        let mut buffer = [0; 256];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) if is_answer(self.family, &buffer[..length]) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Echo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The types of a request and of its answer.
fn types(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 129),
    }
}

/// The request. The kernel computes the checksum of ICMPv6, and of sockets that are not raw.
fn request(family: Family) -> Vec<u8> {
    const SEQUENCE: [u8; 2] = [0, 1];
    let (request, _) = types(family);
    let mut message = vec![request, 0, 0, 0];
    message.extend(IDENTIFIER);
    message.extend(SEQUENCE);
    message.extend(PAYLOAD);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether this is an answer to a request. Raw IPv4 sockets receive the IP header as well.
fn is_answer(family: Family, packet: &[u8]) -> bool {
    let (_, answer) = types(family);
    let is_raw_v4 = family == Family::V4 && packet.first().is_some_and(|first| first >> 4 == 4);
    let skipped = match packet.first() {
        Some(first) if is_raw_v4 => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    let message = packet.get(skipped..).unwrap_or_default();
    message.first() == Some(&answer) && message.get(HEADER..) == Some(PAYLOAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_and_answer_are_distinguished() {
        for family in Family::BOTH {
            let (_, answer) = types(family);
            let mut message = request(family);
            assert!(!is_answer(family, &message));
            message[0] = answer;
            assert!(is_answer(family, &message));
            message.pop();
            assert!(!is_answer(family, &message) && !is_answer(family, &[]));
        }
        let with_header = [vec![0x45], vec![0; 19], vec![0; HEADER], PAYLOAD.to_vec()].concat();
        assert!(is_answer(Family::V4, &with_header));
    }

    #[test]
    fn request_has_a_valid_checksum() {
        assert_eq!(checksum(&request(Family::V4)), 0);
    }
}
