//! Entries of connection tracking, read over netlink (ctnetlink, linux/netfilter/nfnetlink_conntrack.h).

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_REQUEST, NlasIterator};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{Answer, NetlinkError, Socket};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`; answers have the type `IPCTNL_MSG_CT_NEW`.
const GET: u16 = 1 << 8 | 1;
const NEW: u16 = 1 << 8;
/// Length of `struct nlmsghdr` and of `struct nfgenmsg`.
const NETLINK_HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;
const NESTED: u16 = 1 << 15;

// enum ctattr_type, ctattr_tuple, ctattr_ip, ctattr_l4proto, ctattr_protoinfo, ctattr_protoinfo_tcp.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const PROTOCOL_STATE: u16 = 4;
const TIMEOUT: u16 = 7;
const ADDRESSES: u16 = 1;
const PORTS: u16 = 2;
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const TCP: u16 = 1;
const TCP_STATE: u16 = 1;

/// The state of a half-closed TCP connection: one side has closed its half, and the other has acknowledged that
/// (`TCP_CONNTRACK_CLOSE_WAIT`, linux/netfilter/nf_conntrack_tcp.h).
pub const CLOSE_WAIT: u8 = 5;

/// An entry of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The source of its answers: the address that the connection was translated to, or its original destination.
    pub answers_from: SocketAddr,
    /// The destination of its answers: the address that its client was translated to, or its own.
    pub answers_to: SocketAddr,
    /// The seconds until the kernel removes it if no packet comes.
    pub timeout: u32,
    /// Its state (`enum tcp_conntrack`).
    pub state: u8,
}

/// The entry of the TCP connection that `client` opened to `destination`, in the network namespace of this thread.
///
/// # Errors
/// The kernel refused, or has no ctnetlink.
pub fn entry(client: SocketAddr, destination: SocketAddr) -> Result<Option<Entry>, NetlinkError> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
    socket.send(request(client, destination)?)?;
    for answer in socket.receive()? {
        match answer {
            Answer::Message { kind: NEW, payload, .. } => {
                let entry = payload.get(NETFILTER_HEADER..).and_then(parse);
                return entry
                    .map(Some)
                    .ok_or_else(|| NetlinkError::Malformed("an entry of conntrack".to_owned()));
            }
            Answer::Status {
                result: Err(refusal), ..
            } => match refusal.errno {
                Errno::ENOENT => return Ok(None),
                _ => return Err(NetlinkError::Refused(refusal)),
            },
            Answer::Message { .. } | Answer::Status { .. } | Answer::Interrupted { .. } => {}
        }
    }
    Ok(None)
}

fn request(client: SocketAddr, destination: SocketAddr) -> Result<Vec<u8>, NetlinkError> {
    let (family, addresses) = match (client.ip(), destination.ip()) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let source = attribute(V6_SOURCE, &source.octets());
            (
                libc::AF_INET6,
                [source, attribute(V6_DESTINATION, &destination.octets())],
            )
        }
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let source = attribute(V4_SOURCE, &source.octets());
            (
                libc::AF_INET,
                [source, attribute(V4_DESTINATION, &destination.octets())],
            )
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            return Err(NetlinkError::Malformed("addresses of two families".to_owned()));
        }
    };
    let ports = [
        attribute(PROTOCOL_NUMBER, &[libc::IPPROTO_TCP as u8]),
        attribute(SOURCE_PORT, &client.port().to_be_bytes()),
        attribute(DESTINATION_PORT, &destination.port().to_be_bytes()),
    ];
    let tuple = [
        attribute(ADDRESSES | NESTED, &addresses.concat()),
        attribute(PORTS | NESTED, &ports.concat()),
    ];
    let tuple = attribute(TUPLE_ORIGINAL | NESTED, &tuple.concat());
    let length = (NETLINK_HEADER + NETFILTER_HEADER + tuple.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(GET.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number, sender
    message.extend([family as u8, 0, 0, 0]); // family, version, resource
    message.extend(tuple);
    Ok(message)
}

/// An attribute with padding. All values here are short.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The entry that these attributes describe.
fn parse(attributes: &[u8]) -> Option<Entry> {
    let reply = find(attributes, TUPLE_REPLY)?;
    let (addresses, ports) = (find(&reply, ADDRESSES)?, find(&reply, PORTS)?);
    let end = |v4, v6, port| {
        let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(find(&addresses, v4)?).ok()?));
        let v6 = || Some(IpAddr::from(<[u8; 16]>::try_from(find(&addresses, v6)?).ok()?));
        let port = u16::from_be_bytes(find(&ports, port)?.try_into().ok()?);
        Some(SocketAddr::new(v4().or_else(v6)?, port))
    };
    let state = find(&find(&find(attributes, PROTOCOL_STATE)?, TCP)?, TCP_STATE)?;
    Some(Entry {
        answers_from: end(V4_SOURCE, V6_SOURCE, SOURCE_PORT)?,
        answers_to: end(V4_DESTINATION, V6_DESTINATION, DESTINATION_PORT)?,
        timeout: u32::from_be_bytes(find(attributes, TIMEOUT)?.try_into().ok()?),
        state: *state.first()?,
    })
}

/// The value of an attribute.
fn find(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(attributes).flatten();
    let found = attributes.find(|attribute| attribute.kind() & NLA_TYPE_MASK == kind)?;
    Some(found.value().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_direction_of_a_connection_is_requested() {
        let request = |client: &str, to: &str| request(client.parse().unwrap(), to.parse().unwrap());
        let v4 = request("10.0.0.2:40000", "10.0.0.5:443").unwrap();
        assert_eq!(v4.len(), u32::from_ne_bytes(v4[..4].try_into().unwrap()) as usize);
        let tuple = find(&v4[NETLINK_HEADER + NETFILTER_HEADER..], TUPLE_ORIGINAL).unwrap();
        let addresses = find(&tuple, ADDRESSES).unwrap();
        assert_eq!(find(&addresses, V4_DESTINATION).unwrap(), [10, 0, 0, 5]);
        assert_eq!(
            find(&find(&tuple, PORTS).unwrap(), DESTINATION_PORT).unwrap(),
            443_u16.to_be_bytes()
        );
        assert_eq!(request("[fd00::2]:1", "[fd00::5]:2").unwrap()[NETLINK_HEADER], 10);
        request("10.0.0.2:1", "[fd00::5]:2").unwrap_err();
    }

    #[test]
    fn an_entry_is_parsed_or_refused() {
        let addresses = [
            attribute(V4_SOURCE, &[127, 0, 0, 1]),
            attribute(V4_DESTINATION, &[10, 0, 0, 2]),
        ];
        let ports = [
            attribute(SOURCE_PORT, &15001_u16.to_be_bytes()),
            attribute(DESTINATION_PORT, &40000_u16.to_be_bytes()),
        ];
        let reply = [
            attribute(ADDRESSES | NESTED, &addresses.concat()),
            attribute(PORTS | NESTED, &ports.concat()),
        ];
        let state = attribute(TCP | NESTED, &attribute(TCP_STATE, &[CLOSE_WAIT]));
        let parts = [
            attribute(TUPLE_REPLY | NESTED, &reply.concat()),
            attribute(PROTOCOL_STATE | NESTED, &state),
            attribute(TIMEOUT, &432_000_u32.to_be_bytes()),
        ];
        let entry = Entry {
            answers_from: "127.0.0.1:15001".parse().unwrap(),
            answers_to: "10.0.0.2:40000".parse().unwrap(),
            timeout: 432_000,
            state: CLOSE_WAIT,
        };
        assert_eq!(parse(&parts.concat()), Some(entry));
        for missing in 0..parts.len() {
            let mut parts = parts.to_vec();
            parts.remove(missing);
            assert_eq!(parse(&parts.concat()), None);
        }
    }
}
