//! Recorded messages of a kernel (6.18): dumps of chains and rules, then those about five connections.

use std::time::Duration;

use libc::NFT_MSG_TRACE;

use super::super::uapi::{NFT_TRACETYPE_RETURN, NFT_TRACETYPE_RULE, NFTA_TRACE_TYPE};
use super::super::{Listing, Message};
use super::encode::{self, Wanted};
use super::{decode, rules};
use crate::trace::{Event, Filter, Rules, Tracer, Verdict, read, text};
use crate::types::NoAccounts;

const TABLE: &str = "sidetrack-trace-4397";
const NOW: Duration = Duration::from_secs(1_795_335_240);

/// The type of each message, and its payload.
fn recorded() -> Vec<(u16, Vec<u8>)> {
    let hex = |text: &str| -> Vec<u8> {
        let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    let lines = include_str!("recorded.hex").lines();
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(kind, payload)| (u16::from_str_radix(kind, 16).unwrap(), hex(payload)))
        .collect()
}

fn messages() -> (Rules, Vec<Message>) {
    let messages = recorded()
        .into_iter()
        .map(|(kind, payload)| Message::read(kind, &payload).unwrap());
    let (traces, dump): (Vec<Message>, Vec<Message>) = messages.partition(|message| message.kind == NFT_MSG_TRACE);
    (rules::rules(dump).unwrap(), traces)
}

/// The lines of these messages, without the time.
fn lines(rules: &Rules, messages: &[Message]) -> Vec<String> {
    let mut tracer = Tracer::new(TABLE);
    for message in messages {
        let trace = decode::decode(message).unwrap().unwrap();
        tracer.message(&trace, rules, NOW);
    }
    tracer.finish(rules);
    let line = |connection| text::line(&connection, None);
    let lines = tracer.take_finished().into_iter().map(line);
    lines
        .map(|line| line.trim_start_matches("08:14:00.000 ").to_owned())
        .collect()
}

#[test]
fn recorded_messages_give_a_line_for_each_connection() {
    let (rules, messages) = messages();
    assert_eq!(
        lines(&rules, &messages),
        [
            "outbound tcp 10.9.0.2:39368 -> 10.9.0.9:80: redirected to port 15001 by inet s oo rule 2 \
             (\"outbound TCP\")\n",
            "outbound tcp 10.9.0.2:38858 -> 10.9.0.9:81: not redirected: inet s oo rule 1 (\"excluded\")\n",
            "outbound tcp 10.9.0.2:39370 -> 10.9.0.9:80: not redirected: inet s o rule 1 \
             (\"the proxy's own traffic\")\n",
            "outbound tcp 10.9.0.2:46542 -> 10.9.0.9:83: dropped by ip fw o rule 1\n",
            "inbound tcp 10.9.0.1:42784 -> 10.9.0.2:8080: redirected to port 15006 by inet s p rule 1 \
             (\"inbound TCP\")\n",
        ]
    );
}

/// Linux 5.10 reports a rule that returns only as the end of its chain.
#[test]
fn returning_rules_of_older_kernels_are_named() {
    let (rules, messages) = messages();
    let is_return = |message: &Message| {
        let trace = decode::decode(message).unwrap().unwrap();
        matches!(
            trace.event,
            Event::Rule {
                verdict: Verdict::Return,
                ..
            }
        )
    };
    let mut older = messages.clone();
    let mut changed = 0;
    for message in older.iter_mut().filter(|message| is_return(message)) {
        // The attribute of the type, with the number of a rule.
        let rule = [8, 0, NFTA_TRACE_TYPE as u8, 0, 0, 0, 0, NFT_TRACETYPE_RULE as u8];
        let Some(at) = message.attributes.windows(8).position(|bytes| bytes == rule) else {
            continue;
        };
        message.attributes[at + 7] = NFT_TRACETYPE_RETURN as u8;
        changed += 1;
    }
    assert!(changed > 1, "{changed}");
    assert_eq!(lines(&rules, &older), lines(&rules, &messages));
}

#[test]
fn truncated_messages_are_errors_or_other_messages() {
    for (kind, payload) in recorded() {
        for end in 0..payload.len() {
            let message = Message::read(kind, &payload[..end]).and_then(|message| decode::decode(&message));
            // A message may lack its last attributes; it must not be one about another packet.
            if let Ok(Some(trace)) = message {
                let whole = Message::read(kind, &payload).unwrap();
                assert_eq!(trace.id, decode::decode(&whole).unwrap().unwrap().id);
            }
        }
    }
}

#[test]
fn losing_any_one_message_never_gives_another_verdict_without_doubt() {
    let (rules, all) = messages();
    let complete = lines(&rules, &all);
    for lost in 0..all.len() {
        let mut tracer = Tracer::new(TABLE);
        for (at, message) in all.iter().enumerate() {
            if at == lost {
                tracer.messages_were_discarded();
                continue;
            }
            tracer.message(&decode::decode(message).unwrap().unwrap(), &rules, NOW);
        }
        tracer.finish(&rules);
        for connection in tracer.take_finished() {
            let line = text::line(&connection, None).replace("08:14:00.000 ", "");
            assert!(complete.contains(&line) || connection.doubt.is_some(), "{lost}: {line}");
        }
    }
}

#[test]
fn the_rules_of_a_filter_match_what_it_says() {
    let filter = |words: &[&str], uid| read(words, Some("10.0.0.0/8"), uid, &NoAccounts).unwrap();
    let expressions = |filter: &Filter, traces_dns| {
        let wanted = Wanted {
            filter,
            traces_dns,
            rate: 7,
        };
        let listing = Listing::of_steps(&encode::create("t", 0, &wanted));
        let chains = listing
            .chains
            .into_iter()
            .filter(|(name, _)| name == "output" || name == "prerouting");
        let rules = chains.flat_map(|(_, chain)| chain.rules);
        rules
            .map(|rule| {
                let names = rule.expressions.into_iter().map(|(name, _)| name);
                names.collect::<Vec<_>>().join(" ")
            })
            .collect::<Vec<_>>()
    };
    let network = "meta cmp payload bitwise cmp";
    let syn = "meta cmp payload bitwise cmp";
    let port = "meta cmp payload cmp";
    assert_eq!(
        expressions(&filter(&["outbound", "tcp"], Some("1000")), true),
        [format!("meta cmp {network} {syn} immediate")]
    );
    assert_eq!(
        expressions(&filter(&["inbound", "10.0.0.1:80"], None), true),
        [
            format!("meta cmp {network} {network} {port} payload bitwise cmp immediate"),
            format!("meta cmp {network} {network} {port} immediate"),
        ]
    );
    assert_eq!(expressions(&filter(&[], None), false).len(), 2);
    assert_eq!(expressions(&filter(&[], None), true).len(), 4);
}
