//! Probes of name lookups.

use std::net::IpAddr;

use super::plan::{Author, at};
use super::{Caller, Ends, Expected, Needs, Probe, Subject, Transport};
use crate::mesh;
use crate::options::Dialect;
use crate::plan::{DNS_PORT, Lookups, NoEffect};
use crate::ruleset::Protocol;
use crate::types::DnsServers;

impl Author<'_> {
    /// The application's name lookups; and the proxy's, if they use the link.
    pub(super) fn lookups(&self, ends: &Ends) -> Vec<Probe> {
        let Some(lookups) = Lookups::new(self.config, self.facts) else {
            return Vec::new();
        };
        let from_all_senders = matches!(lookups, Lookups::FromAllSenders(_));
        if !from_all_senders && self.config.outbound.exclude_ports.contains(DNS_PORT) {
            return Vec::new();
        }
        let servers: &[IpAddr] = match &self.config.dns.servers {
            DnsServers::All => &[ends.far],
            DnsServers::These(servers) => servers,
            DnsServers::ResolvConf => &self.facts.resolvers,
        };
        let of_family = |server: &&IpAddr| ends.family().is_of(**server) && !is_link_local(**server);
        let Some(server) = servers.iter().find(of_family) else {
            return Vec::new();
        };
        let by_link = *server == ends.far;
        let is_in_pod = server.is_loopback() || !self.is_remote(ends, *server);
        let needs = match self.config.general.exclude_interfaces.as_slice() {
            [] => Needs::Route,
            _ if is_in_pod => Needs::Route,
            _ => Needs::Link,
        };
        let is_kuma = matches!(self.config.dialect, Dialect::Kuma(_));
        if is_kuma && self.config.outbound.exclude_cidrs.contains(*server) {
            return Vec::new();
        }
        // Lookups over TCP are captured only if the proxy answers them.
        let takes_tcp = mesh::answers_dns_over_tcp(self.config.proxy.mesh);
        let protocols = [Some(Protocol::Udp), takes_tcp.then_some(Protocol::Tcp)];
        let mut probes = Vec::new();
        for protocol in protocols.into_iter().flatten() {
            let Some(owner) = self.application(protocol, DNS_PORT) else {
                continue;
            };
            let lookup = Probe {
                subject: Subject::Lookup,
                protocol: protocol.into(),
                caller: Caller::Process(owner),
                source: None,
                bound_to: None,
                destination: at(*server, DNS_PORT),
                expected: Expected::Captured(self.config.dns.port),
                needs,
            };
            let exempt = self.exempt(owner).map(|owner| Probe {
                subject: Subject::Exempt,
                caller: Caller::Process(owner),
                expected: Expected::Untouched,
                needs: Needs::Link,
                ..lookup.clone()
            });
            let exempt: Vec<Probe> = if by_link { exempt.collect() } else { Vec::new() };
            let excluded = if from_all_senders || is_in_pod {
                Vec::new()
            } else {
                self.queries_of_excluded_users(&lookup, protocol, owner)
            };
            probes.push(lookup);
            probes.extend(exempt);
            probes.extend(excluded);
        }
        probes
    }

    /// A placeholder for lookups that should be captured where none is: it cannot run.
    pub(super) fn uncaptured_lookup(&self, ends: &Ends, no_effect: NoEffect) -> Probe {
        Probe {
            subject: Subject::Lookup,
            protocol: Transport::Udp,
            caller: Caller::Process(self.surroundings.caller),
            source: None,
            bound_to: None,
            destination: at(ends.far, DNS_PORT),
            expected: Expected::Captured(self.config.dns.port),
            needs: Needs::Impossible(no_effect.reason()),
        }
    }
}

/// Whether packets to the address need an interface beside it.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
