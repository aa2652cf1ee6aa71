//! What others have in a routing table that TPROXY is to use, or route by it: both would go wrong, theirs or ours.

use std::fmt;

use netlink_packet_core::Parseable as _;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::policy::{is_ours, our_rule};
use super::{Route, RouteError, policy};
use crate::types::{Family, Mark, RouteTable};

/// A rule of policy routing that somebody else has added and that leads to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRule {
    /// The family of its packets.
    pub family: Family,
    /// Its priority, which `ip rule` shows first.
    pub priority: u32,
    /// The table.
    pub table: RouteTable,
    /// The mark and the mask that its packets have, where it asks for one.
    mark: Option<(u32, u32)>,
}

impl ForeignRule {
    /// Whether it leads other packets to its table than those with this mark.
    pub fn leads_others_than(&self, mark: Mark) -> bool {
        self.mark != Some((mark.get(), u32::MAX))
    }
}

/// Why a table is not ours alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// A foreign rule leads other packets than ours to it: our route would deliver them to this host.
    Rule {
        /// The family.
        family: Family,
        /// Its priority, which `ip rule` shows first.
        priority: u32,
        /// The table.
        table: RouteTable,
    },
    /// It has a foreign route that takes packets of ours somewhere else.
    Route {
        /// The family.
        family: Family,
        /// The table.
        table: RouteTable,
    },
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule {
                family,
                priority,
                table,
            } => write!(
                f,
                "a foreign {family} rule with priority {priority} looks up table {table}, too"
            ),
            Self::Route { family, table } => write!(f, "the {family} table {table} has foreign routes"),
        }
    }
}

impl Route {
    /// Whether a table has foreign routes that lead packets away from this host.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn has_foreign_routes(&mut self, family: Family, table: RouteTable) -> Result<bool, RouteError> {
        let mut message = RouteMessage::default();
        message.header.address_family = policy::address_family(family);
        let routes = self.list(libc::RTM_GETROUTE, &message)?;
        Ok(routes.iter().any(|payload| leads_away(payload, table)))
    }
}

/// The rule of a message, if it is a foreign one that leads to a table.
pub fn foreign_rule(payload: &[u8]) -> Option<ForeignRule> {
    if our_rule(payload).is_some() {
        return None;
    }
    let found = RuleMessage::parse(payload).ok()?;
    let family = policy::family(found.header.family)?;
    // The kernel leaves out a priority of 0.
    let (mut priority, mut table, mut mark, mut mask) = (0, None, None, None);
    for attribute in &found.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = RouteTable::new(*number),
            RuleAttribute::FwMark(number) => mark = Some(*number),
            RuleAttribute::FwMask(number) => mask = Some(*number),
            _ => {}
        }
    }
    let is_to_table = found.header.action == RuleAction::ToTable;
    table.filter(|_| is_to_table).map(|table| ForeignRule {
        family,
        priority,
        table,
        mark: mark.zip(mask),
    })
}

/// Whether the route of a message is a foreign one of this table, and does not deliver to this host.
fn leads_away(payload: &[u8], table: RouteTable) -> bool {
    let Ok(found) = RouteMessage::parse(payload) else {
        return false;
    };
    let of_table = found.attributes.contains(&RouteAttribute::Table(table.get()));
    of_table && !is_ours(found.header.protocol) && found.header.kind != RouteType::Local
}
