//! The rules and the pod that a simulation uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{LocalMark, Pod};
use crate::plan::{LoopbackRoute, Plan};
use crate::ruleset::netfilter::Netfilter;
use crate::types::InterfaceName;

/// The addresses of an undescribed pod, from the documentation ranges (RFC 5737, RFC 3849).
const PLACEHOLDERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10)),
];

/// Rules, and the pod that has them.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The source of the rules: a phrase.
    pub source: String,
    /// The rules.
    pub rules: Netfilter,
    /// The pod.
    pub pod: Pod,
    /// The routes by which sockets bound to an interface reach the loopback address.
    pub loopback_routes: Vec<LoopbackRoute>,
}

impl Simulation {
    /// A pod with this plan applied. A pod without addresses gets documentation addresses on `interface`.
    pub fn planned(source: &str, plan: Plan, pod: Pod, interface: Option<&InterfaceName>) -> Self {
        let mut pod = pod.or_placeholders(interface);
        let added = plan.loopback_addresses.iter().copied().map(IpAddr::from);
        let missing: Vec<IpAddr> = added.filter(|address| !pod.has(*address)).collect();
        pod.addresses
            .extend(missing.into_iter().map(|address| (InterfaceName::loopback(), address)));
        pod.local_marks = plan.policy_routing.map(LocalMark::from).into_iter().collect();
        Self {
            source: source.to_owned(),
            rules: plan.ruleset.into(),
            pod,
            loopback_routes: plan.loopback_routes,
        }
    }

    /// A pod without rules; its addresses are as in [`Self::planned`].
    pub fn without_rules(pod: Pod, interface: Option<&InterfaceName>) -> Self {
        Self {
            source: "none".to_owned(),
            rules: Netfilter::default(),
            pod: pod.or_placeholders(interface),
            loopback_routes: Vec::new(),
        }
    }
}

impl Pod {
    fn or_placeholders(self, interface: Option<&InterfaceName>) -> Self {
        match self.addresses.as_slice() {
            [] => Self::with_addresses(&PLACEHOLDERS, interface),
            [_, ..] => self,
        }
    }

    /// A pod with these addresses, all on one interface: eth0 unless another is named.
    pub fn with_addresses(addresses: &[IpAddr], interface: Option<&InterfaceName>) -> Self {
        let interface = interface
            .cloned()
            .or_else(|| InterfaceName::parse("eth0").ok())
            .unwrap_or_else(InterfaceName::loopback);
        let addresses = addresses.iter().map(|address| (interface.clone(), *address));
        Self {
            addresses: addresses.collect(),
            local_marks: Vec::new(),
            route_localnet: Vec::new(),
        }
    }
}
