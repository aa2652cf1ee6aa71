//! An explanation for machines. The schema is described in docs/explain.md; [`VERSION`] changes when it does.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::course::{End, Entry, Step, Verdict};
use super::packet::{Origin, Packet};
use super::{Explanation, phrase};
use crate::config::types::Id as _;
use crate::render;
use crate::ruleset::{Action, ChainType, Hook, Protocol, Tracking};

/// The version of the schema.
pub const VERSION: u32 = 1;

/// The explanation as one indented object.
pub fn document(explanation: &Explanation) -> String {
    let course = explanation.course;
    let (action, port) = match course.verdict {
        Verdict::Redirect(port) => ("redirect", Some(port.get())),
        Verdict::Tproxy(port) => ("tproxy", Some(port.get())),
        Verdict::Accept => ("accept", None),
        Verdict::Drop => ("drop", None),
    };
    let (what, to, interface) = match &course.end {
        End::Delivered(to) => ("delivered", Some(to), None),
        End::Sent { to, interface } => ("sent", Some(to), Some(interface.as_str())),
        End::PassedThrough(to) => ("passed-through", Some(to), None),
        End::Dropped => ("dropped", None, None),
    };
    let value = json!({
        "version": VERSION,
        "rules": explanation.rules,
        "packet": packet(explanation.packet),
        "verdict": { "action": action, "port": port.or(to.map(SocketAddr::port)) },
        "end": { "what": what, "to": to.map(ToString::to_string), "interface": interface },
        "mark": course.mark,
        "zone": course.zone.map(|zone| zone.0),
        "connectionMark": course.connection_mark,
        "certain": course.certain,
        "unreadable": explanation.unreadable.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "trace": course.trace.iter().map(|entry| self::entry(explanation, entry)).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

fn packet(packet: &Packet) -> Value {
    let endpoint = |address, port: crate::config::types::Port| SocketAddr::new(address, port.get()).to_string();
    let (direction, interface, owner) = match &packet.origin {
        Origin::Process { uid, gid, interface } => ("outbound", interface, Some((uid.get(), gid.get()))),
        Origin::Interface(interface) => ("inbound", interface, None),
    };
    let protocol = match packet.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let state = match packet.tracking {
        Tracking::New => "new",
        Tracking::Established => "established",
        Tracking::Related => "related",
        Tracking::Invalid => "invalid",
    };
    json!({
        "direction": direction,
        "protocol": protocol,
        "source": endpoint(packet.source, packet.source_port),
        "destination": endpoint(packet.destination, packet.destination_port),
        "interface": interface.as_str(),
        "uid": owner.map(|(uid, _)| uid),
        "gid": owner.map(|(_, gid)| gid),
        "mark": packet.mark,
        "connectionState": state,
    })
}

fn entry(explanation: &Explanation, entry: &Entry) -> Value {
    let hook = match entry.base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
    };
    let kind = match entry.base.kind {
        ChainType::Raw => "raw",
        ChainType::Mangle => "mangle",
        ChainType::Nat => "nat",
    };
    let unreadable = match entry.step {
        Step::Unreadable(unreadable) => Some(unreadable),
        _ => None,
    };
    let rule = entry.step.rule();
    let comment = rule
        .map(|rule| rule.comment.as_ref())
        .or(unreadable.map(|what| what.comment.as_str()));
    let only = match entry.step {
        Step::NoMatch(_, failing) => Some(phrase::matching(explanation.ruleset, failing)),
        _ => None,
    };
    json!({
        "hook": hook,
        "type": kind,
        "priority": entry.base.priority,
        "interface": entry.interface.as_str(),
        "chain": entry.chain,
        "depth": entry.depth,
        "rule": rule.map(render::nft::rule).or(unreadable.map(|what| what.text.clone())),
        "comment": comment.filter(|comment| !comment.is_empty()),
        "outcome": outcome(&entry.step),
        "only": only,
    })
}

fn outcome(step: &Step) -> &'static str {
    match step {
        Step::NoMatch(..) => "no-match",
        Step::Unknown(_) | Step::Unreadable(_) => "unknown",
        Step::Taken(rule) => match &rule.action {
            Action::Return => "return",
            Action::Jump(_) => "jump",
            Action::Accept => "accept",
            Action::Drop => "drop",
            Action::Redirect(_) => "redirect",
            Action::Tproxy { .. } => "tproxy",
            Action::SetMark(_) => "set-mark",
            Action::SaveMark => "save-mark",
            Action::RestoreMark => "restore-mark",
            Action::SetZone(_) => "set-zone",
        },
        Step::NowhereToRedirect(_) => "drop",
        Step::End => "end",
        Step::Decided | Step::Untracked => "skipped",
    }
}
