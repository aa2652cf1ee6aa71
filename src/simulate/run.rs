//! Simulation of one packet, hook by hook.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::choices::{Choices, explore};
use super::packet::{Origin, Packet, Pod, is_loopback, loopback};
use super::path::{End, PacketPath, Step, TraceEntry, Verdict};
use crate::ruleset::netfilter::{
    Action, Base, Chain, Choice, Hook, Kind, MarkChange, Match, Netfilter, Rule, Statement, Table, applicable_entry,
    holds, state, status,
};
use crate::ruleset::{self, Known, MAX_JUMP_DEPTH, Protocol, Tracking, Value, View, Zone, priority};
use crate::types::{Family, Gid, InterfaceName, Port, Uid};

/// More than any plan needs; a saved plan that was edited could need exponentially many.
const MAX_TRACE_ENTRIES: usize = 100_000;
/// The same limit for base chains.
const MAX_BASE_CHAINS_PER_HOOK: usize = 1000;

/// Rules that cannot be simulated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TooComplex {
    /// Chains jump to each other too deeply.
    #[error("chain {0} is reached by more than {MAX_JUMP_DEPTH} jumps in a row: no kernel takes such rules")]
    TooDeep(String),
    /// The trace is too long.
    #[error("the packet would pass more than {MAX_TRACE_ENTRIES} rules; simplify them")]
    TooMany,
}

/// Follows a packet through the rules.
///
/// The simulation assumes that the proxy listens on its ports. For a packet of an established connection it first simulates
/// the packet that opened the connection, which decides the translation.
///
/// # Errors
/// The rules are too deep or too many to simulate.
pub fn simulate<'r>(rules: &'r Netfilter, pod: &Pod, packet: &Packet) -> Result<PacketPath<'r>, TooComplex> {
    match packet.tracking {
        Tracking::New | Tracking::Related | Tracking::Invalid => {
            explore(|choices| Run::new(rules, pod, packet, Connection::default(), choices).path())
        }
        Tracking::Established => {
            let first = Packet {
                tracking: Tracking::New,
                ..packet.clone()
            };
            simulate_later(rules, pod, &first, packet.mark)
        }
    }
}

/// Follows a packet with this mark, of the connection that `first` opened.
///
/// # Errors
/// The rules are too deep or too many to simulate.
pub fn simulate_later<'r>(
    rules: &'r Netfilter,
    pod: &Pod,
    first: &Packet,
    mark: u32,
) -> Result<PacketPath<'r>, TooComplex> {
    explore(|choices| {
        let mut opening = Run::new(rules, pod, first, Connection::default(), choices);
        opening.follow(&first.origin)?;
        let connection = Connection {
            is_decided: true,
            is_source_decided: true,
            ..opening.connection
        };
        let later = Packet {
            mark,
            tracking: Tracking::Established,
            ..first.clone()
        };
        let mut run = Run::new(rules, pod, &later, connection, opening.choices);
        run.doubts = opening.doubts;
        run.is_lost = opening.is_lost;
        run.path()
    })
}

/// The conntrack entry of the packet.
#[derive(Clone, Debug, Default)]
struct Connection {
    mark: u32,
    zone: Option<Zone>,
    /// Whether NAT has decided about the destination: it does so once for a connection.
    is_decided: bool,
    /// Whether NAT has decided about the source.
    is_source_decided: bool,
    /// Whether the first packet has passed all hooks.
    is_confirmed: bool,
    /// The hook that translated the first packet, and the new destination.
    translation: Option<(Hook, IpAddr, Port)>,
    /// The hook that translated the first packet's source, and the new source.
    source_translation: Option<(Hook, Value<IpAddr>, Value<Port>)>,
    /// The port of the transparent socket that accepted it.
    handed_over: Option<Port>,
}

struct Run<'r, 'p> {
    rules: &'r Netfilter,
    pod: &'p Pod,
    packet: &'p Packet,
    source: Value<IpAddr>,
    source_port: Value<Port>,
    destination: IpAddr,
    port: Port,
    mark: u32,
    /// The mark by which a locally generated packet was routed.
    routed_mark: u32,
    connection: Connection,
    /// Whether the packet has passed connection tracking.
    is_tracked: bool,
    /// Whether a rule excluded the packet from connection tracking.
    is_excluded: bool,
    /// The destination that the packet has been translated to.
    translated: Option<SocketAddr>,
    trace: Vec<TraceEntry<'r>>,
    choices: Choices,
    doubts: Vec<String>,
    /// Whether the packet reached an action whose effect is unknown.
    is_lost: bool,
}

/// A packet at a hook, with the properties that rules match there.
struct At {
    hook: Hook,
    /// The interface that a trace shows.
    interface: InterfaceName,
    in_interface: Value<InterfaceName>,
    out_interface: Value<InterfaceName>,
    owner: Value<(Uid, Gid)>,
}

/// How a packet leaves a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChainExit {
    /// At its end, or by a return.
    Returned,
    /// By a verdict that ends the base chain.
    Done,
    /// The packet is dropped.
    Dropped,
    /// The packet is refused.
    Rejected,
}

/// What follows an action.
enum Flow {
    /// The next statement.
    Next,
    /// The next rule.
    NextRule,
    /// The packet leaves the chain.
    Exit(ChainExit),
}

/// The place of a rule.
#[derive(Clone, Copy)]
struct Place<'r, 'a> {
    at: &'a At,
    base: Base,
    table: &'r Table,
    chain: &'r Chain,
    depth: usize,
}

impl<'r, 'p> Run<'r, 'p> {
    fn new(rules: &'r Netfilter, pod: &'p Pod, packet: &'p Packet, connection: Connection, choices: Choices) -> Self {
        Self {
            rules,
            pod,
            packet,
            source: Value::Is(packet.source),
            source_port: Value::Is(packet.source_port),
            destination: packet.destination,
            port: packet.destination_port,
            mark: packet.mark,
            routed_mark: packet.mark,
            connection,
            is_tracked: false,
            is_excluded: false,
            translated: None,
            trace: Vec::new(),
            choices,
            doubts: rules.unreadable.clone(),
            is_lost: !rules.unreadable.is_empty(),
        }
    }

    fn path(mut self) -> Result<(PacketPath<'r>, Choices), TooComplex> {
        let end = self.follow(&self.packet.origin)?;
        let handed_over = self.connection.handed_over;
        let verdict = match (&end, handed_over, self.translated) {
            (End::Dropped, ..) => Verdict::Drop,
            (End::Rejected, ..) => Verdict::Reject,
            (End::Delivered(_), Some(port), _) => Verdict::Tproxy(port),
            (End::Delivered(to), None, Some(_)) => Port::new(to.port()).map_or(Verdict::Accept, Verdict::Redirect),
            (_, _, Some(to)) => Verdict::Dnat(to),
            (_, _, None) => Verdict::Accept,
        };
        let handed_over = handed_over.map(|port| SocketAddr::new(self.destination, port.get()));
        let path = PacketPath {
            trace: self.trace,
            verdict,
            end,
            redirected_to: self.translated.or(handed_over),
            mark: self.mark,
            zone: self.connection.zone,
            connection_mark: self.connection.mark,
            certain: !self.is_lost,
            doubts: self.doubts,
        };
        Ok((path, self.choices))
    }

    fn family(&self) -> Family {
        self.packet.family()
    }

    fn to(&self) -> SocketAddr {
        (self.destination, self.port.get()).into()
    }

    fn is_local(&self, mark: u32) -> bool {
        self.pod.is_local(self.destination, mark)
    }

    fn doubt(&mut self, about: String) {
        if !self.doubts.contains(&about) {
            self.doubts.push(about);
        }
    }

    fn follow(&mut self, origin: &Origin) -> Result<End, TooComplex> {
        let interface = match origin {
            Origin::Interface(interface) => interface.clone(),
            Origin::Process { uid, gid, interface } => match self.send((*uid, *gid), interface)? {
                Some(end) => return Ok(end),
                None => InterfaceName::loopback(),
            },
        };
        // On the loopback interface a packet loses its socket and keeps its conntrack entry.
        let mut at = At {
            hook: Hook::Prerouting,
            in_interface: Value::Is(interface.clone()),
            out_interface: Value::Missing,
            owner: Value::Missing,
            interface,
        };
        if let Some(end) = self.hook(&at)? {
            return Ok(end);
        }
        if !self.is_local(self.mark) {
            return self.forward(at);
        }
        if self.is_martian(&at.interface) {
            self.is_lost = true;
            self.doubt(format!(
                "whether {} accepts packets to loopback addresses (sysctl route_localnet)",
                at.interface
            ));
            return Ok(End::Dropped);
        }
        at.hook = Hook::Input;
        if self.packet.tracking == Tracking::Established || self.connection.handed_over.is_some() {
            at.owner = Value::Unknown; // The kernel may have found the receiving socket.
        }
        Ok(match self.hook(&at)? {
            Some(end) => end,
            None => End::Delivered(self.to()),
        })
    }

    /// Whether the packet was translated to an address that the kernel refuses from other interfaces than loopback, by
    /// default (`ip_route_input_slow`, net/ipv4/route.c).
    fn is_martian(&self, interface: &InterfaceName) -> bool {
        let is_v4_loopback = self.destination.is_ipv4() && self.destination.is_loopback();
        is_v4_loopback && !is_loopback(interface) && self.translated.is_some()
    }

    /// Follows a locally generated packet until it has left. Returns its end, unless it arrives again on the loopback
    /// interface.
    fn send(&mut self, owner: (Uid, Gid), interface: &InterfaceName) -> Result<Option<End>, TooComplex> {
        // Rules of the hook see the output interface of the route before translation.
        let out = match self.is_local(self.mark) {
            true => InterfaceName::loopback(),
            false => interface.clone(),
        };
        let mut at = At {
            hook: Hook::Output,
            in_interface: Value::Missing,
            out_interface: Value::Is(out.clone()),
            owner: Value::Is(owner),
            interface: out,
        };
        if let Some(end) = self.hook(&at)? {
            return Ok(Some(end));
        }
        // The kernel reroutes a packet whose mark or destination changed.
        let is_local = self.is_local(self.routed_mark);
        let is_rerouted = self.destination != self.packet.destination || self.routed_mark != self.packet.mark;
        at.hook = Hook::Postrouting;
        at.interface = if is_local {
            InterfaceName::loopback()
        } else {
            interface.clone()
        };
        at.out_interface = match is_rerouted && !is_local {
            true => Value::Unknown,
            false => Value::Is(at.interface.clone()),
        };
        self.connection.is_decided = true;
        if let Some(end) = self.hook(&at)? {
            return Ok(Some(end));
        }
        self.connection.is_source_decided = true;
        self.connection.is_confirmed = true;
        Ok((!is_local).then(|| End::Sent {
            to: self.to(),
            interface: interface.clone(),
        }))
    }

    /// Follows a packet for another host.
    fn forward(&mut self, mut at: At) -> Result<End, TooComplex> {
        at.hook = Hook::Forward;
        at.out_interface = Value::Unknown;
        if let Some(end) = self.hook(&at)? {
            return Ok(end);
        }
        at.hook = Hook::Postrouting;
        at.in_interface = Value::Unknown;
        Ok(match self.hook(&at)? {
            Some(end) => end,
            None => End::PassedThrough(self.to()),
        })
    }

    /// Runs the base chains of a hook in the order of their priorities. Returns the end of a packet that they drop.
    fn hook(&mut self, at: &At) -> Result<Option<End>, TooComplex> {
        let tables = self.rules.tables.iter();
        let tables = tables.filter(|table| table.family.is_none_or(|family| family == self.family()));
        let chains = tables.flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
        let chains = chains.filter_map(|(table, chain)| {
            let base = chain.base.filter(|base| base.hook == at.hook)?;
            let does_something = base.drops || !chain.rules.is_empty();
            does_something.then_some((base, table, chain))
        });
        // All NAT chains are called at one priority, in the order of their own.
        let order = |base: &Base| match base.kind {
            Kind::Nat => (at.hook.nat_priority(), base.priority),
            Kind::Raw | Kind::Mangle | Kind::Filter => (base.priority, 0),
        };
        let mut chains: Vec<_> = chains.collect();
        if chains.len() > MAX_BASE_CHAINS_PER_HOOK {
            return Err(TooComplex::TooMany);
        }
        while let Some(first) = chains.iter().map(|(base, ..)| order(base)).min() {
            let equals: Vec<usize> = (0..chains.len())
                .filter(|index| order(&chains[*index].0) == first)
                .collect();
            let (base, table, chain) = chains.remove(equals[self.choose_order(&equals, &chains)]);
            let place = Place {
                at,
                base,
                table,
                chain,
                depth: 0,
            };
            if at.hook != Hook::Prerouting && at.hook != Hook::Output || base.priority > priority::CONNTRACK {
                self.is_tracked = true;
            }
            let exit = match base.kind {
                Kind::Nat => self.translation(place)?,
                Kind::Raw | Kind::Mangle | Kind::Filter => self.base_chain(place)?,
            };
            match exit {
                ChainExit::Dropped => return Ok(Some(End::Dropped)),
                ChainExit::Rejected => return Ok(Some(End::Rejected)),
                ChainExit::Returned | ChainExit::Done => {}
            }
        }
        self.is_tracked = true;
        self.translate_as_before(at.hook);
        Ok(None)
    }

    /// Chooses one of the chains with equal priority: the order of their registration, which the kernel does not show,
    /// determines which one is first.
    fn choose_order(&mut self, equals: &[usize], chains: &[(Base, &'r Table, &'r Chain)]) -> usize {
        if equals.len() > 1 {
            let names = equals.iter().map(|index| {
                let (_, table, chain) = chains[*index];
                format!("chain {} of table {}", chain.name, table.name)
            });
            let names: Vec<String> = names.collect();
            self.doubt(format!(
                "the order of {}, which have the same priority",
                names.join(" and ")
            ));
        }
        (1..equals.len()).find(|_| self.choices.next()).unwrap_or(0)
    }

    /// Runs a NAT chain, unless the translation is already decided.
    fn translation(&mut self, place: Place<'r, '_>) -> Result<ChainExit, TooComplex> {
        let of_source = matches!(place.at.hook, Hook::Input | Hook::Postrouting);
        let is_decided = match of_source {
            true => self.connection.is_source_decided,
            false => self.connection.is_decided,
        };
        let step = match (self.packet.tracking, is_decided) {
            _ if self.is_excluded => Step::Excluded,
            (Tracking::Invalid, _) => Step::Untracked,
            (Tracking::Established, _) | (Tracking::New | Tracking::Related, true) => Step::Decided,
            (Tracking::New | Tracking::Related, false) => return self.base_chain(place),
        };
        self.note(place, step)?;
        Ok(ChainExit::Done)
    }

    /// Translates a later packet of a connection like the first one.
    fn translate_as_before(&mut self, hook: Hook) {
        if self.packet.tracking != Tracking::Established || self.is_excluded {
            return;
        }
        if let Some((_, destination, port)) = self.connection.translation.filter(|(at, ..)| *at == hook) {
            self.translate(hook, destination, port);
        }
        if let Some((_, source, port)) = self.connection.source_translation.filter(|(at, ..)| *at == hook) {
            (self.source, self.source_port) = (source, port);
        }
    }

    fn translate(&mut self, hook: Hook, destination: IpAddr, port: Port) {
        if hook == Hook::Output && destination != self.destination {
            self.routed_mark = self.mark;
        }
        (self.destination, self.port) = (destination, port);
        self.translated = Some(self.to());
        self.connection.translation = Some((hook, destination, port));
        self.connection.is_decided = true;
    }

    /// Runs a base chain, and applies its policy.
    fn base_chain(&mut self, place: Place<'r, '_>) -> Result<ChainExit, TooComplex> {
        let mark = self.mark;
        let exit = self.chain(place)?;
        if place.at.hook == Hook::Output && place.base.kind == Kind::Mangle && self.mark != mark {
            self.routed_mark = self.mark;
        }
        if exit == ChainExit::Returned && place.base.drops {
            self.note(place, Step::PolicyDrop)?;
            return Ok(ChainExit::Dropped);
        }
        Ok(exit)
    }

    fn chain(&mut self, place: Place<'r, '_>) -> Result<ChainExit, TooComplex> {
        if place.depth > MAX_JUMP_DEPTH {
            return Err(TooComplex::TooDeep(place.chain.name.to_string()));
        }
        for (rule, number) in place.chain.rules.iter().zip(1..) {
            if let Some(exit) = self.rule(place, rule, number)? {
                return Ok(exit);
            }
        }
        if place.depth > 0 || !place.base.drops {
            self.note(place, Step::End)?;
        }
        Ok(ChainExit::Returned)
    }

    /// Evaluates a rule. Returns how the packet leaves the chain, if it does.
    fn rule(&mut self, place: Place<'r, '_>, rule: &'r Rule, number: usize) -> Result<Option<ChainExit>, TooComplex> {
        let mut is_noted = false;
        for (index, statement) in rule.statements.iter().enumerate() {
            let action = match statement {
                Statement::Action(action) => action,
                Statement::Match(matcher) => {
                    match self.evaluate(place, &rule.statements[index..], matcher) {
                        (Known::Yes, _) => continue,
                        (Known::No, failing) => self.note(place, Step::NoMatch(rule, Some(failing)))?,
                        (Known::Perhaps, _) => {
                            self.doubt(name(place, rule, number));
                            if self.choices.next() {
                                continue;
                            }
                            self.note(place, Step::Unknown(rule))?;
                        }
                    }
                    return Ok(None);
                }
            };
            if let Action::Map(keys, entries) = action {
                let found = applicable_entry(keys, entries, &self.view(place.at));
                match found {
                    (Known::Yes, Some(entry)) => {
                        self.note(place, Step::Taken(rule))?;
                        is_noted = true;
                        match self.act(place, rule, &entry.action)? {
                            Flow::Next => continue,
                            Flow::NextRule => return Ok(None),
                            Flow::Exit(exit) => return Ok(Some(exit)),
                        }
                    }
                    (Known::Perhaps, _) => {
                        self.is_lost = true;
                        self.doubt(name(place, rule, number));
                        self.note(place, Step::Unknown(rule))?;
                    }
                    _ => self.note(place, Step::NoMatch(rule, None))?,
                }
                return Ok(None);
            }
            if let Action::Unreadable(_) | Action::Queue = action {
                self.is_lost = true;
                self.doubt(name(place, rule, number));
            }
            if self.has_nowhere_to_redirect(place.at, action) {
                self.note(place, Step::NowhereToRedirect(rule))?;
                return Ok(Some(ChainExit::Dropped));
            }
            if !is_noted {
                let step = match action {
                    Action::Unreadable(_) => Step::Unknown(rule),
                    _ => Step::Taken(rule),
                };
                self.note(place, step)?;
                is_noted = true;
            }
            match self.act(place, rule, action)? {
                Flow::Next => {}
                Flow::NextRule => return Ok(None),
                Flow::Exit(exit) => return Ok(Some(exit)),
            }
        }
        if !is_noted {
            self.note(place, Step::Taken(rule))?;
        }
        Ok(None)
    }

    /// Evaluates the first match of some statements. If it is unknown, a later one that fails counts.
    fn evaluate<'m>(&self, place: Place<'r, '_>, statements: &'m [Statement], first: &'m Match) -> (Known, &'m Match) {
        let view = self.view(place.at);
        let known = holds(&place.table.sets, first, &view);
        if known != Known::Perhaps {
            return (known, first);
        }
        let matches = statements.iter().map_while(|statement| match statement {
            Statement::Match(matcher) => Some(matcher),
            Statement::Action(_) => None,
        });
        let mut failing = matches.filter(|matcher| holds(&place.table.sets, matcher, &view) == Known::No);
        match failing.next() {
            Some(failing) => (Known::No, failing),
            None => (Known::Perhaps, first),
        }
    }

    fn has_nowhere_to_redirect(&self, at: &At, action: &Action) -> bool {
        let redirects = matches!(
            action,
            Action::Redirect(_) | Action::Planned(ruleset::Action::Redirect(_))
        );
        redirects && self.redirection_address(at).is_none()
    }

    /// The address that a redirect translates to.
    fn redirection_address(&self, at: &At) -> Option<IpAddr> {
        match at.hook {
            Hook::Output => Some(loopback(self.family())),
            _ => self.pod.address(&at.interface, self.family()),
        }
    }

    fn act(&mut self, place: Place<'r, '_>, rule: &'r Rule, action: &'r Action) -> Result<Flow, TooComplex> {
        use ruleset::Action as Planned;
        let at = place.at;
        Ok(match action {
            Action::Planned(Planned::Return) => Flow::Exit(ChainExit::Returned),
            Action::Planned(Planned::Accept) => Flow::Exit(ChainExit::Done),
            Action::Planned(Planned::Drop) => Flow::Exit(ChainExit::Dropped),
            Action::Reject => Flow::Exit(ChainExit::Rejected),
            Action::Planned(Planned::Jump(target)) => match self.enter(place, target)? {
                ChainExit::Returned => Flow::NextRule,
                exit => Flow::Exit(exit),
            },
            Action::Goto(target) => Flow::Exit(self.enter(place, target)?),
            Action::Planned(Planned::Redirect(port)) => self.redirect(at, Choice::One(*port)),
            Action::Redirect(port) => self.redirect(at, *port),
            Action::Dnat(address, port) => {
                let address = match address {
                    Choice::One(address) => *address,
                    Choice::Keep => self.destination,
                    Choice::Any => self.lose(self.destination, "the address that connections are translated to"),
                };
                let port = self.chosen(*port);
                self.translate(at.hook, address, port);
                Flow::Exit(ChainExit::Done)
            }
            Action::Snat(address, port) => {
                fn chosen<T>(choice: Choice<T>, kept: Value<T>) -> Value<T> {
                    match choice {
                        Choice::Keep => kept,
                        Choice::One(value) => Value::Is(value),
                        Choice::Any => Value::Unknown,
                    }
                }
                self.source = chosen(*address, self.source);
                self.source_port = chosen(*port, self.source_port);
                self.connection.source_translation = Some((at.hook, self.source, self.source_port));
                self.connection.is_source_decided = true;
                Flow::Exit(ChainExit::Done)
            }
            Action::Planned(Planned::Tproxy { port, mark }) => {
                self.connection.handed_over = Some(*port);
                self.mark = mark.get();
                Flow::Exit(ChainExit::Done)
            }
            Action::Tproxy { port, mark, is_final } => {
                self.connection.handed_over = Some(self.chosen(*port));
                self.change_mark(*mark);
                match is_final {
                    true => Flow::Exit(ChainExit::Done),
                    false => Flow::Next,
                }
            }
            Action::Planned(Planned::SetMark(mark)) => {
                self.mark = mark.get();
                Flow::Next
            }
            Action::Planned(Planned::SaveMark) => {
                if self.has_connection() {
                    self.connection.mark = self.mark;
                }
                Flow::Next
            }
            Action::Planned(Planned::RestoreMark) => {
                if self.has_connection() {
                    self.mark = self.connection.mark;
                }
                Flow::Next
            }
            Action::Mark(change) => {
                self.change_mark(*change);
                Flow::Next
            }
            Action::Planned(Planned::SetZone(zone)) => {
                if !self.is_tracked && self.connection.zone.is_none() {
                    self.connection.zone = Some(*zone);
                }
                Flow::Next
            }
            Action::Untrack => {
                self.is_excluded |= !self.is_tracked;
                Flow::Next
            }
            // Timeouts do not change the path.
            Action::Planned(Planned::SetTimeouts) | Action::Nothing(_) | Action::Unreadable(_) => Flow::Next,
            Action::Queue => Flow::Exit(ChainExit::Done),
            Action::Map(keys, entries) => match applicable_entry(keys, entries, &self.view(at)) {
                (Known::Yes, Some(entry)) => self.act(place, rule, &entry.action)?,
                _ => Flow::NextRule,
            },
        })
    }

    fn enter(&mut self, place: Place<'r, '_>, target: &str) -> Result<ChainExit, TooComplex> {
        let Some(chain) = place.table.chain(target) else {
            self.is_lost = true;
            self.doubt(format!(
                "chain {target} of table {}, which could not be read",
                place.table.name
            ));
            return Ok(ChainExit::Returned);
        };
        self.chain(Place {
            chain,
            depth: place.depth + 1,
            ..place
        })
    }

    fn redirect(&mut self, at: &At, port: Choice<Port>) -> Flow {
        if let Some(address) = self.redirection_address(at) {
            let port = self.chosen(port);
            self.translate(at.hook, address, port);
        }
        Flow::Exit(ChainExit::Done)
    }

    fn chosen(&mut self, port: Choice<Port>) -> Port {
        match port {
            Choice::Keep => self.port,
            Choice::One(port) => port,
            Choice::Any => self.lose(self.port, "the port that connections are translated to"),
        }
    }

    fn lose<T>(&mut self, value: T, about: &str) -> T {
        self.is_lost = true;
        self.doubt(format!("{about}, one of several"));
        value
    }

    /// Whether the packet has a conntrack entry.
    fn has_connection(&self) -> bool {
        self.packet.tracking != Tracking::Invalid && !self.is_excluded
    }

    fn change_mark(&mut self, change: MarkChange) {
        let needs_connection = change.of_connection || change.copy != 0;
        if needs_connection && !(self.has_connection() && self.is_tracked) {
            return;
        }
        let (own, other) = match change.of_connection {
            true => (&mut self.connection.mark, self.mark),
            false => (&mut self.mark, self.connection.mark),
        };
        *own = (*own & change.keep) ^ (other & change.copy) ^ change.xor;
    }

    /// The properties of the packet that matches see at a hook.
    fn view<'v>(&self, at: &'v At) -> View<'v> {
        fn interface(of: &Value<InterfaceName>) -> Value<&InterfaceName> {
            match of {
                Value::Is(name) => Value::Is(name),
                Value::IsNot(name) => Value::IsNot(name),
                Value::Missing => Value::Missing,
                Value::Unknown => Value::Unknown,
            }
        }
        let is_tcp = self.packet.protocol == Protocol::Tcp;
        let is_tracked = self.has_connection() && self.is_tracked;
        View {
            family: Value::Is(self.family()),
            protocol: Value::Is(self.packet.protocol),
            in_interface: interface(&at.in_interface),
            out_interface: interface(&at.out_interface),
            source: self.source,
            destination: Value::Is(self.destination),
            source_port: self.source_port,
            destination_port: Value::Is(self.port),
            uid: at.owner.map(|(uid, _)| uid),
            gid: at.owner.map(|(_, gid)| gid),
            mark: Value::Is(self.mark),
            conntrack_mark: match is_tracked {
                true => Value::Is(self.connection.mark),
                false => Value::Missing,
            },
            tracking: match self.is_excluded {
                true => Value::Missing,
                false => Value::Is(self.packet.tracking),
            },
            tcp_flags: match self.packet.tracking {
                _ if !is_tcp => Value::Missing,
                Tracking::New => Value::Is(TCP_SYN),
                Tracking::Established | Tracking::Related | Tracking::Invalid => Value::Unknown,
            },
            conntrack_state: Value::Is(self.conntrack_state()),
            conntrack_status: match self.packet.tracking {
                _ if !is_tracked => Value::Missing,
                Tracking::New => Value::Is(self.conntrack_status()),
                Tracking::Established | Tracking::Related | Tracking::Invalid => Value::Unknown,
            },
            conntrack_direction: match is_tracked {
                true => Value::Is(0),
                false => Value::Missing,
            },
            source_type: match self.source {
                Value::Is(source) => self.pod.address_type(source),
                Value::IsNot(_) | Value::Missing | Value::Unknown => Value::Unknown,
            },
            destination_type: self.pod.address_type(self.destination),
        }
    }

    fn conntrack_state(&self) -> u32 {
        if self.is_excluded {
            return state::UNTRACKED;
        }
        if !self.is_tracked {
            return state::INVALID;
        }
        let of_packet = match self.packet.tracking {
            Tracking::New => state::NEW,
            Tracking::Established => state::ESTABLISHED,
            Tracking::Related => state::RELATED,
            Tracking::Invalid => return state::INVALID,
        };
        let destination = self.connection.translation.map_or(0, |_| state::DNAT);
        let source = self.connection.source_translation.map_or(0, |_| state::SNAT);
        of_packet | destination | source
    }

    fn conntrack_status(&self) -> u32 {
        let connection = &self.connection;
        let bits = [
            (connection.translation.is_some(), status::DST_NAT),
            (connection.source_translation.is_some(), status::SRC_NAT),
            (connection.is_decided, status::DST_NAT_DONE),
            (connection.is_source_decided, status::SRC_NAT_DONE),
            (connection.is_confirmed, status::CONFIRMED),
        ];
        bits.into_iter()
            .filter(|(is_set, _)| *is_set)
            .fold(0, |all, (_, bit)| all | bit)
    }

    fn note(&mut self, place: Place<'r, '_>, step: Step<'r>) -> Result<(), TooComplex> {
        if self.trace.len() >= MAX_TRACE_ENTRIES {
            return Err(TooComplex::TooMany);
        }
        self.trace.push(TraceEntry {
            base: place.base,
            interface: place.at.interface.clone(),
            table: place.table,
            chain: place.chain,
            depth: place.depth,
            step,
        });
        Ok(())
    }
}

/// The flags of a TCP segment that opens a connection.
const TCP_SYN: u8 = 2;

fn name(place: Place, rule: &Rule, number: usize) -> String {
    let comment = match rule.comment.as_ref() {
        "" => String::new(),
        comment => format!(" (\"{comment}\")"),
    };
    let (chain, table) = (&place.chain.name, &place.table.name);
    format!("rule {number} of chain {chain} of table {table}{comment}")
}
