//! The plan: rules and prerequisites for a configuration and the observed facts. Pure functions.

mod bypass;
mod captured;
mod context;
mod dns;
mod inbound;
mod istio;
mod kuma;
mod no_effect;
mod outbound;
mod policy;
mod prerequisite;
pub mod record;
mod sets;
mod timeouts;
mod tproxy;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::facts::{Facts, Ipv6};
use crate::mesh::{self, Delivery};
use crate::options::{Config, Dialect};
use crate::ruleset::{
    self, Action, BaseHook, Chain, ChainType, ConntrackState, Hook, Match, ProxyTraffic, Rule, Ruleset, Sender,
    Unsound, priority,
};
use crate::types::{Families, Family, InboundMode, InterfaceName, IpFamily, Mark, Policy, RouteTable};

use self::context::{Context, rule, skip};
use self::sets::Sets;

pub use self::bypass::{Bypass, Direction, bypasses};
pub use self::captured::{captures_query, captures_tcp};
pub use self::context::{DNS_PORT, Lookups};
pub use self::no_effect::{NoEffect, uncaptured_lookups, without_effect};
pub use self::policy::name_servers;
pub use self::prerequisite::{LoopbackRoute, Prerequisite};

/// The source address of the proxy's IPv4 connections to the application.
pub const PASSTHROUGH_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6. Unlike 127.0.0.6 it must be added to the loopback interface.
pub const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// The priority of our NAT chains: before foreign ones. The first table that translates a connection decides; at equal
/// priority that would be the one registered last.
pub const NAT_PRIORITY: i32 = priority::NAT - 1;

/// The metric of the addresses that sidetrack adds to the loopback interface. It identifies them as owned by sidetrack,
/// on any backend and after any crash: the kernel keeps it with the address (`IFA_RT_PRIORITY`, since Linux 4.18).
pub const LOOPBACK_ADDRESS_METRIC: u32 = 15006;

/// The metric of our routes to the loopback address over other interfaces. The kernel's own route has metric 0 and stays
/// preferred.
pub const LOOPBACK_ROUTE_METRIC: u32 = 15006;

/// The protocol number of our policy routing rules and routes. It identifies them as owned by sidetrack (`FRA_PROTOCOL`
/// since Linux 4.17, `rtm_protocol`). Neither the kernel nor iproute2 has a name for this number.
pub const POLICY_ROUTING_PROTOCOL: u8 = 137;

/// The priority of our policy routing rules: after the local table (0), before main (32766).
pub const POLICY_RULE_PRIORITY: u32 = 15006;

/// Everything that apply installs and that a dry run prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The rules.
    pub ruleset: Ruleset,
    /// Addresses that the loopback interface needs (prefix length 128).
    pub loopback_addresses: Vec<Ipv6Addr>,
    /// The policy routing of marked packets, which TPROXY needs.
    pub policy_routing: Option<PolicyRouting>,
    /// Routes by which sockets bound to an interface reach the proxy.
    pub loopback_routes: Vec<LoopbackRoute>,
    /// What bypasses the proxy despite a policy. It has no effect on packets.
    pub bypasses: Vec<Bypass>,
}

/// Local delivery of marked packets with any destination: a rule selects a table whose only route is local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRouting {
    /// The mark.
    pub mark: Mark,
    /// The table.
    pub table: RouteTable,
    /// The families whose packets are routed like this.
    pub families: Families,
}

impl Plan {
    /// Whether marked inbound IPv4 packets are delivered to this host.
    pub fn marks_v4(&self) -> bool {
        let routing = self.policy_routing;
        routing.is_some_and(|routing| routing.families.contains(Family::V4))
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// IPv6 must be redirected, and the namespace does not support it.
    #[error(
        "IPv6 cannot be redirected: {reason}; left out, it would bypass the proxy. {advice}, \
         or pass --ip-family ipv4 to skip IPv6"
    )]
    Ipv6 {
        /// Why not.
        reason: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A policy is wanted in the rules of a mesh's own program, which have none.
    #[error(
        "the rules of a mesh's own program have no policy, and {option} is {value}. Set it to allow, or use sidetrack apply, \
         whose rules have one"
    )]
    PolicyOfDialect {
        /// The option.
        option: &'static str,
        /// Its value.
        value: Policy,
    },
    /// The planned rules would capture the proxy's own traffic. This is a bug in sidetrack.
    #[error("the planned rules are not sound (please report this with the options used): {0}")]
    Unsound(#[from] Unsound),
}

impl Plan {
    /// The plan for a configuration and the observed facts.
    ///
    /// # Errors
    /// IPv6 is wanted or in use, and cannot be redirected.
    pub fn new(config: &Config, facts: &Facts) -> Result<Self, PlanError> {
        policy::check(config)?;
        let families = match config.dialect {
            Dialect::Sidetrack => families(config.general.ip_family, facts.ipv6)?,
            Dialect::Istio(_) => families_of_istio(config.general.ip_family, facts)?,
            Dialect::Kuma(_) => families_of_kuma(config.general.ip_family, facts)?,
        };
        let mut ruleset = ruleset(config, facts, families);
        ruleset::check(&ruleset, &proxy_traffic(config, facts, families))?;
        ruleset.record = Some(record::record(config, facts));
        let delivery = mesh::delivery(config.proxy.mesh);
        let needs_v6_passthrough =
            delivery == Delivery::FromPassthrough && families.contains(Family::V6) && facts.ipv6 == Ipv6::Usable;
        let inbound = &config.inbound;
        let routes = inbound.mode == InboundMode::Tproxy && !inbound.include_ports.is_empty();
        let routed = match (families, facts.ipv6) {
            (Families::Both, Ipv6::OffOnLoopback { .. } | Ipv6::Absent) => Families::Only(Family::V4),
            (families, _) => families,
        };
        Ok(Self {
            ruleset,
            loopback_addresses: needs_v6_passthrough.then_some(PASSTHROUGH_V6).into_iter().collect(),
            policy_routing: routes.then_some(PolicyRouting {
                mark: inbound.tproxy_mark,
                table: inbound.tproxy_route_table,
                families: routed,
            }),
            loopback_routes: loopback_routes(config, routed),
            bypasses: bypasses(config, facts, families),
        })
    }
}

/// The routes of bound interfaces, if the plan redirects to the loopback address. The loopback interface needs none.
fn loopback_routes(config: &Config, families: Families) -> Vec<LoopbackRoute> {
    let mut routes: Vec<LoopbackRoute> = Vec::new();
    if !config.redirects_to_loopback() {
        return routes;
    }
    let interfaces = config.general.bound_interfaces.iter();
    for interface in interfaces.filter(|name| **name != InterfaceName::loopback()) {
        for family in families.iter() {
            let interface = interface.clone();
            let route = LoopbackRoute { family, interface };
            if !routes.contains(&route) {
                routes.push(route);
            }
        }
    }
    routes
}

/// The families to redirect. IPv6 is left out only where it was switched off by option, or where nothing could use it.
fn families(wanted: IpFamily, ipv6: Ipv6) -> Result<Families, PlanError> {
    const OFF: &str = "it is switched off on the loopback interface (net.ipv6.conf.lo.disable_ipv6 is 1)";
    let cannot = match ipv6 {
        Ipv6::Usable => None,
        Ipv6::OffOnLoopback { .. } => Some(PlanError::Ipv6 {
            reason: OFF,
            advice: "Set net.ipv6.conf.lo.disable_ipv6 to 0 in the pod",
        }),
        Ipv6::Absent => Some(PlanError::Ipv6 {
            reason: "the kernel has no IPv6 (booted with ipv6.disable=1, or built without)",
            advice: "Boot a kernel with IPv6",
        }),
    };
    match (wanted, ipv6, cannot) {
        (IpFamily::Ipv4, ..) | (IpFamily::Auto, Ipv6::Absent, _) => Ok(Families::Only(Family::V4)),
        (IpFamily::Ipv6, _, None) => Ok(Families::Only(Family::V6)),
        (IpFamily::Dual | IpFamily::Auto, _, None)
        // No IPv6 address yet, but one may be added: the rules are ready for it.
        | (IpFamily::Auto, Ipv6::OffOnLoopback { used_elsewhere: false }, _) => Ok(Families::Both),
        (_, _, Some(error)) => Err(error),
    }
}

/// Istio redirects IPv6 where the pod's first address is an IPv6 one, in a dual-stack mesh where any is; IPv4 always.
fn families_of_istio(wanted: IpFamily, facts: &Facts) -> Result<Families, PlanError> {
    let addresses = facts.addresses;
    let v6 = addresses.v6 && (wanted == IpFamily::Dual || !addresses.v4);
    families(if v6 { IpFamily::Dual } else { IpFamily::Ipv4 }, facts.ipv6)
}

/// Kuma redirects IPv6 where the pod has any IPv6 address that is not loopback, unless the option disables it; IPv4
/// always.
fn families_of_kuma(wanted: IpFamily, facts: &Facts) -> Result<Families, PlanError> {
    let addresses = facts.addresses;
    let v6 = wanted != IpFamily::Ipv4 && (addresses.v6 || addresses.v6_link_local);
    families(if v6 { IpFamily::Dual } else { IpFamily::Ipv4 }, facts.ipv6)
}

fn ruleset(config: &Config, facts: &Facts, families: Families) -> Ruleset {
    let mut context = Context {
        config,
        families,
        proxy_cgroup: facts.proxy_cgroup,
        dns: Lookups::new(config, facts),
        resolvers: &facts.resolvers,
        sets: Sets::default(),
    };
    let context = &mut context;
    let mut chains = Vec::new();
    let splits_conntrack_zones = match &config.dialect {
        Dialect::Sidetrack | Dialect::Istio(_) => true,
        Dialect::Kuma(kuma) => kuma.splits_conntrack_zones,
    };
    if context.dns.as_ref().is_some_and(Lookups::need_zones) && splits_conntrack_zones {
        let rules = dns::prerouting_zones(context);
        chains.extend(base_chain(
            context,
            "raw_prerouting",
            ChainType::Raw,
            Hook::Prerouting,
            rules,
        ));
        let rules = dns::output_zones(context);
        chains.extend(base_chain(context, "raw_output", ChainType::Raw, Hook::Output, rules));
    }
    chains.extend(mangle(context));
    let captures_inbound = !config.inbound.include_ports.is_empty();
    let mut arriving = outbound::rerouted(context);
    if captures_inbound && config.inbound.mode == InboundMode::Redirect {
        arriving.extend(excluded_interfaces(context, Match::InInterface));
        arriving.push(inbound::entry());
    }
    chains.extend(base_chain(
        context,
        "prerouting",
        ChainType::Nat,
        Hook::Prerouting,
        arriving,
    ));
    if captures_inbound {
        chains.push(inbound::chain(context));
    }
    chains.extend(outbound::rerouted_chains(context));
    let mut leaving = excluded_interfaces(context, Match::OutInterface);
    leaving.extend(outbound::entries(context));
    chains.extend(base_chain(context, "output", ChainType::Nat, Hook::Output, leaving));
    chains.extend(outbound::chains(context));
    chains.extend(policy::chains(context));
    let mut ruleset = Ruleset {
        families,
        timeouts: None,
        sets: std::mem::take(&mut context.sets).into_vec(),
        chains,
        record: None,
    };
    ruleset.remove_unreachable();
    timeouts::set(&mut ruleset, context);
    if config.general.counters {
        ruleset.add_counters();
    }
    ruleset
}

/// The mangle chains: TPROXY, and the drop of invalid packets.
fn mangle(context: &mut Context) -> Vec<Chain> {
    let config = context.config;
    let tproxy = config.inbound.mode == InboundMode::Tproxy
        && (config.dialect != Dialect::Sidetrack || !config.inbound.include_ports.is_empty());
    let mut arriving = Vec::new();
    if tproxy {
        arriving.extend(excluded_interfaces(context, Match::InInterface));
    }
    if config.general.drop_invalid {
        let invalid = Match::ConntrackState(ConntrackState::Invalid);
        arriving.push(rule([invalid], Action::Drop, "invalid conntrack state"));
    }
    let mut leaving = Vec::new();
    if tproxy {
        arriving.extend(tproxy::prerouting_rules(context));
        leaving.extend(excluded_interfaces(context, Match::OutInterface));
        leaving.extend(tproxy::output_rules(context));
    }
    let arriving = base_chain(
        context,
        "mangle_prerouting",
        ChainType::Mangle,
        Hook::Prerouting,
        arriving,
    );
    let leaving = base_chain(context, "mangle_output", ChainType::Mangle, Hook::Output, leaving);
    let chains = if tproxy { tproxy::chains(context) } else { Vec::new() };
    arriving.into_iter().chain(leaving).chain(chains).collect()
}

/// The first rule of every base chain, where a family is not redirected: it skips packets of that family.
fn guard(context: &Context) -> Option<Rule> {
    let other_family = match context.families {
        Families::Both => None,
        Families::Only(Family::V4) => Some((Family::V6, "IPv6 is not redirected")),
        Families::Only(Family::V6) => Some((Family::V4, "IPv4 is not redirected")),
    };
    other_family.map(|(family, comment)| skip([Match::Family(family)], comment))
}

/// A base chain, unless it has no rules.
fn base_chain(context: &Context, name: &'static str, kind: ChainType, hook: Hook, rules: Vec<Rule>) -> Option<Chain> {
    let priority = match kind {
        ChainType::Raw => priority::RAW,
        ChainType::Mangle => priority::MANGLE,
        ChainType::Nat => NAT_PRIORITY,
        ChainType::Filter => policy::FILTER_PRIORITY,
    };
    (!rules.is_empty()).then(|| Chain {
        name: name.into(),
        hook: Some(BaseHook { kind, hook, priority }),
        rules: guard(context).into_iter().chain(rules).collect(),
    })
}

fn excluded_interfaces(context: &Context, on: fn(InterfaceName) -> Match) -> Vec<Rule> {
    let names = context.config.general.exclude_interfaces.iter().cloned();
    names.map(|name| skip([on(name)], "excluded interface")).collect()
}

/// Packets that arrive on the loopback interface: local processes sent them to this host.
fn loopback_in() -> Match {
    Match::InInterface(InterfaceName::loopback())
}

/// The source address of the proxy's connections to the application, by family.
pub fn passthrough(family: Family) -> IpAddr {
    match family {
        Family::V4 => PASSTHROUGH_V4.into(),
        Family::V6 => PASSTHROUGH_V6.into(),
    }
}

/// Traffic that must never be captured. The ends of every range of the proxy's IDs represent the range.
fn proxy_traffic(config: &Config, facts: &Facts, families: Families) -> Vec<ProxyTraffic> {
    let senders = senders(config);
    if mesh::delivery(config.proxy.mesh) == Delivery::FromPassthrough {
        // Kuma's rules also capture lookups from the passthrough address.
        let is_exempt = !(matches!(config.dialect, Dialect::Kuma(_)) && config.dns.redirect);
        let passthrough = families
            .iter()
            .filter(|_| is_exempt)
            .map(|family| ProxyTraffic::Passthrough(passthrough(family)));
        senders
            .into_iter()
            .map(ProxyTraffic::Outbound)
            .chain(passthrough)
            .collect()
    } else if matches!(Lookups::new(config, facts), Some(Lookups::FromAllSenders(_))) {
        // Lookups of the proxy to the mesh's DNS server on loopback are captured, too.
        senders
            .into_iter()
            .flat_map(|sender| {
                [
                    ProxyTraffic::Outbound(sender.clone()),
                    ProxyTraffic::ToPod(sender, DNS_PORT),
                ]
            })
            .collect()
    } else {
        senders.into_iter().map(ProxyTraffic::All).collect()
    }
}

/// The senders that the rules must recognise as the proxy.
fn senders(config: &Config) -> Vec<Sender> {
    let proxy = &config.proxy;
    let any = || Sender {
        mark: proxy.mark,
        cgroup: config.processes.cgroup.clone(),
        ..Sender::default()
    };
    let uids = proxy.uids.iter().flat_map(|range| [range.first(), range.last()]);
    let gids = proxy.gids.iter().flat_map(|range| [range.first(), range.last()]);
    let of_users = uids.map(|uid| Sender {
        uid: Some(uid),
        ..any()
    });
    let owners: Vec<Sender> = of_users
        .chain(gids.map(|gid| Sender {
            gid: Some(gid),
            ..any()
        }))
        .collect();
    if owners.is_empty() { vec![any()] } else { owners }
}
