//! Simulation of one packet, hook by hook.

mod chain;
#[cfg(test)]
mod tests;
mod view;

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::choices::{Choices, explore};
use super::packet::{Origin, Packet, Pod, is_loopback};
use super::path::{End, PacketPath, Step, TraceEntry, Verdict};
use crate::ruleset::netfilter::{Base, Chain, Netfilter, Table};
use crate::ruleset::{ChainType, Hook, Tracking, Value, Zone, priority};
use crate::types::{Family, Gid, InterfaceName, Port, Uid};

/// More than any plan needs; a saved plan that was edited could need exponentially many.
const MAX_TRACE_ENTRIES: usize = 100_000;
/// The same limit for base chains.
const MAX_BASE_CHAINS_PER_HOOK: usize = 1000;
/// More jumps in a row than programs write: nf_tables allows 16, legacy iptables as many as there are chains.
const MAX_JUMPS: usize = 100;

/// Rules that cannot be simulated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TooComplex {
    /// Chains jump to each other too deeply.
    #[error("chain {0} is reached by more than {MAX_JUMPS} jumps in a row; simplify the rules")]
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
    translation: Option<(Hook, IpAddr, Option<Port>)>,
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
    port: Option<Port>,
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
    /// The interface on which the kernel refuses a packet to a loopback address.
    refused_on: Option<InterfaceName>,
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
            source_port: view::port(packet.source_port),
            destination: packet.destination,
            port: packet.destination_port,
            mark: packet.mark,
            routed_mark: packet.mark,
            connection,
            is_tracked: false,
            is_excluded: false,
            translated: None,
            refused_on: None,
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
            (End::Delivered(to), None, Some(_)) => Port::new(to.port()).map_or(Verdict::Dnat(*to), Verdict::Redirect),
            (_, _, Some(to)) => Verdict::Dnat(to),
            (_, _, None) => Verdict::Accept,
        };
        let handed_over = handed_over.map(|port| SocketAddr::new(self.destination, port.get()));
        let path = PacketPath {
            refused_on: self.refused_on,
            trace: self.trace,
            verdict,
            end,
            redirected_to: self.translated.or(handed_over),
            source: match self.source {
                Value::Is(source) => Some(source),
                Value::IsNot(_) | Value::Missing | Value::Unknown => None,
            },
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
        (self.destination, self.port.map_or(0, Port::get)).into()
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
            Origin::Process {
                uid, gid, interface, ..
            } => match self.send((*uid, *gid), interface)? {
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
            match self.pod.accepts_loopback(self.destination, &at.interface) {
                Some(true) => {}
                Some(false) => {
                    self.refused_on = Some(at.interface);
                    return Ok(End::Dropped);
                }
                None => {
                    self.is_lost = true;
                    self.doubt(format!(
                        "whether {} accepts packets to loopback addresses (sysctl route_localnet)",
                        at.interface
                    ));
                    return Ok(End::Dropped);
                }
            }
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

    /// Whether the packet arrived on another interface and was translated to a loopback address, which the kernel refuses
    /// from there by default (`ip_route_input_slow`, net/ipv4/route.c; seen for IPv6).
    fn is_martian(&self, interface: &InterfaceName) -> bool {
        self.destination.is_loopback() && !is_loopback(interface) && self.translated.is_some()
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
            ChainType::Nat => (at.hook.nat_priority(), base.priority),
            ChainType::Raw | ChainType::Mangle | ChainType::Filter => (base.priority, 0),
        };
        let mut chains: Vec<_> = chains.collect();
        if chains.len() > MAX_BASE_CHAINS_PER_HOOK {
            return Err(TooComplex::TooMany);
        }
        let mut is_translated = false;
        while let Some(first) = chains.iter().map(|(base, ..)| order(base)).min() {
            let equals: Vec<usize> = (0..chains.len())
                .filter(|index| order(&chains[*index].0) == first)
                .collect();
            if !is_translated && first.0 > at.hook.nat_priority() {
                self.translate_as_before(at.hook);
                is_translated = true;
            }
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
                ChainType::Nat => self.translation(place)?,
                ChainType::Raw | ChainType::Mangle | ChainType::Filter => self.base_chain(place)?,
            };
            match exit {
                ChainExit::Dropped => return Ok(Some(End::Dropped)),
                ChainExit::Rejected => return Ok(Some(End::Rejected)),
                ChainExit::Returned | ChainExit::Done => {}
            }
        }
        self.is_tracked = true;
        if !is_translated {
            self.translate_as_before(at.hook);
        }
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

    fn translate(&mut self, hook: Hook, destination: IpAddr, port: Option<Port>) {
        if hook == Hook::Output && destination != self.destination {
            self.routed_mark = self.mark;
        }
        (self.destination, self.port) = (destination, port);
        self.translated = Some(self.to());
        self.connection.translation = Some((hook, destination, port));
        self.connection.is_decided = true;
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
