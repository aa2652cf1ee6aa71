//! Traced connections as lines of text.

use std::time::{Duration, SystemTime};

use super::connection::{Action, Connection, Decision, Doubt, End};
use super::{Losses, Owner};
use crate::ruleset::Protocol;
use crate::types::timestamp;

/// A connection as a line, with its line end.
pub fn line(connection: &Connection, owner: Option<&Owner>) -> String {
    let Connection {
        at, direction, headers, ..
    } = connection;
    let protocol = match headers.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let owner = owner.map_or(String::new(), |owner| match &owner.process {
        Some((_, name)) => format!("uid {} ({name}) ", owner.uid),
        None => format!("uid {} ", owner.uid),
    });
    let text = format!(
        "{} {} {protocol} {owner}{} -> {}: {}",
        time(*at),
        direction.name(),
        headers.source,
        headers.destination,
        verdict(connection)
    );
    // Names of processes, chains and comments may hold control characters.
    text.replace(char::is_control, "\u{fffd}") + "\n"
}

/// A report of losses as a line, with its line end.
pub fn losses(losses: Losses, rate: u32, at: Duration) -> String {
    let above_rate =
        (losses.above_rate > 0).then(|| format!("{} above the rate of {rate} a second (--rate)", losses.above_rate));
    let discarded = (losses.discarded > 0).then(|| {
        let discarded = losses.discarded;
        format!("{discarded} that the kernel discarded since this process reads too slowly")
    });
    let reasons: Vec<String> = [above_rate, discarded].into_iter().flatten().collect();
    let total = losses.above_rate + losses.discarded;
    format!(
        "{} lost: {total} connections have no line: {}\n",
        time(at),
        reasons.join(", ")
    )
}

/// The time of day in UTC, with milliseconds.
fn time(at: Duration) -> String {
    let timestamp = timestamp(SystemTime::UNIX_EPOCH + at);
    let time = timestamp.split_once('T').map_or("", |(_, time)| time);
    format!("{}.{:03}", time.trim_end_matches('Z'), at.subsec_millis())
}

/// What the rules did, and which one decided.
fn verdict(connection: &Connection) -> String {
    let Connection {
        headers,
        action,
        end,
        doubt,
        ..
    } = connection;
    let decision = connection.decision.as_ref().map(decision);
    let by = match (&decision, doubt) {
        (Some(decision), _) => format!(" by {decision}"),
        (None, Some(Doubt::Untraced)) => " by a rule that the kernel does not trace (legacy iptables)".to_owned(),
        (None, _) => String::new(),
    };
    let verdict = match action {
        Action::Redirect(to) if to.port() != headers.destination.port() => {
            format!("redirected to port {}{by}", to.port())
        }
        Action::Redirect(to) => format!("redirected to {to}{by}"),
        Action::Translate(to) => format!("translated to {to}{by}"),
        Action::Tproxy(port) => format!("passed unchanged to the transparent socket on port {port}{by}"),
        Action::Drop => format!("dropped{by}"),
        Action::Accept => {
            let why = match (decision, doubt) {
                (Some(decision), _) => decision,
                (None, Some(Doubt::NotFirst)) => "no NAT rule saw the packet: an earlier one of the connection passed \
                                                  them, or it is untracked"
                    .to_owned(),
                (None, _) => "no nf_tables rule matches".to_owned(),
            };
            format!("not redirected: {why}")
        }
    };
    let after = match (doubt, end) {
        (Some(Doubt::Discarded), _) => " (uncertain: the kernel discarded messages about this packet)",
        (Some(Doubt::NoEnd), _) => {
            " (the packet went no further: it has no route, or a rule dropped it that the kernel does not trace)"
        }
        (_, End::PassedThrough(_)) => " (forwarded to another host)",
        _ => "",
    };
    verdict + after
}

/// The rule or policy that decided: `sidetrack output rule 7 ("outbound TCP")`.
fn decision(decision: &Decision) -> String {
    let chain = decision.chain.title();
    let Some(decider) = &decision.rule else {
        return format!("the policy of {chain}");
    };
    match &decider.rule {
        None => format!("{chain} rule with handle {}, deleted since", decider.handle),
        Some(rule) if rule.comment.is_empty() => format!("{chain} rule {}", rule.number),
        Some(rule) => format!("{chain} rule {} (\"{}\")", rule.number, rule.comment),
    }
}
