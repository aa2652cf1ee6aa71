//! Name lookups: queries go to the proxy instead of the name server, over UDP and TCP.
//!
//! The proxy may query the name server from the address and port that an application has used. Connection tracking
//! would then match its query to the application's entry, and send it to the proxy again. So captured queries and their
//! answers have a conntrack zone of their own. All other packets stay in their original zone, where firewalls recognise
//! answers.

use super::context::{Context, DNS_PORT, Lookups, over_loopback, rule, skip};
use super::kuma;
use crate::options::Dialect;
use crate::ruleset::{Action, Addresses, Match, PortMatch, Protocol, Rule, Zone};

/// The zone of traffic between applications and the proxy.
pub const DOWNSTREAM: Zone = Zone(2);
/// The zone of traffic between the proxy and name servers, in Istio's and Kuma's rules. Those rules ignore answers to
/// excluded senders, and servers whose queries are not captured.
pub const UPSTREAM: Zone = Zone(1);

/// The match for a query to any server.
pub fn query(protocol: Protocol) -> Match {
    Match::DestinationPort(protocol, PortMatch::Port(DNS_PORT))
}

/// Sends captured queries to the proxy.
fn redirections(context: &mut Context) -> Vec<Rule> {
    let to_proxy = Action::Redirect(context.config.dns.port);
    let mut rules = Vec::new();
    for on_server in server_matches(context, Match::Destination) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let matches = [query(protocol)].into_iter().chain(on_server.clone());
            rules.push(if protocol == Protocol::Udp || context.dns_over_tcp() {
                rule(matches, to_proxy.clone(), "DNS query, to the proxy")
            } else {
                skip(matches, "DNS over TCP, which the proxy does not support")
            });
        }
    }
    rules
}

/// Redirects the lookups of all senders, the proxy included.
pub fn from_all_senders(context: &mut Context) -> Vec<Rule> {
    if !matches!(context.dns, Some(Lookups::FromAllSenders(_))) {
        return Vec::new();
    }
    let mut rules = redirections(context);
    for rule in &mut rules {
        rule.matches.insert(0, over_loopback());
    }
    rules
}

/// Redirects the lookups of senders that are not excluded.
pub fn from_applications(context: &mut Context) -> Vec<Rule> {
    if matches!(context.dns, Some(Lookups::FromAllSenders(_))) {
        return Vec::new();
    }
    redirections(context)
}

/// Zones of locally generated UDP packets.
pub fn output_zones(context: &mut Context) -> Vec<Rule> {
    if let Dialect::Kuma(_) = context.config.dialect {
        return kuma::output_zones(context);
    }
    let answer = Match::SourcePort(Protocol::Udp, PortMatch::Port(context.config.dns.port));
    let mut rules = Vec::new();
    let asked = match context.config.dialect {
        Dialect::Sidetrack => Action::Return,
        Dialect::Istio(_) | Dialect::Kuma(_) => Action::SetZone(UPSTREAM),
    };
    let senders = context.proxy_senders().into_iter();
    for (sender, answering) in senders.zip(context.answering_owners()) {
        rules.push(rule(
            [query(Protocol::Udp)].into_iter().chain(sender),
            asked.clone(),
            "the proxy's DNS query",
        ));
        rules.push(rule(
            [answer.clone()].into_iter().chain(answering),
            Action::SetZone(DOWNSTREAM),
            "the proxy's DNS answer",
        ));
    }
    let captured = match context.config.dialect {
        Dialect::Sidetrack => {
            rules.extend(super::excluded_interfaces(context, Match::OutInterface));
            rules.extend(skip_excluded_senders(context));
            included_groups(context)
        }
        Dialect::Istio(_) | Dialect::Kuma(_) => None,
    };
    rules.extend(
        server_matches(context, Match::Destination)
            .into_iter()
            .map(|on_server| {
                let matches = [query(Protocol::Udp)]
                    .into_iter()
                    .chain(on_server)
                    .chain(captured.clone());
                rule(matches, Action::SetZone(DOWNSTREAM), "an application's DNS query")
            }),
    );
    rules
}

/// Skips queries of excluded owners.
fn skip_excluded_senders(context: &mut Context) -> Vec<Rule> {
    let outbound = &context.config.outbound;
    let uids = context.sets.uid("exclude_uids", &outbound.exclude_uids);
    let gids = context.sets.gid("exclude_gids", &outbound.exclude_gids);
    let mut rules: Vec<Rule> = uids
        .into_iter()
        .chain(gids)
        .map(|owner| skip([owner], "excluded owners"))
        .collect();
    for (number, entry) in outbound.exclude_ports_for_uids.iter().enumerate() {
        if entry.udp && entry.ports.contains(DNS_PORT) {
            let uids = context.sets.uid(format!("exclude_for_uids_{number}"), &entry.uids);
            rules.extend(uids.map(|uids| skip([uids], "ports excluded for these users")));
        }
    }
    rules
}

/// The match for included groups, unless all are included.
fn included_groups(context: &mut Context) -> Option<Match> {
    let groups = &context.config.outbound.include_gids;
    if groups.is_everything() {
        return None;
    }
    context.sets.gid("include_gids", groups)
}

/// Zones of inbound UDP packets.
pub fn prerouting_zones(context: &mut Context) -> Vec<Rule> {
    let mut rules = Vec::new();
    match context.config.dialect {
        Dialect::Sidetrack => {
            let on_servers = server_matches(context, Match::Destination);
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
        Dialect::Kuma(_) => rules.extend(kuma::prerouting_zones(context)),
        Dialect::Istio(_) => {
            let answer = Match::SourcePort(Protocol::Udp, PortMatch::Port(DNS_PORT));
            rules.extend(server_matches(context, Match::Source).into_iter().map(|on_server| {
                let matches = [answer.clone()].into_iter().chain(on_server);
                rule(matches, Action::SetZone(UPSTREAM), "a DNS server answers the proxy")
            }));
        }
    }
    rules
}

/// The match on the server's address, for each family that has servers; one without a match if all servers count.
pub fn server_matches(context: &mut Context, on: fn(Addresses) -> Match) -> Vec<Option<Match>> {
    match &context.dns {
        None => Vec::new(),
        Some(Lookups::All) => vec![None],
        Some(Lookups::To(servers) | Lookups::FromAllSenders(servers)) => {
            let matches = context.sets.addresses("dns_servers", servers, context.families, on);
            matches.into_iter().map(Some).collect()
        }
    }
}
