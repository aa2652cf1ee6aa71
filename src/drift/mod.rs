//! What differs between what is planned and what is installed: plain data in, differences out.
//!
//! Both sides are told in the words of the tools of a backend, so that one comparison serves every backend, and a
//! person finds each rule where it says. Whoever reads the kernel answers for the words: different things have
//! different ones.

mod difference;
mod foreign;
mod rules;
#[cfg(test)]
mod tests;

pub use difference::{Difference, Kind, Subject};
pub use foreign::{BaseChain, Catch, Catching, Place, in_front, places, places_in_iptables, redirectors};

use std::collections::HashSet;

use self::rules::Edit;

/// What a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its name, with what tells it from others of that name: `inet sidetrack`, `iptables nat`, `ip6tables nat`.
    pub name: String,
    /// What is wrong with it as a whole.
    pub flaw: Option<String>,
    /// Its chains, in any order.
    pub chains: Vec<Chain>,
    /// Its sets, in any order.
    pub sets: Vec<Set>,
}

/// A chain and its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Whether all of it is ours. Of a chain of somebody else's there are our rules here, and those before the first.
    pub ours: bool,
    /// Where the kernel calls it, with its type, priority and policy.
    pub hook: Option<String>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number among all rules of its chain, from 1.
    pub position: usize,
    /// All of it.
    pub text: String,
    /// Its comment: what it is for.
    pub comment: String,
    /// Whether it is somebody else's, in a chain that is not ours.
    pub foreign: bool,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What it can hold.
    pub kind: String,
    /// What is in it, in any order.
    pub elements: Vec<String>,
}

/// Something that a plan needs besides its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// What it is. There may be one of each.
    pub what: Subject,
    /// How it looks.
    pub text: String,
}

/// How the tables that are installed differ from those planned. Nothing where they are the same.
pub fn tables(planned: &[Table], installed: &[Table]) -> Vec<Difference> {
    let nothing = |name: &str| Table {
        name: name.to_owned(),
        ..Table::default()
    };
    let mut differences = Vec::new();
    for expected in planned {
        let found = installed.iter().find(|found| found.name == expected.name);
        table(&mut differences, expected, found.unwrap_or(&nothing(&expected.name)));
    }
    for found in installed {
        if !planned.iter().any(|expected| expected.name == found.name) {
            table(&mut differences, &nothing(&found.name), found);
        }
    }
    differences
}

/// The same for tables that are known to differ: if no words tell how, that is told of the table called `name`.
pub fn tables_that_differ(name: &str, planned: &[Table], installed: &[Table]) -> Vec<Difference> {
    let mut differences = tables(planned, installed);
    if differences.is_empty() {
        let subject = Subject::Table { table: name.to_owned() };
        let found = Some("something that sidetrack has no words for".to_owned());
        differences.push(Difference::changed(subject, None, found));
    }
    differences
}

fn table(differences: &mut Vec<Difference>, expected: &Table, found: &Table) {
    let name = || expected.name.clone();
    if expected.flaw != found.flaw {
        let subject = Subject::Table { table: name() };
        differences.push(Difference::changed(subject, expected.flaw.clone(), found.flaw.clone()));
    }
    for set in &expected.sets {
        match found.sets.iter().find(|found| found.name == set.name) {
            Some(found) => elements(differences, &name(), set, found),
            None => differences.push(Difference::missing(set.subject(name()), set.kind.clone())),
        }
    }
    for set in &found.sets {
        if !expected.sets.iter().any(|expected| expected.name == set.name) {
            differences.push(Difference::extra(set.subject(name()), set.kind.clone()));
        }
    }
    for chain in &expected.chains {
        match found.chains.iter().find(|found| found.name == chain.name) {
            Some(found) => self::chain(differences, &name(), chain, found),
            None if chain.ours => differences.push(Difference::missing(chain.subject(name()), chain.summary())),
            None => rules_of(differences, &name(), &chain.name, &chain.rules, &[]),
        }
    }
    for chain in &found.chains {
        if expected.chains.iter().any(|expected| expected.name == chain.name) {
            continue;
        }
        if chain.ours {
            differences.push(Difference::extra(chain.subject(name()), chain.summary()));
        } else {
            let ours: Vec<Rule> = chain.rules.iter().filter(|rule| !rule.foreign).cloned().collect();
            rules_of(differences, &name(), &chain.name, &[], &ours);
        }
    }
}

impl Chain {
    fn subject(&self, table: String) -> Subject {
        let chain = self.name.clone();
        Subject::Chain { table, chain }
    }

    fn summary(&self) -> String {
        let rules = match self.rules.len() {
            1 => "1 rule".to_owned(),
            number => format!("{number} rules"),
        };
        let hook = self.hook.iter().cloned();
        hook.chain([rules]).collect::<Vec<_>>().join(" ")
    }
}

fn chain(differences: &mut Vec<Difference>, table: &str, expected: &Chain, found: &Chain) {
    if expected.hook != found.hook {
        let subject = expected.subject(table.to_owned());
        differences.push(Difference::changed(subject, expected.hook.clone(), found.hook.clone()));
    }
    let (foreign, ours): (Vec<Rule>, Vec<Rule>) = found.rules.iter().cloned().partition(|rule| rule.foreign);
    differences.extend(foreign.into_iter().map(|rule| {
        let subject = Subject::Rule {
            table: table.to_owned(),
            chain: expected.name.clone(),
            expected_at: None,
            found_at: Some(rule.position),
            comment: rule.comment,
        };
        Difference::foreign(subject, rule.text)
    }));
    rules_of(differences, table, &expected.name, &expected.rules, &ours);
}

fn rules_of(differences: &mut Vec<Difference>, table: &str, chain: &str, expected: &[Rule], found: &[Rule]) {
    differences.extend(rules::edits(expected, found).into_iter().map(|edit| {
        let (kind, expected, found) = match edit {
            Edit::Missing(expected) => (Kind::Missing, Some(expected), None),
            Edit::Extra(found) => (Kind::Extra, None, Some(found)),
            Edit::Changed(expected, found) => (Kind::Changed, Some(expected), Some(found)),
            Edit::Moved(expected, found) => (Kind::Moved, Some(expected), Some(found)),
        };
        let position = |rule: Option<&Rule>| rule.map(|rule| rule.position);
        let text = |rule: Option<&Rule>| rule.map(|rule| rule.text.clone());
        let comment = expected.or(found).map(|rule| rule.comment.clone());
        Difference {
            kind,
            subject: Subject::Rule {
                table: table.to_owned(),
                chain: chain.to_owned(),
                expected_at: position(expected),
                found_at: position(found),
                comment: comment.unwrap_or_default(),
            },
            expected: text(expected),
            found: text(found),
        }
    }));
}

/// How sets of one name differ.
fn elements(differences: &mut Vec<Difference>, table: &str, expected: &Set, found: &Set) {
    if expected.kind != found.kind {
        let (expected, found, subject) = (&expected.kind, &found.kind, expected.subject(table.to_owned()));
        differences.push(Difference::changed(
            subject,
            Some(expected.clone()),
            Some(found.clone()),
        ));
        return;
    }
    let not_in = |one: &Set, other: &Set| -> Vec<String> {
        let others: HashSet<&String> = other.elements.iter().collect();
        one.elements
            .iter()
            .filter(|element| !others.contains(element))
            .cloned()
            .collect()
    };
    for (kind, elements) in [
        (Kind::Missing, not_in(expected, found)),
        (Kind::Extra, not_in(found, expected)),
    ] {
        if !elements.is_empty() {
            let subject = Subject::Elements {
                table: table.to_owned(),
                set: expected.name.clone(),
                elements,
            };
            differences.push(Difference {
                kind,
                subject,
                expected: None,
                found: None,
            });
        }
    }
}

impl Set {
    fn subject(&self, table: String) -> Subject {
        let set = self.name.clone();
        Subject::Set { table, set }
    }
}

/// How what is installed besides rules differs from what is planned. `ours` we have added, `others` somebody else.
pub fn additions(planned: &[Addition], ours: &[Addition], others: &[Addition]) -> Vec<Difference> {
    let missing = planned
        .iter()
        .filter(|wanted| !ours.contains(wanted) && !others.contains(wanted));
    let extra = ours.iter().filter(|found| !planned.contains(found));
    missing
        .map(|wanted| Difference::missing(wanted.what.clone(), wanted.text.clone()))
        .chain(extra.map(|found| Difference::extra(found.what.clone(), found.text.clone())))
        .collect()
}
