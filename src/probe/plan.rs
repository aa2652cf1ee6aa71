//! The probes that test a configuration. A pure function.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Caller, Ends, Expected, Needs, Owner, Probe, Source, Subject, Surroundings, Transport, Trial, choice};
use crate::facts::{Facts, Ipv6};
use crate::mesh::{self, Delivery};
use crate::options::{Config, Dialect};
use crate::plan::{DNS_PORT, Lookups, captures_tcp, passthrough, uncaptured_lookups};
use crate::ruleset::Protocol;
use crate::types::{Families, Family, InboundMode, Number as _, Port, Ports, Uid};

/// The probes for a configuration. `families` are those that its plan redirects. Probes use `port` wherever it is
/// representative of other ports.
pub fn trial(config: &Config, facts: &Facts, families: Families, surroundings: &Surroundings, port: Port) -> Trial {
    let author = Author {
        config,
        facts,
        surroundings,
        port,
        captures_lookups: Lookups::new(config, facts).is_some(),
    };
    let is_usable = |family: Family| family == Family::V4 || facts.ipv6 == Ipv6::Usable;
    let is_ipv6_used = matches!(facts.ipv6, Ipv6::OffOnLoopback { used_elsewhere: true });
    let is_probed = |family| {
        let is_redirected = families.contains(family) && is_usable(family);
        is_redirected || author.is_locked() && (is_usable(family) || is_ipv6_used)
    };
    let ends: Vec<Ends> = Family::BOTH
        .into_iter()
        .filter(|family| is_probed(*family))
        .map(|family| Ends::choose(family, config, &surroundings.routes))
        .collect();
    let no_effect = uncaptured_lookups(config, facts, families);
    let probes = ends.iter().flat_map(|ends| {
        let is_redirected = families.contains(ends.family());
        let locked = author.locked(ends, is_redirected);
        if !is_redirected {
            return locked;
        }
        let mut probes = author.outbound(ends);
        probes.extend(author.lookups(ends));
        probes.extend(no_effect.map(|no_effect| author.uncaptured_lookup(ends, no_effect)));
        probes.extend(author.inbound(ends));
        probes.extend(author.invalid_packet(ends));
        probes.extend(author.within_pod(ends));
        let behind = author.behind_interfaces(ends, &probes);
        probes.extend(behind);
        probes.extend(locked);
        // These are the proxy's by its cgroup, which this process is not in.
        let needs_cgroup = |probe: &Probe| matches!(probe.subject, Subject::Exempt | Subject::SelfCall);
        probes.retain(|probe| config.processes.cgroup.is_none() || !needs_cgroup(probe));
        probes
    });
    let proxy = &config.proxy;
    let dns = author.captures_lookups.then_some(config.dns.port);
    let takes_unchanged = config.inbound.mode == InboundMode::Tproxy;
    let probes: Vec<Probe> = probes.collect();
    Trial {
        stand_ins: stand_ins(&probes, &ends),
        entries: author.entries(&probes, &ends),
        unused: Family::BOTH
            .into_iter()
            .filter(|family| !surroundings.addresses.iter().any(|address| family.is_of(*address)))
            .collect(),
        notes: [
            author.missing_interfaces(),
            author.not_forwarding(&ends),
            author.not_forwarded_to(&ends),
        ]
        .concat(),
        probes,
        proxy: author.proxy(|_| true, |_| true).unwrap_or(surroundings.caller),
        ports: [proxy.inbound_port, proxy.outbound_port]
            .into_iter()
            .chain(dns)
            .collect(),
        transparent: takes_unchanged.then_some(proxy.inbound_port),
        ends,
    }
}

/// The addresses of other hosts that probes need the link for, and that are at neither of its ends.
fn stand_ins(probes: &[Probe], ends: &[Ends]) -> Vec<IpAddr> {
    let needing = probes.iter().filter(|probe| probe.needs == Needs::Link);
    let mut addresses = Vec::new();
    for address in needing.filter_map(Probe::other_host) {
        if !addresses.contains(&address) && !ends.iter().any(|ends| ends.far == address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The input of the probes.
pub(super) struct Author<'a> {
    pub(super) config: &'a Config,
    pub(super) facts: &'a Facts,
    pub(super) surroundings: &'a Surroundings,
    pub(super) port: Port,
    pub(super) captures_lookups: bool,
}

/// A captured destination, and an owner whose connections to it are captured.
pub(super) struct Target {
    pub(super) address: IpAddr,
    pub(super) port: Port,
    pub(super) owner: Owner,
}

impl Author<'_> {
    /// Connections of local processes to other hosts.
    fn outbound(&self, ends: &Ends) -> Vec<Probe> {
        let Some(target) = self.target(ends) else {
            return Vec::new();
        };
        let outbound = &self.config.outbound;
        let destination = at(target.address, target.port);
        let to_proxy = Expected::Captured(self.config.proxy.outbound_port);
        let by_any_route = self.by_any_route();
        let captured = Probe {
            needs: by_any_route,
            ..self.connection(Subject::Outbound, target.owner, destination, to_proxy)
        };
        let untouched = |subject, owner| Probe {
            needs: Needs::Link,
            ..self.connection(subject, owner, destination, Expected::Untouched)
        };
        let half_closed = self.half_closed_outbound(&captured);
        let mut probes = vec![captured];
        probes.extend(half_closed);
        probes.extend(self.exempt(target.owner).map(|owner| untouched(Subject::Exempt, owner)));
        let impostor = self.impostor(Protocol::Tcp, target.port);
        probes.extend(impostor.map(|owner| Probe {
            needs: by_any_route,
            ..self.connection(Subject::Impostor, owner, destination, to_proxy)
        }));
        let proxy = &self.config.proxy;
        let user = self.one_of(self.surroundings.caller.uid, &outbound.exclude_uids, |uid| {
            !proxy.uids.contains(uid)
        });
        probes.extend(user.map(|uid| untouched(Subject::ExcludedUser, Owner { uid, ..target.owner })));
        let group = self.one_of(self.surroundings.caller.gid, &outbound.exclude_gids, |gid| {
            !proxy.gids.contains(gid)
        });
        probes.extend(group.map(|gid| untouched(Subject::ExcludedGroup, Owner { gid, ..target.owner })));
        let would_be_captured = |port| self.captures_address(target.address) || outbound.include_ports.contains(port);
        let port = choice::number(&[], &[&outbound.exclude_ports], |port| {
            outbound.exclude_ports.contains(port) && would_be_captured(port)
        });
        probes.extend(port.map(|port| Probe {
            destination: at(target.address, port),
            ..untouched(Subject::ExcludedOutboundPort, target.owner)
        }));
        probes.extend(self.addresses(ends, &target));
        probes.extend(self.ports_for_users(&target));
        probes.extend(self.interfaces(ends, &target));
        probes.dedup();
        probes
    }

    /// What a probe needs whose packets may take any route, unless some interfaces are excluded.
    pub(super) fn by_any_route(&self) -> Needs {
        match self.config.general.exclude_interfaces.as_slice() {
            [] => Needs::Route,
            _ => Needs::Link,
        }
    }

    /// An outbound connection that is captured: to the far end of the link if possible.
    fn target(&self, ends: &Ends) -> Option<Target> {
        let outbound = &self.config.outbound;
        let target = |address| {
            let (port, owner) = self.captured_port(address)?;
            Some(Target { address, port, owner })
        };
        target(ends.far).or_else(|| {
            let sets = [&outbound.include_cidrs, &outbound.exclude_cidrs];
            let address = choice::address(ends.family(), &sets, |address| {
                self.captures_address(address) && self.is_remote(ends, address)
            })?;
            target(address)
        })
    }

    /// A connection of a local process, by whatever route.
    pub(super) fn connection(
        &self,
        subject: Subject,
        owner: Owner,
        destination: SocketAddr,
        expected: Expected,
    ) -> Probe {
        Probe {
            subject,
            protocol: Transport::Tcp,
            caller: Caller::Process(owner),
            source: None,
            bound_to: None,
            destination,
            expected,
            needs: Needs::Route,
        }
    }

    pub(super) fn captured_port(&self, address: IpAddr) -> Option<(Port, Owner)> {
        let outbound = &self.config.outbound;
        let of_uids = outbound.exclude_ports_for_uids.iter().map(|entry| &entry.ports);
        let sets: Vec<&Ports> = [&outbound.include_ports, &outbound.exclude_ports]
            .into_iter()
            .chain(of_uids)
            .collect();
        let port = choice::number(&[self.port], &sets, |port| {
            let lookup = self.captures_lookups && port == DNS_PORT;
            captures_tcp(self.config, address, port) && !lookup && self.application(Protocol::Tcp, port).is_some()
        })?;
        Some((port, self.application(Protocol::Tcp, port)?))
    }

    /// Whether connections to this address are captured, ports and owners aside.
    pub(super) fn captures_address(&self, address: IpAddr) -> bool {
        let outbound = &self.config.outbound;
        outbound.include_cidrs.contains(address) && !outbound.exclude_cidrs.contains(address)
    }

    /// Connections from other hosts.
    fn inbound(&self, ends: &Ends) -> Vec<Probe> {
        let (inbound, mesh) = (&self.config.inbound, &self.config.proxy.mesh_ports);
        let probe = |subject, port, expected| Probe {
            subject,
            protocol: Transport::Tcp,
            caller: Caller::Neighbour,
            source: None,
            bound_to: None,
            destination: at(ends.near, port),
            expected,
            needs: Needs::Link,
        };
        let to_proxy = Expected::Captured(self.config.proxy.inbound_port);
        let captured = self.inbound_port(|_| true);
        let untouched = |subject, port| probe(subject, port, Expected::Untouched);
        let mut probes = Vec::new();
        if let Some(port) = captured {
            let captured = probe(Subject::Inbound, port, to_proxy);
            if !inbound.exclude_cidrs.contains(ends.far) {
                probes.extend(self.half_closed_inbound(&captured));
                probes.insert(0, captured);
            }
            let excluded = |address: IpAddr| Probe {
                source: (address != ends.far).then_some(Source { address, mark: None }),
                ..untouched(Subject::ExcludedInboundAddress, port)
            };
            probes.extend(self.excluded_clients(ends).into_iter().map(excluded));
        }
        if !inbound.include_ports.is_empty() && self.skips_mesh_ports() {
            let ports = mesh.iter().map(|range| range.first());
            probes.extend(ports.map(|port| untouched(Subject::MeshPort, port)));
        }
        let excluded = choice::number(&[], &[&inbound.exclude_ports, &inbound.include_ports, mesh], |port| {
            inbound.exclude_ports.contains(port) && inbound.include_ports.contains(port) && !mesh.contains(port)
        });
        probes.extend(excluded.map(|port| untouched(Subject::ExcludedInboundPort, port)));
        probes
    }

    /// Istio's TPROXY rules do not skip the mesh's ports.
    fn skips_mesh_ports(&self) -> bool {
        self.config.dialect == Dialect::Sidetrack || self.config.inbound.mode == InboundMode::Redirect
    }

    /// A port of the pod to which connections are captured.
    pub(super) fn inbound_port(&self, is_accepted: impl Fn(Port) -> bool) -> Option<Port> {
        let (inbound, proxy) = (&self.config.inbound, &self.config.proxy);
        let own = self.own_ports();
        let outbound = &self.config.outbound;
        let sets = [
            &inbound.include_ports,
            &inbound.exclude_ports,
            &proxy.mesh_ports,
            &outbound.exclude_ports,
            &own,
        ];
        choice::number(&[self.port], &sets, |port| {
            let left_alone = [&inbound.exclude_ports, &proxy.mesh_ports, &own];
            inbound.include_ports.contains(port)
                && !left_alone.iter().any(|ports| ports.contains(port))
                && is_accepted(port)
        })
    }

    /// The proxy's ports.
    pub(super) fn own_ports(&self) -> Ports {
        let proxy = &self.config.proxy;
        Ports::from_iter([proxy.inbound_port, proxy.outbound_port, self.config.dns.port])
    }

    /// The proxy's connections to the pod's own address: as a client, and to the application.
    fn within_pod(&self, ends: &Ends) -> Vec<Probe> {
        let captures_inbound = !self.config.inbound.include_ports.is_empty();
        if self.config.dialect == Dialect::Sidetrack && !captures_inbound {
            return Vec::new();
        }
        if mesh::delivery(self.config.proxy.mesh) != Delivery::FromPassthrough {
            return self.unbound_delivery(ends).into_iter().collect();
        }
        let call = self.self_call(ends);
        let port = call.as_ref().map_or(self.port, |call| {
            Port::new(call.destination.port()).unwrap_or(self.port)
        });
        call.into_iter().chain(self.delivery(ends, port)).collect()
    }

    /// A connection of the proxy to the application, without the passthrough address.
    fn unbound_delivery(&self, ends: &Ends) -> Option<Probe> {
        let (address, source, needs) = self.own_address(ends);
        let port = self.inbound_port(|_| true)?;
        Some(Probe {
            subject: Subject::Passthrough,
            protocol: Transport::Tcp,
            caller: Caller::Process(self.proxy(|_| true, |_| true)?),
            source: source.map(|address| Source { address, mark: None }),
            bound_to: None,
            destination: at(address, port),
            expected: Expected::Untouched,
            needs,
        })
    }

    fn self_call(&self, ends: &Ends) -> Option<Probe> {
        let (config, outbound) = (self.config, &self.config.outbound);
        let (address, source, needs) = self.own_address(ends);
        let by_loopback = config
            .general
            .exclude_interfaces
            .iter()
            .any(|name| name.as_str() == "lo");
        let from = source.unwrap_or(address);
        let kuma_leaves_alone = matches!(config.dialect, Dialect::Kuma(_))
            && (!config.captures_outbound() || outbound.exclude_cidrs.contains(address));
        let is_excluded = config.dialect == Dialect::Sidetrack && config.inbound.exclude_cidrs.contains(from);
        if by_loopback || is_excluded || kuma_leaves_alone {
            return None;
        }
        let owner = |port| {
            self.proxy(
                |uid| !outbound.exclude_uids.contains(uid) && !self.is_excluded_for(uid, Protocol::Tcp, port),
                |gid| config.dialect != Dialect::Sidetrack || !outbound.exclude_gids.contains(gid),
            )
        };
        let is_accepted = |port| port != DNS_PORT && !outbound.exclude_ports.contains(port) && owner(port).is_some();
        let port = match config.dialect {
            Dialect::Sidetrack => self.inbound_port(is_accepted),
            // The rules of Istio and Kuma capture these regardless of inbound options.
            Dialect::Istio(_) | Dialect::Kuma(_) => {
                let mesh = &config.proxy.mesh_ports;
                choice::number(&[self.port], &[mesh, &outbound.exclude_ports], |port| {
                    is_accepted(port) && !mesh.contains(port)
                })
            }
        }?;
        Some(Probe {
            subject: Subject::SelfCall,
            protocol: Transport::Tcp,
            caller: Caller::Process(owner(port)?),
            source: source.map(|address| Source { address, mark: None }),
            bound_to: None,
            destination: at(address, port),
            expected: Expected::Captured(config.proxy.inbound_port),
            needs,
        })
    }

    fn delivery(&self, ends: &Ends, port: Port) -> Option<Probe> {
        let owner = self.proxy(|_| true, |_| true)?;
        let probe = |owner, source, destination, needs| Probe {
            subject: Subject::Passthrough,
            protocol: Transport::Tcp,
            caller: Caller::Process(owner),
            source: Some(source),
            bound_to: None,
            destination: at(destination, port),
            expected: Expected::Untouched,
            needs,
        };
        match self.config.inbound.mode {
            InboundMode::Redirect => {
                let (address, _, needs) = self.own_address(ends);
                let source = Source {
                    address: passthrough(ends.family()),
                    mark: None,
                };
                Some(probe(owner, source, address, needs))
            }
            // TPROXY intercepts nothing, so there is nothing to deliver.
            InboundMode::Tproxy if self.config.inbound.include_ports.is_empty() => None,
            // The client's address is the source; the mark identifies the proxy.
            InboundMode::Tproxy => {
                let source = Source {
                    address: ends.far,
                    mark: Some(self.config.inbound.tproxy_mark),
                };
                let owner = match self.config.dialect {
                    Dialect::Sidetrack | Dialect::Kuma(_) => owner,
                    // With Istio's rules the proxy must run as another user for that.
                    Dialect::Istio(_) => {
                        let uids = &self.config.proxy.uids;
                        let uid = choice::number(&[Uid::MIN], &[uids], |uid| !uids.contains(uid))?;
                        Owner { uid, ..owner }
                    }
                };
                Some(probe(owner, source, ends.near, Needs::Link))
            }
        }
    }

    /// An address of the pod that the rules do not treat as loopback; the source of connections to it, if they must not
    /// look like the proxy's own; and what the probe needs.
    fn own_address(&self, ends: &Ends) -> (IpAddr, Option<IpAddr>, Needs) {
        let family = ends.family();
        let mut addresses = self.surroundings.addresses.iter();
        if let Some(address) = addresses.find(|address| family.is_of(**address)) {
            return (*address, None, Needs::Route);
        }
        let is_loopback = |address| match address {
            IpAddr::V4(address) => self.config.general.loopback_cidr.net().contains(&address),
            IpAddr::V6(address) => address.is_loopback(),
        };
        let (address, loopback): (_, IpAddr) = match family {
            Family::V4 => (passthrough(family), Ipv4Addr::LOCALHOST.into()),
            Family::V6 => (passthrough(family), Ipv6Addr::LOCALHOST.into()),
        };
        if is_loopback(address) {
            (ends.near, None, Needs::Link)
        } else {
            (address, Some(loopback), Needs::Route)
        }
    }
}

pub(super) fn at(address: IpAddr, port: Port) -> SocketAddr {
    SocketAddr::new(address, port.get())
}
