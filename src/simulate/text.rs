//! An explanation as text: the verdict in a sentence, then the trace of rules, hook by hook.

use std::net::SocketAddr;

use super::packet::{Origin, Packet, endpoint};
use super::path::{End, PacketPath, Step, TraceEntry, Verdict};
use super::{Explanation, describe, effect};
use crate::mesh::verdict::{self, By};
use crate::render;
use crate::ruleset::netfilter::{Action, Netfilter, Rule};
use crate::ruleset::{self, ChainType, Hook, TABLE, Tracking, Zone};
use crate::types::{IpProtocol, Port};

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
    let path = explanation.path;
    let emphasis = match path.verdict {
        _ if !path.certain => Emphasis::Yellow,
        Verdict::Redirect(_) | Verdict::Tproxy(_) => Emphasis::Green,
        Verdict::Accept | Verdict::Dnat(_) => Emphasis::Yellow,
        Verdict::Drop | Verdict::Reject => Emphasis::Red,
    };
    let mut lines = vec![style.emphasise(&verdict(explanation), emphasis)];
    if !path.certain {
        lines.push("This is not certain. It may depend on:".to_owned());
        lines.extend(path.doubts.iter().map(|doubt| format!("  - {doubt}")));
    }
    lines.extend(path.refused_on.iter().map(|interface| {
        format!("{interface} accepts no packets to loopback addresses from other hosts (sysctl route_localnet).")
    }));
    lines.push(String::new());
    lines.push(format!("Packet  {}", packet(explanation.packet)));
    lines.extend(explanation.pod.map(|verdict| format!("Pod     {}", pod(verdict))));
    lines.push(format!("Rules   {}", explanation.source));
    let mut before: Option<&TraceEntry> = None;
    for entry in &path.trace {
        let hook = |entry: &TraceEntry| (entry.base.hook, entry.interface.clone());
        if before.map(hook) != Some(hook(entry)) {
            lines.push(String::new());
            lines.push(style.emphasise(&heading(entry), Emphasis::Bold));
        }
        if entry.depth == 0 && before.is_none_or(|before| !is_same_chain(before, entry) || hook(before) != hook(entry))
        {
            lines.push(format!("  {}", chain(explanation.rules, entry)));
        }
        lines.push(step(entry, style));
        before = Some(entry);
    }
    if path.trace.is_empty() {
        lines.push(String::new());
        lines.push("No chain handles this packet.".to_owned());
    }
    lines.push(String::new());
    lines.push(end(path));
    lines.push(String::new());
    lines.join("\n")
}

/// The verdict alone.
pub fn line(explanation: &Explanation) -> String {
    let perhaps = if explanation.path.certain {
        String::new()
    } else {
        format!(" (uncertain: {})", explanation.path.doubts.join("; "))
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

/// What the rules do with the packet, and the rule that decides.
fn verdict(explanation: &Explanation) -> String {
    use ruleset::Action as Planned;
    let path = explanation.path;
    let what = match (explanation.packet.protocol, explanation.packet.tracking) {
        (IpProtocol::TCP, Tracking::New) => "The connection",
        _ => "The packet",
    };
    let redirects = |action: &Action| matches!(action, Action::Redirect(_) | Action::Planned(Planned::Redirect(_)));
    let translates = |action: &Action| redirects(action) || matches!(action, Action::Dnat(..));
    match path.verdict {
        Verdict::Redirect(port) => {
            format!(
                "{what} is redirected to port {port} of the pod{}.",
                why(path, |_, action| translates(action))
            )
        }
        Verdict::Tproxy(port) => {
            let hands_over =
                |action: &Action| matches!(action, Action::Tproxy { .. } | Action::Planned(Planned::Tproxy { .. }));
            let why = why(path, |_, action| hands_over(action));
            format!("{what} is passed unchanged to the transparent socket on port {port} of the pod{why}.")
        }
        Verdict::Dnat(to) => {
            let why = why(path, |_, action| translates(action));
            format!("{what} is translated to another host, {}{why}.", place_of(&to))
        }
        Verdict::Accept => {
            let accepts = |action: &Action| matches!(action, Action::Planned(Planned::Return | Planned::Accept));
            let why = why(path, |kind, action| kind != ChainType::Filter && accepts(action));
            match (why.as_str(), explanation.pod) {
                ("", Some(verdict::Verdict::Skipped(skipped))) => {
                    format!(
                        "{what} is not redirected, like all traffic of the pod: {}.",
                        skipped.reason
                    )
                }
                ("", _) if path.certain => match (left_by_policy(path), explanation.packet.protocol) {
                    (Some(comment), _) => format!("{what} is not redirected: {comment}."),
                    (None, IpProtocol::TCP | IpProtocol::UDP) => format!("{what} is not redirected: no rule matches."),
                    (None, other) => format!("{what} is not redirected: {other} is not TCP, and no rule matches."),
                },
                ("", _) => format!("{what} is not redirected, as far as the rules could be read."),
                (why, _) => format!("{what} is not redirected{why}."),
            }
        }
        Verdict::Drop | Verdict::Reject => {
            let how = if path.verdict == Verdict::Drop {
                "dropped"
            } else {
                "rejected"
            };
            let refuses = |action: &Action| {
                matches!(
                    action,
                    Action::Reject | Action::Planned(Planned::Drop | Planned::Reject(_))
                )
            };
            let why = match path.trace.last() {
                _ if path.refused_on.is_some() => " by the kernel".to_owned(),
                Some(entry) if entry.step == Step::PolicyDrop => format!(" by the policy of {}", place(entry)),
                _ => why(path, |_, action| refuses(action) || redirects(action)),
            };
            match path.redirected_to {
                Some(to) => format!("{what} is redirected to port {} and then {how}{why}.", to.port()),
                None => format!("{what} is {how}{why}."),
            }
        }
    }
}

/// A destination, without the port that some protocols lack.
fn place_of(to: &SocketAddr) -> String {
    endpoint(to.ip(), Port::new(to.port()))
}

/// What the last rule of sidetrack's policy is for that left the packet.
fn left_by_policy<'p>(path: &'p PacketPath) -> Option<&'p str> {
    let entries = path.trace.iter().rev();
    let mut own = entries.filter(|entry| entry.base.kind == ChainType::Filter && effect::is_own(entry));
    own.find_map(|entry| match entry.step {
        Step::Taken(rule)
            if rule
                .actions()
                .any(|action| *action == Action::Planned(ruleset::Action::Return)) =>
        {
            Some(rule.comment.as_ref())
        }
        _ => None,
    })
}

/// The last rule that was taken and has such an action: its comment, or its place.
fn why(path: &PacketPath, decides: impl Fn(ChainType, &Action) -> bool) -> String {
    let decides = |entry: &&TraceEntry| match entry.step {
        Step::Taken(rule) | Step::NowhereToRedirect(rule) => {
            rule.actions().any(|action| decides(entry.base.kind, action))
        }
        _ => false,
    };
    let entries: Vec<&TraceEntry> = path.trace.iter().rev().filter(decides).collect();
    let comments = entries
        .iter()
        .filter_map(|entry| entry.step.rule())
        .map(|rule| &rule.comment);
    if let Some(comment) = comments.clone().find(|comment| !comment.is_empty()) {
        return format!(": {comment}");
    }
    entries.first().map_or(String::new(), |entry| {
        let rules = entry.chain.rules.iter();
        let mut numbers = rules.zip(1..).filter(|(rule, _)| Some(*rule) == entry.step.rule());
        let number = numbers.next().map_or(0, |(_, number)| number);
        format!(" by rule {number} of {}", place(entry))
    })
}

fn place(entry: &TraceEntry) -> String {
    format!("chain {} of table {}", entry.chain.name, entry.table.name)
}

/// Whether two entries belong to one base chain.
fn is_same_chain(one: &TraceEntry, other: &TraceEntry) -> bool {
    one.base == other.base && one.table.name == other.table.name
}

fn packet(packet: &Packet) -> String {
    let mut text = format!(
        "{} from {} to {}",
        packet.protocol,
        endpoint(packet.source, packet.source_port),
        endpoint(packet.destination, packet.destination_port),
    );
    text += &match &packet.origin {
        Origin::Process { uid, gid, .. } => format!(", sent by user {uid}, group {gid}"),
        Origin::Interface(interface) => format!(", arriving on {interface}"),
    };
    if let Some(cgroup) = packet.origin.cgroup() {
        text += &format!(", in cgroup {cgroup}");
    }
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

fn heading(entry: &TraceEntry) -> String {
    let interface = &entry.interface;
    match entry.base.hook {
        Hook::Output => format!("Locally generated packets (hook output), leaving by {interface}"),
        Hook::Prerouting => format!("Inbound packets (hook prerouting), arriving on {interface}"),
        Hook::Input => format!("Packets for this host (hook input), arriving on {interface}"),
        Hook::Forward => format!("Packets for other hosts (hook forward), arriving on {interface}"),
        Hook::Postrouting => format!("Packets that leave (hook postrouting), by {interface}"),
    }
}

fn chain(rules: &Netfilter, entry: &TraceEntry) -> String {
    let purpose = match entry.base.kind {
        ChainType::Raw => "raw: before connection tracking",
        ChainType::Mangle => "mangle: marks, drops, TPROXY",
        ChainType::Nat => "nat: translates connections",
        ChainType::Filter => "filter: accepts, drops",
    };
    let own = format!("inet {TABLE}");
    let table = match rules.tables.iter().all(|table| table.name == own) {
        true => String::new(),
        false => format!("table {} ", entry.table.name),
    };
    format!(
        "{table}chain {} ({purpose}; priority {})",
        entry.chain.name, entry.base.priority
    )
}

fn step(entry: &TraceEntry, style: Style) -> String {
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
        Step::NoMatch(rule, Some(failing)) => {
            let only = describe::matched_packets(entry.table, failing);
            faint(format!("{indent}no   {}only {only}", prefix(&rule.comment)))
        }
        Step::NoMatch(rule, None) => faint(format!(
            "{indent}no   {}only packets in its map ({})",
            prefix(&rule.comment),
            render::netfilter::rule(rule)
        )),
        Step::Unknown(rule) => {
            let why = match rule.is_unreadable() {
                true => "cannot be read",
                false => "unknown whether it applies",
            };
            format!("{indent}?    {}{why} ({})", prefix(&rule.comment), statements(rule))
        }
        Step::Taken(rule) => {
            let effects = describe::effects(rule, entry.depth == 0);
            let yes = style.emphasise("yes", Emphasis::Green);
            format!("{indent}{yes}  {}{effects}", prefix(&rule.comment))
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
        Step::PolicyDrop => format!("{indent}end  no more rules: dropped by the policy of the chain"),
        Step::Decided => faint(format!(
            "{indent}skipped: the connection's translation is already decided"
        )),
        Step::Untracked => faint(format!(
            "{indent}skipped: packets in conntrack state invalid are never translated"
        )),
        Step::Excluded => faint(format!(
            "{indent}skipped: packets without connection tracking are never translated"
        )),
    }
}

fn end(path: &PacketPath) -> String {
    let mut text = match &path.end {
        End::Delivered(to) if to.port() == 0 => format!("Delivered to the pod at {}", to.ip()),
        End::Delivered(to) => format!("Delivered to a socket of the pod at {to}"),
        End::Sent { to, interface } => format!("Leaves the pod by {interface}, to {}", place_of(to)),
        End::PassedThrough(to) => {
            let to = place_of(to);
            format!("For another host, {to}: forwarded only if the pod forwards packets")
        }
        End::Dropped => "Dropped".to_owned(),
        End::Rejected => "Rejected".to_owned(),
    };
    if path.mark != 0 {
        text += &format!(", with mark {}", path.mark);
    }
    if let Some(Zone(zone)) = path.zone {
        text += &format!("; conntrack zone {zone}");
    }
    if path.connection_mark != 0 {
        text += &format!("; connection mark {}", path.connection_mark);
    }
    text + "."
}

/// A rule without its comment.
fn statements(rule: &Rule) -> String {
    render::netfilter::rule(&Rule {
        comment: "".into(),
        ..rule.clone()
    })
}
