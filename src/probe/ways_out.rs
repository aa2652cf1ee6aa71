//! Probes of the outbound policy by each way out of the pod: sockets bound to an interface, and what processes behind
//! rerouted interfaces send, which is forwarded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::plan::{Author, at};
use super::{Caller, Ends, Expected, Needs, Probe, Source, Subject, Transport, choice};
use crate::ruleset::Protocol;
use crate::types::{Cidrs, Family, InterfaceName};

/// The number of interfaces that get probes: of those that sockets are bound to, and of those that packets arrive on.
pub const MAX_PROBED_INTERFACES: usize = 8;

/// The number of addresses behind an interface that are sources of probes: of a captured connection, and one for each
/// protocol that the lock rejects.
pub(super) const PROBED_SOURCES: usize = 4;

impl Author<'_> {
    /// What sockets send that are bound to an interface (SO_BINDTODEVICE), by each that is not excluded.
    pub(super) fn locked_bound(&self, ends: &Ends, is_redirected: bool) -> Vec<Probe> {
        let Some(owner) = self.sender(Protocol::Udp, self.port, |_| true) else {
            return Vec::new();
        };
        let excluded = &self.config.general.exclude_interfaces;
        let interfaces = self.surroundings.interfaces.iter();
        let by_interface = |(name, networks): &(InterfaceName, Vec<IpNet>)| {
            let address = self.locked_address_by(ends, networks)?;
            let sent = |subject, protocol, port: u16| Probe {
                protocol,
                bound_to: Some(name.clone()),
                ..self.connection(subject, owner, (address, port).into(), Expected::Rejected)
            };
            let mut probes = vec![
                sent(Subject::LockedUdp, Transport::Udp, self.port.get()),
                sent(Subject::LockedIcmp, Transport::Icmp, 0),
            ];
            probes.extend(self.locked_bound_tcp(name, address, is_redirected));
            Some(probes)
        };
        interfaces
            .filter(|(name, networks)| {
                !excluded.contains(name) && networks.iter().any(|net| ends.family().is_of(net.addr()))
            })
            .take(MAX_PROBED_INTERFACES)
            .filter_map(by_interface)
            .flatten()
            .collect()
    }

    /// A connection by an interface. No reset reaches a bound socket over loopback, so it is not refused at once; captured
    /// ones are dropped, too, unless `--bound-interfaces` names the interface. That one can leave, the proxy's shows.
    fn locked_bound_tcp(&self, name: &InterfaceName, address: IpAddr, is_redirected: bool) -> Option<Probe> {
        // The proxy's are those of a cgroup that this process is not in.
        self.config.processes.cgroup.is_none().then_some(())?;
        let reaches_proxy = self.config.general.bound_interfaces.contains(name);
        let sender = |port| self.sender(Protocol::Tcp, port, |_| true);
        let port = self.locked_port(|port| {
            !(reaches_proxy && self.captures(address, port, is_redirected)) && sender(port).is_some()
        })?;
        Some(Probe {
            bound_to: Some(name.clone()),
            ..self.connection(Subject::LockedTcp, sender(port)?, at(address, port), Expected::Dropped)
        })
    }

    /// An address that the interface with these networks leads to, and that no host is known to have. IPv4 takes any
    /// address as one on the link of the interface if it has no route; IPv6 does not.
    fn locked_address_by(&self, ends: &Ends, networks: &[IpNet]) -> Option<IpAddr> {
        let is_locked = |address| !self.config.outbound.exclude_cidrs.contains(address);
        match ends.family() {
            Family::V4 => Some(ends.far).filter(|far| is_locked(*far)),
            Family::V6 => {
                let networks: Cidrs = networks.iter().copied().collect();
                choice::address(Family::V6, &[&networks], |address| {
                    networks.contains(address) && is_locked(address) && self.is_remote(ends, address)
                })
            }
        }
    }

    /// Packets from behind rerouted interfaces to the host outside, which the pod must not forward.
    pub(super) fn locked_forwarded(&self, ends: &Ends, is_redirected: bool) -> Vec<Probe> {
        let outbound = &self.config.outbound;
        // Each has a destination of its own: where its packets go, the kernel looks for that neighbour.
        let mut destinations = ends
            .others()
            .skip(MAX_PROBED_INTERFACES)
            .filter(|address| !outbound.exclude_cidrs.contains(*address));
        let mut probes = Vec::new();
        for name in self.rerouted(ends).filter(|name| self.forwards(name, ends.family())) {
            // The first one is that of the captured connection.
            let mut sources = self.addresses_behind(name, ends).take(PROBED_SOURCES).skip(1);
            let mut forwarded = |subject, protocol, port: &dyn Fn(IpAddr) -> Option<u16>| {
                let (address, destination) = (sources.next()?, destinations.next()?);
                Some(Probe {
                    subject,
                    protocol,
                    caller: Caller::Behind,
                    source: Some(Source { address, mark: None }),
                    bound_to: Some(name.clone()),
                    destination: (destination, port(destination)?).into(),
                    expected: Expected::Rejected,
                    needs: Needs::Link,
                })
            };
            probes.extend(forwarded(Subject::LockedUdp, Transport::Udp, &|_| {
                Some(self.port.get())
            }));
            probes.extend(forwarded(Subject::LockedIcmp, Transport::Icmp, &|_| Some(0)));
            probes.extend(forwarded(Subject::LockedTcp, Transport::Tcp, &|to| {
                let port = self.locked_port(|port| !self.captures(to, port, is_redirected))?;
                Some(port.get())
            }));
        }
        probes
    }

    /// The rerouted interfaces that use the family.
    pub(super) fn rerouted<'a>(&'a self, ends: &'a Ends) -> impl Iterator<Item = &'a InterfaceName> {
        let names = self.config.general.reroute_interfaces.iter();
        names.filter(|name| self.has(name, ends)).take(MAX_PROBED_INTERFACES)
    }

    /// Whether the pod forwards what arrives on an interface, and asks there for the neighbour that an answer goes to.
    fn forwards(&self, name: &InterfaceName, family: Family) -> bool {
        let mut forwarding = self.surroundings.forwarding.iter();
        forwarding.any(|(other, of)| (other, *of) == (name, family))
    }

    /// Addresses behind an interface that no host is known to have: the last ones of its networks. A lock drops what comes
    /// from elsewhere.
    pub(super) fn addresses_behind(&self, name: &InterfaceName, ends: &Ends) -> impl Iterator<Item = IpAddr> {
        let mut interfaces = self.surroundings.interfaces.iter();
        let networks = interfaces.find(|(other, _)| other == name);
        let networks = networks.into_iter().flat_map(|(_, networks)| networks);
        let networks = networks.filter(|net| ends.family().is_of(net.addr()));
        let last_ones = networks.flat_map(|net| {
            let before_last = (1..=u8::MAX).map_while(|distance| match net.broadcast() {
                IpAddr::V4(last) => Some(Ipv4Addr::from(u32::from(last).checked_sub(distance.into())?).into()),
                IpAddr::V6(last) => Some(Ipv6Addr::from(u128::from(last).checked_sub(distance.into())?).into()),
            });
            before_last.take_while(|address: &IpAddr| net.contains(address) && *address != net.network())
        });
        last_ones.filter(|address| self.is_remote(ends, *address))
    }

    /// Notes on rerouted interfaces whose packets leave by no way.
    pub(super) fn not_forwarding(&self, all: &[Ends]) -> Vec<String> {
        if !self.locks_outbound() {
            return Vec::new();
        }
        let note = |ends: &Ends, name: &InterfaceName| {
            format!(
                "what is sent over {} from behind {name} is not probed: the pod does not forward it, so it does not leave",
                ends.family()
            )
        };
        all.iter()
            .flat_map(|ends| {
                let rerouted = self.rerouted(ends);
                rerouted
                    .filter(|name| !self.forwards(name, ends.family()))
                    .map(|name| note(ends, name))
            })
            .collect()
    }
}
