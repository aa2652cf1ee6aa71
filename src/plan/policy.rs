//! The lock: with a policy of proxy-only, whatever does not pass the proxy is rejected.
//!
//! What leaves is decided about at the postrouting hook, where each packet of every protocol and family passes, its destination
//! is translated, and its interface known: one rule ends traffic over loopback, which is what is redirected. Nothing can be
//! rejected there, so the first packet of a connection is rejected at the output hook, in a chain that the kernel calls for
//! no other, and what is left is dropped. A process gets an error in both cases.
//!
//! Three kinds of packets have no owner, and need rules of their own:
//! - Those of a closed socket (data left to send, FIN, their retransmissions). Its connection is established; a process
//!   cannot send packets of it with another socket.
//! - Those of the kernel: answers, which go in the reply direction, and neighbour discovery.
//! - Forwarded ones, which pass another hook.
//!
//! Connection tracking takes the first packet that it sees of a connection for the one that opened it. It would take a
//! server's packet of a connection that the application opened before the rules for the opening of an inbound one, and
//! the application's for an answer. So TCP connections must begin with a SYN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::context::{Context, DNS_PORT, over_loopback, rule, skip, tcp};
use super::{PlanError, excluded_interfaces, inbound, loopback_in, outbound};
use crate::options::{Config, Dialect};
use crate::ruleset::{
    Action, Addresses, BaseHook, Chain, ChainType, ConntrackState, Hook, Match, PortMatch, Protocol, Rejection, Rule,
    priority,
};
use crate::types::{Cidrs, DnsServers, Families, InboundMode, InterfaceName, Policy};

/// After the filter chains of firewalls: what they drop stays dropped, and their order does not depend on registration.
pub const FILTER_PRIORITY: i32 = priority::FILTER + 1;

/// The addresses of `lo` (RFC 1122, 3.2.1.3).
const LOOPBACK_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// The loopback addresses that packets are redirected to.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The chain for first packets of connections from this host.
const FIRST_OUTBOUND: &str = "first_outbound";
/// The chain that rejects what a process or a forwarding host sends.
const REJECT_OUTBOUND: &str = "reject_outbound";
/// The chain that rejects what arrives.
const REJECT_INBOUND: &str = "reject_inbound";
/// The chain for forwarded packets of processes behind rerouted interfaces.
const FORWARDED: &str = "rerouted_policy";
/// The chain for packets that are forwarded to them.
const FORWARDED_TO: &str = "rerouted_inbound";
/// The chain that checks the source addresses of what they send.
const SOURCES: &str = "rerouted_sources";

/// ICMPv6 messages that hosts send for neighbour discovery (RFC 4861) and to receive them on a link with multicast
/// snooping (RFC 2710, RFC 3810).
const SENT: [(u8, &str); 6] = [
    (133, "router solicitation"),
    (135, "neighbour solicitation"),
    (136, "neighbour advertisement"),
    (131, "multicast listener report"),
    (132, "multicast listener done"),
    (143, "multicast listener report"),
];
/// Those that hosts receive.
const RECEIVED: [(u8, &str); 5] = [
    (130, "multicast listener query"),
    (134, "router advertisement"),
    (135, "neighbour solicitation"),
    (136, "neighbour advertisement"),
    (137, "redirect"),
];

/// Checks that a policy is set in our own rules alone.
///
/// # Errors
/// One is set in the rules of a mesh's own program.
pub fn check(config: &Config) -> Result<(), PlanError> {
    let policies = [
        ("outbound-policy", config.outbound.policy),
        ("inbound-policy", config.inbound.policy),
    ];
    let set = policies.into_iter().find(|(_, policy)| *policy != Policy::Allow);
    match (&config.dialect, set) {
        (Dialect::Istio(_) | Dialect::Kuma(_), Some((option, value))) => {
            Err(PlanError::PolicyOfDialect { option, value })
        }
        (Dialect::Sidetrack, _) | (_, None) => Ok(()),
    }
}

/// The chains of both policies.
pub fn chains(context: &mut Context) -> Vec<Chain> {
    let is_locked = context.config.outbound.policy == Policy::ProxyOnly;
    let mut chains = Vec::new();
    if is_locked {
        chains.extend(sources(context));
        chains.extend(leaving(context));
    }
    chains.extend(forwarded(context));
    if is_locked {
        chains.push(outbound::chain(REJECT_OUTBOUND, reject_sent()));
    }
    let arriving = arriving(context);
    if !arriving.is_empty() {
        chains.push(base_chain("filter_input", Hook::Input, arriving));
    }
    if context.config.inbound.policy == Policy::ProxyOnly {
        chains.push(outbound::chain(REJECT_INBOUND, reject("inbound policy")));
    }
    chains
}

fn base_chain(name: &'static str, hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.into(),
        hook: Some(BaseHook {
            kind: ChainType::Filter,
            hook,
            priority: match hook {
                Hook::Prerouting => priority::EARLY_FILTER,
                Hook::Input | Hook::Forward | Hook::Output | Hook::Postrouting => FILTER_PRIORITY,
            },
        }),
        rules,
    }
}

fn jump(matches: impl IntoIterator<Item = Match>, chain: &'static str, comment: &'static str) -> Rule {
    rule(matches, Action::Jump(chain.into()), comment)
}

fn reject(comment: &'static str) -> Vec<Rule> {
    vec![
        rule([tcp()], Action::Reject(Rejection::TcpReset), comment),
        rule([], Action::Reject(Rejection::AdminProhibited), comment),
    ]
}

/// Rejects what this host sends. The answer to a forged source address would leave, and quote the packet, so such packets
/// are dropped. Any user can forge one over IPv6 (`IPV6_FREEBIND`).
fn reject_sent() -> Vec<Rule> {
    let local = |mut rejected: Rule| {
        rejected.matches.push(Match::SourceIsLocal);
        rejected
    };
    let mut rules: Vec<Rule> = reject("outbound policy").into_iter().map(local).collect();
    rules.push(rule([], Action::Drop, "outbound policy: from a foreign address"));
    rules
}

fn neighbours(messages: &[(u8, &'static str)]) -> Vec<Rule> {
    messages
        .iter()
        .map(|(number, name)| skip([Match::Icmpv6Type(*number)], name))
        .collect()
}

/// The base chains for packets that leave.
fn leaving(context: &mut Context) -> Vec<Chain> {
    let (output, postrouting) = ("filter_output", "filter_postrouting");
    if context.config.processes.cgroup.is_some() {
        // nf_tables has no match for the cgroup of a socket at the postrouting hook (nft_socket_validate).
        let routed = within_or_lost(context);
        return vec![
            base_chain(output, Hook::Output, sent(context)),
            base_chain(postrouting, Hook::Postrouting, routed),
        ];
    }
    let first = jump(
        [Match::ConntrackState(ConntrackState::New)],
        FIRST_OUTBOUND,
        "first packets of connections",
    );
    vec![
        base_chain(output, Hook::Output, vec![first]),
        outbound::chain(FIRST_OUTBOUND, first_packets(context)),
        base_chain(postrouting, Hook::Postrouting, routed(context)),
    ]
}

/// Locally generated packets.
fn sent(context: &mut Context) -> Vec<Rule> {
    let mut rules = vec![answers()];
    rules.extend(LOOPBACK.map(known_within));
    rules.extend(within());
    rules.extend(exempt(context));
    rules.push(jump([Match::HasOwner], REJECT_OUTBOUND, "sent by a process"));
    rules.extend(of_the_kernel());
    rules.push(jump([], REJECT_OUTBOUND, "anything else"));
    rules
}

/// Locally generated first packets of connections.
fn first_packets(context: &mut Context) -> Vec<Rule> {
    let mut rules = within();
    rules.extend(exempt(context));
    rules.push(jump([], REJECT_OUTBOUND, "anything else"));
    rules
}

/// Packets that leave, after routing.
fn routed(context: &mut Context) -> Vec<Rule> {
    let mut rules = within_or_lost(context);
    rules.push(answers());
    rules.extend(exempt(context));
    rules.push(rule(
        [Match::HasOwner],
        Action::Drop,
        "outbound policy: sent by a process",
    ));
    rules.extend(of_the_kernel());
    // Forwarded packets have another source, and chains of their own.
    rules.push(rule(
        [Match::SourceIsLocal],
        Action::Drop,
        "outbound policy: sent by the kernel",
    ));
    rules
}

/// What the policy does not hold for: the proxy's traffic, and what is excluded or allowed.
fn exempt(context: &mut Context) -> Vec<Rule> {
    let mut rules = excluded_interfaces(context, Match::OutInterface);
    rules.extend(outbound::proxy_senders(context));
    rules.extend(outbound::excluded_ports(context, &[Protocol::Tcp]));
    rules.extend(outbound::excluded_owners(context, &[Protocol::Tcp, Protocol::Udp]));
    rules.extend(outbound::excluded_destinations(context, Families::Both));
    rules.extend(allowed_lookups(context));
    rules
}

/// Packets without an owner that are no answers.
fn of_the_kernel() -> Vec<Rule> {
    let mut rules = neighbours(&SENT);
    rules.push(skip(
        [tcp(), Match::ConntrackState(ConntrackState::Established)],
        "the rest of a closed connection",
    ));
    rules
}

/// First packets within the pod. A forged source address would make the pod's answer leave as a reply. A packet that was
/// redirected still has the interface of its former route; a socket that is bound to one sends even packets to loopback
/// addresses by it, which [`within_or_lost`] drops.
fn within() -> Vec<Rule> {
    let redirected = |loopback| {
        skip(
            [Match::Destination(Addresses::Ip(loopback)), Match::SourceIsLocal],
            "within the pod, and to the proxy",
        )
    };
    let mut rules: Vec<Rule> = LOOPBACK.into_iter().map(redirected).collect();
    rules.push(skip(
        [over_loopback(), Match::SourceIsLocal, Match::DestinationIsLocal],
        "traffic within the pod",
    ));
    rules
}

/// Further packets of connections to this loopback address, which is also that of the proxy. Their first packet passed the
/// rules, and none leaves by another interface ([`within_or_lost`]).
fn known_within(loopback: IpAddr) -> Rule {
    let established = Match::ConntrackState(ConntrackState::Established);
    skip(
        [Match::Destination(Addresses::Ip(loopback)), established],
        "further packets within the pod, and to the proxy",
    )
}

/// Packets that do not leave, and those that would by an interface that their address is not behind: of a socket that is
/// bound to it, and was translated or sent to a loopback address.
fn within_or_lost(context: &mut Context) -> Vec<Rule> {
    let loopback: Cidrs = [IpNet::from(LOOPBACK_V4), IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST))]
        .into_iter()
        .collect();
    let loopback = context
        .sets
        .addresses("loopback_addresses", &loopback, Families::Both, Match::Destination);
    let drop = |to| rule([to], Action::Drop, "to a loopback address by another interface");
    let mut rules = vec![skip([over_loopback()], "traffic within the pod")];
    rules.extend(loopback.into_iter().map(drop));
    rules
}

fn answers() -> Rule {
    skip([Match::Reply], "answers of the pod and of the kernel")
}

/// The pod's name servers.
pub fn name_servers(config: &Config, resolvers: &[IpAddr]) -> Cidrs {
    let servers = match &config.dns.servers {
        DnsServers::These(addresses) => addresses,
        DnsServers::All | DnsServers::ResolvConf => resolvers,
    };
    servers.iter().map(|server| (*server).into()).collect()
}

/// Lookups to the pod's name servers, if they are allowed.
fn allowed_lookups(context: &mut Context) -> Vec<Rule> {
    if !context.config.outbound.allow_dns {
        return Vec::new();
    }
    let servers = name_servers(context.config, context.resolvers);
    let servers = context
        .sets
        .addresses("name_servers", &servers, Families::Both, Match::Destination);
    let lookup = |server: &Match, protocol| {
        let port = Match::DestinationPort(protocol, PortMatch::Port(DNS_PORT));
        skip([port, server.clone()], "allowed DNS queries to the pod's name servers")
    };
    servers
        .iter()
        .flat_map(|server| [Protocol::Udp, Protocol::Tcp].map(|protocol| lookup(server, protocol)))
        .collect()
}

/// The chains that drop what comes from a rerouted interface with a source that is not behind it. Whoever answers or
/// refuses such a packet would send to that source, and a packet in the name of the pod would pass as an answer of it.
/// This host's setting `rp_filter` may be off, and IPv6 has none.
fn sources(context: &Context) -> Vec<Chain> {
    let interfaces = &context.config.general.reroute_interfaces;
    if interfaces.is_empty() {
        return Vec::new();
    }
    let check = |name: &InterfaceName| {
        let from = Match::InInterface(name.clone());
        jump([from], SOURCES, "from a rerouted interface")
    };
    // Hosts that ask for an address (DHCP, duplicate address detection) have no source yet. No packet goes there.
    let unspecified = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut rules: Vec<Rule> = unspecified
        .into_iter()
        .map(|none| skip([Match::Source(Addresses::Ip(none))], "no source address yet"))
        .collect();
    rules.push(rule(
        [Match::NoReversePath],
        Action::Drop,
        "outbound policy: from a foreign address",
    ));
    vec![
        base_chain(
            "filter_prerouting",
            Hook::Prerouting,
            interfaces.iter().map(check).collect(),
        ),
        outbound::chain(SOURCES, rules),
    ]
}

/// The chains for packets that processes behind rerouted interfaces exchange with other hosts.
fn forwarded(context: &mut Context) -> Vec<Chain> {
    let interfaces = context.config.general.reroute_interfaces.clone();
    let (outbound, inbound) = (context.config.outbound.policy, context.config.inbound.policy);
    if interfaces.is_empty() || outbound == Policy::Allow && inbound == Policy::Allow {
        return Vec::new();
    }
    let mut entries = vec![not_begun("connection that began before the rules")];
    let mut chains = Vec::new();
    if outbound == Policy::ProxyOnly {
        entries.extend(
            interfaces
                .iter()
                .cloned()
                .map(|name| jump([Match::InInterface(name)], FORWARDED, "from a rerouted interface")),
        );
        chains.push(outbound::chain(FORWARDED, forwarded_from(context)));
    }
    if inbound == Policy::ProxyOnly {
        // What they send each other is not inbound.
        entries.extend(
            interfaces
                .iter()
                .cloned()
                .map(|name| skip([Match::InInterface(name)], "rerouted interface: not inbound")),
        );
        entries.extend(
            interfaces
                .into_iter()
                .map(|name| jump([Match::OutInterface(name)], FORWARDED_TO, "to a rerouted interface")),
        );
        chains.push(outbound::chain(FORWARDED_TO, forwarded_to(context)));
    }
    chains.insert(0, base_chain("filter_forward", Hook::Forward, entries));
    chains
}

fn forwarded_from(context: &mut Context) -> Vec<Rule> {
    let mut rules = vec![skip([Match::Reply], "answers to connections from outside")];
    rules.extend(excluded_interfaces(context, Match::OutInterface));
    let rerouted = context.config.general.reroute_interfaces.iter().cloned();
    rules.extend(rerouted.map(|name| skip([Match::OutInterface(name)], "between rerouted interfaces")));
    rules.extend(outbound::excluded_ports(context, &[Protocol::Tcp]));
    rules.extend(outbound::excluded_destinations(context, Families::Both));
    rules.extend(allowed_lookups(context));
    rules.extend(reject("outbound policy"));
    rules
}

fn forwarded_to(context: &mut Context) -> Vec<Rule> {
    let mut rules = excluded_interfaces(context, Match::InInterface);
    rules.push(skip([Match::Reply], "answers to connections of the pod"));
    rules.push(known_errors());
    rules.extend(inbound::mesh_ports(context));
    rules.extend(inbound::exclusions(context, Families::Both));
    rules.extend(reject("inbound policy"));
    rules
}

/// Errors about known connections, which path MTU discovery needs.
fn known_errors() -> Rule {
    skip(
        [Match::ConntrackState(ConntrackState::Related)],
        "errors about known connections",
    )
}

/// Rejects the segments of TCP connections that connection tracking has not seen begin.
fn not_begun(comment: &'static str) -> Rule {
    rule(
        [Match::TcpNotSyn, Match::ConntrackState(ConntrackState::New)],
        Action::Reject(Rejection::TcpReset),
        comment,
    )
}

/// Inbound packets for this host.
fn arriving(context: &mut Context) -> Vec<Rule> {
    let inbound = &context.config.inbound;
    let (policy, mode, mark) = (inbound.policy, inbound.mode, inbound.tproxy_mark);
    if policy == Policy::Allow && context.config.outbound.policy == Policy::Allow {
        return Vec::new();
    }
    let mut rules = vec![skip([loopback_in()], "traffic within the pod")];
    rules.extend(excluded_interfaces(context, Match::InInterface));
    rules.push(not_begun("connection that began before the rules"));
    if policy == Policy::Allow {
        return rules;
    }
    rules.push(skip([Match::Reply], "answers to connections of the pod"));
    rules.push(known_errors());
    rules.push(match mode {
        InboundMode::Redirect => {
            let port = PortMatch::Port(context.config.proxy.inbound_port);
            skip(
                [
                    Match::DestinationPort(Protocol::Tcp, port),
                    Match::DestinationTranslated,
                ],
                "inbound, to the proxy",
            )
        }
        InboundMode::Tproxy => skip([tcp(), Match::Mark(mark)], "inbound, to the proxy"),
    });
    let rerouted = context.config.general.reroute_interfaces.iter().cloned();
    rules.extend(rerouted.map(|name| skip([Match::InInterface(name)], "rerouted interface: not inbound")));
    rules.extend(inbound::mesh_ports(context));
    rules.extend(inbound::exclusions(context, Families::Both));
    rules.extend(neighbours(&RECEIVED));
    rules.push(jump([], REJECT_INBOUND, "anything else"));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::options::{KumaRules, OwnerOrder, Settings};
    use crate::plan::Plan;

    #[test]
    fn a_policy_in_the_rules_of_another_program_is_an_error() {
        for dialect in [
            Dialect::Istio(OwnerOrder::default()),
            Dialect::Kuma(KumaRules::default()),
        ] {
            let mut config = Settings::default().config;
            config.dialect = dialect;
            let is_refused = |config: &Config| {
                let plan = Plan::new(config, &Facts::default());
                matches!(plan, Err(PlanError::PolicyOfDialect { .. }))
            };
            assert!(!is_refused(&config));
            config.inbound.policy = Policy::ProxyOnly;
            assert!(is_refused(&config));
        }
    }
}
