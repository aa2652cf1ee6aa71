//! An explanation for machines. The schema is described in docs/explain.md; [`VERSION`] changes when it does.

use std::net::SocketAddr;

use serde_json::Value;

use super::course::{End, Entry, Step, Verdict};
use super::packet::{Origin, Packet};
use super::{Explanation, phrase};
use crate::mesh::verdict::{self, By};
use crate::render;
use crate::ruleset::{Action, ChainType, Hook, Protocol, Tracking};
use crate::types::Id as _;

/// The version of the schema.
pub const VERSION: u32 = 1;

/// The explanation as one indented object.
pub fn document(explanation: &Explanation) -> String {
    let trace = explanation.course.trace.iter();
    let mut value = summary(explanation);
    value["trace"] = trace.map(|entry| self::entry(explanation, entry)).collect();
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
    object([
        ("version", VERSION.into()),
        ("rules", explanation.rules.into()),
        ("pod", explanation.pod.map_or(Value::Null, pod)),
        ("packet", packet(explanation.packet)),
        (
            "verdict",
            object([
                ("action", action.into()),
                ("port", port.or(to.map(SocketAddr::port)).into()),
            ]),
        ),
        (
            "end",
            object([
                ("what", what.into()),
                ("to", to.map(ToString::to_string).into()),
                ("interface", interface.into()),
            ]),
        ),
        ("mark", course.mark.into()),
        ("zone", course.zone.map(|zone| zone.0).into()),
        ("connectionMark", course.connection_mark.into()),
        ("certain", course.certain.into()),
        (
            "unreadable",
            explanation
                .unreadable
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .into(),
        ),
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
    let endpoint = |address, port: crate::types::Port| SocketAddr::new(address, port.get()).to_string();
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
    object([
        ("direction", direction.into()),
        ("protocol", protocol.into()),
        ("source", endpoint(packet.source, packet.source_port).into()),
        (
            "destination",
            endpoint(packet.destination, packet.destination_port).into(),
        ),
        ("interface", interface.as_str().into()),
        ("uid", owner.map(|(uid, _)| uid).into()),
        ("gid", owner.map(|(_, gid)| gid).into()),
        ("mark", packet.mark.into()),
        ("connectionState", state.into()),
    ])
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
    object([
        ("hook", hook.into()),
        ("type", kind.into()),
        ("priority", entry.base.priority.into()),
        ("interface", entry.interface.as_str().into()),
        ("chain", entry.chain.as_ref().into()),
        ("depth", entry.depth.into()),
        (
            "rule",
            rule.map(render::nft::rule)
                .or(unreadable.map(|what| what.text.clone()))
                .into(),
        ),
        ("comment", comment.filter(|comment| !comment.is_empty()).into()),
        ("outcome", outcome(&entry.step).into()),
        ("only", only.into()),
    ])
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
            Action::SetTimeouts => "set-timeouts",
        },
        Step::NowhereToRedirect(_) => "drop",
        Step::End => "end",
        Step::Decided | Step::Untracked => "skipped",
    }
}
