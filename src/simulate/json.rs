//! An explanation for machines. The schema is described in docs/explain.md; [`VERSION`] changes when it does.

use std::net::SocketAddr;

use serde_json::Value;

use super::packet::{Origin, Packet, endpoint};
use super::path::{End, Step, TraceEntry, Verdict};
use super::{Explanation, describe};
use crate::mesh::verdict::{self, By};
use crate::render;
use crate::ruleset::netfilter::{Action, Choice, MarkChange, Rule};
use crate::ruleset::{self, Tracking};
use crate::types::{CgroupPath, Id as _, Port};

/// The version of the schema.
pub const VERSION: u32 = 1;

/// The explanation as one indented object.
pub fn document(explanation: &Explanation) -> String {
    let mut value = summary(explanation);
    value["trace"] = explanation.path.trace.iter().map(entry).collect();
    format!("{value:#}\n")
}

/// The explanation as one line, without the trace.
pub fn line(explanation: &Explanation) -> String {
    format!("{}\n", summary(explanation))
}

/// The line of a packet that cannot be sent.
pub fn failure(reason: &str) -> String {
    let value = object([("version", VERSION.into()), ("error", reason.into())]);
    format!("{value}\n")
}

fn summary(explanation: &Explanation) -> Value {
    let path = explanation.path;
    let (action, port) = match path.verdict {
        Verdict::Redirect(port) => ("redirect", Some(port.get())),
        Verdict::Tproxy(port) => ("tproxy", Some(port.get())),
        Verdict::Dnat(to) => ("dnat", Some(to.port())),
        Verdict::Accept => ("accept", None),
        Verdict::Drop => ("drop", None),
        Verdict::Reject => ("reject", None),
    };
    let (what, to, interface) = match &path.end {
        End::Delivered(to) => ("delivered", Some(to), None),
        End::Sent { to, interface } => ("sent", Some(to), Some(interface.as_str())),
        End::PassedThrough(to) => ("passed-through", Some(to), None),
        End::Dropped => ("dropped", None, None),
        End::Rejected => ("rejected", None, None),
    };
    object([
        ("version", VERSION.into()),
        ("rules", explanation.source.into()),
        ("pod", explanation.pod.map_or(Value::Null, pod)),
        ("packet", packet(explanation.packet)),
        (
            "verdict",
            object([
                ("action", action.into()),
                (
                    "port",
                    port.or(to.map(SocketAddr::port)).filter(|port| *port != 0).into(),
                ),
            ]),
        ),
        (
            "end",
            object([
                ("what", what.into()),
                ("to", to.map(|to| endpoint(to.ip(), Port::new(to.port()))).into()),
                ("interface", interface.into()),
            ]),
        ),
        ("mark", path.mark.into()),
        ("zone", path.zone.map(|zone| zone.0).into()),
        ("connectionMark", path.connection_mark.into()),
        ("certain", path.certain.into()),
        ("doubts", path.doubts.clone().into()),
        ("unreadable", explanation.unreadable().into()),
    ])
}

/// Members in this order.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let member = |(name, value): (&str, Value)| (name.to_owned(), value);
    Value::Object(members.into_iter().map(member).collect())
}

fn pod(verdict: &verdict::Verdict) -> Value {
    let redirected = match verdict {
        verdict::Verdict::Redirected(redirected) => Some(redirected),
        verdict::Verdict::Skipped(_) => None,
    };
    let (by, container) = match redirected.map(|redirected| &redirected.by) {
        Some(By::Plugin) => (Some("plugin"), None),
        Some(By::InitContainer { name, .. }) => (Some("init-container"), Some(name.as_str())),
        None => (None, None),
    };
    let unseen = redirected.into_iter().flat_map(|redirected| &redirected.unseen);
    let unseen = unseen.map(|unseen| {
        object([
            ("what", unseen.what.as_str().into()),
            ("annotation", unseen.annotation.as_str().into()),
            ("value", unseen.value.as_str().into()),
        ])
    });
    object([
        ("redirected", redirected.is_some().into()),
        ("by", by.into()),
        ("container", container.into()),
        ("reason", verdict.reason().into()),
        (
            "mesh",
            redirected
                .map(|redirected| redirected.settings.config.proxy.mesh.to_string())
                .into(),
        ),
        ("unseen", unseen.collect::<Vec<_>>().into()),
    ])
}

fn packet(packet: &Packet) -> Value {
    let (direction, interface, owner) = match &packet.origin {
        Origin::Process {
            uid, gid, interface, ..
        } => ("outbound", interface, Some((uid.get(), gid.get()))),
        Origin::Interface(interface) => ("inbound", interface, None),
    };
    let state = match packet.tracking {
        Tracking::New => "new",
        Tracking::Established => "established",
        Tracking::Related => "related",
        Tracking::Invalid => "invalid",
    };
    object([
        ("direction", direction.into()),
        ("protocol", packet.protocol.word().into()),
        ("source", endpoint(packet.source, packet.source_port).into()),
        (
            "destination",
            endpoint(packet.destination, packet.destination_port).into(),
        ),
        ("interface", interface.as_str().into()),
        ("uid", owner.map(|(uid, _)| uid).into()),
        ("gid", owner.map(|(_, gid)| gid).into()),
        ("cgroup", packet.origin.cgroup().map(CgroupPath::as_str).into()),
        ("mark", packet.mark.into()),
        ("connectionState", state.into()),
    ])
}

fn entry(entry: &TraceEntry) -> Value {
    let rule = entry.step.rule();
    let comment = rule.map(|rule| rule.comment.as_ref());
    let only = match entry.step {
        Step::NoMatch(_, Some(failing)) => Some(describe::matched_packets(entry.table, failing)),
        _ => None,
    };
    object([
        ("hook", entry.base.hook.name().into()),
        ("type", entry.base.kind.name().into()),
        ("priority", entry.base.priority.into()),
        ("interface", entry.interface.as_str().into()),
        ("table", entry.table.name.as_str().into()),
        ("chain", entry.chain.name.as_ref().into()),
        ("depth", entry.depth.into()),
        ("rule", rule.map(render::netfilter::rule).into()),
        ("comment", comment.filter(|comment| !comment.is_empty()).into()),
        ("outcome", outcome(&entry.step).into()),
        ("only", only.into()),
    ])
}

fn outcome(step: &Step) -> &'static str {
    match step {
        Step::NoMatch(..) => "no-match",
        Step::Unknown(_) => "unknown",
        Step::Taken(rule) => taken(rule),
        Step::NowhereToRedirect(_) | Step::PolicyDrop => "drop",
        Step::End => "end",
        Step::Decided | Step::Untracked | Step::Excluded => "skipped",
    }
}

/// The last action of a rule that matters to the path.
fn taken(rule: &Rule) -> &'static str {
    let actions = rule.actions().filter(|action| !matches!(action, Action::Nothing(_)));
    actions.last().map_or("continue", action)
}

fn action(action: &Action) -> &'static str {
    use ruleset::Action as Planned;
    match action {
        Action::Planned(Planned::Return) => "return",
        Action::Planned(Planned::Jump(_)) => "jump",
        Action::Planned(Planned::Accept) => "accept",
        Action::Planned(Planned::Drop) => "drop",
        Action::Planned(Planned::Redirect(_)) | Action::Redirect(_) => "redirect",
        Action::Planned(Planned::Tproxy { .. }) | Action::Tproxy { .. } => "tproxy",
        Action::Planned(Planned::SetMark(_)) => "set-mark",
        Action::Planned(Planned::SaveMark) => "save-mark",
        Action::Planned(Planned::RestoreMark) => "restore-mark",
        Action::Planned(Planned::SetZone(_)) => "set-zone",
        Action::Planned(Planned::SetTimeouts) => "set-timeouts",
        Action::Goto(_) => "goto",
        Action::Planned(Planned::Reject(_)) | Action::Reject => "reject",
        Action::Queue => "queue",
        Action::Untrack => "notrack",
        Action::Mark(MarkChange {
            of_connection: true, ..
        }) => "save-mark",
        Action::Mark(MarkChange { copy: 0, .. }) => "set-mark",
        Action::Mark(_) => "restore-mark",
        Action::Dnat(..) => "dnat",
        Action::Snat(Choice::Any, _) => "masquerade",
        Action::Snat(..) => "snat",
        Action::Map(..) => "map",
        Action::Nothing(_) => "continue",
        Action::Unreadable(_) => "unknown",
    }
}
