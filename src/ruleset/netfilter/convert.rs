//! Planned rules, and those owned by sidetrack, as rules of a namespace.

use super::{Action, Base, Chain, Match, Netfilter, Rule, Statement, Table};
use crate::ruleset::{self, Installed, Place, Ruleset};

impl From<ruleset::BaseHook> for Base {
    fn from(base: ruleset::BaseHook) -> Self {
        Self {
            kind: base.kind,
            hook: base.hook,
            priority: base.priority,
            drops: false,
        }
    }
}

impl From<ruleset::Rule> for Rule {
    fn from(rule: ruleset::Rule) -> Self {
        let matches = rule
            .matches
            .into_iter()
            .map(|matched| Statement::Match(Match::Planned(matched)));
        let action = Statement::Action(Action::Planned(rule.action));
        Self {
            statements: matches.chain([action]).collect(),
            comment: rule.comment,
        }
    }
}

impl From<Ruleset> for Table {
    fn from(ruleset: Ruleset) -> Self {
        let chain = |chain: ruleset::Chain| Chain {
            name: chain.name,
            base: chain.hook.map(Base::from),
            rules: chain.rules.into_iter().map(Rule::from).collect(),
        };
        Self {
            name: format!("inet {}", ruleset::TABLE),
            family: None,
            sets: ruleset.sets,
            chains: ruleset.chains.into_iter().map(chain).collect(),
        }
    }
}

/// A planned ruleset, as if it were installed.
impl From<Ruleset> for Netfilter {
    fn from(ruleset: Ruleset) -> Self {
        Self {
            tables: vec![ruleset.into()],
            unreadable: Vec::new(),
        }
    }
}

/// The rules owned by sidetrack, as if they were alone.
impl From<Installed> for Netfilter {
    fn from(installed: Installed) -> Self {
        let mut table = Table::from(installed.ruleset);
        let mut unreadable = Vec::new();
        for part in installed.unreadable {
            let text = part.to_string();
            match part.place {
                Place::Rule { chain, position } => {
                    let rule = Rule {
                        statements: vec![Statement::Action(Action::Unreadable(part.text))],
                        comment: part.comment.into(),
                    };
                    match table.chains.iter_mut().find(|found| found.name == chain) {
                        Some(found) => found.rules.insert(position.min(found.rules.len()), rule),
                        None => unreadable.push(text),
                    }
                }
                Place::Set(_) => {} // Rules that use it say so.
                Place::Table | Place::Hook(_) => unreadable.push(text),
            }
        }
        Self {
            tables: vec![table],
            unreadable,
        }
    }
}
