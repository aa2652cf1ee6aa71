//! What the kernel tells of TCP sockets: where a connection is that somebody else has accepted (proc_pid_net(5)), and
//! how it got there (sock_diag(7)).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_REQUEST, NlasIterator};
use nix::sys::socket::SockProtocol;

use crate::linux::netlink::{Answer, Socket};

/// Both ends of a connection, as the socket at one of them sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its own.
    pub local: SocketAddr,
    /// The other.
    pub remote: SocketAddr,
}

/// Every TCP connection that has a socket in the network namespace of this thread; listening sockets are among them.
///
/// # Errors
/// There is no /proc.
pub fn connections() -> io::Result<Vec<Connection>> {
    Ok(sockets()?.into_iter().map(|(connection, _)| connection).collect())
}

/// The TCP sockets that a pod's processes have, as far as they matter to whoever comes later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Where somebody listens.
    pub listening: Vec<SocketAddr>,
    /// How many connections there are that do not stay within the pod.
    pub open: usize,
}

/// Counts the TCP sockets in the network namespace of this thread.
///
/// # Errors
/// There is no /proc.
pub fn census() -> io::Result<Census> {
    let mut census = Census::default();
    for (connection, state) in sockets()? {
        match state {
            State::Listening => census.listening.push(connection.local),
            State::Established if !connection.remote.ip().is_loopback() => census.open += 1,
            State::Established | State::Other => {}
        }
    }
    Ok(census)
}

/// The state of a socket (`enum` in net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Established,
    Listening,
    Other,
}

fn sockets() -> io::Result<Vec<(Connection, State)>> {
    let mut sockets = parse(&fs::read_to_string("/proc/thread-self/net/tcp")?);
    match fs::read_to_string("/proc/thread-self/net/tcp6") {
        Ok(text) => sockets.extend(parse(&text)),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

/// The lines after the headings: a number, then the socket's own address and port, then the other end's, then its state.
fn parse(text: &str) -> Vec<(Connection, State)> {
    let socket = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let connection = Connection {
            local: address(words.next()?)?,
            remote: address(words.next()?)?,
        };
        let state = match words.next()? {
            "01" => State::Established,
            "0A" => State::Listening,
            _ => State::Other,
        };
        Some((connection, state))
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// `0100007F:3A99`: the address as 32-bit numbers in the order of this machine, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = address.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            // A socket of both families has IPv4 addresses as IPv6 ones.
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_SOCKOPT`, and the bit `transparent` of its first byte (linux/inet_diag.h).
const SOCKET_OPTIONS: u16 = 22;
const TRANSPARENT: u8 = 1 << 5;
/// The length of `struct inet_diag_msg`, which comes before the attributes.
const HEADER: usize = 72;

/// Whether the socket that has this connection, on its local side, is a transparent one, as its listener then was.
/// `None` where the kernel does not tell: it has no tcp_diag, is older than 5.10, or the connection has ended.
pub fn is_transparent(connection: &Connection) -> Option<bool> {
    let mut socket = Socket::open(SockProtocol::NetlinkSockDiag).ok()?;
    socket.send(question(connection)).ok()?;
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
fn question(connection: &Connection) -> Vec<u8> {
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

    #[test]
    #[cfg(target_endian = "little")]
    fn the_lines_of_the_kernel_are_read() {
        let v4 = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:3A99 02006363:B0F2 01 00000000:0\n";
        let v6 = "  sl  local_address  remote_address st\n\
                  12: 0000000000000000FFFF00000100007F:3A9E 000080FE000000000000000001000000:0001 01\n";
        let pair = |local: &str, remote: &str| Connection {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        let other = "  sl\n   1: 0100007F:3A99 00000000:0000 0A\n   2: 0100007F:3A99 0100007F:0001 06\n";
        let established = |local, remote| (pair(local, remote), State::Established);
        assert_eq!(parse(v4), [established("127.0.0.1:15001", "99.99.0.2:45298")]);
        assert_eq!(parse(v6), [established("127.0.0.1:15006", "[fe80::1]:1")]);
        let states: Vec<State> = parse(other).into_iter().map(|(_, state)| state).collect();
        assert_eq!(states, [State::Listening, State::Other]);
        assert_eq!(parse("heading\n 0: nonsense more\n\n"), []);
    }

    #[test]
    fn both_ends_of_a_connection_are_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, there) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let found = connections().unwrap();
            for (local, remote) in [(here, there), (there, here)] {
                let connection = Connection { local, remote };
                assert!(found.contains(&connection), "{local} {remote}");
                assert_eq!(is_transparent(&connection), Some(false));
                assert_eq!(question(&connection).len(), 72);
            }
        }
    }
}
