//! A plan as a script for `nft -f` (nft(8)).

use std::fmt::Write as _;

use crate::plan::Plan;
use crate::ruleset::{
    Action, Addresses, BaseHook, Cgroup, Chain, ChainType, ConntrackState, Elements, GidMatch, Hook, Layout, Match,
    PortMatch, Protocol, Rejection, Rule, Ruleset, Set, TIMEOUTS, TableFamily, TcpState, Timeouts, UidMatch, Zone,
    ipv4_addresses, ipv6_addresses,
};
use crate::types::{Family, InterfaceName};

/// Elements on one line of a set, as nft itself breaks them for reading.
const ELEMENTS_PER_LINE: usize = 8;

/// The whole plan. Addresses and routes, which nft cannot add, are commands in comments.
///
/// Loading the script replaces our table atomically, and nothing else.
pub fn script(plan: &Plan) -> String {
    script_in(plan, Layout::OneTable)
}

/// The same with the tables of this layout.
pub fn script_in(plan: &Plan, layout: Layout) -> String {
    let mut text = String::from("#!/usr/sbin/nft -f\n");
    text += &super::comments_on_the_rest(plan);
    for (family, ruleset) in plan.ruleset.tables(layout) {
        text += &table(family, &ruleset);
    }
    text
}

fn table(family: TableFamily, ruleset: &Ruleset) -> String {
    let title = family.title();
    // The table is added first, so that its deletion succeeds if there is none yet; the script is one transaction.
    let mut text = format!("table {title}\ndelete table {title}\n");
    text += &format!("table {title} {{\n");
    let timeouts = ruleset.timeouts.iter().map(timeouts);
    let sets = ruleset.sets.iter().map(set);
    let chains = ruleset.installed_chains().map(|chain| self::chain(family, chain));
    text += &timeouts.chain(sets).chain(chains).collect::<Vec<_>>().join("\n");
    text + "}\n"
}

/// Each property on a separate line: nft 1.0.6 reads no other form.
fn timeouts(timeouts: &Timeouts) -> String {
    format!(
        "\tct timeout {TIMEOUTS} {{\n\t\tprotocol tcp\n\t\tpolicy = {{ {} }}\n\t}}\n",
        policy(timeouts)
    )
}

/// The timeouts, as nft lists them.
pub fn policy(timeouts: &Timeouts) -> String {
    let policy = TcpState::ALL.map(|state| format!("{} : {}", state.name(), timeouts.of(state).seconds()));
    policy.join(", ")
}

fn set(set: &Set) -> String {
    let singles = set.elements.single_addresses();
    let (kind, elements) = match &set.elements {
        Elements::Ipv4(nets) if singles.is_some() => ("ipv4_addr", words(nets.iter().flat_map(ipv4_addresses))),
        Elements::Ipv6(nets) if singles.is_some() => ("ipv6_addr", words(nets.iter().flat_map(ipv6_addresses))),
        Elements::Ipv4(nets) => ("ipv4_addr", words(nets)),
        Elements::Ipv6(nets) => ("ipv6_addr", words(nets)),
        Elements::Ports(ports) => ("inet_service", words(ports)),
        Elements::Uids(uids) => ("uid", words(uids)),
        Elements::Gids(gids) => ("gid", words(gids)),
    };
    let properties = singles.map_or("flags interval".to_owned(), |addresses| format!("size {addresses}"));
    let lines: Vec<String> = elements.chunks(ELEMENTS_PER_LINE).map(|line| line.join(", ")).collect();
    format!(
        "\tset {} {{\n\t\ttype {kind}\n\t\t{properties}\n\t\telements = {{ {} }}\n\t}}\n",
        set.name,
        lines.join(",\n\t\t\t     ")
    )
}

fn words<E: ToString>(elements: impl IntoIterator<Item = E>) -> Vec<String> {
    elements.into_iter().map(|element| element.to_string()).collect()
}

fn chain(family: TableFamily, chain: &Chain) -> String {
    let mut text = format!("\tchain {} {{\n", chain.name);
    if let Some(base) = &chain.hook {
        text += &format!("\t\t{}\n", base_hook(chain, base));
    }
    for rule in &chain.rules {
        text += &format!("\t\t{}\n", self::rule(family, rule));
    }
    text + "\t}\n"
}

fn base_hook(chain: &Chain, base: &BaseHook) -> String {
    let kind = chain_type(chain, base);
    let hook = base.hook.name();
    format!("type {kind} hook {hook} priority {}; policy accept;", base.priority)
}

/// nft's name for the type of a base chain (nft(8), "CHAINS"). A chain of type route makes the kernel reroute packets
/// with a new mark. The kernel calls one of type nat for the first packet of a connection alone, so a chain that decides
/// about no other costs the others nothing. nft rejects packets in such a chain; iptables does not.
pub fn chain_type(chain: &Chain, base: &BaseHook) -> &'static str {
    match (base.kind, base.hook) {
        (ChainType::Filter, Hook::Input | Hook::Output) if chain.decides_about_first_packets_alone() => "nat",
        (ChainType::Nat, _) => "nat",
        (ChainType::Mangle, Hook::Output) => "route",
        (ChainType::Mangle, Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Postrouting)
        | (ChainType::Raw | ChainType::Filter, _) => "filter",
    }
}

/// One rule, as a line of a chain in a table of this family.
pub fn rule(family: TableFamily, rule: &Rule) -> String {
    let mut text = String::new();
    for matcher in &rule.matches {
        text += &self::matcher(matcher);
        text.push(' ');
    }
    text += &counting_action(family, rule);
    if !rule.comment.is_empty() {
        let _ = write!(text, " comment \"{}\"", rule.comment);
    }
    text
}

/// The action of a rule with its counter, if it has one. Behind a match on the proxy's socket, so that it counts the packets
/// that the action is taken on.
fn counting_action(family: TableFamily, rule: &Rule) -> String {
    let action = action(family, &rule.action);
    if !rule.has_counter {
        return action;
    }
    match &rule.action {
        Action::Tproxy { .. } => match action.strip_suffix(TPROXY_VERDICT) {
            Some(before) => format!("{before}counter {TPROXY_VERDICT}"),
            None => action,
        },
        Action::Return
        | Action::Jump(_)
        | Action::Accept
        | Action::Drop
        | Action::Reject(_)
        | Action::Redirect(_)
        | Action::SetMark(_)
        | Action::SaveMark
        | Action::RestoreMark
        | Action::SetZone(_)
        | Action::SetTimeouts => format!("counter {action}"),
    }
}

/// The last word of [`Action::Tproxy`].
const TPROXY_VERDICT: &str = "accept";

fn interface(key: &str, name: &InterfaceName) -> String {
    // As the nftables backend writes it: loopback by its index.
    let by = if *name == InterfaceName::loopback() { "" } else { "name" };
    format!("{key}{by} \"{name}\"")
}

/// One match, as a part of a rule.
pub fn matcher(matcher: &Match) -> String {
    match matcher {
        Match::Family(Family::V4) => "meta nfproto ipv4".to_owned(),
        Match::Family(Family::V6) => "meta nfproto ipv6".to_owned(),
        Match::Protocol(protocol) => format!("meta l4proto {}", self::protocol(*protocol)),
        Match::InInterface(name) => interface("iif", name),
        Match::OutInterface(name) => interface("oif", name),
        Match::Source(addresses) => self::addresses(addresses, "saddr"),
        Match::Destination(addresses) => self::addresses(addresses, "daddr"),
        Match::SourcePort(protocol, ports) => format!("{} sport {}", self::protocol(*protocol), self::ports(ports)),
        Match::DestinationPort(protocol, ports) => {
            format!("{} dport {}", self::protocol(*protocol), self::ports(ports))
        }
        Match::Uid(UidMatch::Uid(uid)) => format!("meta skuid {uid}"),
        Match::Uid(UidMatch::Set(set)) => format!("meta skuid @{set}"),
        Match::Gid(GidMatch::Gid(gid)) => format!("meta skgid {gid}"),
        Match::Gid(GidMatch::Set(set)) => format!("meta skgid @{set}"),
        Match::Cgroup(Cgroup { path, level, id }) => match (path, id) {
            (Some(path), _) => format!("socket cgroupv2 level {level} \"{path}\""),
            // As nft writes one that it cannot find.
            (None, id) => format!("socket cgroupv2 level {level} {}", id.unwrap_or_default()),
        },
        Match::Mark(mark) => format!("meta mark {mark}"),
        Match::MarkIsNot(mark) => format!("meta mark != {mark}"),
        Match::ConntrackMark(mark) => format!("ct mark {mark}"),
        Match::ConntrackState(ConntrackState::Invalid) => "ct state invalid".to_owned(),
        Match::ConntrackState(ConntrackState::New) => "ct state new".to_owned(),
        Match::ConntrackState(ConntrackState::Related) => "ct state related".to_owned(),
        Match::ConntrackState(ConntrackState::Established) => "ct state established,related".to_owned(),
        Match::Reply => "ct direction reply".to_owned(),
        Match::DestinationTranslated => "ct status dnat".to_owned(),
        Match::SourceIsLocal => "fib saddr type local".to_owned(),
        Match::NoReversePath => "fib saddr . iif oif missing".to_owned(),
        Match::DestinationIsLocal => "fib daddr type local".to_owned(),
        // No user has this ID (`INVALID_UID`), so it matches every packet that has an owner.
        Match::HasOwner => format!("meta skuid != {}", u32::MAX),
        Match::TcpNotSyn => "tcp flags & (fin | syn | rst | ack) != syn".to_owned(),
        Match::Icmpv6Type(number) => format!("icmpv6 type {number}"),
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn ports(ports: &PortMatch) -> String {
    match ports {
        PortMatch::Port(port) => port.to_string(),
        PortMatch::Set(set) => format!("@{set}"),
    }
}

fn addresses(addresses: &Addresses, side: &str) -> String {
    let protocol = match addresses.family() {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match addresses {
        Addresses::Ip(ip) => format!("{protocol} {side} {ip}"),
        Addresses::Set(_, set) => format!("{protocol} {side} @{set}"),
    }
}

/// An action, as the end of a rule.
pub fn action(family: TableFamily, action: &Action) -> String {
    match action {
        Action::Return => "return".to_owned(),
        Action::Jump(chain) => format!("jump {chain}"),
        Action::Accept => "accept".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Reject(Rejection::TcpReset) => "reject with tcp reset".to_owned(),
        Action::Reject(Rejection::AdminProhibited) => {
            let protocol = match family {
                TableFamily::Inet => "icmpx",
                TableFamily::Only(Family::V4) => "icmp",
                TableFamily::Only(Family::V6) => "icmpv6",
            };
            format!("reject with {protocol} admin-prohibited")
        }
        Action::Redirect(port) => format!("redirect to :{port}"),
        Action::Tproxy { port, mark } => format!("tproxy to :{port} meta mark set {mark} {TPROXY_VERDICT}"),
        Action::SetMark(mark) => format!("meta mark set {mark}"),
        Action::SaveMark => "ct mark set meta mark".to_owned(),
        Action::RestoreMark => "meta mark set ct mark".to_owned(),
        Action::SetZone(Zone(zone)) => format!("ct zone set {zone}"),
        Action::SetTimeouts => format!("ct timeout set \"{TIMEOUTS}\""),
    }
}
