//! Probes of the inbound policy behind the pod: what other hosts send to processes behind rerouted interfaces, which is
//! forwarded.

use std::net::IpAddr;

use super::plan::Author;
use super::ways_out::{MAX_PROBED_INTERFACES, PROBED_SOURCES};
use super::{Caller, Ends, Expected, Needs, Probe, Source, Subject, Transport};
use crate::types::InterfaceName;

impl Probe {
    /// The interface that the destination of a neighbour is behind, and its address there: the pod would forward packets.
    pub fn destination_behind(&self) -> Option<(&InterfaceName, IpAddr)> {
        let interface = self.bound_to.as_ref().filter(|_| self.caller == Caller::Neighbour)?;
        Some((interface, self.destination.ip()))
    }
}

impl Author<'_> {
    /// Packets of the host outside to addresses behind rerouted interfaces, which the pod must not forward. Each has a source
    /// of its own: the kernel limits the errors that it sends to an address.
    pub(super) fn locked_behind(&self, ends: &Ends, is_redirected: bool) -> Vec<Probe> {
        if !self.forwards_from_link(ends) {
            return Vec::new();
        }
        let excluded = &self.config.inbound.exclude_cidrs;
        // The others are those of packets that arrive on other interfaces, or go from there to other hosts.
        let mut sources = ends
            .others()
            .skip(MAX_PROBED_INTERFACES * PROBED_SOURCES)
            .filter(|address| !excluded.contains(*address));
        let tcp = self.locked_inbound_port(is_redirected);
        let kinds = [
            tcp.map(|port| (Subject::LockedInboundTcp, Transport::Tcp, port.get())),
            Some((Subject::LockedInboundUdp, Transport::Udp, self.port.get())),
            Some((Subject::LockedInboundIcmp, Transport::Icmp, 0)),
        ];
        let mut probes = Vec::new();
        for name in self.rerouted(ends) {
            // Where a packet goes, the kernel looks for that neighbour.
            let destinations = self.addresses_behind(name, ends).skip(PROBED_SOURCES);
            let kinds = kinds.into_iter().flatten();
            probes.extend(kinds.zip(destinations.zip(sources.by_ref())).map(
                |((subject, protocol, port), (destination, address))| Probe {
                    subject,
                    protocol,
                    caller: Caller::Neighbour,
                    source: Some(Source { address, mark: None }),
                    bound_to: Some(name.clone()),
                    destination: (destination, port).into(),
                    expected: Expected::Rejected,
                    needs: Needs::Link,
                },
            ));
        }
        probes
    }

    /// Whether the pod forwards what arrives on the link.
    fn forwards_from_link(&self, ends: &Ends) -> bool {
        self.surroundings.forwarding_links.contains(&ends.family())
    }

    /// Notes on rerouted interfaces to which packets get by no way.
    pub(super) fn not_forwarded_to(&self, all: &[Ends]) -> Vec<String> {
        if !self.locks_inbound() {
            return Vec::new();
        }
        let closed = all.iter().filter(|ends| !self.forwards_from_link(ends));
        closed
            .flat_map(|ends| {
                self.rerouted(ends).map(|name| {
                    format!(
                        "what other hosts send over {} to behind {name} is not probed: the pod does not forward what \
                         arrives on new interfaces, such as the link of probes",
                        ends.family()
                    )
                })
            })
            .collect()
    }
}
