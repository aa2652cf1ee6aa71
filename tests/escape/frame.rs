//! Frames in words, and which of them no application can have caused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::common::Address;

/// A number of IEEE for local experiments: the frames that the tests send themselves.
const FENCE: u16 = 0x88b5;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Where a frame's payload begins.
const PAYLOAD: usize = 14;

/// A frame that ends what is counted.
pub fn new_fence(number: u32) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend(FENCE.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// The number of a fence.
pub fn fence(frame: &[u8]) -> Option<u32> {
    let number = frame.get(PAYLOAD..PAYLOAD + 4)?.try_into().ok()?;
    (ethertype(frame) == Some(FENCE)).then(|| u32::from_be_bytes(number))
}

fn ethertype(frame: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?))
}

/// The frame in words, unless the kernel sends such ones itself to have addresses and to find its neighbour.
///
/// `addresses` are the pod's, whose groups it is a member of.
pub fn describe(frame: &[u8], addresses: &[Ipv6Addr]) -> Option<String> {
    let payload = frame.get(PAYLOAD..).unwrap_or_default();
    match ethertype(frame) {
        Some(ARP) => {
            let target: [u8; 4] = payload.get(24..28)?.try_into().ok()?;
            let target = IpAddr::from(Ipv4Addr::from(target));
            (!is_of_links(target)).then(|| format!("ARP for {target}"))
        }
        Some(IPV4) => {
            let part = |range| payload.get(range).and_then(|part| <[u8; 4]>::try_from(part).ok());
            let [from, to] = [part(12..16)?, part(16..20)?].map(Ipv4Addr::from);
            Some(format!("IPv4 protocol {} from {from} to {to}", payload[9]))
        }
        Some(IPV6) => {
            let part = |range| payload.get(range).and_then(|part| <[u8; 16]>::try_from(part).ok());
            let [from, to] = [part(8..24)?, part(24..40)?].map(Ipv6Addr::from);
            let (protocol, message) = upper_layer(payload)?;
            if protocol == ICMPV6 && is_of_the_kernel(message, addresses) {
                return None;
            }
            Some(format!("IPv6 protocol {protocol} from {from} to {to}"))
        }
        Some(other) => Some(format!("ethertype {other:#06x}")),
        None => Some("a short frame".to_owned()),
    }
}

const ICMPV6: u8 = 58;

/// The protocol after hop-by-hop options, and its message.
fn upper_layer(packet: &[u8]) -> Option<(u8, &[u8])> {
    let (next, rest) = (*packet.get(6)?, packet.get(40..)?);
    if next != 0 {
        return Some((next, rest));
    }
    let length = 8 + 8 * usize::from(*rest.get(1)?);
    Some((*rest.first()?, rest.get(length..)?))
}

/// Whether an ICMPv6 message is one that keeps addresses and neighbours: solicitations of a router or of a neighbour on
/// the links, advertisements of own addresses, reports of the groups that belong to own addresses.
fn is_of_the_kernel(message: &[u8], addresses: &[Ipv6Addr]) -> bool {
    const ROUTER_SOLICITATION: u8 = 133;
    const NEIGHBOUR_SOLICITATION: u8 = 135;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    const LISTENER_REPORT: u8 = 143;
    let address = |offset: usize| {
        let bytes: [u8; 16] = message.get(offset..offset + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes))
    };
    match message.first() {
        Some(&ROUTER_SOLICITATION) => true,
        Some(&(NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT)) => {
            let is_known = |target: Ipv6Addr| {
                target.is_unicast_link_local() || is_of_links(target.into()) || addresses.contains(&target)
            };
            address(8).is_some_and(is_known)
        }
        Some(&LISTENER_REPORT) => {
            const RECORD: usize = 20;
            let count = usize::from(message.get(7).copied().unwrap_or_default());
            (0..count).all(|number| address(8 + RECORD * number + 4).is_some_and(|group| is_group_of(group, addresses)))
        }
        _ => false,
    }
}

/// Whether a group has members without any application: all nodes, all routers, and one for each address and for a
/// router's address of the whole subnet (RFC 4291, 2.6.1).
fn is_group_of(group: Ipv6Addr, addresses: &[Ipv6Addr]) -> bool {
    const ROUTERS_OF_SITE: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2);
    const OF_SUBNETS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
    if [ROUTERS_OF_SITE, OF_SUBNETS].contains(&group) {
        return true;
    }
    let of_address = |address: &Ipv6Addr| {
        let [.., high, low] = address.segments();
        group == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
    };
    let parts = group.segments();
    parts[..7] == [0xff02, 0, 0, 0, 0, 0, 0] && parts[7] <= 2 || addresses.iter().any(of_address)
}

fn is_of_links(address: IpAddr) -> bool {
    [Address::POD, Address::POD_SECOND, Address::PEER, Address::PEER_SECOND]
        .iter()
        .any(|of_link| of_link.both().contains(&address))
}
