//! Foreign use of the routing table that TPROXY needs: either the foreign routing or sidetrack's would break.

use std::fmt;

use netlink_packet_core::Parseable as _;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::policy::{is_own, own_rule};
use super::{Route, RouteError, policy};
use crate::simulate::LocalMark;
use crate::types::{Families, Family, Mark, RouteTable};

/// A foreign policy routing rule that looks up a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRule {
    /// The family of its packets.
    pub family: Family,
    /// Priority, the first number in `ip rule`.
    pub priority: u32,
    /// The table.
    pub table: RouteTable,
    /// The mark and mask that the rule matches, if any.
    mark: Option<(u32, u32)>,
}

impl ForeignRule {
    /// Whether it routes packets without this mark by its table.
    pub fn routes_other_marks_than(&self, mark: Mark) -> bool {
        self.mark != Some((mark.get(), u32::MAX))
    }
}

/// Why a table is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// A foreign rule routes other packets by the table: our route would deliver them to this host.
    Rule {
        /// The family.
        family: Family,
        /// Priority, the first number in `ip rule`.
        priority: u32,
        /// The table.
        table: RouteTable,
    },
    /// The table has a foreign route that would route our packets to another host.
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
                "a foreign {family} rule with priority {priority} also looks up table {table}"
            ),
            Self::Route { family, table } => write!(f, "the {family} table {table} has foreign routes"),
        }
    }
}

impl Route {
    /// Whether a table has foreign routes to other hosts.
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

impl Route {
    /// The marks by which policy routing delivers packets to this host, whatever their destination.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn local_marks(&mut self) -> Result<Vec<LocalMark>, RouteError> {
        let rules = self.rule_messages()?;
        let marked: Vec<_> = rules.iter().filter_map(|payload| marked_rule(payload)).collect();
        if marked.is_empty() {
            return Ok(Vec::new());
        }
        let local = self.local_tables()?;
        let is_local = |(table, mark): (RouteTable, LocalMark)| {
            let mut families = mark.families.iter();
            families.any(|family| local.contains(&(family, table))).then_some(mark)
        };
        Ok(marked.into_iter().filter_map(is_local).collect())
    }
}

/// The table and the mark of a rule that routes packets by mark.
fn marked_rule(payload: &[u8]) -> Option<(RouteTable, LocalMark)> {
    let found = RuleMessage::parse(payload).ok()?;
    let family = policy::family(found.header.family)?;
    let (mut table, mut mark, mut mask) = (None, None, u32::MAX);
    for attribute in &found.attributes {
        match attribute {
            RuleAttribute::Table(number) => table = RouteTable::new(*number),
            RuleAttribute::FwMark(number) => mark = Some(*number),
            RuleAttribute::FwMask(number) => mask = *number,
            _ => {}
        }
    }
    let is_to_table = found.header.action == RuleAction::ToTable;
    let families = Families::Only(family);
    let mark = mark
        .filter(|_| is_to_table)
        .map(|mark| LocalMark { mark, mask, families });
    table.zip(mark)
}

/// The rule of a message, if it is foreign and looks up a table.
pub fn foreign_rule(payload: &[u8]) -> Option<ForeignRule> {
    if own_rule(payload).is_some() {
        return None;
    }
    let found = RuleMessage::parse(payload).ok()?;
    let family = policy::family(found.header.family)?;
    // The kernel does not list a priority of 0.
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

/// Whether the route of a message is foreign, in this table, and does not deliver to this host.
fn leads_away(payload: &[u8], table: RouteTable) -> bool {
    let Ok(found) = RouteMessage::parse(payload) else {
        return false;
    };
    let of_table = found.attributes.contains(&RouteAttribute::Table(table.get()));
    of_table && !is_own(found.header.protocol) && found.header.kind != RouteType::Local
}
