//! Simulation of one packet, hook by hook.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::course::{Course, End, Entry, Step, Verdict};
use super::packet::{Origin, Packet, Pod, loopback};
use crate::ruleset::{
    Action, BaseHook, Chain, ChainType, Hook, Installed, Known, MAX_JUMP_DEPTH, Place, Rule, Tracking, Unreadable,
    Value, View, Zone, applies, holds,
};
use crate::types::{Family, Gid, InterfaceName, Port, Uid};

/// More than any plan needs; a saved plan that was edited could need exponentially many.
const MAX_TRACE_ENTRIES: usize = 100_000;
/// The same limit for base chains.
const MAX_BASE_CHAINS_PER_HOOK: usize = 1000;

/// Rules that cannot be simulated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Endless {
    /// Chains jump to each other too deeply.
    #[error("chain {0} is reached by more than {MAX_JUMP_DEPTH} jumps in a row: no kernel takes such rules")]
    TooDeep(String),
    /// The trace is too long.
    #[error("the packet would pass more than {MAX_TRACE_ENTRIES} rules; simplify them")]
    TooMany,
}

/// Follows a packet through the rules.
///
/// The simulation assumes that the proxy listens on its ports, and that no other rules change the packet. For a packet of
/// an established connection it first simulates the packet that opened the connection, which decides the translation.
///
/// # Errors
/// The rules are too deep or too many to simulate.
pub fn simulate<'r>(installed: &'r Installed, pod: &Pod, packet: &Packet) -> Result<Course<'r>, Endless> {
    match packet.tracking {
        Tracking::New | Tracking::Related | Tracking::Invalid => {
            Simulation::new(installed, pod, packet, Connection::default()).course()
        }
        Tracking::Established => {
            let first = Packet {
                tracking: Tracking::New,
                ..packet.clone()
            };
            simulate_later(installed, pod, &first, packet.mark)
        }
    }
}

/// Follows a packet with this mark, of the connection that `first` opened.
///
/// # Errors
/// The rules are too deep or too many to simulate.
pub fn simulate_later<'r>(
    installed: &'r Installed,
    pod: &Pod,
    first: &Packet,
    mark: u32,
) -> Result<Course<'r>, Endless> {
    let mut journey = Simulation::new(installed, pod, first, Connection::default());
    journey.travel(&first.origin)?;
    let connection = Connection {
        is_decided: true,
        ..journey.connection
    };
    let later = Packet {
        mark,
        tracking: Tracking::Established,
        ..first.clone()
    };
    Simulation::new(installed, pod, &later, connection).course()
}

/// The conntrack entry of the packet.
#[derive(Clone, Debug, Default)]
struct Connection {
    mark: u32,
    zone: Option<Zone>,
    /// Whether NAT has decided: it does so once for a connection.
    is_decided: bool,
    /// The hook that translated the first packet, and the new destination.
    translation: Option<(Hook, IpAddr, Port)>,
    /// The port of the transparent socket that accepted it.
    handed_over: Option<Port>,
}

struct Simulation<'r, 'p> {
    installed: &'r Installed,
    pod: &'p Pod,
    packet: &'p Packet,
    destination: IpAddr,
    port: Port,
    mark: u32,
    connection: Connection,
    /// Whether the packet has passed connection tracking.
    is_tracked: bool,
    /// The port that the packet has been translated to.
    translated: Option<Port>,
    trace: Vec<Entry<'r>>,
    certain: bool,
}

/// A packet at a hook, with the properties that rules match there.
struct At {
    hook: Hook,
    interface: InterfaceName,
    owner: Option<(Uid, Gid)>,
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
}

impl<'r, 'p> Simulation<'r, 'p> {
    fn new(installed: &'r Installed, pod: &'p Pod, packet: &'p Packet, connection: Connection) -> Self {
        let is_outside_trace = |unreadable: &Unreadable| match unreadable.place {
            Place::Table | Place::Hook(_) => true,
            Place::Set(_) | Place::Rule { .. } => false, // The trace reports these.
        };
        Self {
            installed,
            pod,
            packet,
            destination: packet.destination,
            port: packet.destination_port,
            mark: packet.mark,
            connection,
            is_tracked: false,
            translated: None,
            trace: Vec::new(),
            certain: !installed.unreadable.iter().any(is_outside_trace),
        }
    }

    fn course(mut self) -> Result<Course<'r>, Endless> {
        let end = self.travel(&self.packet.origin)?;
        let verdict = match (&end, self.connection.handed_over, self.translated) {
            (End::Dropped, ..) => Verdict::Drop,
            (End::Delivered(_), Some(port), _) => Verdict::Tproxy(port),
            (_, _, Some(port)) => Verdict::Redirect(port),
            (_, _, None) => Verdict::Accept,
        };
        Ok(Course {
            trace: self.trace,
            verdict,
            end,
            mark: self.mark,
            zone: self.connection.zone,
            connection_mark: self.connection.mark,
            certain: self.certain,
        })
    }

    fn family(&self) -> Family {
        self.packet.family()
    }

    fn to(&self) -> SocketAddr {
        (self.destination, self.port.get()).into()
    }

    fn is_local(&self) -> bool {
        self.pod.is_local(self.destination, self.mark)
    }

    fn travel(&mut self, origin: &Origin) -> Result<End, Endless> {
        let interface = match origin {
            Origin::Interface(interface) => interface.clone(),
            Origin::Process { uid, gid, interface } => {
                // Rules of the hook see the output interface of the route before translation.
                let out = if self.is_local() {
                    InterfaceName::loopback()
                } else {
                    interface.clone()
                };
                let at = At {
                    hook: Hook::Output,
                    interface: out,
                    owner: Some((*uid, *gid)),
                };
                if self.hook(&at)? == ChainExit::Dropped {
                    return Ok(End::Dropped);
                }
                // The kernel reroutes a packet whose mark or destination changed.
                if !self.is_local() {
                    return Ok(End::Sent {
                        to: self.to(),
                        interface: interface.clone(),
                    });
                }
                self.connection.is_decided = true;
                InterfaceName::loopback()
            }
        };
        // On the loopback interface a packet loses its socket and keeps its conntrack entry.
        let at = At {
            hook: Hook::Prerouting,
            interface,
            owner: None,
        };
        if self.hook(&at)? == ChainExit::Dropped {
            return Ok(End::Dropped);
        }
        Ok(if self.is_local() {
            End::Delivered(self.to())
        } else {
            End::PassedThrough(self.to())
        })
    }

    /// Runs the base chains of a hook in the order of their priorities.
    fn hook(&mut self, at: &At) -> Result<ChainExit, Endless> {
        let installed = self.installed;
        let at_hook = |chain: &'r Chain| Some((chain.hook.filter(|base| base.hook == at.hook)?, chain));
        let mut chains: Vec<(BaseHook, &Chain)> = installed.ruleset.chains.iter().filter_map(at_hook).collect();
        if chains.len() > MAX_BASE_CHAINS_PER_HOOK {
            return Err(Endless::TooMany);
        }
        // Of equal priority, the first one in the ruleset.
        while let Some(next) = (0..chains.len()).min_by_key(|index| chains[*index].0.priority) {
            let (base, chain) = chains.remove(next);
            let left = match base.kind {
                ChainType::Raw => self.chain(at, base, chain, 0)?,
                ChainType::Mangle => {
                    self.is_tracked = true;
                    self.chain(at, base, chain, 0)?
                }
                ChainType::Nat => {
                    self.is_tracked = true;
                    self.translation(at, base, chain)?
                }
            };
            if left == ChainExit::Dropped {
                return Ok(left);
            }
        }
        self.is_tracked = true;
        self.translate_as_before(at.hook);
        Ok(ChainExit::Done)
    }

    /// Runs a NAT chain, unless the translation is already decided.
    fn translation(&mut self, at: &At, base: BaseHook, chain: &'r Chain) -> Result<ChainExit, Endless> {
        let step = match (self.packet.tracking, self.connection.is_decided) {
            (Tracking::Invalid, _) => Step::Untracked,
            (Tracking::Established, _) | (Tracking::New | Tracking::Related, true) => Step::Decided,
            (Tracking::New | Tracking::Related, false) => return self.chain(at, base, chain, 0),
        };
        self.note(at, base, chain, 0, step)?;
        Ok(ChainExit::Done)
    }

    /// Translates a later packet of a connection like the first one.
    fn translate_as_before(&mut self, hook: Hook) {
        if self.packet.tracking != Tracking::Established {
            return;
        }
        if let Some((_, destination, port)) = self.connection.translation.filter(|(at, ..)| *at == hook) {
            (self.destination, self.port, self.translated) = (destination, port, Some(port));
        }
    }

    fn chain(&mut self, at: &At, base: BaseHook, chain: &'r Chain, depth: usize) -> Result<ChainExit, Endless> {
        if depth > MAX_JUMP_DEPTH {
            return Err(Endless::TooDeep(chain.name.to_string()));
        }
        let mut rules = chain.rules.iter();
        for position in 0.. {
            if let Some(unreadable) = self.unreadable(chain, position) {
                self.certain = false;
                self.note(at, base, chain, depth, Step::Unreadable(unreadable))?;
                continue;
            }
            let Some(rule) = rules.next() else {
                break;
            };
            if let Some(left) = self.rule(at, base, chain, rule, depth)? {
                return Ok(left);
            }
        }
        self.note(at, base, chain, depth, Step::End)?;
        Ok(ChainExit::Returned)
    }

    fn unreadable(&self, chain: &Chain, position: usize) -> Option<&'r Unreadable> {
        let there = |unreadable: &&Unreadable| match &unreadable.place {
            Place::Rule {
                chain: name,
                position: at,
            } => *name == chain.name && *at == position,
            Place::Table | Place::Hook(_) | Place::Set(_) => false,
        };
        self.installed.unreadable.iter().find(there)
    }

    /// Evaluates a rule. Returns how the packet leaves the chain, if it does.
    fn rule(
        &mut self,
        at: &At,
        base: BaseHook,
        chain: &'r Chain,
        rule: &'r Rule,
        depth: usize,
    ) -> Result<Option<ChainExit>, Endless> {
        let ruleset = &self.installed.ruleset;
        let view = self.view(at);
        let step = match applies(ruleset, rule, &view) {
            Known::Yes => Step::Taken(rule),
            Known::Perhaps => Step::Unknown(rule),
            Known::No => {
                let fails = rule
                    .matches
                    .iter()
                    .find(|matcher| holds(ruleset, matcher, &view) == Known::No);
                fails.map_or(Step::Unknown(rule), |matcher| Step::NoMatch(rule, matcher))
            }
        };
        if !matches!(step, Step::Taken(_)) {
            self.certain &= !matches!(step, Step::Unknown(_));
            self.note(at, base, chain, depth, step)?;
            return Ok(None);
        }
        let redirected_to = match at.hook {
            Hook::Output => Some(loopback(self.family())),
            Hook::Prerouting => self.pod.address(&at.interface, self.family()),
        };
        if matches!(rule.action, Action::Redirect(_)) && redirected_to.is_none() {
            self.note(at, base, chain, depth, Step::NowhereToRedirect(rule))?;
            return Ok(Some(ChainExit::Dropped));
        }
        self.note(at, base, chain, depth, step)?;
        match &rule.action {
            Action::Return => return Ok(Some(ChainExit::Returned)),
            Action::Accept => return Ok(Some(ChainExit::Done)),
            Action::Drop => return Ok(Some(ChainExit::Dropped)),
            Action::Jump(target) => {
                let Some(target) = ruleset.chain(target) else {
                    self.certain = false;
                    return Ok(None);
                };
                return Ok(match self.chain(at, base, target, depth + 1)? {
                    ChainExit::Returned => None,
                    left => Some(left),
                });
            }
            Action::Redirect(port) => {
                if let Some(address) = redirected_to {
                    (self.destination, self.port, self.translated) = (address, *port, Some(*port));
                    self.connection.translation = Some((at.hook, address, *port));
                    self.connection.is_decided = true;
                }
                return Ok(Some(ChainExit::Done));
            }
            Action::Tproxy { port, mark } => {
                self.connection.handed_over = Some(*port);
                self.mark = mark.get();
                return Ok(Some(ChainExit::Done));
            }
            Action::SetMark(mark) => self.mark = mark.get(),
            // Timeouts do not change the path.
            Action::SetTimeouts => {}
            Action::SaveMark if self.packet.tracking == Tracking::Invalid => {}
            Action::SaveMark => self.connection.mark = self.mark,
            Action::RestoreMark if self.packet.tracking == Tracking::Invalid => {}
            Action::RestoreMark => self.mark = self.connection.mark,
            Action::SetZone(zone) => {
                if !self.is_tracked && self.connection.zone.is_none() {
                    self.connection.zone = Some(*zone);
                }
            }
        }
        Ok(None)
    }

    /// The properties of the packet that matches see at a hook.
    fn view<'v>(&self, at: &'v At) -> View<'v> {
        let interface = Value::Is(&at.interface);
        let (in_interface, out_interface) = match at.hook {
            Hook::Prerouting => (interface, Value::Missing),
            Hook::Output => (Value::Missing, interface),
        };
        View {
            family: Value::Is(self.family()),
            protocol: Value::Is(self.packet.protocol),
            in_interface,
            out_interface,
            source: Value::Is(self.packet.source),
            destination: Value::Is(self.destination),
            source_port: Value::Is(self.packet.source_port),
            destination_port: Value::Is(self.port),
            uid: at.owner.map_or(Value::Missing, |(uid, _)| Value::Is(uid)),
            gid: at.owner.map_or(Value::Missing, |(_, gid)| Value::Is(gid)),
            mark: Value::Is(self.mark),
            conntrack_mark: match self.packet.tracking {
                Tracking::Invalid => Value::Missing,
                Tracking::New | Tracking::Established | Tracking::Related => Value::Is(self.connection.mark),
            },
            tracking: Value::Is(self.packet.tracking),
        }
    }

    fn note(&mut self, at: &At, base: BaseHook, chain: &'r Chain, depth: usize, step: Step<'r>) -> Result<(), Endless> {
        if self.trace.len() >= MAX_TRACE_ENTRIES {
            return Err(Endless::TooMany);
        }
        let interface = at.interface.clone();
        self.trace.push(Entry {
            base,
            interface,
            chain: &chain.name,
            depth,
            step,
        });
        Ok(())
    }
}
