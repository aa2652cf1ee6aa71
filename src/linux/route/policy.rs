//! Policy routing by mark (ip-rule(8), ip-route(8)): a rule that routes marked packets by a table, and its only route,
//! which delivers packets to this host with any destination.

use netlink_packet_core::{Emitable, Parseable as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use nix::errno::Errno;

use super::loopback::own_loopback_route;
use super::shared::{ForeignRule, foreign_rule};
use super::{LOOPBACK_INDEX, NetlinkError, Refusal, Route, RouteError};
use crate::plan::{POLICY_ROUTING_PROTOCOL, POLICY_RULE_PRIORITY, Prerequisite};
use crate::types::{Family, Mark, RouteTable};

/// The protocol number that marks our rules and routes.
pub(super) const OWN_PROTOCOL: RouteProtocol = RouteProtocol::Other(POLICY_ROUTING_PROTOCOL);

impl Route {
    /// Our rules, followed by our routes if there are any rules; and the foreign rules. Changes nothing and needs no
    /// privilege.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn policy_routing(&mut self) -> Result<(Vec<Prerequisite>, Vec<ForeignRule>), RouteError> {
        let payloads = self.rule_messages()?;
        let mut found: Vec<_> = payloads.iter().filter_map(|payload| own_rule(payload)).collect();
        if !found.is_empty() {
            found.extend(self.routes()?);
        }
        Ok((
            found,
            payloads.iter().filter_map(|payload| foreign_rule(payload)).collect(),
        ))
    }

    /// Our rules of both families.
    fn rules(&mut self) -> Result<Vec<Prerequisite>, RouteError> {
        Ok(self
            .rule_messages()?
            .iter()
            .filter_map(|payload| own_rule(payload))
            .collect())
    }

    /// The rules of both families, as the payloads of their messages.
    pub(super) fn rule_messages(&mut self) -> Result<Vec<Vec<u8>>, RouteError> {
        match self.list(libc::RTM_GETRULE, &RuleMessage::default()) {
            Ok(payloads) => Ok(payloads),
            // A kernel without policy routing. Adding a rule reports this with more context.
            Err(NetlinkError::Refused(refusal)) if is_unsupported(&refusal) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Our rules, routes and addresses in the order of adding, including routes whose rule is gone. Changes nothing and
    /// needs no privilege.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn own_prerequisites(&mut self) -> Result<Vec<Prerequisite>, RouteError> {
        let mut found = self.rules()?;
        found.extend(self.routes()?);
        found.extend(self.own_addresses()?.into_iter().map(Prerequisite::Address));
        Ok(found)
    }

    /// Our routes of both families, in any table.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn routes(&mut self) -> Result<Vec<Prerequisite>, RouteError> {
        // Since Linux 4.20 the kernel filters by protocol, so that a host's many routes are not copied.
        let mut request = RouteMessage::default();
        request.header.protocol = OWN_PROTOCOL;
        let payloads = self.list(libc::RTM_GETROUTE, &request)?;
        let own = |payload: &Vec<u8>| own_route(payload).or_else(|| own_loopback_route(payload));
        Ok(payloads.iter().filter_map(own).collect())
    }

    /// Removes the foreign rules and routes that equal sidetrack's for this mark and table. If an owned rule uses the
    /// table, the route is added again as an owned one. Returns what was removed.
    ///
    /// # Errors
    /// Removing failed or is not permitted.
    pub fn remove_foreign(&mut self, mark: Mark, table: RouteTable) -> Result<Vec<Prerequisite>, RouteError> {
        let ours = self.rules()?;
        let mut removed = Vec::new();
        let rules = self.rule_messages()?;
        for payload in rules.iter().filter(|payload| own_rule(payload).is_none()) {
            if let Some((family, message)) = foreign_rule_for(payload, mark, table) {
                let what = Prerequisite::Rule { family, mark, table };
                self.remove_message(libc::RTM_DELRULE, &message, &what)?;
                removed.push(what);
            }
        }
        for payload in self.list(libc::RTM_GETROUTE, &RouteMessage::default())? {
            let Some((protocol, what @ Prerequisite::Route { family, table: of })) = local_default(&payload) else {
                continue;
            };
            if protocol == OWN_PROTOCOL || of != table {
                continue;
            }
            let mut message = route(family, table);
            message.header.protocol = protocol;
            message.header.scope = RouteScope::NoWhere; // Any scope.
            self.remove_message(libc::RTM_DELROUTE, &message, &what)?;
            let needed = |rule: &Prerequisite| matches!(rule, Prerequisite::Rule { family: of, table: to, .. } if *of == family && *to == table);
            if ours.iter().any(needed) {
                self.add(&what)?;
            }
            removed.push(what);
        }
        Ok(removed)
    }

    fn remove_message(&mut self, kind: u16, message: &impl Emitable, what: &Prerequisite) -> Result<(), RouteError> {
        let Err(refusal) = self.change(kind, 0, message)? else {
            return Ok(());
        };
        match refusal.errno {
            // Another process removed it first.
            Errno::ENOENT | Errno::ESRCH => Ok(()),
            Errno::EPERM => Err(RouteError::NotPermitted(refusal)),
            _ => Err(RouteError::Refused {
                what: format!("removing {what}"),
                refusal,
            }),
        }
    }

    /// The tables whose default route delivers packets to this host.
    pub(super) fn local_tables(&mut self) -> Result<Vec<(Family, RouteTable)>, RouteError> {
        let payloads = self.list(libc::RTM_GETROUTE, &RouteMessage::default())?;
        let tables = payloads.iter().filter_map(|payload| match local_default(payload)?.1 {
            Prerequisite::Route { family, table } => Some((family, table)),
            Prerequisite::Rule { .. } | Prerequisite::Address(_) | Prerequisite::LoopbackRoute(_) => None,
        });
        Ok(tables.collect())
    }

    /// Whether the table has a route equal to sidetrack's, owned or foreign.
    pub(super) fn is_local(&mut self, family: Family, table: RouteTable) -> Result<bool, RouteError> {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        let payloads = self.list(libc::RTM_GETROUTE, &message)?;
        let mut routes = payloads.iter().filter_map(|payload| local_default(payload));
        Ok(routes.any(|(_, found)| found == Prerequisite::Route { family, table }))
    }
}

/// The rule `fwmark MARK lookup TABLE`.
pub fn rule(family: Family, mark: Mark, table: RouteTable) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(POLICY_RULE_PRIORITY),
        RuleAttribute::FwMark(mark.get()),
        RuleAttribute::FwMask(u32::MAX),
        // The table field in the header has only 8 bits.
        RuleAttribute::Table(table.get()),
        RuleAttribute::Protocol(OWN_PROTOCOL),
    ];
    message
}

/// The route `local default dev lo table TABLE`.
pub fn route(family: Family, table: RouteTable) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    message.header.protocol = OWN_PROTOCOL;
    message.attributes = vec![RouteAttribute::Table(table.get()), RouteAttribute::Oif(LOOPBACK_INDEX)];
    message
}

fn is_unsupported(refusal: &Refusal) -> bool {
    matches!(refusal.errno, Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT)
}

/// Whether a rule or a route is marked as owned by its protocol.
pub fn is_own(protocol: RouteProtocol) -> bool {
    protocol == OWN_PROTOCOL
}

/// The error for a kernel that was built without policy routing for a family.
pub fn unsupported(family: Family, refusal: Refusal) -> RouteError {
    let option = match family {
        Family::V4 => "CONFIG_IP_MULTIPLE_TABLES",
        Family::V6 => "CONFIG_IPV6_MULTIPLE_TABLES",
    };
    RouteError::Unsupported {
        family,
        option,
        refusal,
    }
}

/// The rule of a message, if sidetrack owns it. Foreign rules may not be parseable.
pub fn own_rule(payload: &[u8]) -> Option<Prerequisite> {
    let found = RuleMessage::parse(payload).ok()?;
    let family = family(found.header.family)?;
    let (mut mark, mut table) = (None, None);
    for attribute in &found.attributes {
        match attribute {
            RuleAttribute::FwMark(number) => mark = Mark::new(*number),
            RuleAttribute::Table(number) => table = RouteTable::new(*number),
            _ => {}
        }
    }
    let (mark, table) = (mark?, table?);
    let ours = rule(family, mark, table);
    let same = ours
        .attributes
        .iter()
        .all(|attribute| found.attributes.contains(attribute));
    same.then_some(Prerequisite::Rule { family, mark, table })
}

/// The foreign rule of a message, unchanged, if it routes packets with this mark by this table.
fn foreign_rule_for(payload: &[u8], mark: Mark, table: RouteTable) -> Option<(Family, RuleMessage)> {
    let found = RuleMessage::parse(payload).ok()?;
    let family = family(found.header.family)?;
    let wanted = [RuleAttribute::FwMark(mark.get()), RuleAttribute::Table(table.get())];
    let same = wanted.iter().all(|attribute| found.attributes.contains(attribute));
    (same && found.header.action == RuleAction::ToTable).then_some((family, found))
}

/// The route of a message, if sidetrack owns it.
fn own_route(payload: &[u8]) -> Option<Prerequisite> {
    local_default(payload).and_then(|(protocol, route)| (protocol == OWN_PROTOCOL).then_some(route))
}

/// The route of a message and its protocol, if it equals sidetrack's.
fn local_default(payload: &[u8]) -> Option<(RouteProtocol, Prerequisite)> {
    let found = RouteMessage::parse(payload).ok()?;
    let family = family(found.header.address_family)?;
    let table = found.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => RouteTable::new(*number),
        _ => None,
    })?;
    let ours = route(family, table);
    let same = found.header.kind == ours.header.kind
        && found.header.destination_prefix_length == 0
        && ours
            .attributes
            .iter()
            .all(|attribute| found.attributes.contains(attribute));
    same.then_some((found.header.protocol, Prerequisite::Route { family, table }))
}

pub fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The family; none for others, such as multicast routing.
pub fn family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    fn bytes(message: &impl Emitable) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn numbers() -> (Mark, RouteTable) {
        (Mark::new(1337).unwrap(), RouteTable::new(100_000).unwrap())
    }

    #[test]
    fn own_rules_and_routes_are_recognized() {
        let (mark, table) = numbers();
        for family in Family::BOTH {
            let added = bytes(&rule(family, mark, table));
            assert_eq!(own_rule(&added), Some(Prerequisite::Rule { family, mark, table }));
            let added = bytes(&route(family, table));
            assert_eq!(own_route(&added), Some(Prerequisite::Route { family, table }));
        }
    }

    #[test]
    fn any_difference_makes_it_foreign() {
        let (mark, table) = numbers();
        for number in 0..rule(Family::V4, mark, table).attributes.len() {
            let mut foreign = rule(Family::V4, mark, table);
            foreign.attributes.remove(number);
            assert_eq!(own_rule(&bytes(&foreign)), None, "{foreign:?}");
        }
        let changes: [fn(&mut RouteMessage); 4] = [
            |route| route.header.protocol = RouteProtocol::Static,
            |route| route.header.kind = RouteType::Unicast,
            |route| route.header.destination_prefix_length = 8,
            |route| route.attributes = vec![RouteAttribute::Table(133), RouteAttribute::Oif(2)],
        ];
        for change in changes {
            let mut foreign = route(Family::V4, table);
            change(&mut foreign);
            assert_eq!(own_route(&bytes(&foreign)), None, "{foreign:?}");
        }
    }

    #[test]
    fn unparseable_messages_are_foreign() {
        let (mark, table) = numbers();
        let (rule, route) = (bytes(&rule(Family::V6, mark, table)), bytes(&route(Family::V6, table)));
        // The last attribute is one byte, and three that fill up.
        for length in 0..rule.len() - 3 {
            assert_eq!(own_rule(&rule[..length]), None, "{length}");
        }
        for length in 0..route.len() {
            assert_eq!(own_route(&route[..length]), None, "{length}");
        }
    }

    #[test]
    fn missing_policy_routing_names_the_kernel_option() {
        for (family, option) in [
            (Family::V4, "CONFIG_IP_MULTIPLE_TABLES"),
            (Family::V6, "CONFIG_IPV6_MULTIPLE_TABLES"),
        ] {
            let error = unsupported(family, Errno::EOPNOTSUPP.into()).to_string();
            assert!(
                error.contains(option) && error.contains("--inbound-mode redirect"),
                "{error}"
            );
        }
    }
}
