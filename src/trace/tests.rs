//! Messages in orders that a kernel sends them in, written by hand.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::ruleset::{Hook, Protocol};
use crate::types::Id as _;

const NOW: Duration = Duration::from_secs(1_795_335_240);
const OWN: &str = "sidetrack-trace-1";

fn chain(table: &str, chain: &str) -> ChainId {
    ChainId {
        table: table.to_owned(),
        chain: chain.to_owned(),
    }
}

fn headers(destination: &str, sequence: u32) -> Headers {
    Headers {
        protocol: if sequence == 0 { Protocol::Udp } else { Protocol::Tcp },
        source: SocketAddr::from(([10, 0, 0, 2], 40000)),
        destination: destination.parse().unwrap(),
        sequence,
    }
}

fn rules() -> Rules {
    let mut rules = Rules::default();
    for (name, hook, is_nat) in [
        ("output", Hook::Output, true),
        ("prerouting", Hook::Prerouting, true),
        ("mangle", Hook::Prerouting, false),
        ("forward", Hook::Forward, false),
        ("input", Hook::Input, false),
    ] {
        let base = BaseChain {
            hook: Some(hook),
            is_nat,
        };
        rules.base_chains.insert(chain("inet sidetrack", name), base);
    }
    for (name, handle, tproxy) in [("output", 7, None), ("prerouting", 8, None), ("mangle", 9, Some(15006))] {
        let rule = Rule {
            number: 2,
            text: "text".to_owned(),
            comment: format!("rule {handle}"),
            tproxy,
        };
        rules.rules.insert((chain("inet sidetrack", name), handle), rule);
    }
    rules
}

/// A trace, and the messages that it is given.
struct Script {
    tracer: Tracer,
    rules: Rules,
    now: Duration,
}

impl Script {
    fn new() -> Self {
        Self {
            tracer: Tracer::new(OWN),
            rules: rules(),
            now: NOW,
        }
    }

    fn message(&mut self, id: u32, chain: ChainId, event: Event, headers: Option<Headers>, leaves_by_loopback: bool) {
        let message = Message {
            id,
            chain,
            event,
            headers,
            leaves_by_loopback,
        };
        self.tracer.message(&message, &self.rules, self.now);
    }

    fn begins(&mut self, id: u32, direction: Direction, headers: Headers) {
        self.begins_in(OWN, id, direction, headers);
    }

    fn begins_in(&mut self, table: &str, id: u32, direction: Direction, headers: Headers) {
        let event = Event::Rule {
            handle: 1,
            verdict: Verdict::Other,
        };
        self.message(
            id,
            chain(&format!("inet {table}"), direction.name()),
            event,
            Some(headers),
            false,
        );
    }

    fn rule(&mut self, id: u32, name: &str, handle: u64, verdict: Verdict, headers: Headers) {
        let event = Event::Rule { handle, verdict };
        self.message(id, chain("inet sidetrack", name), event, Some(headers), false);
    }

    fn policy(&mut self, id: u32, name: &str, verdict: Verdict, headers: Headers) {
        self.message(
            id,
            chain("inet sidetrack", name),
            Event::Policy(verdict),
            Some(headers),
            false,
        );
    }

    fn ends(&mut self, id: u32, name: &str, headers: Headers, leaves_by_loopback: bool) {
        self.message(
            id,
            chain(&format!("inet {OWN}"), name),
            Event::Return,
            Some(headers),
            leaves_by_loopback,
        );
    }

    /// The verdicts of the connections that are complete.
    fn verdicts(&mut self) -> Vec<String> {
        let lines = self
            .tracer
            .take_finished()
            .into_iter()
            .map(|connection| text::line(&connection, None));
        lines
            .map(|line| line.split_once("0: ").unwrap().1.trim_end().to_owned())
            .collect()
    }
}

#[test]
fn a_redirected_connection_is_followed_over_loopback() {
    let mut script = Script::new();
    let (before, after) = (headers("10.0.0.9:80", 5), headers("127.0.0.1:15001", 5));
    script.begins(1, Direction::Outbound, before);
    script.rule(1, "output", 7, Verdict::Accept, before);
    script.ends(1, LEAVES, after, true);
    assert_eq!(script.verdicts(), [""; 0]);
    // With a new number.
    script.policy(2, "input", Verdict::Accept, after);
    script.ends(2, ARRIVES, after, false);
    assert_eq!(
        script.verdicts(),
        ["redirected to port 15001 by sidetrack output rule 2 (\"rule 7\")"]
    );
}

#[test]
fn a_drop_behind_the_redirect_is_the_verdict() {
    let mut script = Script::new();
    let (before, after) = (headers("10.0.0.9:80", 5), headers("127.0.0.1:15001", 5));
    script.begins(1, Direction::Outbound, before);
    script.rule(1, "output", 7, Verdict::Accept, before);
    script.ends(1, LEAVES, after, true);
    script.policy(2, "input", Verdict::Drop, after);
    assert_eq!(script.verdicts(), ["dropped by the policy of sidetrack input"]);
}

#[test]
fn retransmitted_first_packets_have_no_line() {
    let mut script = Script::new();
    let packet = headers("10.0.0.9:80", 5);
    script.begins(1, Direction::Outbound, packet);
    script.rule(1, "output", 7, Verdict::Return, packet);
    script.ends(1, LEAVES, packet, false);
    // NAT is decided: the packet passes no such chain again.
    script.begins(1, Direction::Outbound, packet);
    script.ends(1, LEAVES, packet, false);
    // Another connection of the same addresses.
    let other = headers("10.0.0.9:80", 6);
    script.begins(1, Direction::Outbound, other);
    script.rule(1, "output", 7, Verdict::Return, other);
    script.ends(1, LEAVES, other, false);
    assert_eq!(
        script.verdicts(),
        ["not redirected: sidetrack output rule 2 (\"rule 7\")"; 2]
    );
    let counts = script.tracer.counts();
    assert_eq!((counts.started, counts.repeated, counts.connections), (3, 1, 2));
}

#[test]
fn lookups_from_one_socket_have_one_line_until_it_is_a_new_connection() {
    let mut script = Script::new();
    let packet = headers("10.0.0.10:50", 0);
    for passes_nat in [true, false, true] {
        script.begins(1, Direction::Outbound, packet);
        if passes_nat {
            script.rule(1, "output", 7, Verdict::Return, packet);
        }
        script.ends(1, LEAVES, packet, false);
    }
    assert_eq!(script.verdicts().len(), 2);
    assert_eq!(script.tracer.counts().repeated, 1);
}

#[test]
fn a_connection_that_was_begun_before_says_so() {
    let mut script = Script::new();
    let packet = headers("10.0.0.9:80", 5);
    script.begins(1, Direction::Outbound, packet);
    script.ends(1, LEAVES, packet, false);
    let verdicts = script.verdicts();
    assert!(verdicts[0].contains("no NAT rule saw the packet"), "{verdicts:?}");
}

#[test]
fn tproxy_keeps_the_destination() {
    let mut script = Script::new();
    let packet = headers("10.0.0.2:80", 5);
    script.begins(1, Direction::Inbound, packet);
    script.rule(1, "mangle", 9, Verdict::Accept, packet);
    script.policy(1, "prerouting", Verdict::Accept, packet);
    script.ends(1, ARRIVES, packet, false);
    assert_eq!(
        script.verdicts(),
        ["passed unchanged to the transparent socket on port 15006 by sidetrack mangle rule 2 (\"rule 9\")"]
    );
}

#[test]
fn forwarded_and_translated_connections_are_distinguished() {
    let mut script = Script::new();
    let (packet, elsewhere) = (headers("10.0.0.2:80", 5), headers("10.1.0.3:80", 5));
    script.begins(1, Direction::Inbound, packet);
    script.rule(1, "prerouting", 8, Verdict::Accept, packet);
    script.policy(1, "forward", Verdict::Accept, elsewhere);
    script.ends(1, LEAVES, elsewhere, false);
    assert_eq!(
        script.verdicts(),
        ["translated to 10.1.0.3:80 by sidetrack prerouting rule 2 (\"rule 8\") (forwarded to another host)"]
    );
}

#[test]
fn a_translation_without_a_traced_rule_is_in_doubt() {
    let mut script = Script::new();
    let (before, after) = (headers("10.0.0.9:80", 5), headers("127.0.0.1:15001", 5));
    script.begins(1, Direction::Outbound, before);
    script.ends(1, LEAVES, after, true);
    script.ends(2, ARRIVES, after, false);
    assert_eq!(
        script.verdicts(),
        ["redirected to port 15001 by a rule that the kernel does not trace (legacy iptables)"]
    );
}

#[test]
fn packets_that_disappear_are_given_up_after_a_second() {
    let mut script = Script::new();
    let packet = headers("10.0.0.9:80", 5);
    script.begins(1, Direction::Outbound, packet);
    script.rule(1, "output", 7, Verdict::Return, packet);
    script.now += Duration::from_millis(999);
    script.tracer.expire(&script.rules, script.now);
    assert_eq!(script.verdicts(), [""; 0]);
    script.now += Duration::from_millis(1);
    script.tracer.expire(&script.rules, script.now);
    let verdicts = script.verdicts();
    assert!(verdicts[0].contains("the packet went no further"), "{verdicts:?}");
}

#[test]
fn other_traces_are_ignored() {
    let mut script = Script::new();
    let packet = headers("10.0.0.9:80", 5);
    script.begins_in("sidetrack-trace-2", 1, Direction::Outbound, packet);
    script.rule(1, "output", 7, Verdict::Return, packet);
    script.ends(1, LEAVES, packet, false);
    script.tracer.finish(&script.rules);
    assert_eq!(script.verdicts(), [""; 0]);
    assert_eq!(script.tracer.counts(), Counts::default());
}

#[test]
fn open_packets_are_bounded_and_none_is_forgotten() {
    let mut script = Script::new();
    for id in 1..=10_000 {
        script.now += Duration::from_micros(1);
        script.begins(id, Direction::Outbound, headers("10.0.0.9:80", id));
    }
    let evicted = script.verdicts().len();
    assert!(evicted > 0);
    script.tracer.finish(&script.rules);
    assert_eq!(evicted + script.verdicts().len(), 10_000);
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let mut script = Script::new();
    let packet = headers("10.0.0.9:80", 5);
    script.begins(1, Direction::Outbound, packet);
    script.ends(1, LEAVES, packet, false);
    let connection = script.tracer.take_finished().remove(0);
    let owner = Owner {
        uid: Uid::new(7).unwrap(),
        process: Some((1, "a\u{1b}[2J\nb".to_owned())),
    };
    let line = text::line(&connection, Some(&owner));
    assert!(
        line.starts_with("08:14:00.000 outbound tcp uid 7 (a\u{fffd}[2J\u{fffd}b) 10.0.0.2:40000"),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&json::line(&connection, Some(&owner))).unwrap();
    assert_eq!(json["owner"]["process"], "a\u{1b}[2J\nb");
    assert_eq!(json["time"], "2026-11-22T08:14:00.000Z");
}

#[test]
fn losses_are_reported_with_reasons() {
    let losses = Losses {
        above_rate: 100,
        discarded: 20,
    };
    let line = text::losses(losses, 2000, NOW);
    assert!(
        line.starts_with("08:14:00.000 lost: 120 connections have no line: 100 above"),
        "{line}"
    );
    let json: serde_json::Value = serde_json::from_str(&json::losses(losses, NOW)).unwrap();
    assert_eq!(json["lost"]["aboveRate"], 100);
}
