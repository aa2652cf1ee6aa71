//! TCP sockets of other processes, as the kernel describes them (sock_diag(7)): whether a socket is transparent.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_REQUEST, NlasIterator};
use nix::sys::socket::SockProtocol;

use crate::linux::netlink::{Answer, Socket};
use crate::linux::tcp::Connection;

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_SOCKOPT`, and the bit `transparent` of its first byte (linux/inet_diag.h).
const SOCKET_OPTIONS: u16 = 22;
const TRANSPARENT: u8 = 1 << 5;
/// The length of `struct inet_diag_msg`, which comes before the attributes.
const HEADER: usize = 72;

/// Whether the socket of this connection is transparent, which it inherits from its listener. `None` if the kernel does
/// not report it: it has no tcp_diag, is older than 5.10, or the connection has ended.
pub fn is_transparent(connection: &Connection) -> Option<bool> {
    let mut socket = Socket::open(SockProtocol::NetlinkSockDiag).ok()?;
    socket.send(request(connection)).ok()?;
    socket.receive().ok()?.into_iter().find_map(|answer| match answer {
        Answer::Message {
            kind: BY_FAMILY,
            payload,
            ..
        } => {
            let mut attributes = NlasIterator::new(payload.get(HEADER..)?).flatten();
            let options = attributes.find(|attribute| attribute.kind() & NLA_TYPE_MASK == SOCKET_OPTIONS)?;
            options.value().first().map(|bits| bits & TRANSPARENT != 0)
        }
        _ => None,
    })
}

/// A netlink message with `struct inet_diag_req_v2` for exactly this socket.
fn request(connection: &Connection) -> Vec<u8> {
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
    message.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
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
                assert_eq!(request(&connection).len(), 72);
            }
        }
    }
}
