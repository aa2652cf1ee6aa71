//! Evaluation of a chain: its rules, and their actions.

use std::net::IpAddr;

use super::super::packet::loopback;
use super::super::path::Step;
use super::{At, ChainExit, MAX_JUMPS, Place, Run, TooComplex};
use crate::ruleset::netfilter::{Action, Choice, MarkChange, Match, Rule, Statement, applicable_entry, holds};
use crate::ruleset::{self, ChainType, Hook, Known, Tracking, Value};
use crate::types::Port;

/// What follows an action.
enum Flow {
    /// The next statement.
    Next,
    /// The next rule.
    NextRule,
    /// The packet leaves the chain.
    Exit(ChainExit),
}

impl<'r> Run<'r, '_> {
    /// Runs a base chain, and applies its policy.
    pub(super) fn base_chain(&mut self, place: Place<'r, '_>) -> Result<ChainExit, TooComplex> {
        let mark = self.mark;
        let exit = self.chain(place)?;
        if place.at.hook == Hook::Output && place.base.kind == ChainType::Mangle && self.mark != mark {
            self.routed_mark = self.mark;
        }
        if exit == ChainExit::Returned && place.base.drops {
            self.note(place, Step::PolicyDrop)?;
            return Ok(ChainExit::Dropped);
        }
        Ok(exit)
    }

    fn chain(&mut self, place: Place<'r, '_>) -> Result<ChainExit, TooComplex> {
        if place.depth > MAX_JUMPS {
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
                        match self.act(place, &entry.action)? {
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
            match self.act(place, action)? {
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

    fn act(&mut self, place: Place<'r, '_>, action: &'r Action) -> Result<Flow, TooComplex> {
        use ruleset::Action as Planned;
        let at = place.at;
        Ok(match action {
            Action::Planned(Planned::Return) => Flow::Exit(ChainExit::Returned),
            Action::Planned(Planned::Accept) => Flow::Exit(ChainExit::Done),
            Action::Planned(Planned::Drop) => Flow::Exit(ChainExit::Dropped),
            Action::Reject | Action::Planned(Planned::Reject(_)) => Flow::Exit(ChainExit::Rejected),
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
                self.connection.handed_over = self.chosen(*port);
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
                (Known::Yes, Some(entry)) => self.act(place, &entry.action)?,
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

    fn chosen(&mut self, port: Choice<Port>) -> Option<Port> {
        match port {
            _ if self.port.is_none() => None,
            Choice::Keep => self.port,
            Choice::One(port) => Some(port),
            Choice::Any => self.lose(self.port, "the port that connections are translated to"),
        }
    }

    fn lose<T>(&mut self, value: T, about: &str) -> T {
        self.is_lost = true;
        self.doubt(format!("{about}, one of several"));
        value
    }

    /// Whether the packet has a conntrack entry.
    pub(super) fn has_connection(&self) -> bool {
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
}

fn name(place: Place, rule: &Rule, number: usize) -> String {
    let comment = match rule.comment.as_ref() {
        "" => String::new(),
        comment => format!(" (\"{comment}\")"),
    };
    let (chain, table) = (&place.chain.name, &place.table.name);
    format!("rule {number} of chain {chain} of table {table}{comment}")
}
