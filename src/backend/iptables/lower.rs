//! Lowers a ruleset to iptables rules.

mod words;

use thiserror::Error;

use self::words::{Part, alternatives, targets, words};
use super::tables::{Chain, Jump, Spec, TableName, Tables, chain_name};
use crate::ruleset::{self, Action, BaseHook, ChainType, Hook, Match, Rule, Ruleset};
use crate::types::{Families, Family};

pub use self::words::ANY_UID;

/// The most rules that a ruleset may become: twice the number for the largest annotations of a pod.
pub const MAX_RULES: usize = 65_536;

/// A ruleset whose lists are too long for iptables.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "iptables has no sets: the lists would become more than {MAX_RULES} rules. Shorten the lists, or use the nftables \
     backend, which has sets"
)]
pub struct TooManyRules;

/// The ruleset as iptables rules; rules of a single family are marked as such.
///
/// A base chain becomes a user-defined chain and a jump to it, first in the built-in chain. A rule that matches a set
/// becomes one rule for each address, user and group, and for every 15 ports. A rule that matches several sets jumps
/// from the shortest list to a chain of the next one, so the numbers of rules add up. A rule that returns cannot do so:
/// `RETURN` in a chain of its own goes back to the rule, not to the caller, and `ACCEPT` would skip foreign rules. It
/// becomes one rule for each combination; only ports excluded for some users are such a rule.
/// Timeouts are left out: iptables cannot set them.
///
/// # Errors
/// There would be more than [`MAX_RULES`].
pub fn lower(ruleset: &Ruleset) -> Result<Tables, TooManyRules> {
    let ruleset = &ruleset.without_timeouts();
    let of_both_families = &Ruleset {
        families: Families::Both,
        ..ruleset.clone()
    };
    let mut tables = Tables::default();
    let (mut lists, mut count) = (Lists::default(), 0);
    for chain in &ruleset.chains {
        let name = chain_name(&chain.name);
        let (mut rules, mut nested) = (Vec::new(), Vec::new());
        let tables_of_chain = tables_of(ruleset, chain);
        let ruleset = match is_of_both_families(ruleset, chain) {
            true => of_both_families,
            false => ruleset,
        };
        for rule in &chain.rules {
            lists.lower(ruleset, rule, &mut rules, &mut nested)?;
        }
        for table in tables_of_chain {
            count += rules.len();
            let table = tables.entry(table);
            let rules = rules.clone();
            table.chains.push(Chain {
                name: name.clone(),
                rules,
            });
            for number in &nested {
                let list = &lists.0[*number].chain;
                if table.chain(&list.name).is_none() {
                    count += list.rules.len();
                    table.chains.push(list.clone());
                }
            }
            if count > MAX_RULES {
                return Err(TooManyRules);
            }
        }
        if let Some(base) = chain.hook {
            tables.entry(table(base)).jumps.push(jump(ruleset, base, &chain.name));
        }
    }
    if let (Some(record), Some(table)) = (&ruleset.record, tables.of_record()) {
        let ruleset::Chain { name, rules, .. } = record.chain();
        tables.entry(table).chains.push(Chain {
            name: chain_name(name),
            rules: rules.iter().flat_map(|rule| specs(ruleset, rule)).collect(),
        });
    }
    Ok(tables)
}

/// The chains made from lists. Equal ones are shared.
#[derive(Default)]
struct Lists(Vec<List>);

struct List {
    /// The rule that the chain replaces.
    of: Rule,
    chain: Chain,
    /// The indices of the lists that its rules jump to.
    nested: Vec<usize>,
}

impl Lists {
    /// Adds the lowered form of a rule to `rules`, and the indices of the chains that it jumps to.
    fn lower(
        &mut self,
        ruleset: &Ruleset,
        rule: &Rule,
        rules: &mut Vec<Spec>,
        nested: &mut Vec<usize>,
    ) -> Result<(), TooManyRules> {
        let length = |matched: &Match| alternatives(ruleset, matched).len();
        let lengths: Vec<usize> = rule.matches.iter().map(length).collect();
        let combinations = lengths.iter().copied().fold(1, usize::saturating_mul);
        let mut sets: Vec<usize> = (0..lengths.len()).filter(|at| lengths[*at] > 1).collect();
        if combinations == 0 || sets.len() < 2 || rule.action == Action::Return {
            if rules.len().saturating_add(combinations) > MAX_RULES {
                return Err(TooManyRules);
            }
            rules.extend(specs(ruleset, rule));
            return Ok(());
        }
        sets.sort_by_key(|at| lengths[*at]);
        let (moved, kept): (Vec<_>, Vec<_>) = (0..lengths.len()).partition(|at| sets[1..].contains(at));
        let part = |places: &[usize]| Rule {
            matches: places.iter().map(|at| rule.matches[*at].clone()).collect(),
            ..rule.clone()
        };
        let (inner, mut outer) = (part(&moved), part(&kept));
        let number = match self.0.iter().position(|list| list.of == inner) {
            Some(number) => number,
            None => {
                let (mut rules, mut nested) = (Vec::new(), Vec::new());
                self.lower(ruleset, &inner, &mut rules, &mut nested)?;
                let name = chain_name(&format!("{LIST_PREFIX}{}", self.0.len() + 1));
                let chain = Chain { name, rules };
                self.0.push(List {
                    of: inner,
                    chain,
                    nested,
                });
                self.0.len() - 1
            }
        };
        nested.push(number);
        nested.extend(&self.0[number].nested);
        outer.action = Action::Jump(format!("{LIST_PREFIX}{}", number + 1).into());
        rules.extend(specs(ruleset, &outer));
        Ok(())
    }
}

/// Name prefix of the chains made from lists.
const LIST_PREFIX: &str = "list_";

/// The table of a base chain. The table `filter` has no chains PREROUTING and POSTROUTING.
fn table(base: BaseHook) -> TableName {
    match (base.kind, base.hook) {
        (ChainType::Raw, _) | (ChainType::Filter, Hook::Prerouting) => TableName::Raw,
        (ChainType::Mangle, _) | (ChainType::Filter, Hook::Postrouting) => TableName::Mangle,
        (ChainType::Nat, _) => TableName::Nat,
        (ChainType::Filter, _) => TableName::Filter,
    }
}

/// The tables that need a chain: its own, or those of the base chains that jump to it.
fn tables_of(ruleset: &Ruleset, chain: &ruleset::Chain) -> Vec<TableName> {
    let leads_here = |from: &ruleset::Chain| from.name == chain.name || reaches(ruleset, from, &chain.name);
    let tables = |name: &TableName| {
        let of_table = |base: &ruleset::Chain| base.hook.is_some_and(|hook| table(hook) == *name);
        ruleset.chains.iter().any(|base| of_table(base) && leads_here(base))
    };
    TableName::ALL.into_iter().filter(tables).collect()
}

/// Whether only chains of type filter lead to a chain: they see the packets of both families.
fn is_of_both_families(ruleset: &Ruleset, chain: &ruleset::Chain) -> bool {
    let leads_here = |from: &&ruleset::Chain| from.name == chain.name || reaches(ruleset, from, &chain.name);
    let bases = ruleset.chains.iter().filter(leads_here).filter_map(|from| from.hook);
    bases.into_iter().all(|base| base.kind == ChainType::Filter)
}

fn reaches(ruleset: &Ruleset, from: &ruleset::Chain, name: &str) -> bool {
    from.rules.iter().filter_map(|rule| rule.action.target()).any(|target| {
        target == name
            || ruleset
                .chain(target)
                .is_some_and(|target| reaches(ruleset, target, name))
    })
}

fn jump(ruleset: &Ruleset, base: BaseHook, chain: &str) -> Jump {
    let family = match ruleset.families {
        Families::Only(family) => Some(family),
        Families::Both => None,
    };
    Jump {
        from: base.hook.name().to_uppercase(),
        position: 1,
        spec: Spec::new(family, words(["-j", &chain_name(chain)])),
    }
}

/// The rules that one rule becomes: one for each combination of the alternatives that its matches have.
pub fn specs(ruleset: &Ruleset, rule: &Rule) -> Vec<Spec> {
    let families: Vec<Family> = ruleset
        .families
        .iter()
        .filter(|family| rule.can_match(*family))
        .collect();
    let mut combinations: Vec<Vec<Part>> = vec![Vec::new()];
    for matched in &rule.matches {
        let alternatives = alternatives(ruleset, matched);
        combinations = combinations
            .iter()
            .flat_map(|begun| alternatives.iter().map(|more| [begun.as_slice(), more].concat()))
            .collect();
    }
    let comment = with_cgroup(rule);
    targets(&rule.action, &families)
        .iter()
        .flat_map(|(family, target)| {
            let spec = |parts: &Vec<Part>| Spec::new(*family, spec_words(parts, &comment, target));
            combinations.iter().map(spec)
        })
        .collect()
}

/// Between the comment of a rule and the ID of its cgroup.
pub const CGROUP_ID: &str = ", cgroup ID ";

/// The comment of a rule. iptables has a cgroup by its path, so that one that was removed and created again would look the
/// same, whose processes the rule does not match.
fn with_cgroup(rule: &Rule) -> String {
    let id = |matched: &Match| match matched {
        Match::Cgroup(cgroup) => cgroup.id,
        _ => None,
    };
    match rule.matches.iter().find_map(id) {
        Some(id) => format!("{}{CGROUP_ID}{id}", rule.comment),
        None => rule.comment.to_string(),
    }
}

fn spec_words(parts: &[Part], comment: &str, target: &[String]) -> Vec<String> {
    let mut parts = parts.to_vec();
    parts.sort_by_key(|(place, _)| *place);
    parts.dedup(); // The protocol may be a match by itself and part of a port match.
    let comment = words(["-m", "comment", "--comment", comment]);
    let parts = parts.into_iter().flat_map(|(_, words)| words);
    parts.chain(comment).chain(target.iter().cloned()).collect()
}
