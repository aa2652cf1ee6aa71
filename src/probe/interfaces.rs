//! Probes of the options that name interfaces, and of what conntrack keeps and drops.

use std::net::IpAddr;

use super::plan::{Author, Target, at};
use super::{Caller, Ends, Expected, Needs, Probe, Subject, Transport, choice};
use crate::options::Dialect;
use crate::types::{Cidrs, Family, InterfaceName};

/// The kernel's own timeout of half-closed connections, in seconds (`tcp_timeouts`,
/// net/netfilter/nf_conntrack_proto_tcp.c), and the time that a probe may take: a longer timeout proves the rules.
const PROVABLE_TIMEOUT: u32 = 60 + 30;

impl Author<'_> {
    /// Connections of sockets bound to an interface (SO_BINDTODEVICE): not redirected by excluded interfaces, redirected
    /// by those of `--bound-interfaces`. Interfaces that do not exist are skipped.
    pub(super) fn interfaces(&self, ends: &Ends, target: &Target) -> Vec<Probe> {
        let general = &self.config.general;
        let is_excluded = |name: &InterfaceName| general.exclude_interfaces.contains(name);
        let bound = general.bound_interfaces.iter().filter(|name| !is_excluded(name));
        let to_proxy = Expected::Captured(self.config.proxy.outbound_port);
        let bound = bound.map(|name| (name, Subject::BoundInterface, to_proxy));
        let excluded = general.exclude_interfaces.iter();
        let excluded = excluded.map(|name| (name, Subject::ExcludedInterface, Expected::Untouched));
        let probe = |(name, subject, expected): (&InterfaceName, _, _)| {
            let address = self.destination_by(name, ends, target)?;
            Some(Probe {
                bound_to: Some(name.clone()),
                ..self.connection(subject, target.owner, at(address, target.port), expected)
            })
        };
        excluded.chain(bound).filter_map(probe).collect()
    }

    /// A captured address that an interface has a route to, and that no host is known to have. IPv4 takes any address as
    /// one on the link of the interface if it has no route; IPv6 does not.
    fn destination_by(&self, name: &InterfaceName, ends: &Ends, target: &Target) -> Option<IpAddr> {
        let mut interfaces = self.surroundings.interfaces.iter();
        let (_, networks) = interfaces.find(|(other, _)| other == name)?;
        let on_link = || {
            let networks: Cidrs = networks.iter().copied().collect();
            choice::address(Family::V6, &[&networks], |address| {
                networks.contains(address) && self.captures_address(address) && self.is_remote(ends, address)
            })
        };
        let far = (target.address == ends.far).then_some(ends.far);
        match ends.family() {
            Family::V4 => far,
            Family::V6 => on_link().or(far),
        }
    }

    /// A captured connection to another host, whose client closes its half.
    pub(super) fn half_closed_outbound(&self, captured: &Probe) -> Option<Probe> {
        self.half_closed(captured, Subject::HalfClosedOutbound)
    }

    /// A captured connection from another host, whose client closes its half.
    pub(super) fn half_closed_inbound(&self, captured: &Probe) -> Option<Probe> {
        self.half_closed(captured, Subject::HalfClosedInbound)
    }

    fn half_closed(&self, captured: &Probe, subject: Subject) -> Option<Probe> {
        // The rules of other programs set no timeouts.
        let is_own = self.config.dialect == Dialect::Sidetrack;
        let timeout = self.config.general.close_wait_timeout?;
        (is_own && timeout.seconds() > PROVABLE_TIMEOUT).then_some(())?;
        let expected = Expected::Remembered {
            port: captured.expected.proxy_port()?,
            seconds: timeout.seconds(),
        };
        Some(Probe {
            subject,
            expected,
            ..captured.clone()
        })
    }

    /// A packet from the neighbour that belongs to no connection.
    pub(super) fn invalid_packet(&self, ends: &Ends) -> Option<Probe> {
        self.config.general.drop_invalid.then(|| Probe {
            subject: Subject::InvalidPacket,
            protocol: Transport::Tcp,
            caller: Caller::Neighbour,
            source: None,
            bound_to: None,
            destination: at(ends.near, self.inbound_port(|_| true).unwrap_or(self.port)),
            expected: Expected::Dropped,
            needs: Needs::Link,
        })
    }
}
