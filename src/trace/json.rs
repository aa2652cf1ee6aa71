//! Traced connections for machines, one object a line. docs/trace.md describes the schema; [`VERSION`] changes when it
//! does.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::connection::{Action, Connection, Decision, Doubt, End};
use super::{Losses, Owner};
use crate::ruleset::Protocol;
use crate::types::{Id as _, timestamp};

/// The version of the schema.
pub const VERSION: u32 = 1;

/// A connection as a line, with its line end.
pub fn line(connection: &Connection, owner: Option<&Owner>) -> String {
    let headers = &connection.headers;
    let (action, port) = match connection.action {
        Action::Redirect(to) => ("redirect", Some(to.port())),
        Action::Translate(to) => ("translate", Some(to.port())),
        Action::Tproxy(port) => ("tproxy", Some(port)),
        Action::Accept => ("accept", None),
        Action::Drop => ("drop", None),
    };
    let (what, to) = match connection.end {
        End::Delivered(to) => ("delivered", Some(to)),
        End::Sent(to) => ("sent", Some(to)),
        End::PassedThrough(to) => ("passed-through", Some(to)),
        End::Dropped => ("dropped", None),
        End::Unknown => ("unknown", None),
    };
    let doubt = connection.doubt.map(|doubt| match doubt {
        Doubt::Discarded => "messages-discarded",
        Doubt::NotFirst => "not-first-packet",
        Doubt::Untraced => "untraced-rule",
        Doubt::NoEnd => "no-end",
    });
    let owner = owner.map(|owner| {
        json!({
            "uid": owner.uid.get(),
            "pid": owner.process.as_ref().map(|(pid, _)| pid),
            "process": owner.process.as_ref().map(|(_, name)| name),
        })
    });
    let document = json!({
        "version": VERSION,
        "time": time(connection.at),
        "packet": {
            "direction": connection.direction.name(),
            "protocol": match headers.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            },
            "source": headers.source.to_string(),
            "destination": headers.destination.to_string(),
        },
        "owner": owner,
        "verdict": { "action": action, "port": port },
        "end": { "what": what, "to": to.as_ref().map(SocketAddr::to_string) },
        "rule": connection.decision.as_ref().map(decision),
        "doubt": doubt,
    });
    format!("{document}\n")
}

/// A report of losses as a line, with its line end.
pub fn losses(losses: Losses, at: Duration) -> String {
    let Losses { above_rate, discarded } = losses;
    let document = json!({
        "version": VERSION,
        "time": time(at),
        "lost": { "aboveRate": above_rate, "discarded": discarded },
    });
    format!("{document}\n")
}

fn time(at: Duration) -> String {
    let timestamp = timestamp(SystemTime::UNIX_EPOCH + at);
    format!("{}.{:03}Z", timestamp.trim_end_matches('Z'), at.subsec_millis())
}

fn decision(decision: &Decision) -> Value {
    let decider = decision.rule.as_ref();
    let rule = decider.and_then(|decider| decider.rule.as_ref());
    json!({
        "table": decision.chain.table,
        "chain": decision.chain.chain,
        "handle": decider.map(|decider| decider.handle),
        "number": rule.map(|rule| rule.number),
        "comment": rule.map(|rule| rule.comment.as_str()),
        "text": rule.map(|rule| rule.text.as_str()),
    })
}
