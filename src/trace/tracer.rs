//! Turns the kernel's messages into connections: collects the steps of each packet until it leaves or is dropped.
//!
//! The kernel does not mark the end of a trace, so the trace's own table has base chains after all others: a packet that
//! reaches one has passed every rule. Over the loopback interface a packet continues with another number; its headers
//! identify it then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::connection::{Action, Connection, Decider, Decision, Doubt, End};
use super::message::{Event, Headers, Message, Verdict};
use super::rules::{BaseChain, Rules};
use super::{ARRIVES, Direction, LEAVES};
use crate::ruleset::{Hook, Protocol, TableFamily};

/// How long a packet may take from one step to the next. The steps take microseconds, except in a queue to a program.
const STEP_TIMEOUT: Duration = Duration::from_secs(1);
/// Packets on their way at a time.
const MAX_OPEN: usize = 8192;
/// First packets that are remembered, to recognize repeated ones.
const MAX_RECENT: usize = 8192;
/// Steps of a packet that are kept: more than any sensible ruleset has, and a bound for others.
const MAX_STEPS: usize = 256;
/// How the names of sidetrack's iptables chains begin.
const OWN_CHAIN_PREFIX: &str = "SIDETRACK_";

/// The numbers of packets that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets whose first message arrived.
    pub started: u64,
    /// Repeated first packets of connections that have a line.
    pub repeated: u64,
    /// Connections that were returned.
    pub connections: u64,
}

/// The state of a trace.
#[derive(Debug)]
pub struct Tracer {
    /// The table of this trace.
    own_table: String,
    open: HashMap<u32, Open>,
    recent: Recent,
    counts: Counts,
    finished: Vec<Connection>,
}

/// A packet on its way.
#[derive(Debug)]
struct Open {
    at: Duration,
    last_step: Duration,
    direction: Direction,
    first: Headers,
    now: Headers,
    base: Option<BaseChain>,
    passed_nat: bool,
    was_forwarded: bool,
    steps: Vec<Step>,
    /// Messages about it may be missing.
    incomplete: bool,
}

/// A step that may have decided.
#[derive(Debug)]
struct Step {
    decision: Decision,
    verdict: Verdict,
    base: Option<BaseChain>,
    /// The packet when it entered the base chain.
    before: Headers,
}

impl Step {
    fn is_nat(&self) -> bool {
        self.base.is_some_and(|base| base.is_nat)
    }

    fn is_own(&self) -> bool {
        let chain = &self.decision.chain;
        TableFamily::of_own_table(&chain.table).is_some() || chain.chain.starts_with(OWN_CHAIN_PREFIX)
    }

    fn tproxy(&self) -> Option<u16> {
        self.decision.rule.as_ref()?.rule.as_ref()?.tproxy
    }
}

impl Tracer {
    /// A trace whose own table has this name, without the family.
    pub fn new(own_table: &str) -> Self {
        Self {
            own_table: format!("inet {own_table}"),
            open: HashMap::new(),
            recent: Recent::default(),
            counts: Counts::default(),
            finished: Vec::new(),
        }
    }

    /// The numbers of packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The connections that are complete since the last call.
    pub fn take_finished(&mut self) -> Vec<Connection> {
        std::mem::take(&mut self.finished)
    }

    /// Takes a message of the kernel.
    pub fn message(&mut self, message: &Message, rules: &Rules, now: Duration) {
        let Message { id, chain, headers, .. } = message;
        if chain.table == self.own_table {
            return self.own_chain(message, rules, now);
        }
        let Some(packet) = self.find(*id, headers.as_ref(), rules) else {
            return;
        };
        packet.last_step = now;
        if let Some(headers) = headers {
            packet.now = *headers;
            packet.base = rules.base_chains.get(chain).copied();
            packet.passed_nat |= packet.base.is_some_and(|base| base.is_nat);
            packet.was_forwarded |= packet.base.is_some_and(|base| base.hook == Some(Hook::Forward));
        }
        let (rule, verdict) = match message.event {
            Event::Rule { handle, verdict } => {
                let rule = rules.rules.get(&(chain.clone(), handle)).cloned();
                (Some(Decider { handle, rule }), verdict)
            }
            Event::Policy(verdict) => (None, verdict),
            Event::Return => return,
        };
        let decides = match verdict {
            Verdict::Drop => true,
            Verdict::Accept | Verdict::Return => rule.is_some(),
            Verdict::Other => false,
        };
        if decides && packet.steps.len() < MAX_STEPS {
            packet.steps.push(Step {
                decision: Decision {
                    chain: chain.clone(),
                    rule,
                },
                verdict,
                base: packet.base,
                before: packet.now,
            });
        }
        if verdict == Verdict::Drop {
            self.close(*id, End::Dropped, rules);
        }
    }

    /// A message about a chain of the trace's own table: the first or the last one about a packet.
    fn own_chain(&mut self, message: &Message, rules: &Rules, now: Duration) {
        let id = message.id;
        let direction = Direction::BOTH
            .into_iter()
            .find(|direction| direction.name() == message.chain.chain);
        match (direction, message.event, message.headers) {
            (Some(direction), Event::Rule { .. }, Some(headers)) => {
                self.close(id, End::Unknown, rules);
                if self.open.len() >= MAX_OPEN {
                    let oldest = self.open.iter().min_by_key(|(_, packet)| packet.last_step);
                    if let Some(id) = oldest.map(|(id, _)| *id) {
                        self.close(id, End::Unknown, rules);
                    }
                }
                self.counts.started += 1;
                self.open.insert(
                    id,
                    Open {
                        at: now,
                        last_step: now,
                        direction,
                        first: headers,
                        now: headers,
                        base: None,
                        passed_nat: false,
                        was_forwarded: false,
                        steps: Vec::new(),
                        incomplete: false,
                    },
                );
            }
            // The first message about a chain has the headers: for an empty chain, the one about its end.
            (None, _, Some(headers)) if [LEAVES, ARRIVES].contains(&message.chain.chain.as_str()) => {
                let Some(packet) = self.find(id, Some(&headers), rules) else {
                    return;
                };
                packet.now = headers;
                packet.last_step = now;
                let to = headers.destination;
                if message.chain.chain == ARRIVES {
                    self.close(id, End::Delivered(to), rules);
                } else if packet.was_forwarded {
                    self.close(id, End::PassedThrough(to), rules);
                } else if !message.leaves_by_loopback {
                    self.close(id, End::Sent(to), rules);
                }
                // Else it arrives on the loopback interface next.
            }
            _ => {}
        }
    }

    /// The packet with this number; or the one with these headers, which continues under a new number.
    fn find(&mut self, id: u32, headers: Option<&Headers>, rules: &Rules) -> Option<&mut Open> {
        let is_other = |packet: &Open| {
            headers.is_some_and(|headers| {
                (headers.sequence, headers.protocol) != (packet.first.sequence, packet.first.protocol)
            })
        };
        if self.open.get(&id).is_some_and(is_other) {
            // The kernel discarded the end of one packet, and the beginning of another with the same number.
            self.close(id, End::Unknown, rules);
        }
        if !self.open.contains_key(&id) {
            let headers = headers?;
            let mut packets = self.open.iter();
            let same = packets.find(|(_, packet)| packet.now == *headers).map(|(id, _)| *id)?;
            let packet = self.open.remove(&same)?;
            self.open.insert(id, packet);
        }
        self.open.get_mut(&id)
    }

    /// Ends the traces of packets that have not been seen for [`STEP_TIMEOUT`].
    pub fn expire(&mut self, rules: &Rules, now: Duration) {
        let late = |packet: &Open| now.saturating_sub(packet.last_step) >= STEP_TIMEOUT;
        self.close_if(late, rules);
    }

    /// Ends all traces.
    pub fn finish(&mut self, rules: &Rules) {
        self.close_if(|_| true, rules);
    }

    fn close_if(&mut self, is_wanted: impl Fn(&Open) -> bool, rules: &Rules) {
        let mut ids: Vec<(Duration, u32)> = self
            .open
            .iter()
            .filter(|(_, packet)| is_wanted(packet))
            .map(|(id, packet)| (packet.at, *id))
            .collect();
        ids.sort_unstable();
        for (_, id) in ids {
            self.close(id, End::Unknown, rules);
        }
    }

    /// The kernel discarded messages, after those that were already taken.
    pub fn messages_were_discarded(&mut self) {
        for packet in self.open.values_mut() {
            packet.incomplete = true;
        }
    }

    fn close(&mut self, id: u32, end: End, rules: &Rules) {
        let Some(packet) = self.open.remove(&id) else {
            return;
        };
        // A repeated UDP packet passes a NAT chain again only if it begins a new connection.
        let may_begin_again = packet.first.protocol == Protocol::Udp && packet.passed_nat;
        let is_known = !self.recent.insert((packet.direction, packet.first));
        if is_known && !may_begin_again {
            self.counts.repeated += 1;
            return;
        }
        self.counts.connections += 1;
        self.finished.push(packet.into_connection(end, rules));
    }
}

impl Open {
    fn into_connection(self, end: End, rules: &Rules) -> Connection {
        let (action, step) = self.action(end);
        let is_translated = matches!(action, Action::Redirect(_) | Action::Translate(_));
        let not_first = || {
            let nat = rules.has_nat(self.direction.first_hook(), &self.first);
            action == Action::Accept && nat && !self.passed_nat
        };
        let doubt = if self.incomplete {
            Some(Doubt::Discarded)
        } else if end == End::Unknown {
            Some(Doubt::NoEnd)
        } else if is_translated && step.is_none() {
            Some(Doubt::Untraced)
        } else if not_first() {
            Some(Doubt::NotFirst)
        } else {
            None
        };
        Connection {
            at: self.at,
            direction: self.direction,
            headers: self.first,
            action,
            decision: step.map(|step| step.decision.clone()),
            end,
            doubt,
        }
    }

    /// What was done with the packet, and the step that decided.
    fn action(&self, end: End) -> (Action, Option<&Step>) {
        let to = self.now.destination;
        let last = |is_wanted: &dyn Fn(&&Step) -> bool| self.steps.iter().rev().find(is_wanted);
        if end == End::Dropped {
            return (Action::Drop, last(&|step| step.verdict == Verdict::Drop));
        }
        if to != self.first.destination {
            let translates =
                |step: &&Step| step.is_nat() && step.verdict == Verdict::Accept && step.before.destination != to;
            let is_elsewhere = match end {
                End::Sent(_) | End::PassedThrough(_) => true,
                End::Delivered(_) | End::Dropped | End::Unknown => false,
            };
            let action = if is_elsewhere {
                Action::Translate(to)
            } else {
                Action::Redirect(to)
            };
            return (action, last(&translates));
        }
        if let Some(step) = last(&|step| step.tproxy().is_some()) {
            return (step.tproxy().map_or(Action::Accept, Action::Tproxy), Some(step));
        }
        (Action::Accept, self.exemption())
    }

    /// The step that left the packet as it is: the last one at its first hook, of a NAT chain if it passed one, and of
    /// sidetrack's rules if one matched.
    fn exemption(&self) -> Option<&Step> {
        let first_hook = self.direction.first_hook();
        let at_hook = |step: &&Step| step.base.is_some_and(|base| base.hook == Some(first_hook));
        let of_kind = |step: &&Step| step.is_nat() || !self.passed_nat;
        let steps = || self.steps.iter().rev().filter(at_hook).filter(of_kind);
        steps().find(|step| step.is_own()).or_else(|| steps().next())
    }
}

/// First packets in the order of their arrival.
#[derive(Debug, Default)]
struct Recent {
    order: VecDeque<(Direction, Headers)>,
    known: HashSet<(Direction, Headers)>,
}

impl Recent {
    /// Remembers a packet. Returns whether it is new.
    fn insert(&mut self, packet: (Direction, Headers)) -> bool {
        let is_new = self.known.insert(packet);
        if is_new {
            self.order.push_back(packet);
        }
        if self.order.len() > MAX_RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        is_new
    }
}
