//! A plan as JSON, for machines. The schema is described in docs/reference.md; [`VERSION`] changes when it does.

mod read;

pub use read::{ReadError, Wrong, read};

use serde_json::{Value, json};

use crate::plan::{Bypass, LoopbackRoute, Plan, PolicyRouting};
use crate::ruleset::{
    Action, Addresses, BaseHook, Cgroup, Chain, ConntrackState, Elements, GidMatch, Match, PortMatch, Protocol, Record,
    Rejection, Rule, Set, TABLE, TableFamily, TcpState, Timeouts, UidMatch, Zone,
};
use crate::types::Id as _;
use crate::types::{CgroupPath, Family};

/// The version of the schema.
pub const VERSION: u32 = 2;

/// The whole plan, as one indented object.
pub fn document(plan: &Plan) -> String {
    format!("{:#}\n", self::plan(plan))
}

fn plan(plan: &Plan) -> Value {
    let ruleset = &plan.ruleset;
    let mut document = json!({
        "version": VERSION,
        "families": ruleset.families.iter().map(family).collect::<Vec<_>>(),
        "policyRouting": plan.policy_routing.as_ref().map(routing),
        "loopbackAddresses": plan.loopback_addresses.iter().map(|ip| format!("{ip}/128")).collect::<Vec<_>>(),
        "table": TABLE,
        "timeouts": ruleset.timeouts.as_ref().map(timeouts),
        "sets": ruleset.sets.iter().map(set).collect::<Vec<_>>(),
        "chains": ruleset.chains.iter().map(chain).collect::<Vec<_>>(),
        "record": ruleset.record.iter().flat_map(Record::comments).collect::<Vec<_>>(),
    });
    if !plan.loopback_routes.is_empty() {
        document["loopbackRoutes"] = plan.loopback_routes.iter().map(loopback_route).collect();
    }
    if !plan.bypasses.is_empty() {
        document["bypasses"] = plan.bypasses.iter().map(bypass).collect();
    }
    document
}

fn routing(routing: &PolicyRouting) -> Value {
    json!({
        "mark": routing.mark.get(),
        "table": routing.table.get(),
        "families": routing.families.iter().map(family).collect::<Vec<_>>(),
    })
}

fn loopback_route(route: &LoopbackRoute) -> Value {
    json!({"family": family(route.family), "interface": route.interface.as_str()})
}

fn bypass(bypass: &Bypass) -> Value {
    json!({
        "direction": bypass.direction.name(),
        "option": bypass.option,
        "value": bypass.value,
        "traffic": bypass.traffic,
    })
}

/// In seconds.
fn timeouts(timeouts: &Timeouts) -> Value {
    json!({
        "closeWait": timeouts.of(TcpState::CloseWait).seconds(),
        "lastAck": timeouts.of(TcpState::LastAck).seconds(),
    })
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn set(set: &Set) -> Value {
    let (kind, elements): (_, Vec<String>) = match &set.elements {
        Elements::Ipv4(nets) => ("ipv4-addresses", nets.iter().map(ToString::to_string).collect()),
        Elements::Ipv6(nets) => ("ipv6-addresses", nets.iter().map(ToString::to_string).collect()),
        Elements::Ports(ports) => ("ports", ports.iter().map(ToString::to_string).collect()),
        Elements::Uids(uids) => ("uids", uids.iter().map(ToString::to_string).collect()),
        Elements::Gids(gids) => ("gids", gids.iter().map(ToString::to_string).collect()),
    };
    json!({ "name": set.name, "type": kind, "elements": elements })
}

fn chain(chain: &Chain) -> Value {
    json!({
        "name": chain.name,
        "hook": chain.hook.as_ref().map(base_hook),
        "rules": chain.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn base_hook(base: &BaseHook) -> Value {
    json!({ "type": base.kind.name(), "hook": base.hook.name(), "priority": base.priority })
}

fn rule(rule: &Rule) -> Value {
    let mut object = json!({
        "comment": rule.comment,
        "matches": rule.matches.iter().map(matcher).collect::<Vec<_>>(),
        "action": action(&rule.action),
        "nft": super::nft::rule(TableFamily::Inet, rule),
    });
    if rule.has_counter {
        object["counter"] = true.into();
    }
    object
}

fn matcher(matcher: &Match) -> Value {
    match matcher {
        Match::Family(only) => json!({ "family": family(*only) }),
        Match::Protocol(only) => json!({ "protocol": protocol(*only) }),
        Match::InInterface(name) => json!({ "inInterface": name.as_str() }),
        Match::OutInterface(name) => json!({ "outInterface": name.as_str() }),
        Match::Source(from) => json!({ "source": addresses(from) }),
        Match::Destination(to) => json!({ "destination": addresses(to) }),
        Match::SourcePort(of, from) => json!({ "protocol": protocol(*of), "sourcePort": ports(from) }),
        Match::DestinationPort(of, to) => json!({ "protocol": protocol(*of), "destinationPort": ports(to) }),
        Match::Uid(UidMatch::Uid(uid)) => json!({ "uid": uid.get() }),
        Match::Uid(UidMatch::Set(set)) => json!({ "uid": { "set": set } }),
        Match::Gid(GidMatch::Gid(gid)) => json!({ "gid": gid.get() }),
        Match::Gid(GidMatch::Set(set)) => json!({ "gid": { "set": set } }),
        Match::Cgroup(Cgroup { path, level, id }) => json!({ "cgroup": {
            "path": path.as_ref().map(CgroupPath::as_str),
            "level": level,
            "id": id,
        } }),
        Match::Mark(mark) => json!({ "mark": mark.get() }),
        Match::MarkIsNot(mark) => json!({ "mark": { "not": mark.get() } }),
        Match::ConntrackMark(mark) => json!({ "conntrackMark": mark.get() }),
        Match::ConntrackState(ConntrackState::Invalid) => json!({ "conntrackState": ["invalid"] }),
        Match::ConntrackState(ConntrackState::New) => json!({ "conntrackState": ["new"] }),
        Match::ConntrackState(ConntrackState::Related) => json!({ "conntrackState": ["related"] }),
        Match::Reply => json!({ "conntrackDirection": "reply" }),
        Match::DestinationTranslated => json!({ "conntrackStatus": "dnat" }),
        Match::SourceIsLocal => json!({ "sourceType": "local" }),
        Match::NoReversePath => json!({ "reversePath": "missing" }),
        Match::DestinationIsLocal => json!({ "destinationType": "local" }),
        Match::HasOwner => json!({ "hasOwner": true }),
        Match::TcpNotSyn => json!({ "protocol": "tcp", "tcpFlags": { "not": "syn" } }),
        Match::Icmpv6Type(number) => json!({ "icmpv6Type": number }),
        Match::ConntrackState(ConntrackState::Established) => json!({ "conntrackState": ["established", "related"] }),
    }
}

fn ports(ports: &PortMatch) -> Value {
    match ports {
        PortMatch::Port(port) => json!(port.get()),
        PortMatch::Set(set) => json!({ "set": set }),
    }
}

fn addresses(addresses: &Addresses) -> Value {
    match addresses {
        Addresses::Ip(ip) => json!(ip.to_string()),
        Addresses::Set(of, set) => json!({ "set": set, "family": family(*of) }),
    }
}

fn action(action: &Action) -> Value {
    match action {
        Action::Return => json!("return"),
        Action::Jump(chain) => json!({ "jump": chain }),
        Action::Accept => json!("accept"),
        Action::Drop => json!("drop"),
        Action::Reject(Rejection::TcpReset) => json!({ "reject": "tcp-reset" }),
        Action::Reject(Rejection::AdminProhibited) => json!({ "reject": "admin-prohibited" }),
        Action::Redirect(port) => json!({ "redirect": port.get() }),
        Action::Tproxy { port, mark } => json!({ "tproxy": { "port": port.get(), "mark": mark.get() } }),
        Action::SetMark(mark) => json!({ "setMark": mark.get() }),
        Action::SaveMark => json!("saveMark"),
        Action::RestoreMark => json!("restoreMark"),
        Action::SetZone(Zone(zone)) => json!({ "setZone": zone }),
        Action::SetTimeouts => json!("setTimeouts"),
    }
}
