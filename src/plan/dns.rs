//! Name lookups: queries go to the proxy instead of the name server, over UDP and TCP.
//!
//! The proxy asks the name server from the same addresses and ports that an application may have used. Connection
//! tracking would then take its query for that of the application, and send it to the proxy again: so captured queries
//! and their answers have a zone of their own. Everything else stays in the zone that it would be in without us, where
//! answers are recognised on every way back, and by firewalls.

use super::context::{Context, DNS_PORT, Lookups, leave_alone, over_loopback, rule};
use super::kuma;
use crate::options::Dialect;
use crate::ruleset::{Action, Addresses, Match, PortMatch, Protocol, Rule, Zone};

/// Between the applications and the proxy.
pub const DOWNSTREAM: Zone = Zone(2);
/// Between the proxy and the name servers, in Istio's and Kuma's rules. They forget about answers to those who are left alone, and
/// about servers whose queries are not captured.
pub const UPSTREAM: Zone = Zone(1);

/// The match for a query to any server.
pub fn query(protocol: Protocol) -> Match {
    Match::DestinationPort(protocol, PortMatch::Port(DNS_PORT))
}

/// Sends captured queries to the proxy.
fn redirections(context: &mut Context) -> Vec<Rule> {
    let to_proxy = Action::Redirect(context.config.dns.port);
    let mut rules = Vec::new();
    for on_server in sides(context, Match::Destination) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let matches = [query(protocol)].into_iter().chain(on_server.clone());
            rules.push(if protocol == Protocol::Udp || context.dns_over_tcp() {
                rule(matches, to_proxy.clone(), "DNS query, to the proxy")
            } else {
                leave_alone(matches, "DNS over TCP, which the proxy does not support")
            });
        }
    }
    rules
}

/// Sends lookups to the proxy that are captured of everybody, the proxy too.
pub fn of_everybody(context: &mut Context) -> Vec<Rule> {
    if !matches!(context.dns, Some(Lookups::OfEverybody(_))) {
        return Vec::new();
    }
    let mut rules = redirections(context);
    for rule in &mut rules {
        rule.matches.insert(0, over_loopback());
    }
    rules
}

/// Sends lookups to the proxy that are captured of those who are not left alone.
pub fn of_applications(context: &mut Context) -> Vec<Rule> {
    if matches!(context.dns, Some(Lookups::OfEverybody(_))) {
        return Vec::new();
    }
    redirections(context)
}

/// Zones for UDP that local processes send.
pub fn zones_on_departure(context: &mut Context) -> Vec<Rule> {
    if let Dialect::Kuma(_) = context.config.dialect {
        return kuma::zones_on_departure(context);
    }
    let answer = Match::SourcePort(Protocol::Udp, PortMatch::Port(context.config.dns.port));
    let mut rules = Vec::new();
    for owner in context.proxy_owners() {
        let asked = match context.config.dialect {
            Dialect::Sidetrack => Action::Return,
            Dialect::Istio(_) | Dialect::Kuma(_) => Action::SetZone(UPSTREAM),
        };
        rules.push(rule(
            [query(Protocol::Udp), owner.clone()],
            asked,
            "the proxy's DNS query",
        ));
        rules.push(rule(
            [answer.clone(), owner],
            Action::SetZone(DOWNSTREAM),
            "the proxy's DNS answer",
        ));
    }
    let captured = match context.config.dialect {
        Dialect::Sidetrack => {
            rules.extend(super::excluded_interfaces(context, Match::OutInterface));
            rules.extend(left_alone(context));
            included_groups(context)
        }
        Dialect::Istio(_) | Dialect::Kuma(_) => None,
    };
    rules.extend(sides(context, Match::Destination).into_iter().map(|on_server| {
        let matches = [query(Protocol::Udp)]
            .into_iter()
            .chain(on_server)
            .chain(captured.clone());
        rule(matches, Action::SetZone(DOWNSTREAM), "an application's DNS query")
    }));
    rules
}

/// Queries of owners that are left alone.
fn left_alone(context: &mut Context) -> Vec<Rule> {
    let outbound = &context.config.outbound;
    let uids = context.sets.uid("exclude_uids", &outbound.exclude_uids);
    let gids = context.sets.gid("exclude_gids", &outbound.exclude_gids);
    let mut rules: Vec<Rule> = uids
        .into_iter()
        .chain(gids)
        .map(|owner| leave_alone([owner], "excluded owners"))
        .collect();
    for (number, entry) in outbound.exclude_ports_for_uids.iter().enumerate() {
        if entry.udp && entry.ports.contains(DNS_PORT) {
            let uids = context.sets.uid(format!("exclude_for_uids_{number}"), &entry.uids);
            rules.extend(uids.map(|uids| leave_alone([uids], "ports excluded for these users")));
        }
    }
    rules
}

/// The match for groups that alone are captured, if so.
fn included_groups(context: &mut Context) -> Option<Match> {
    let groups = &context.config.outbound.include_gids;
    if groups.is_everything() {
        return None;
    }
    context.sets.gid("include_gids", groups)
}

/// Zones for UDP that arrives.
pub fn zones_on_arrival(context: &mut Context) -> Vec<Rule> {
    let mut rules = Vec::new();
    match context.config.dialect {
        Dialect::Sidetrack => {
            let on_servers = sides(context, Match::Destination);
            for interface in &context.config.general.reroute_interfaces {
                rules.extend(on_servers.iter().cloned().map(|on_server| {
                    let matches = [Match::InInterface(interface.clone()), query(Protocol::Udp)];
                    let matches = matches.into_iter().chain(on_server);
                    rule(
                        matches,
                        Action::SetZone(DOWNSTREAM),
                        "DNS query from a rerouted interface",
                    )
                }));
            }
        }
        Dialect::Kuma(_) => rules.extend(kuma::zones_on_arrival(context)),
        Dialect::Istio(_) => {
            let answer = Match::SourcePort(Protocol::Udp, PortMatch::Port(DNS_PORT));
            rules.extend(sides(context, Match::Source).into_iter().map(|on_server| {
                let matches = [answer.clone()].into_iter().chain(on_server);
                rule(matches, Action::SetZone(UPSTREAM), "a DNS server answers the proxy")
            }));
        }
    }
    rules
}

/// The condition on the server's address, for each family that has servers; one without condition where all count.
pub fn sides(context: &mut Context, on: fn(Addresses) -> Match) -> Vec<Option<Match>> {
    match &context.dns {
        None => Vec::new(),
        Some(Lookups::All) => vec![None],
        Some(Lookups::To(servers) | Lookups::OfEverybody(servers)) => {
            let matches = context.sets.addresses("dns_servers", servers, context.families, on);
            matches.into_iter().map(Some).collect()
        }
    }
}
