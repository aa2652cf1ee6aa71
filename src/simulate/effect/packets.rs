//! The packets by which rules are compared.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ruleset::netfilter::{Action, Field, Lookup, Match, Netfilter, Span, Statement, Table};
use crate::ruleset::{self, Addresses, Elements, GidMatch, PortMatch, Protocol, Tracking, UidMatch};
use crate::simulate::packet::{Origin, Packet, Pod, is_loopback, loopback};
use crate::types::{Family, Gid, Id as _, InterfaceName, Port, Uid};

/// How many values of a kind count.
const MAX_VALUES: usize = 24;
/// The owner of an application.
const APPLICATION: u32 = 1000;
const SOURCE_PORT: u16 = 40000;
/// Ports that rules often do not name: of an application, and of DNS.
const PORTS: [u16; 3] = [53, 80, 8080];
/// Other hosts, from the documentation ranges (RFC 5737, RFC 3849).
const HOSTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
];

/// The values that rules distinguish.
#[derive(Default)]
struct Values {
    ports: BTreeSet<u16>,
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
    addresses: BTreeSet<IpAddr>,
    marks: BTreeSet<u32>,
}

/// The packets that show how two rulesets differ, for the processes and interfaces of a pod.
pub fn list(expected: &Netfilter, found: &Netfilter, pod: &Pod) -> Vec<Packet> {
    let mut values = Values::default();
    for table in expected.tables.iter().chain(&found.tables) {
        values.add_table(table);
    }
    let ports = few(&values.ports, &PORTS);
    let interfaces: BTreeSet<&str> = pod.addresses.iter().map(|(name, _)| name.as_str()).collect();
    let interfaces: Vec<InterfaceName> = interfaces
        .into_iter()
        .filter_map(|name| InterfaceName::parse(name).ok())
        .collect();
    let links: Vec<&InterfaceName> = interfaces.iter().filter(|name| !is_loopback(name)).collect();
    let owners = values.owners();
    let addresses = few(&values.addresses, &HOSTS);
    let mut packets = Vec::new();
    for (link, is_first) in links.iter().zip([true].into_iter().chain(std::iter::repeat(false))) {
        let own = pod
            .addresses
            .iter()
            .filter(|(name, _)| name == *link || is_loopback(name));
        let own: Vec<IpAddr> = own
            .map(|(_, address)| *address)
            .chain(Family::BOTH.map(loopback))
            .collect();
        let mut outbound = |protocol, to, port, owner, source, mark| {
            packets.extend(outbound(pod, link, protocol, (to, port), owner, source, mark));
        };
        // One interface has all packets; the others have those of an application.
        let owners = if is_first {
            &owners[..]
        } else {
            &[(APPLICATION, APPLICATION)]
        };
        for owner in owners {
            for to in own.iter().chain(&HOSTS) {
                for port in &ports {
                    outbound(Protocol::Tcp, *to, *port, *owner, None, 0);
                }
                for port in PORTS {
                    outbound(Protocol::Udp, *to, port, *owner, None, 0);
                }
            }
            for (to, port) in addresses.iter().flat_map(|to| PORTS.map(|port| (to, port))) {
                outbound(Protocol::Tcp, *to, port, *owner, None, 0);
            }
            for to in &addresses {
                outbound(Protocol::Udp, *to, PORTS[0], *owner, None, 0);
            }
        }
        for port in ports.iter().filter(|_| is_first) {
            for to in own.iter().chain(&HOSTS) {
                outbound(Protocol::Udp, *to, *port, (APPLICATION, APPLICATION), None, 0);
            }
        }
        for owner in owners {
            for to in &own {
                let sources = addresses
                    .iter()
                    .filter(|source| pod.has(**source) && Family::of(**source) == Family::of(*to));
                for source in sources {
                    outbound(Protocol::Tcp, *to, PORTS[2], *owner, Some(*source), 0);
                }
                for mark in &few(&values.marks, &[]) {
                    outbound(Protocol::Tcp, *to, PORTS[2], *owner, None, *mark);
                }
            }
        }
        for family in Family::BOTH {
            let Some(to) = pod.address(link, family) else { continue };
            let host = HOSTS.into_iter().find(|host| family.is_of(*host));
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                packets.extend(
                    ports
                        .iter()
                        .filter_map(|port| inbound(link, protocol, host?, to, *port, Tracking::New)),
                );
            }
            let others = addresses
                .iter()
                .filter(|source| family.is_of(**source) && !pod.has(**source));
            packets.extend(others.filter_map(|from| inbound(link, Protocol::Tcp, *from, to, PORTS[2], Tracking::New)));
            packets.extend(host.and_then(|from| inbound(link, Protocol::Tcp, from, to, PORTS[2], Tracking::Invalid)));
        }
    }
    packets
}

fn outbound(
    pod: &Pod,
    link: &InterfaceName,
    protocol: Protocol,
    (to, port): (IpAddr, u16),
    (uid, gid): (u32, u32),
    source: Option<IpAddr>,
    mark: u32,
) -> Option<Packet> {
    Some(Packet {
        origin: Origin::Process {
            uid: Uid::new(uid)?,
            gid: Gid::new(gid)?,
            cgroup: None,
            interface: link.clone(),
        },
        protocol: protocol.into(),
        source: source.or_else(|| pod.source(to, mark, link))?,
        source_port: Some(Port::new(SOURCE_PORT)?),
        destination: to,
        destination_port: Some(Port::new(port)?),
        mark,
        tracking: Tracking::New,
    })
}

fn inbound(
    link: &InterfaceName,
    protocol: Protocol,
    from: IpAddr,
    to: IpAddr,
    port: u16,
    tracking: Tracking,
) -> Option<Packet> {
    Some(Packet {
        origin: Origin::Interface(link.clone()),
        protocol: protocol.into(),
        source: from,
        source_port: Some(Port::new(SOURCE_PORT)?),
        destination: to,
        destination_port: Some(Port::new(port)?),
        mark: 0,
        tracking,
    })
}

/// The first and the last of many values, and those that always count.
fn few<T: Copy + Ord>(values: &BTreeSet<T>, always: &[T]) -> Vec<T> {
    let half = MAX_VALUES / 2;
    let first = values.iter().take(half);
    let few: BTreeSet<T> = first
        .chain(values.iter().rev().take(half))
        .chain(always)
        .copied()
        .collect();
    few.into_iter().collect()
}

impl Values {
    /// An application, and every user and group that rules name: alone, and as a proxy has them both.
    fn owners(&self) -> Vec<(u32, u32)> {
        let (uids, gids) = (few(&self.uids, &[]), few(&self.gids, &[]));
        let users = uids.iter().flat_map(|uid| [(*uid, APPLICATION), (*uid, *uid)]);
        let groups = gids.iter().map(|gid| (APPLICATION, *gid));
        let owners: BTreeSet<(u32, u32)> = users
            .chain(groups)
            .chain([(APPLICATION, APPLICATION), (0, 0)])
            .collect();
        owners.into_iter().collect()
    }

    fn add_table(&mut self, table: &Table) {
        for set in &table.sets {
            self.add_elements(&set.elements);
        }
        for statement in table
            .chains
            .iter()
            .flat_map(|chain| &chain.rules)
            .flat_map(|rule| &rule.statements)
        {
            match statement {
                Statement::Match(Match::Planned(planned)) => self.add_planned(planned),
                Statement::Match(Match::Lookup(lookup)) => self.add_lookup(lookup),
                Statement::Action(Action::Map(keys, entries)) => {
                    for entry in entries {
                        for (key, span) in keys.iter().zip(&entry.spans) {
                            self.add(key.field, *span);
                        }
                    }
                }
                Statement::Match(Match::Unreadable(_)) | Statement::Action(_) => {}
            }
        }
    }

    fn add_lookup(&mut self, lookup: &Lookup) {
        for element in &lookup.elements {
            for (key, span) in lookup.keys.iter().zip(element) {
                let largest = key.field.largest();
                let unmasked = largest & !key.mask;
                self.add(key.field, (span.0, span.1 | unmasked));
            }
        }
    }

    /// The ends of a span, and the values beside it.
    fn add(&mut self, field: Field, (first, last): Span) {
        let largest = field.largest();
        let around = [
            first.saturating_sub(1),
            first,
            last.min(largest),
            last.saturating_add(1).min(largest),
        ];
        for value in around {
            match field {
                Field::DestinationPort => self.ports.extend(u16::try_from(value).ok().filter(|port| *port != 0)),
                Field::Uid => self.uids.extend(u32::try_from(value)),
                Field::Gid => self.gids.extend(u32::try_from(value)),
                Field::Mark | Field::ConntrackMark => self.marks.extend(u32::try_from(value)),
                Field::Source(family) | Field::Destination(family) => self.addresses.extend(usable(family, value)),
                _ => {}
            }
        }
    }

    fn add_elements(&mut self, elements: &Elements) {
        match elements {
            Elements::Ports(ports) => {
                for range in ports.iter() {
                    let span = (range.first().get().into(), range.last().get().into());
                    self.add(Field::DestinationPort, span);
                }
            }
            Elements::Uids(uids) => {
                for range in uids.iter() {
                    self.add(Field::Uid, (range.first().get().into(), range.last().get().into()));
                }
            }
            Elements::Gids(gids) => {
                for range in gids.iter() {
                    self.add(Field::Gid, (range.first().get().into(), range.last().get().into()));
                }
            }
            Elements::Ipv4(nets) => {
                for net in nets {
                    let span = (net.network().to_bits().into(), net.broadcast().to_bits().into());
                    self.add(Field::Destination(Family::V4), span);
                }
            }
            Elements::Ipv6(nets) => {
                for net in nets {
                    self.add(
                        Field::Destination(Family::V6),
                        (net.network().to_bits(), net.broadcast().to_bits()),
                    );
                }
            }
        }
    }

    fn add_planned(&mut self, planned: &ruleset::Match) {
        use ruleset::Match as Planned;
        match planned {
            Planned::Source(Addresses::Ip(ip)) | Planned::Destination(Addresses::Ip(ip)) => {
                let value = match ip {
                    IpAddr::V4(ip) => ip.to_bits().into(),
                    IpAddr::V6(ip) => ip.to_bits(),
                };
                self.add(Field::Destination(Family::of(*ip)), (value, value));
            }
            Planned::DestinationPort(_, PortMatch::Port(port)) => {
                self.add(Field::DestinationPort, (port.get().into(), port.get().into()));
            }
            Planned::Uid(UidMatch::Uid(uid)) => self.add(Field::Uid, (uid.get().into(), uid.get().into())),
            Planned::Gid(GidMatch::Gid(gid)) => self.add(Field::Gid, (gid.get().into(), gid.get().into())),
            Planned::Mark(mark) | Planned::MarkIsNot(mark) | Planned::ConntrackMark(mark) => {
                self.marks.insert(mark.get());
            }
            Planned::Source(Addresses::Set(..))
            | Planned::Destination(Addresses::Set(..))
            | Planned::DestinationPort(_, PortMatch::Set(_))
            | Planned::Uid(UidMatch::Set(_))
            | Planned::Gid(GidMatch::Set(_))
            | Planned::Cgroup(_)
            | Planned::Family(_)
            | Planned::Protocol(_)
            | Planned::InInterface(_)
            | Planned::OutInterface(_)
            | Planned::SourcePort(..)
            | Planned::ConntrackState(_)
            | Planned::Reply
            | Planned::DestinationTranslated
            | Planned::SourceIsLocal
            | Planned::NoReversePath
            | Planned::DestinationIsLocal
            | Planned::HasOwner
            | Planned::TcpNotSyn
            | Planned::Icmpv6Type(_) => {}
        }
    }
}

/// An address that packets have: of one host.
fn usable(family: Family, value: u128) -> Option<IpAddr> {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(value).ok()?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(value)),
    };
    let is_reserved = match address {
        IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 240,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    (!address.is_unspecified() && !address.is_multicast() && !is_reserved).then_some(address)
}
