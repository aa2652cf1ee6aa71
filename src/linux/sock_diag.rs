//! Sockets of any process, by their connection: their options and their owner (sock_diag(7)).

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_REQUEST, NlasIterator};
use nix::sys::socket::SockProtocol;

use super::netlink::{Answer, Socket};
use super::tcp::Connection;

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_SOCKOPT`, and the bit `transparent` of its first byte (linux/inet_diag.h).
const SOCKET_OPTIONS: u16 = 22;
const TRANSPARENT: u8 = 1 << 5;
/// The length of `struct inet_diag_msg`, which comes before the attributes.
const HEADER: usize = 72;
/// The offsets of `idiag_uid` and `idiag_inode` in it.
const UID_AT: usize = 64;
const INODE_AT: usize = 68;

/// The owner of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// The user that made it.
    pub uid: u32,
    /// Its inode, by which the descriptors of processes name it.
    pub inode: u32,
}

/// The owner of the socket that has this connection, on its local side. `protocol`: `IPPROTO_TCP` or `IPPROTO_UDP`.
/// `None` if there is no such socket any more, or the kernel has no module for this protocol.
pub fn owner(connection: &Connection, protocol: libc::c_int) -> Option<SocketOwner> {
    let payload = ask(connection, protocol)?;
    let number = |at: usize| Some(u32::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
    Some(SocketOwner {
        uid: number(UID_AT)?,
        inode: number(INODE_AT)?,
    })
}

/// Whether the socket of this connection is transparent, which it inherits from its listener. `None` if the kernel does
/// not report it: it has no tcp_diag, is older than 5.10, or the connection has ended.
pub fn is_transparent(connection: &Connection) -> Option<bool> {
    let payload = ask(connection, libc::IPPROTO_TCP)?;
    let mut attributes = NlasIterator::new(payload.get(HEADER..)?).flatten();
    let options = attributes.find(|attribute| attribute.kind() & NLA_TYPE_MASK == SOCKET_OPTIONS)?;
    options.value().first().map(|bits| bits & TRANSPARENT != 0)
}

/// The kernel's answer about the socket of this connection.
fn ask(connection: &Connection, protocol: libc::c_int) -> Option<Vec<u8>> {
    let mut socket = Socket::open(SockProtocol::NetlinkSockDiag).ok()?;
    socket.send(request(connection, protocol)).ok()?;
    socket.receive().ok()?.into_iter().find_map(|answer| match answer {
        Answer::Message {
            kind: BY_FAMILY,
            payload,
            ..
        } => Some(payload),
        _ => None,
    })
}

/// A netlink message with `struct inet_diag_req_v2` for exactly this socket.
fn request(connection: &Connection, protocol: libc::c_int) -> Vec<u8> {
    const LENGTH: u32 = 16 + 56;
    const NO_COOKIE: [u8; 8] = [0xff; 8];
    let family = if connection.local.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let address = |address: SocketAddr| match address.ip() {
        IpAddr::V4(address) => [&address.octets()[..], &[0; 12]].concat(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut message = LENGTH.to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number, sender
    message.extend([family as u8, protocol as u8, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes()); // states
    message.extend(connection.local.port().to_be_bytes());
    message.extend(connection.remote.port().to_be_bytes());
    message.extend(address(connection.local));
    message.extend(address(connection.remote));
    message.extend([0; 4]); // interface
    message.extend(NO_COOKIE);
    message
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::linux::tcp::connections;

    #[test]
    fn is_transparent_finds_both_ends_of_a_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, there) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let found = connections().unwrap();
            for (local, remote) in [(here, there), (there, here)] {
                let connection = Connection { local, remote };
                assert!(found.contains(&connection), "{local} {remote}");
                assert_eq!(is_transparent(&connection), Some(false));
                assert_eq!(request(&connection, libc::IPPROTO_TCP).len(), 72);
                let owner = owner(&connection, libc::IPPROTO_TCP).unwrap();
                assert_eq!(owner.uid, nix::unistd::geteuid().as_raw());
                // A connection that was not accepted yet has no inode.
                assert_eq!(owner.inode != 0, local == here);
            }
        }
    }
}
