//! Kuma's rules for name lookups, exclusions and the proxy's own traffic, equivalent packet by packet.
//!
//! Their rules of the chain OUTPUT decide before those about TCP, for any protocol: excluded users and addresses,
//! then name lookups over UDP. They skip name lookups over TCP, which older proxies did not answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::context::{Context, DNS_PORT, Lookups, from_passthrough, over_loopback, rule, skip, tcp};
use super::{dns, outbound};
use crate::options::{KumaRules, VirtualNetwork};
use crate::ruleset::{Action, Addresses, Chain, Match, PortMatch, Protocol, Rule};
use crate::types::{Cidrs, Families, Family};

/// The chain for connections of the proxy to the pod's own address.
const SELF_CALLS: &str = "self_calls";

/// The chains for connections from the pod.
pub fn chains(context: &mut Context, kuma: &KumaRules) -> Vec<Chain> {
    // If nothing is captured, self-calls of the proxy are skipped, too.
    let captures = context.config.captures_outbound();
    let protocols = outbound::captured_protocols(context);
    let mut rules = outbound::excluded_ports_for_uids(context, &protocols);
    rules.extend(outbound::excluded_destinations(context, context.families));
    if captures {
        rules.extend(skipped_tcp(context));
    }
    for sender in context.proxy_senders() {
        if captures {
            rules.push(rule(
                [tcp(), over_loopback()].into_iter().chain(sender.clone()),
                Action::Jump(SELF_CALLS.into()),
                "from the proxy to the pod's own address",
            ));
        }
        rules.push(skip(sender, "the proxy's own traffic"));
    }
    rules.extend(lookups(context));
    if captures {
        rules.extend(captured_tcp(context, kuma));
    }
    let mut chains = vec![outbound::chain(outbound::CHAIN, rules)];
    chains.extend(captures.then(|| self_calls(context)));
    chains
}

/// TCP that is skipped for all senders.
fn skipped_tcp(context: &mut Context) -> Vec<Rule> {
    let ports = &context.config.outbound.exclude_ports;
    let excluded = context
        .sets
        .destination_port("exclude_outbound_ports", Protocol::Tcp, ports);
    let mut rules: Vec<Rule> = excluded
        .map(|ports| skip([ports], "excluded outbound ports"))
        .into_iter()
        .collect();
    // Lookups over UDP from the passthrough address are captured.
    let of_tcp = context.dns.is_some().then(tcp);
    rules.extend(context.families.iter().map(|family| {
        let matches = [over_loopback(), from_passthrough(family)];
        let matches = of_tcp.clone().into_iter().chain(matches);
        skip(matches, "from the proxy to the application")
    }));
    rules
}

/// Lookups over UDP, except the proxy's.
fn lookups(context: &mut Context) -> Vec<Rule> {
    let to_proxy = Action::Redirect(context.config.dns.port);
    let lookup = |on_server: Option<Match>| {
        let matches = [dns::query(Protocol::Udp)].into_iter().chain(on_server);
        rule(matches, to_proxy.clone(), "DNS query, to the proxy")
    };
    let on_servers = dns::server_matches(context, Match::Destination);
    on_servers.into_iter().map(lookup).collect()
}

/// Captured TCP.
fn captured_tcp(context: &mut Context, kuma: &KumaRules) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !kuma.redirects_dns_over_tcp {
        for family in lookup_families(context) {
            let matches = [dns::query(Protocol::Tcp)].into_iter().chain(family);
            rules.push(skip(matches, "DNS query over TCP"));
        }
    }
    rules.push(skip([over_loopback()], "traffic within the pod"));
    rules.extend(context.skip_loopback());
    rules.extend(outbound::included_destinations(context));
    rules
}

/// The chain for self-calls: redirected to the inbound port regardless of inbound options.
fn self_calls(context: &mut Context) -> Chain {
    let mut rules = context.skip_loopback();
    let to_proxy = Action::Redirect(context.config.proxy.inbound_port);
    rules.push(rule([tcp()], to_proxy, "the pod's own address, to the proxy"));
    outbound::chain(SELF_CALLS, rules)
}

/// The families that lookups are captured in, as conditions: a family without a name server has none. One without
/// condition where that is every family.
fn lookup_families(context: &Context) -> Vec<Option<Match>> {
    match &context.dns {
        None => Vec::new(),
        Some(Lookups::All) => vec![None],
        Some(Lookups::To(servers) | Lookups::FromAllSenders(servers)) => {
            let has_server = |family: &Family| match family {
                Family::V4 => !servers.v4().is_empty(),
                Family::V6 => !servers.v6().is_empty(),
            };
            let families: Vec<Family> = context.families.iter().filter(has_server).collect();
            match (families.as_slice(), context.families) {
                ([only], Families::Both) => vec![Some(Match::Family(*only))],
                ([], _) => Vec::new(),
                _ => vec![None],
            }
        }
    }
}

/// Zones of locally generated UDP packets: queries of the proxy and of other senders never share one.
pub fn output_zones(context: &mut Context) -> Vec<Rule> {
    let answer = Match::SourcePort(Protocol::Udp, PortMatch::Port(context.config.dns.port));
    let mut rules = Vec::new();
    for family in lookup_families(context) {
        for sender in context.proxy_senders() {
            let zone = |matched: Match, zone, comment| {
                let matches = [matched].into_iter().chain(sender.clone()).chain(family.clone());
                rule(matches, Action::SetZone(zone), comment)
            };
            rules.push(zone(dns::query(Protocol::Udp), dns::UPSTREAM, "the proxy's DNS query"));
            rules.push(zone(answer.clone(), dns::DOWNSTREAM, "the proxy's DNS answer"));
        }
    }
    let asks = |on_server: Option<Match>| {
        let matches = [dns::query(Protocol::Udp)].into_iter().chain(on_server);
        rule(matches, Action::SetZone(dns::DOWNSTREAM), "an application's DNS query")
    };
    rules.extend(dns::server_matches(context, Match::Destination).into_iter().map(asks));
    rules.extend(loopback_servers(context).into_iter().map(|server| {
        let loopback: IpAddr = match server {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let matches = [
            Match::Protocol(Protocol::Udp),
            Match::Source(Addresses::Ip(server)),
            Match::Destination(Addresses::Ip(loopback)),
        ];
        rule(
            matches,
            Action::SetZone(dns::UPSTREAM),
            "a DNS server in the pod answers the proxy",
        )
    }));
    rules
}

/// Zones of inbound UDP packets.
pub fn prerouting_zones(context: &mut Context) -> Vec<Rule> {
    let answer = Match::SourcePort(Protocol::Udp, PortMatch::Port(DNS_PORT));
    let answers = |on_server: Option<Match>| {
        let matches = [answer.clone()].into_iter().chain(on_server);
        rule(
            matches,
            Action::SetZone(dns::UPSTREAM),
            "a DNS server answers the proxy",
        )
    };
    dns::server_matches(context, Match::Source)
        .into_iter()
        .map(answers)
        .collect()
}

fn loopback_servers(context: &Context) -> Vec<IpAddr> {
    let Some(Lookups::To(servers)) = &context.dns else {
        return Vec::new();
    };
    let v4 = servers.v4().iter().map(|net| IpAddr::from(net.addr()));
    let v6 = servers.v6().iter().map(|net| IpAddr::from(net.addr()));
    let of_family = |server: &IpAddr| context.families.contains(Family::of(*server));
    v4.chain(v6)
        .filter(|server| server.is_loopback() && of_family(server))
        .collect()
}

/// Packets from virtual networks: lookups go to the proxy even if those of the pod are not captured, and connections to
/// addresses outside of the network are outbound.
pub fn rerouted(context: &Context, networks: &[VirtualNetwork]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (number, network) in networks_of(context, networks) {
        let on_interface = [
            Match::InInterface(network.interface.clone()),
            Match::Family(network.family()),
        ];
        let lookup = on_interface.iter().cloned().chain([dns::query(Protocol::Udp)]);
        let to_proxy = Action::Redirect(context.config.dns.port);
        rules.push(rule(lookup, to_proxy, "DNS query from a virtual network, to the proxy"));
        let matches = on_interface.into_iter().chain([tcp()]);
        let target = Action::Jump(network_chain(number).into());
        rules.push(rule(matches, target, "from a virtual network"));
    }
    rules
}

/// The chains that those rules jump to. Packets that they skip are inbound traffic.
pub fn network_chains(context: &mut Context, networks: &[VirtualNetwork]) -> Vec<Chain> {
    let mut chains = Vec::new();
    for (number, network) in networks_of(context, networks) {
        let name = network_chain(number);
        let cidr: Cidrs = [network.cidr].into_iter().collect();
        let inside = context
            .sets
            .addresses(&name, &cidr, context.families, Match::Destination);
        let inside = inside
            .into_iter()
            .map(|inside| skip([inside], "within the virtual network: inbound"));
        let mut rules: Vec<Rule> = inside.collect();
        let to_proxy = Action::Redirect(context.config.proxy.outbound_port);
        rules.push(rule([tcp()], to_proxy, "outbound, to the proxy"));
        chains.push(Chain {
            name: name.into(),
            hook: None,
            rules,
        });
    }
    chains
}

fn networks_of<'n>(
    context: &Context,
    networks: &'n [VirtualNetwork],
) -> impl Iterator<Item = (usize, &'n VirtualNetwork)> + use<'n> {
    let families = context.families;
    let redirected = move |(_, network): &(usize, &VirtualNetwork)| families.contains(network.family());
    networks.iter().enumerate().filter(redirected)
}

fn network_chain(number: usize) -> String {
    format!("network_{number}")
}
