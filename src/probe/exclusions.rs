//! Probes of outbound exclusions: addresses, and ports of some users.

use std::net::IpAddr;

use ipnet::IpNet;

use super::plan::{Author, Target, at};
use super::{Caller, Ends, Expected, Needs, Owner, Probe, Subject, choice};
use crate::plan::DNS_PORT;
use crate::ruleset::Protocol;
use crate::types::{Cidrs, Family, PortsForUids, Uid, Uids};

/// The number of networks of an option that get a probe of their own, in each family.
const MAX_PROBED_NETWORKS: usize = 8;

impl Author<'_> {
    /// Connections to each included network besides that of `target`, to each excluded one, and to an address of none.
    pub(super) fn addresses(&self, ends: &Ends, target: &Target) -> Vec<Probe> {
        let outbound = &self.config.outbound;
        let (family, port) = (ends.family(), target.port);
        let includes_port = outbound.include_ports.contains(port);
        let is_included = |address| outbound.include_cidrs.contains(address);
        let included = each_network(&outbound.include_cidrs, family, |network| {
            choice::address(family, &[network, &outbound.exclude_cidrs], |address| {
                network.contains(address) && self.captures_address(address) && self.is_remote(ends, address)
            })
        });
        let excluded = each_network(&outbound.exclude_cidrs, family, |network| {
            choice::address(family, &[network, &outbound.include_cidrs], |address| {
                let would_be_captured = is_included(address) || includes_port;
                network.contains(address) && would_be_captured && self.is_remote(ends, address)
            })
        });
        let is_far_left_out = !includes_port && !is_included(ends.far) && !outbound.exclude_cidrs.contains(ends.far);
        let to = |subject, address, expected| Probe {
            needs: Needs::Link,
            ..self.connection(subject, target.owner, at(address, port), expected)
        };
        let to_proxy = Expected::Captured(self.config.proxy.outbound_port);
        let others = included.into_iter().filter(|address| *address != target.address);
        let mut probes = Vec::new();
        if !is_included(ends.far) {
            probes.extend(others.map(|address| to(Subject::Outbound, address, to_proxy)));
        }
        let untouched = |subject| move |address| to(subject, address, Expected::Untouched);
        probes.extend(excluded.into_iter().map(untouched(Subject::ExcludedOutboundAddress)));
        // A policy rejects these.
        let left_out = (is_far_left_out && !self.locks_outbound()).then_some(ends.far);
        probes.extend(left_out.into_iter().map(untouched(Subject::NotIncludedOutboundAddress)));
        probes
    }

    /// An address of each network from which inbound connections are excluded.
    pub(super) fn excluded_clients(&self, ends: &Ends) -> Vec<IpAddr> {
        each_network(&self.config.inbound.exclude_cidrs, ends.family(), |network| {
            if network.contains(ends.far) {
                return Some(ends.far);
            }
            choice::address(ends.family(), &[network], |address| {
                network.contains(address) && self.is_remote(ends, address)
            })
        })
    }

    /// Connections of users to ports that are excluded for them.
    pub(super) fn ports_for_users(&self, target: &Target) -> Vec<Probe> {
        let outbound = &self.config.outbound;
        let entries = outbound.exclude_ports_for_uids.iter().filter(|entry| entry.tcp);
        let probe = |entry: &PortsForUids| {
            let sets = [&entry.ports, &outbound.exclude_ports, &outbound.include_ports];
            let port = choice::number(&[], &sets, |port| {
                let would_be_captured = self.captures_address(target.address) || outbound.include_ports.contains(port);
                entry.ports.contains(port) && !outbound.exclude_ports.contains(port) && would_be_captured
            })?;
            let owner = Owner {
                uid: self.user_of(&entry.uids)?,
                ..target.owner
            };
            let destination = at(target.address, port);
            Some(Probe {
                needs: Needs::Link,
                ..self.connection(Subject::ExcludedPortForUser, owner, destination, Expected::Untouched)
            })
        };
        entries.filter_map(probe).collect()
    }

    /// Queries like this captured one, of users for whom the port of name servers is excluded.
    pub(super) fn queries_of_excluded_users(&self, lookup: &Probe, protocol: Protocol, owner: Owner) -> Vec<Probe> {
        let entries = self.config.outbound.exclude_ports_for_uids.iter().filter(|entry| {
            let is_meant = match protocol {
                Protocol::Tcp => entry.tcp,
                Protocol::Udp => entry.udp,
            };
            is_meant && entry.ports.contains(DNS_PORT)
        });
        let uids = entries.filter_map(|entry| self.user_of(&entry.uids));
        let query = |uid| Probe {
            subject: Subject::ExcludedPortForUser,
            caller: Caller::Process(Owner { uid, ..owner }),
            expected: Expected::Untouched,
            needs: Needs::Link,
            ..lookup.clone()
        };
        uids.map(query).collect()
    }

    /// A user of this set who is excluded by no other option.
    fn user_of(&self, uids: &Uids) -> Option<Uid> {
        self.one_of(self.surroundings.caller.uid, uids, |uid| {
            !self.config.proxy.uids.contains(uid) && !self.config.outbound.exclude_uids.contains(uid)
        })
    }

    /// Whether the host outside can stand in for this address: it is not one of the pod.
    pub(super) fn is_remote(&self, ends: &Ends, address: IpAddr) -> bool {
        address != ends.near && !self.surroundings.addresses.contains(&address)
    }
}

/// An address for each of the first networks of a family.
fn each_network(cidrs: &Cidrs, family: Family, choose: impl Fn(&Cidrs) -> Option<IpAddr>) -> Vec<IpAddr> {
    let v4 = cidrs.v4().iter().copied().map(IpNet::from);
    let v6 = cidrs.v6().iter().copied().map(IpNet::from);
    let of_family = v4.chain(v6).filter(|network| family.is_of(network.addr()));
    of_family
        .take(MAX_PROBED_NETWORKS)
        .filter_map(|network| choose(&Cidrs::from_iter([network])))
        .collect()
}
