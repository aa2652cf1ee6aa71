//! The TCP sockets of a network namespace, as the kernel lists them (proc_pid_net(5)).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::proc;

/// The two addresses of a connection, as its socket sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Local address.
    pub local: SocketAddr,
    /// Remote address.
    pub remote: SocketAddr,
}

/// All TCP sockets in the network namespace of this thread, listening ones included.
///
/// # Errors
/// There is no /proc.
pub fn connections() -> io::Result<Vec<Connection>> {
    Ok(sockets()?.into_iter().map(|(connection, _)| connection).collect())
}

/// A summary of the TCP sockets of a pod's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Addresses of listening sockets.
    pub listening: Vec<SocketAddr>,
    /// Number of connections to other pods or hosts.
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
            State::Open if !connection.remote.ip().is_loopback() => census.open += 1,
            State::Open | State::Other => {}
        }
    }
    Ok(census)
}

/// The number of TCP connections to other pods or hosts. If there are no sockets at all, as in a pod
/// that starts, the kernel's count shows that, and is faster to read than the list.
///
/// # Errors
/// There is no /proc.
pub fn open_connections() -> io::Result<usize> {
    match proc::read_short("/proc/thread-self/net/protocols") {
        Ok(protocols) if in_use(&protocols) == Some(0) => Ok(0),
        _ => census().map(|census| census.open),
    }
}

/// How many TCP sockets the protocols of a network namespace have, by both families (`proto_seq_printf` in
/// net/core/sock.c). TCP over IPv4 is always there, and comes last; a text that ends before it says nothing.
///
/// `TCPv6     2432      3     205   no     192   yes  kernel …`
fn in_use(protocols: &str) -> Option<usize> {
    let lines = protocols
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    let sockets = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().filter(|name| matches!(*name, "TCP" | "TCPv6"))?;
        Some((name == "TCP", words.nth(1)?.parse::<usize>().ok()?))
    };
    let counts: Vec<(bool, usize)> = lines.filter_map(sockets).collect();
    let has_v4 = counts.iter().any(|(is_v4, _)| *is_v4);
    has_v4.then(|| counts.iter().map(|(_, count)| count).sum())
}

/// The state of a socket (`enum` in net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Established or half-closed.
    Open,
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

/// The lines after the headings: a number, then the socket's own address and port, then the other end's, then its
/// state.
fn parse(text: &str) -> Vec<(Connection, State)> {
    let socket = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let connection = Connection {
            local: address(words.next()?)?,
            remote: address(words.next()?)?,
        };
        let state = match words.next()? {
            "01" | "04" | "05" | "08" => State::Open,
            "0A" => State::Listening,
            _ => State::Other,
        };
        Some((connection, state))
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// `0100007F:3A99`: the address as 32-bit numbers in host byte order, the port as a number.
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
            // A dual-stack socket has IPv4 addresses mapped to IPv6.
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn socket_lines_are_parsed() {
        let v4 = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:3A99 02006363:B0F2 01 00000000:0\n";
        let v6 = "  sl  local_address  remote_address st\n\
                  12: 0000000000000000FFFF00000100007F:3A9E 000080FE000000000000000001000000:0001 01\n";
        let pair = |local: &str, remote: &str| Connection {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        let other = "  sl\n   1: 0100007F:3A99 00000000:0000 0A\n   2: 0100007F:3A99 0100007F:0001 06\n";
        let established = |local, remote| (pair(local, remote), State::Open);
        assert_eq!(parse(v4), [established("127.0.0.1:15001", "99.99.0.2:45298")]);
        assert_eq!(parse(v6), [established("127.0.0.1:15006", "[fe80::1]:1")]);
        let states: Vec<State> = parse(other).into_iter().map(|(_, state)| state).collect();
        assert_eq!(states, [State::Listening, State::Other]);
        assert_eq!(parse("heading\n 0: nonsense more\n\n"), []);
    }

    #[test]
    fn socket_counts_of_the_kernel_are_parsed() {
        let heading = "protocol  size sockets  memory press maxhdr  slab module     cl co di\n";
        let v6 =
            "MPTCPv6   2064      7     205   no       0   yes  kernel      y  n\nTCPv6     2432      2     205   no\n";
        let v4 = "MPTCP     1936      7     205   no\nTCP       2304      3     205   no     192   yes\n";
        assert_eq!(in_use(&format!("{heading}{v6}{v4}")), Some(5));
        assert_eq!(in_use(&format!("{heading}{v4}")), Some(3));
        assert_eq!(in_use(&v4.replace(" 3 ", " 0 ")), Some(0));
        for cut_off in [
            String::new(),
            format!("{heading}{v6}"),
            format!("{v6}TCP       2304     "),
        ] {
            assert_eq!(in_use(&cut_off), None, "{cut_off:?}");
        }
    }
}
