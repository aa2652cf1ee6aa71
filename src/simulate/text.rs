//! An explanation as text: the verdict in a sentence, then the trace of rules, hook by hook.

use std::net::SocketAddr;

use super::course::{Course, End, Entry, Step, Verdict};
use super::packet::{Origin, Packet};
use super::{Explanation, phrase};
use crate::mesh::verdict::{self, By};
use crate::ruleset::{Action, ChainType, Hook, Protocol, Tracking, Zone};

/// Whether an explanation is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without escape sequences.
    Plain,
    /// With escape sequences (ECMA-48, "SGR").
    Coloured,
}

#[derive(Clone, Copy)]
enum Emphasis {
    Bold,
    Faint,
    Green,
    Yellow,
    Red,
}

impl Style {
    fn emphasise(self, text: &str, emphasis: Emphasis) -> String {
        let code = match emphasis {
            Emphasis::Bold => "1",
            Emphasis::Faint => "2",
            Emphasis::Green => "1;32",
            Emphasis::Yellow => "1;33",
            Emphasis::Red => "1;31",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// The explanation as lines of text.
pub fn document(explanation: &Explanation, style: Style) -> String {
    let course = explanation.course;
    let emphasis = match course.verdict {
        Verdict::Redirect(_) | Verdict::Tproxy(_) => Emphasis::Green,
        Verdict::Accept => Emphasis::Yellow,
        Verdict::Drop => Emphasis::Red,
    };
    let mut lines = vec![style.emphasise(&verdict(explanation), emphasis)];
    if !course.certain {
        lines.push("This is uncertain: some rules could not be read and are assumed not to match.".to_owned());
    }
    lines.push(String::new());
    lines.push(format!("Packet  {}", packet(explanation.packet)));
    lines.extend(explanation.pod.map(|verdict| format!("Pod     {}", pod(verdict))));
    lines.push(format!("Rules   {}", explanation.rules));
    lines.extend(
        explanation
            .unreadable
            .iter()
            .map(|what| format!("        cannot be read: {what}")),
    );
    let mut before: Option<&Entry> = None;
    for entry in &course.trace {
        let hook = |entry: &Entry| (entry.base.hook, entry.interface.clone());
        if before.map(hook) != Some(hook(entry)) {
            lines.push(String::new());
            lines.push(style.emphasise(&heading(entry), Emphasis::Bold));
        }
        if entry.depth == 0 && before.is_none_or(|before| before.base != entry.base || hook(before) != hook(entry)) {
            lines.push(format!("  {}", chain(entry)));
        }
        lines.push(step(explanation, entry, style));
        before = Some(entry);
    }
    if course.trace.is_empty() {
        lines.push(String::new());
        lines.push("No chain handles this packet.".to_owned());
    }
    lines.push(String::new());
    lines.push(end(course));
    lines.push(String::new());
    lines.join("\n")
}

/// The verdict alone.
pub fn line(explanation: &Explanation) -> String {
    let perhaps = if explanation.course.certain {
        ""
    } else {
        " (uncertain: some rules could not be read)"
    };
    format!("{}{perhaps}", verdict(explanation))
}

/// Whether the pod is redirected, and why.
fn pod(verdict: &verdict::Verdict) -> String {
    let reason = verdict.reason();
    match verdict {
        verdict::Verdict::Skipped(_) => format!("not redirected: {reason}"),
        verdict::Verdict::Redirected(redirected) => match &redirected.by {
            By::Plugin => format!("redirected by the CNI plugin: {reason}"),
            By::InitContainer {
                has_known_arguments: true,
                ..
            } => format!("redirected: {reason}"),
            By::InitContainer {
                has_known_arguments: false,
                ..
            } => {
                format!(
                    "redirected: {reason}; its arguments are unknown: the plan uses the annotations and the mesh's defaults"
                )
            }
        },
    }
}

/// What the rules do with the packet, and the comment of the rule that decides.
fn verdict(explanation: &Explanation) -> String {
    let course = explanation.course;
    let what = match (explanation.packet.protocol, explanation.packet.tracking) {
        (Protocol::Tcp, Tracking::New) => "The connection",
        _ => "The packet",
    };
    let why = |decides: fn(&Action) -> bool| {
        let taken = course.trace.iter().rev().filter_map(|entry| match entry.step {
            Step::Taken(rule) | Step::NowhereToRedirect(rule) if decides(&rule.action) => Some(&rule.comment),
            _ => None,
        });
        let comment = taken.into_iter().find(|comment| !comment.is_empty());
        comment.map_or(String::new(), |comment| format!(": {comment}"))
    };
    match course.verdict {
        Verdict::Redirect(port) => {
            let why = why(|action| matches!(action, Action::Redirect(_)));
            format!("{what} is redirected to port {port} of the pod{why}.")
        }
        Verdict::Tproxy(port) => {
            let why = why(|action| matches!(action, Action::Tproxy { .. }));
            format!("{what} is passed unchanged to the transparent socket on port {port} of the pod{why}.")
        }
        Verdict::Accept => match why(|action| matches!(action, Action::Return | Action::Accept)).as_str() {
            "" => match explanation.pod {
                Some(verdict::Verdict::Skipped(skipped)) => {
                    format!(
                        "{what} is not redirected, like all traffic of the pod: {}.",
                        skipped.reason
                    )
                }
                _ => format!("{what} is not redirected: no rule matches."),
            },
            why => format!("{what} is not redirected{why}."),
        },
        Verdict::Drop => {
            let why = why(|action| matches!(action, Action::Drop | Action::Redirect(_)));
            format!("{what} is dropped{why}.")
        }
    }
}

fn packet(packet: &Packet) -> String {
    let endpoint = |address, port: crate::types::Port| SocketAddr::new(address, port.get());
    let mut text = format!(
        "{} from {} to {}",
        phrase::protocol(packet.protocol),
        endpoint(packet.source, packet.source_port),
        endpoint(packet.destination, packet.destination_port),
    );
    text += &match &packet.origin {
        Origin::Process { uid, gid, .. } => format!(", sent by user {uid}, group {gid}"),
        Origin::Interface(interface) => format!(", arriving on {interface}"),
    };
    if packet.mark != 0 {
        text += &format!(", with mark {}", packet.mark);
    }
    text + match packet.tracking {
        Tracking::New => ", first packet of its connection",
        Tracking::Established => ", of an established connection",
        Tracking::Related => ", in conntrack state related",
        Tracking::Invalid => ", in conntrack state invalid",
    }
}

fn heading(entry: &Entry) -> String {
    match entry.base.hook {
        Hook::Output => format!(
            "Locally generated packets (hook output), leaving by {}",
            entry.interface
        ),
        Hook::Prerouting => format!("Inbound packets (hook prerouting), arriving on {}", entry.interface),
    }
}

fn chain(entry: &Entry) -> String {
    let purpose = match entry.base.kind {
        ChainType::Raw => "raw: before connection tracking",
        ChainType::Mangle => "mangle: marks, drops, TPROXY",
        ChainType::Nat => "nat: translates connections",
    };
    format!("chain {} ({purpose}; priority {})", entry.chain, entry.base.priority)
}

fn step(explanation: &Explanation, entry: &Entry, style: Style) -> String {
    let indent = " ".repeat(4 + 2 * entry.depth);
    let faint = |text: String| style.emphasise(&text, Emphasis::Faint);
    let prefix = |comment: &str| {
        if comment.is_empty() {
            String::new()
        } else {
            format!("{comment}: ")
        }
    };
    match &entry.step {
        Step::NoMatch(rule, failing) => {
            let only = phrase::matching(explanation.ruleset, failing);
            faint(format!("{indent}no   {}only {only}", prefix(&rule.comment)))
        }
        Step::Unknown(rule) => format!(
            "{indent}?    {}depends on a set that could not be read",
            prefix(&rule.comment)
        ),
        Step::Unreadable(unreadable) => {
            format!(
                "{indent}?    {}cannot be read ({})",
                prefix(&unreadable.comment),
                unreadable.text
            )
        }
        Step::Taken(rule) => {
            let action = phrase::acting(&rule.action, entry.depth == 0);
            let yes = style.emphasise("yes", Emphasis::Green);
            format!("{indent}{yes}  {}{action}", prefix(&rule.comment))
        }
        Step::NowhereToRedirect(rule) => {
            let yes = style.emphasise("yes", Emphasis::Red);
            let interface = &entry.interface;
            format!(
                "{indent}{yes}  {}dropped, as {interface} has no address to redirect to",
                prefix(&rule.comment)
            )
        }
        Step::End if entry.depth == 0 => faint(format!("{indent}end  no more rules: continues after this chain")),
        Step::End => faint(format!("{indent}end  no more rules: returns to the calling chain")),
        Step::Decided => faint(format!(
            "{indent}skipped: the connection's translation is already decided"
        )),
        Step::Untracked => faint(format!(
            "{indent}skipped: packets in conntrack state invalid are never translated"
        )),
    }
}

fn end(course: &Course) -> String {
    let mut text = match &course.end {
        End::Delivered(to) => format!("Delivered to a socket of the pod at {to}"),
        End::Sent { to, interface } => format!("Leaves the pod by {interface}, to {to}"),
        End::PassedThrough(to) => format!("For another host, {to}: forwarded only if the pod forwards packets"),
        End::Dropped => "Dropped".to_owned(),
    };
    if course.mark != 0 {
        text += &format!(", with mark {}", course.mark);
    }
    if let Some(Zone(zone)) = course.zone {
        text += &format!("; conntrack zone {zone}");
    }
    if course.connection_mark != 0 {
        text += &format!("; connection mark {}", course.connection_mark);
    }
    text + "."
}
