//! Which rules count connections: those that decide about one, so that each connection counts once.
//!
//! The rule that decides is the last one with a verdict that a packet matches, as `sidetrack explain` has it. A return
//! from a chain does not decide if a later rule of the calling chain matches whatever the jump matches.

use std::collections::BTreeMap;

use super::{Action, BaseHook, ChainType, Installed, MAX_JUMP_DEPTH, Match, Name, Place, Rule, Ruleset};

/// What a rule that counts does with the packets that it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It decides about them.
    Decides,
    /// It passes them to a chain whose rules decide; those that match none of them are not redirected.
    Enters,
}

/// A rule that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter<'r> {
    /// The hook of the base chain that leads to the rule.
    pub base: BaseHook,
    /// Chain of the rule.
    pub chain: &'r Name,
    /// Number of rules before it in the chain.
    pub position: usize,
    /// The rule.
    pub rule: &'r Rule,
    /// What it counts.
    pub counted: Counted,
    /// Whether its packets have come by a rule that [enters](Counted::Enters) its chain.
    pub is_entered: bool,
}

/// The values of counters: numbers of packets, by chain and position of the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(Name, usize), u64>);

impl Counts {
    /// Sets the value of a rule's counter.
    pub fn set(&mut self, chain: Name, position: usize, packets: u64) {
        self.0.insert((chain, position), packets);
    }

    /// The value of a rule's counter; `None` if it has none.
    pub fn get(&self, chain: &Name, position: usize) -> Option<u64> {
        self.0.get(&(chain.clone(), position)).copied()
    }

    /// The values of a chain's counters, in the order of the rules.
    pub fn of_chain<'c>(&'c self, chain: &'c str) -> impl Iterator<Item = u64> + 'c {
        let of_chain = self.0.iter().filter(move |((of, _), _)| of == chain);
        of_chain.map(|(_, packets)| *packets)
    }

    /// The same for the readable rules alone, if these are counters of the installed rules with the unreadable ones.
    #[must_use]
    pub fn of_readable(self, installed: &Installed) -> Self {
        let is_unreadable = |of: &Name, at: usize| {
            let mut places = installed.unreadable.iter().map(|part| &part.place);
            places.any(|place| matches!(place, Place::Rule { chain, position } if (chain, *position) == (of, at)))
        };
        let mut counts = Self::default();
        for ((chain, position), packets) in self.0 {
            if !is_unreadable(&chain, position) {
                let before = (0..position).filter(|before| !is_unreadable(&chain, *before)).count();
                counts.set(chain, before, packets);
            }
        }
        counts
    }

    /// Whether no rule has a counter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Ruleset {
    /// The rules that count, in the order of evaluation; each once.
    pub fn counters(&self) -> Vec<Counter<'_>> {
        let mut walk = Walk {
            ruleset: self,
            counters: Vec::new(),
            seen: Vec::new(),
        };
        for chain in &self.chains {
            if let Some(base) = chain.hook.filter(|base| self.decides(base.kind, &chain.name, 0)) {
                walk.chain(base, &chain.name, Path::default());
            }
        }
        walk.counters
    }

    /// Gives each of these rules a counter.
    pub fn add_counters(&mut self) {
        let counters: Vec<(Name, usize)> = self
            .counters()
            .into_iter()
            .map(|counter| (counter.chain.clone(), counter.position))
            .collect();
        for chain in &mut self.chains {
            for (position, rule) in chain.rules.iter_mut().enumerate() {
                rule.has_counter = counters.contains(&(chain.name.clone(), position));
            }
        }
    }

    /// Whether rules have counters.
    pub fn has_counters(&self) -> bool {
        let mut rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.any(|rule| rule.has_counter)
    }

    /// Whether rules of a base chain decide about packets, rather than only change marks or conntrack zones.
    fn decides(&self, kind: ChainType, chain: &Name, depth: usize) -> bool {
        match kind {
            ChainType::Raw => false,
            ChainType::Nat => true,
            ChainType::Mangle | ChainType::Filter => self.chain(chain).is_some_and(|chain| {
                chain.rules.iter().any(|rule| match &rule.action {
                    Action::Drop | Action::Reject(_) | Action::Tproxy { .. } => true,
                    Action::Jump(target) => depth < MAX_JUMP_DEPTH && self.decides(kind, target, depth + 1),
                    Action::Return
                    | Action::Accept
                    | Action::Redirect(_)
                    | Action::SetMark(_)
                    | Action::SaveMark
                    | Action::RestoreMark
                    | Action::SetZone(_)
                    | Action::SetTimeouts => false,
                })
            }),
        }
    }
}

struct Walk<'r> {
    ruleset: &'r Ruleset,
    counters: Vec<Counter<'r>>,
    /// The chains that were followed: by name, and whether a rule of a calling chain decides about packets that return.
    seen: Vec<(&'r str, bool)>,
}

/// How the packets of a chain have come to it.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    /// The number of jumps.
    depth: usize,
    /// A later rule of a calling chain decides about all packets that return.
    is_caught: bool,
    /// A counted jump led here.
    is_entered: bool,
}

impl<'r> Walk<'r> {
    fn chain(&mut self, base: BaseHook, name: &Name, path: Path) {
        let Some(chain) = self.ruleset.chain(name) else {
            return;
        };
        let seen = (chain.name.as_ref(), path.is_caught);
        if path.depth > MAX_JUMP_DEPTH || self.seen.contains(&seen) {
            return;
        }
        self.seen.push(seen);
        for (position, rule) in chain.rules.iter().enumerate() {
            let mut count = |counted| {
                let counter = Counter {
                    base,
                    chain: &chain.name,
                    position,
                    rule,
                    counted,
                    is_entered: path.is_entered,
                };
                let is_same = |known: &Counter| known.position == position && known.chain == counter.chain;
                if !self.counters.iter().any(is_same) {
                    self.counters.push(counter);
                }
            };
            match &rule.action {
                Action::Return if path.is_caught => {}
                // These chains only refuse packets of connections that NAT has decided about.
                Action::Return | Action::Accept if base.kind == ChainType::Filter => {}
                Action::Return
                | Action::Accept
                | Action::Drop
                | Action::Reject(_)
                | Action::Redirect(_)
                | Action::Tproxy { .. } => {
                    count(Counted::Decides);
                }
                Action::Jump(target) => {
                    let is_caught = path.is_caught || catches(&chain.rules[position + 1..], &rule.matches);
                    let enters = path.depth == 0 && !is_caught && base.kind == ChainType::Nat;
                    if enters {
                        count(Counted::Enters);
                    }
                    let path = Path {
                        depth: path.depth + 1,
                        is_caught,
                        is_entered: path.is_entered || enters,
                    };
                    self.chain(base, target, path);
                }
                Action::SetMark(_)
                | Action::SaveMark
                | Action::RestoreMark
                | Action::SetZone(_)
                | Action::SetTimeouts => {}
            }
        }
    }
}

/// Whether one of these rules decides about all packets with these properties.
fn catches(rules: &[Rule], matches: &[Match]) -> bool {
    rules.iter().any(|rule| {
        let decides = match rule.action {
            Action::Return | Action::Accept | Action::Drop | Action::Reject(_) | Action::Redirect(_) => true,
            // On nftables this rule may not apply.
            Action::Tproxy { .. }
            | Action::Jump(_)
            | Action::SetMark(_)
            | Action::SaveMark
            | Action::RestoreMark
            | Action::SetZone(_)
            | Action::SetTimeouts => false,
        };
        decides && rule.matches.iter().all(|matched| matches.contains(matched))
    })
}
