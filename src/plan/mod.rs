//! From what is wanted and what was observed to what is done: a pure function.

mod inbound;
mod outbound;
mod sets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::config::Config;
use crate::config::types::{InterfaceName, IpFamily, Mark, RouteTable};
use crate::facts::{Facts, Ipv6};
use crate::ruleset::{
    self, Action, BaseHook, Chain, ChainType, Families, Family, Hook, Match, Protocol, ProxyTraffic, Rule, Ruleset,
    Unsound,
};

use self::sets::Sets;

/// The address that the proxy binds to when it passes an IPv4 connection on to the application.
pub const PASSTHROUGH_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6. Unlike 127.0.0.6 it must be put on the loopback interface.
pub const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// The priority of our NAT chains: before those of others, which use -100. A connection is translated once, by the
/// first table that wants it; at equal priority that would be the one registered last.
pub const NAT_PRIORITY: i32 = -101;

/// The metric of the addresses that we put on the loopback interface. It is how they are known for ours later, on any
/// backend and after any crash: the kernel keeps it with the address (`IFA_RT_PRIORITY`, since Linux 4.18).
pub const LOOPBACK_ADDRESS_METRIC: u32 = 15006;

/// Everything that applying does, and everything that a dry run prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The rules.
    pub ruleset: Ruleset,
    /// Addresses that the loopback interface needs (prefix length 128).
    pub loopback_addresses: Vec<Ipv6Addr>,
    /// How marked packets get to the loopback interface, where TPROXY needs that.
    pub policy_routing: Option<PolicyRouting>,
}

/// Packets with a mark are local, whatever their destination: a rule leads them to a table whose only route says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRouting {
    /// The mark.
    pub mark: Mark,
    /// The table.
    pub table: RouteTable,
    /// The families whose packets are routed like this.
    pub families: Families,
}

/// A plan that cannot be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// IPv6 is to be redirected, and the namespace cannot.
    #[error(
        "IPv6 cannot be redirected: {reason}. Leaving it out would let it bypass the proxy. {advice}, \
         or pass --ip-family ipv4 to leave IPv6 alone"
    )]
    Ipv6 {
        /// Why not.
        reason: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The plan would not work. This is a mistake in sidetrack.
    #[error("the planned rules are not sound (please report this with the options used): {0}")]
    Unsound(#[from] Unsound),
}

impl Plan {
    /// Decides what to do.
    ///
    /// # Errors
    /// IPv6 is wanted or in use, and cannot be redirected.
    pub fn new(config: &Config, facts: &Facts) -> Result<Self, PlanError> {
        let families = families(config.ip_family, facts.ipv6)?;
        let ruleset = ruleset(config, families);
        ruleset::check(&ruleset, &proxy_traffic(config, families))?;
        let needs_v6_passthrough = families.contains(Family::V6) && facts.ipv6 == Ipv6::Usable;
        Ok(Self {
            ruleset,
            loopback_addresses: needs_v6_passthrough.then_some(PASSTHROUGH_V6).into_iter().collect(),
            policy_routing: None,
        })
    }
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
        // No address yet, but one may come: the rules wait for it.
        | (IpFamily::Auto, Ipv6::OffOnLoopback { used_elsewhere: false }, _) => Ok(Families::Both),
        (_, _, Some(error)) => Err(error),
    }
}

fn ruleset(config: &Config, families: Families) -> Ruleset {
    let mut sets = Sets::default();
    let mut chains = Vec::new();
    if !config.inbound.include_ports.is_empty() {
        let guards = guards(families, &config.exclude_interfaces, Match::InInterface);
        chains.push(base_chain("prerouting", Hook::Prerouting, guards, inbound::entry()));
        chains.push(inbound::chain(config, families, &mut sets));
    }
    let guards = guards(families, &config.exclude_interfaces, Match::OutInterface);
    chains.push(base_chain("output", Hook::Output, guards, outbound::entry()));
    chains.extend(outbound::chains(config, families, &mut sets));
    Ruleset {
        families,
        sets: sets.into_vec(),
        chains,
    }
}

fn base_chain(name: &'static str, hook: Hook, guards: Vec<Rule>, entry: Rule) -> Chain {
    Chain {
        name: name.into(),
        hook: Some(BaseHook {
            kind: ChainType::Nat,
            hook,
            priority: NAT_PRIORITY,
        }),
        rules: guards.into_iter().chain([entry]).collect(),
    }
}

/// What never gets as far as the rules of a direction.
fn guards(families: Families, excluded: &[InterfaceName], on: fn(InterfaceName) -> Match) -> Vec<Rule> {
    let other_family = match families {
        Families::Both => None,
        Families::Only(Family::V4) => Some((Family::V6, "IPv6 is not redirected")),
        Families::Only(Family::V6) => Some((Family::V4, "IPv4 is not redirected")),
    };
    let other_family = other_family.map(|(family, comment)| rule([Match::Family(family)], Action::Return, comment));
    let excluded = excluded
        .iter()
        .map(|name| rule([on(name.clone())], Action::Return, "excluded interface"));
    other_family.into_iter().chain(excluded).collect()
}

fn rule(matches: impl IntoIterator<Item = Match>, action: Action, comment: &'static str) -> Rule {
    Rule {
        matches: matches.into_iter().collect(),
        action,
        comment: comment.into(),
    }
}

fn tcp() -> Match {
    Match::Protocol(Protocol::Tcp)
}

/// The address of the family that the proxy passes traffic on from.
fn passthrough(family: Family) -> IpAddr {
    match family {
        Family::V4 => PASSTHROUGH_V4.into(),
        Family::V6 => PASSTHROUGH_V6.into(),
    }
}

/// What must never be captured: the ends of every range of the proxy's IDs stand for the range.
fn proxy_traffic(config: &Config, families: Families) -> Vec<ProxyTraffic> {
    let uids = config.proxy.uids.iter().flat_map(|range| [range.first(), range.last()]);
    let gids = config.proxy.gids.iter().flat_map(|range| [range.first(), range.last()]);
    uids.map(ProxyTraffic::OutboundOf)
        .chain(gids.map(ProxyTraffic::OutboundOfGroup))
        .chain(
            families
                .iter()
                .map(|family| ProxyTraffic::Passthrough(passthrough(family))),
        )
        .collect()
}
