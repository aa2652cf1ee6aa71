//! Connections that arrive on an interface which options name: a kernel filter on the link lets packets of the host outside
//! arrive there.

use std::net::IpAddr;

use super::plan::{Author, at};
use super::ways_out::MAX_PROBED_INTERFACES;
use super::{Caller, Ends, Expected, Needs, Probe, Source, Subject, Transport, choice};
use crate::options::Dialect;
use crate::types::{InterfaceName, Port};

/// An interface on which packets of the host outside arrive, if they have a certain source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The interface.
    pub interface: InterfaceName,
    /// The source.
    pub source: IpAddr,
    /// A destination outside of the pod that the host reaches by the pod, if the probe has one.
    pub remote: Option<IpAddr>,
    /// Whether the pod has a route to that destination by the link, so that it would forward packets there.
    pub is_forwarded: bool,
    /// Whether answers to the source come back by the link. A lock drops what comes from an interface that does not lead to
    /// its source, so the answers go by the interface.
    pub is_answered: bool,
    /// The addresses of the interface in the family of the source: the kernel redirects to the first of them.
    pub own: Vec<IpAddr>,
}

impl Author<'_> {
    /// Connections from behind rerouted interfaces, which are outbound, and those that arrive on excluded ones.
    /// The host outside has the addresses of the other probes itself, so that its packets do not go elsewhere.
    pub(super) fn behind_interfaces(&self, ends: &Ends, others: &[Probe]) -> Vec<Probe> {
        let general = &self.config.general;
        let is_rerouted = |name: &InterfaceName| general.reroute_interfaces.contains(name);
        let rerouted = match self.config.dialect {
            Dialect::Sidetrack | Dialect::Istio(_) => general.reroute_interfaces.as_slice(),
            // Its rules take virtual networks.
            Dialect::Kuma(_) => &[],
        };
        let excluded = general.exclude_interfaces.iter().filter(|name| !is_rerouted(name));
        let names = rerouted.iter().chain(excluded).filter(|name| self.has(name, ends));
        let sources = ends.others();
        let probe = |(name, source): (&InterfaceName, IpAddr)| {
            let source = match is_rerouted(name) && self.locks_outbound() {
                true => self.addresses_behind(name, ends).next()?,
                false => source,
            };
            let (subject, destination, expected) = match is_rerouted(name) {
                true => {
                    let (address, port) = self.outbound_target(ends, others)?;
                    let to_proxy = Expected::Captured(self.config.proxy.outbound_port);
                    (Subject::Rerouted, at(address, port), to_proxy)
                }
                false => {
                    let is_excluded_anyway = self.config.inbound.exclude_cidrs.contains(source);
                    let port = self.inbound_port(|_| true).filter(|_| !is_excluded_anyway)?;
                    let destination = at(ends.near, port);
                    (Subject::ExcludedInboundInterface, destination, Expected::Untouched)
                }
            };
            Some(Probe {
                subject,
                protocol: Transport::Tcp,
                caller: Caller::Behind,
                source: Some(Source {
                    address: source,
                    mark: None,
                }),
                bound_to: Some(name.clone()),
                destination,
                expected,
                needs: Needs::Link,
            })
        };
        names
            .zip(sources)
            .take(MAX_PROBED_INTERFACES)
            .filter_map(probe)
            .collect()
    }

    /// Whether the pod has this interface, with an address of the family: without one, the family is not used there.
    pub(super) fn has(&self, name: &InterfaceName, ends: &Ends) -> bool {
        !self.addresses_of(name, ends).is_empty()
    }

    fn addresses_of(&self, name: &InterfaceName, ends: &Ends) -> Vec<IpAddr> {
        let mut interfaces = self.surroundings.interfaces.iter();
        let networks = interfaces
            .find(|(other, _)| other == name)
            .map(|(_, networks)| networks);
        let addresses = networks.into_iter().flatten().map(ipnet::IpNet::addr);
        addresses.filter(|address| ends.family().is_of(*address)).collect()
    }

    /// A captured destination outside of the pod, whatever the owner of the connection, and not the host outside.
    fn outbound_target(&self, ends: &Ends, others: &[Probe]) -> Option<(IpAddr, Port)> {
        let is_captured = |address| {
            self.captures_address(address)
                && self.is_remote(ends, address)
                && !ends.belongs_to_link(address)
                && !others.iter().any(|probe| probe.other_host() == Some(address))
        };
        let outbound = &self.config.outbound;
        let sets = [&outbound.include_cidrs, &outbound.exclude_cidrs];
        let unused = ends.unused().into_iter().find(|address| is_captured(*address));
        let address = unused.or_else(|| choice::address(ends.family(), &sets, is_captured))?;
        let (port, _) = self.captured_port(address)?;
        Some((address, port))
    }

    /// The entries that these probes need.
    pub(super) fn entries(&self, probes: &[Probe], all: &[Ends]) -> Vec<Entry> {
        let entry = |probe: &Probe| {
            let ends = all.iter().find(|ends| ends.family() == probe.family())?;
            let interface = probe.bound_to.clone()?;
            Some(Entry {
                source: probe.source?.address,
                remote: (!probe.subject.calls_pod()).then_some(probe.destination.ip()),
                is_forwarded: probe.expected == Expected::Rejected,
                is_answered: probe.subject.calls_pod() || !self.locks_outbound(),
                own: self.addresses_of(&interface, ends),
                interface,
            })
        };
        let behind = probes.iter().filter(|probe| probe.caller == Caller::Behind);
        behind.filter_map(entry).collect()
    }

    /// Notes on interfaces that options name, and that the pod does not have.
    pub(super) fn missing_interfaces(&self) -> Vec<String> {
        let general = &self.config.general;
        let named = general.reroute_interfaces.iter().chain(&general.exclude_interfaces);
        let known = &self.surroundings.interfaces;
        let is_missing = |name: &&InterfaceName| {
            **name != InterfaceName::loopback() && !known.iter().any(|(other, _)| other == *name)
        };
        let note = |name: &InterfaceName| {
            format!("the interface {name} is not probed: the pod does not have it, or it is down")
        };
        let mut notes: Vec<String> = named.filter(is_missing).map(note).collect();
        notes.dedup();
        notes
    }
}
