//! Drift: the differences between the planned and the installed state. Plain data in, differences out.
//!
//! Both sides are described in the syntax of a backend's own tools, so one comparison serves every backend and a
//! person finds each rule under the name in the report. The code that reads the kernel must describe different objects
//! differently.

mod difference;
mod foreign;
mod lists;
#[cfg(test)]
mod tests;

pub use difference::{Difference, Kind, Subject};
pub use foreign::{BaseChain, Catch, CatchEffect, Place, in_front, places, places_in_iptables, redirectors};

/// The planned or the installed state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Objects that exist as a whole, in any order.
    pub things: Vec<Thing>,
    /// Chains with their rules, and sets with their elements, in any order.
    pub lists: Vec<List>,
}

/// An object that exists or not: a chain, a set, an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// The object.
    pub what: Subject,
    /// Its properties in text; empty where it has none.
    pub text: String,
}

/// The contents of a chain or a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The chain, or the set.
    pub of: Subject,
    /// Rules in order, or elements in any order. Of a foreign chain: our rules, and the foreign rules before the
    /// first of them.
    pub lines: Vec<Line>,
}

/// A rule, or an element of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The whole text.
    pub text: String,
    /// The comment of a rule: its purpose.
    pub comment: String,
    /// The position of a rule in its chain, from 1.
    pub position: usize,
    /// Whether the rule is foreign.
    pub foreign: bool,
}

impl Contents {
    /// The differences of the `installed` state from this plan.
    pub fn compare(&self, installed: &Self) -> Vec<Difference> {
        let mut differences = things(&self.things, &installed.things);
        // An object that is missing, extra or of another type is reported as a whole, without its contents.
        let is_whole = |one: &&Difference| one.kind != Kind::Changed || matches!(one.subject, Subject::Set { .. });
        let reported: Vec<Subject> = differences
            .iter()
            .filter(is_whole)
            .map(|one| one.subject.clone())
            .collect();
        let is_planned = |of: &Subject| self.lists.iter().any(|list| list.of == *of);
        let unplanned = installed.lists.iter().filter(|list| !is_planned(&list.of));
        for List { of, .. } in self.lists.iter().chain(unplanned) {
            let (expected, found) = (self.lines(of), installed.lines(of));
            match of {
                of if reported.contains(of) => {}
                Subject::Set { table, set } => elements(&mut differences, table, set, &expected, &found),
                Subject::Chain { table, chain } => rules(&mut differences, table, chain, &expected, &found),
                _ => {}
            }
        }
        differences
    }

    /// The same for states known to differ: if no text shows a difference, one about `what` is reported.
    pub fn compare_unequal(&self, installed: &Self, what: Subject) -> Vec<Difference> {
        let mut differences = self.compare(installed);
        if differences.is_empty() {
            let found = "something that sidetrack cannot describe".to_owned();
            differences.push(Difference::new(Kind::Changed, what, None, Some(found)));
        }
        differences
    }

    fn lines(&self, of: &Subject) -> Vec<&Line> {
        let list = self.lists.iter().find(|list| list.of == *of);
        list.into_iter().flat_map(|list| &list.lines).collect()
    }
}

/// The first differences on one line, and the number of the others.
pub fn summary(differences: &[Difference]) -> String {
    const MAX_LISTED: usize = 3;
    let listed = differences.iter().take(MAX_LISTED).map(ToString::to_string);
    let more = differences.len().checked_sub(MAX_LISTED).filter(|more| *more > 0);
    let parts: Vec<String> = listed.chain(more.map(|more| format!("and {more} more"))).collect();
    parts.join("; ")
}

/// The differences between two lists of objects. Two with the same subject and other properties are one changed object.
pub fn things(planned: &[Thing], installed: &[Thing]) -> Vec<Difference> {
    let mut extra: Vec<&Thing> = installed.iter().filter(|thing| !planned.contains(thing)).collect();
    let missing = planned.iter().filter(|thing| !installed.contains(thing));
    let text = |thing: &Thing| Some(thing.text.clone()).filter(|text| !text.is_empty());
    let mut differences: Vec<Difference> = missing
        .map(|thing| {
            let found = extra.iter().position(|other| other.what == thing.what);
            let found = found.map(|at| extra.remove(at));
            let kind = if found.is_some() { Kind::Changed } else { Kind::Missing };
            Difference::new(kind, thing.what.clone(), text(thing), found.and_then(text))
        })
        .collect();
    differences.extend(
        extra
            .iter()
            .map(|thing| Difference::new(Kind::Extra, thing.what.clone(), None, text(thing))),
    );
    differences
}

/// The differences between two lists of rules. Foreign rules count only where ours should come first.
fn rules(differences: &mut Vec<Difference>, table: &str, chain: &str, expected: &[&Line], found: &[&Line]) {
    let (foreign, owned): (Vec<&Line>, Vec<&Line>) = found.iter().partition(|rule| rule.foreign);
    let foreign = foreign
        .into_iter()
        .filter(|_| !expected.is_empty())
        .map(|rule| (None, Some(rule)));
    for (expected, found) in foreign.chain(lists::edits(expected, &owned)) {
        let kind = match (expected, found) {
            (Some(expected), Some(found)) if expected.text == found.text => Kind::Moved,
            (Some(_), Some(_)) => Kind::Changed,
            (Some(_), None) => Kind::Missing,
            (None, Some(found)) if found.foreign => Kind::Foreign,
            (None, _) => Kind::Extra,
        };
        let subject = Subject::Rule {
            table: table.to_owned(),
            chain: chain.to_owned(),
            expected_at: expected.map(|rule| rule.position),
            found_at: found.map(|rule| rule.position),
            comment: expected.or(found).map(|rule| rule.comment.clone()).unwrap_or_default(),
        };
        let text = |rule: Option<&Line>| rule.map(|rule| rule.text.clone());
        differences.push(Difference::new(kind, subject, text(expected), text(found)));
    }
}

/// The differences between the elements of two sets.
fn elements(differences: &mut Vec<Difference>, table: &str, set: &str, expected: &[&Line], found: &[&Line]) {
    for (kind, listed, other) in [(Kind::Missing, expected, found), (Kind::Extra, found, expected)] {
        let partners = lists::partners(other, listed);
        let alone = listed.iter().zip(partners).filter(|(_, partner)| partner.is_none());
        let elements: Vec<String> = alone.map(|(element, _)| element.text.clone()).collect();
        if !elements.is_empty() {
            let subject = Subject::Elements {
                table: table.to_owned(),
                set: set.to_owned(),
                elements,
            };
            differences.push(Difference::new(kind, subject, None, None));
        }
    }
}
