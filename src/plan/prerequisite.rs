//! Prerequisites: addresses and policy routing that a plan needs besides its rules.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Plan, PolicyRouting};
use crate::types::{Families, Family, InterfaceName, Mark, RouteTable};

/// An address, rule or route that a plan needs. In the kernel it has our metric or protocol number, which identifies it
/// as owned by sidetrack, on any backend and after any crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prerequisite {
    /// An address of the loopback interface.
    Address(Ipv6Addr),
    /// A rule of policy routing (ip-rule(8)): packets with this mark are routed by this table.
    Rule {
        /// The family of the packets.
        family: Family,
        /// The mark.
        mark: Mark,
        /// The table.
        table: RouteTable,
    },
    /// The table's route (ip-route(8)): it delivers all packets to this host.
    Route {
        /// The family of the packets.
        family: Family,
        /// The table.
        table: RouteTable,
    },
    /// A route that makes the loopback address one of another interface, too.
    LoopbackRoute(LoopbackRoute),
}

/// A route of the table local (ip-route(8)) that makes the loopback address one of this interface, too. Sockets bound to
/// the interface (SO_BINDTODEVICE) need it, because redirection changes their destination to that address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopbackRoute {
    /// The family.
    pub family: Family,
    /// The interface.
    pub interface: InterfaceName,
}

impl LoopbackRoute {
    /// The loopback address of the family: redirection changes the destination of locally generated packets to it.
    pub fn address(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }
}

impl Prerequisite {
    /// The prerequisites of a plan, in the order in which apply adds them. A rule comes before its route: if apply is
    /// interrupted between the two, a list of the rules shows it.
    pub fn of(plan: &Plan) -> Vec<Self> {
        let routing = plan.policy_routing.iter().flat_map(|routing| {
            let (mark, table) = (routing.mark, routing.table);
            let of_family = move |family| [Self::Rule { family, mark, table }, Self::Route { family, table }];
            routing.families.iter().flat_map(of_family)
        });
        let addresses = plan.loopback_addresses.iter().copied().map(Self::Address);
        let loopback_routes = plan.loopback_routes.iter().cloned().map(Self::LoopbackRoute);
        routing.chain(addresses).chain(loopback_routes).collect()
    }
}

/// As iproute2 writes it.
impl fmt::Display for LoopbackRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, address, interface) = (self.family, self.address(), &self.interface);
        write!(f, "the {family} route `local {address} dev {interface} table local`")
    }
}

/// As iproute2 writes it.
impl fmt::Display for Prerequisite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "the address {address} on the loopback interface"),
            Self::Rule { family, mark, table } => write!(f, "the {family} rule `fwmark {mark} lookup {table}`"),
            Self::Route { family, table } => write!(f, "the {family} route `local default dev lo table {table}`"),
            Self::LoopbackRoute(route) => write!(f, "{route}"),
        }
    }
}

impl PolicyRouting {
    /// The policy routing in effect: a mark counts if both its rule and its route exist.
    pub fn of(there: &[Prerequisite]) -> Option<Self> {
        let of_family = |family| {
            there.iter().find_map(|what| match what {
                Prerequisite::Rule {
                    family: of,
                    mark,
                    table,
                } if *of == family => {
                    let route = Prerequisite::Route { family, table: *table };
                    there.contains(&route).then_some((*mark, *table))
                }
                Prerequisite::Rule { .. }
                | Prerequisite::Route { .. }
                | Prerequisite::Address(_)
                | Prerequisite::LoopbackRoute(_) => None,
            })
        };
        let (families, (mark, table)) = match (of_family(Family::V4), of_family(Family::V6)) {
            (Some(v4), Some(_)) => (Families::Both, v4),
            (Some(v4), None) => (Families::Only(Family::V4), v4),
            (None, Some(v6)) => (Families::Only(Family::V6), v6),
            (None, None) => return None,
        };
        Some(Self { mark, table, families })
    }
}
