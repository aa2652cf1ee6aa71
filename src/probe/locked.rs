//! Probes of the policies: what neither passes the proxy nor is excluded is rejected, in each family.

use std::net::IpAddr;

use super::lookups::is_link_local;
use super::plan::{Author, at};
use super::{Caller, Ends, Expected, Needs, Owner, Probe, Source, Subject, Transport, choice};
use crate::options::Dialect;
use crate::plan::{DNS_PORT, Lookups, captures_query, captures_tcp, name_servers};
use crate::ruleset::Protocol;
use crate::types::{Cidrs, Policy, Port, Ports};

/// The port of QUIC, and so of HTTP/3.
const QUIC_PORT: Port = match Port::new(443) {
    Some(port) => port,
    None => unreachable!(),
};

impl Author<'_> {
    /// Whether the rules reject anything.
    pub(super) fn is_locked(&self) -> bool {
        self.locks_outbound() || self.locks_inbound()
    }

    /// Whether they reject what leaves.
    pub(super) fn locks_outbound(&self) -> bool {
        self.config.dialect == Dialect::Sidetrack && self.config.outbound.policy == Policy::ProxyOnly
    }

    /// Whether they reject what arrives.
    pub(super) fn locks_inbound(&self) -> bool {
        self.config.dialect == Dialect::Sidetrack && self.config.inbound.policy == Policy::ProxyOnly
    }

    /// What the policies reject, and the DNS queries that they leave.
    pub(super) fn locked(&self, ends: &Ends, is_redirected: bool) -> Vec<Probe> {
        let mut probes = Vec::new();
        if self.locks_outbound() {
            probes.extend(self.locked_outbound(ends, is_redirected));
            probes.extend(self.locked_bound(ends, is_redirected));
            probes.extend(self.locked_forwarded(ends, is_redirected));
            probes.extend(self.allowed_query(ends, is_redirected));
        }
        if self.locks_inbound() {
            probes.extend(self.locked_inbound(ends, is_redirected));
            probes.extend(self.locked_behind(ends, is_redirected));
        }
        probes
    }

    fn locked_outbound(&self, ends: &Ends, is_redirected: bool) -> Vec<Probe> {
        let mut probes: Vec<Probe> = self.locked_tcp(ends, is_redirected).into_iter().collect();
        let Some(address) = self.locked_address(ends, |_| true) else {
            return probes;
        };
        let needs = match address == ends.far {
            true => self.by_any_route(),
            false => Needs::Link,
        };
        let sent = |subject, protocol, owner, port: Option<Port>| Probe {
            protocol,
            needs,
            ..self.connection(
                subject,
                owner,
                (address, port.map_or(0, Port::get)).into(),
                Expected::Rejected,
            )
        };
        let datagram = |subject, owner, port| sent(subject, Transport::Udp, owner, Some(port));
        let sender = |port| self.sender(Protocol::Udp, port, |_| true);
        for (subject, port) in [(Subject::LockedUdp, self.port), (Subject::LockedQuic, QUIC_PORT)] {
            probes.extend(sender(port).map(|owner| datagram(subject, owner, port)));
        }
        let impostor = self.impostor(Protocol::Udp, self.port);
        probes.extend(impostor.map(|owner| datagram(Subject::LockedUdp, owner, self.port)));
        let querying = match self.captures_query(address, is_redirected) {
            true => self.outsider(Protocol::Udp, DNS_PORT),
            false => sender(DNS_PORT),
        };
        let querying = querying.filter(|_| !self.allowed_servers().is_some_and(|all| all.contains(address)));
        probes.extend(querying.map(|owner| datagram(Subject::LockedDns, owner, DNS_PORT)));
        probes.extend(sender(self.port).map(|owner| sent(Subject::LockedIcmp, Transport::Icmp, owner, None)));
        probes
    }

    /// A TCP connection that is neither captured nor excluded. Only the link shows that nobody answered it.
    fn locked_tcp(&self, ends: &Ends, is_redirected: bool) -> Option<Probe> {
        let uncaptured = self.locked_address(ends, |address| {
            !is_redirected || !self.config.outbound.include_cidrs.contains(address)
        });
        let of_address = uncaptured.and_then(|address| {
            let sender = |port| self.sender(Protocol::Tcp, port, |_| true);
            let port =
                self.locked_port(|port| !self.captures(address, port, is_redirected) && sender(port).is_some())?;
            Some((address, port, sender(port)?))
        });
        let (address, port, owner) = of_address.or_else(|| {
            let address = self.locked_address(ends, |_| true)?;
            let outsider = |port| self.outsider(Protocol::Tcp, port);
            let port = self.locked_port(|port| outsider(port).is_some())?;
            Some((address, port, outsider(port)?))
        })?;
        Some(Probe {
            needs: Needs::Link,
            ..self.connection(Subject::LockedTcp, owner, at(address, port), Expected::Rejected)
        })
    }

    /// A TCP port that is not excluded. That of name servers has a lock of its own.
    pub(super) fn locked_port(&self, is_accepted: impl Fn(Port) -> bool) -> Option<Port> {
        let outbound = &self.config.outbound;
        let of_name_servers = Ports::from_iter([DNS_PORT]);
        let of_uids = outbound.exclude_ports_for_uids.iter().map(|entry| &entry.ports);
        let sets: Vec<&Ports> = [&outbound.include_ports, &outbound.exclude_ports, &of_name_servers]
            .into_iter()
            .chain(of_uids)
            .collect();
        choice::number(&[self.port], &sets, |port| {
            port != DNS_PORT && !outbound.exclude_ports.contains(port) && is_accepted(port)
        })
    }

    /// Whether TCP to this port of another host is captured, if its sender is of an included group.
    pub(super) fn captures(&self, host: IpAddr, port: Port, is_redirected: bool) -> bool {
        is_redirected && captures_tcp(self.config, host, port)
    }

    /// An address of another host that is not excluded: the far end of the link if possible.
    fn locked_address(&self, ends: &Ends, is_accepted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let outbound = &self.config.outbound;
        let will_do = |address: IpAddr| !outbound.exclude_cidrs.contains(address) && is_accepted(address);
        if will_do(ends.far) {
            return Some(ends.far);
        }
        let sets = [&outbound.include_cidrs, &outbound.exclude_cidrs];
        choice::address(ends.family(), &sets, |address| {
            will_do(address) && self.is_remote(ends, address)
        })
    }

    /// An owner of none of the included groups, if these are not all.
    fn outsider(&self, protocol: Protocol, port: Port) -> Option<Owner> {
        let included = &self.config.outbound.include_gids;
        self.sender(protocol, port, |gid| !included.contains(gid))
    }

    fn captures_query(&self, server: IpAddr, is_redirected: bool) -> bool {
        let lookups = Lookups::new(self.config, self.facts);
        is_redirected && captures_query(self.config, lookups.as_ref(), Protocol::Udp, server)
    }

    /// The name servers to which DNS queries are allowed.
    fn allowed_servers(&self) -> Option<Cidrs> {
        let is_allowed = self.config.outbound.allow_dns;
        is_allowed.then(|| name_servers(self.config, &self.facts.resolvers))
    }

    /// A query to one of the pod's name servers, if it is allowed and not captured.
    fn allowed_query(&self, ends: &Ends, is_redirected: bool) -> Option<Probe> {
        let servers = self.allowed_servers()?;
        let outbound = &self.config.outbound;
        let server = choice::address(ends.family(), &[&servers], |address| {
            servers.contains(address)
                && !is_link_local(address)
                && self.is_remote(ends, address)
                && !outbound.exclude_cidrs.contains(address)
                && !self.captures_query(address, is_redirected)
        })?;
        let owner = self.sender(Protocol::Udp, DNS_PORT, |_| true)?;
        Some(Probe {
            protocol: Transport::Udp,
            needs: Needs::Link,
            ..self.connection(Subject::AllowedDns, owner, at(server, DNS_PORT), Expected::Untouched)
        })
    }

    /// What arrives and is neither captured nor excluded.
    fn locked_inbound(&self, ends: &Ends, is_redirected: bool) -> Vec<Probe> {
        let inbound = &self.config.inbound;
        let is_held = |address| !inbound.exclude_cidrs.contains(address);
        let other = || {
            choice::address(ends.family(), &[&inbound.exclude_cidrs], |address| {
                is_held(address) && self.is_remote(ends, address)
            })
        };
        let Some(client) = Some(ends.far).filter(|far| is_held(*far)).or_else(other) else {
            return Vec::new();
        };
        let probe = |subject, protocol, port: Option<Port>| Probe {
            subject,
            protocol,
            caller: Caller::Neighbour,
            source: (client != ends.far).then_some(Source {
                address: client,
                mark: None,
            }),
            bound_to: None,
            destination: (ends.near, port.map_or(0, Port::get)).into(),
            expected: Expected::Rejected,
            needs: Needs::Link,
        };
        let mut probes: Vec<Probe> = self
            .locked_inbound_port(is_redirected)
            .map(|port| probe(Subject::LockedInboundTcp, Transport::Tcp, Some(port)))
            .into_iter()
            .collect();
        probes.push(probe(Subject::LockedInboundUdp, Transport::Udp, Some(self.port)));
        probes.push(probe(Subject::LockedInboundIcmp, Transport::Icmp, None));
        probes
    }

    /// A TCP port to which connections from other hosts are neither captured nor excluded.
    pub(super) fn locked_inbound_port(&self, is_redirected: bool) -> Option<Port> {
        let (inbound, mesh) = (&self.config.inbound, &self.config.proxy.mesh_ports);
        let own = self.own_ports();
        let sets = [&inbound.include_ports, &inbound.exclude_ports, mesh, &own];
        choice::number(&[self.port], &sets, |port| {
            let is_captured = is_redirected && inbound.include_ports.contains(port);
            let left_alone = [&inbound.exclude_ports, mesh, &own];
            !is_captured && !left_alone.iter().any(|ports| ports.contains(port))
        })
    }
}
