//! What differs between what is planned and what is installed: plain data in, differences out.
//!
//! Both sides are told in the words of the tools of a backend, so that one comparison serves every backend, and a
//! person finds each rule where it says. Whoever reads the kernel answers for the words: different things have
//! different ones.

mod difference;
mod foreign;
mod lists;
#[cfg(test)]
mod tests;

pub use difference::{Difference, Kind, Subject};
pub use foreign::{BaseChain, Catch, Catching, Place, in_front, places, places_in_iptables, redirectors};

/// What is planned, or what is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// What there is, in any order.
    pub things: Vec<Thing>,
    /// Chains with their rules, and sets with their elements, in any order.
    pub lists: Vec<List>,
}

/// Something that is there or not: a chain, a set, an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// What it is.
    pub what: Subject,
    /// How it is; nothing where there is no more to tell.
    pub text: String,
}

/// What is in a chain or a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The chain, or the set.
    pub of: Subject,
    /// Its rules in order, or its elements in any order. Of a chain of somebody else's these are our rules, and those
    /// before the first of ours.
    pub lines: Vec<Line>,
}

/// A rule, or an element of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// All of it.
    pub text: String,
    /// The comment of a rule: what it is for.
    pub comment: String,
    /// The number of a rule among all of its chain, from 1.
    pub position: usize,
    /// Whether a rule is somebody else's.
    pub foreign: bool,
}

impl Contents {
    /// How what is `installed` differs from this plan. Nothing where it does not.
    pub fn compare(&self, installed: &Self) -> Vec<Difference> {
        let mut differences = things(&self.things, &installed.things);
        // What is missing, extra or of another kind as a whole is told as that.
        let is_whole = |one: &&Difference| one.kind != Kind::Changed || matches!(one.subject, Subject::Set { .. });
        let told: Vec<Subject> = differences
            .iter()
            .filter(is_whole)
            .map(|one| one.subject.clone())
            .collect();
        let is_planned = |of: &Subject| self.lists.iter().any(|list| list.of == *of);
        let unplanned = installed.lists.iter().filter(|list| !is_planned(&list.of));
        for List { of, .. } in self.lists.iter().chain(unplanned) {
            let (expected, found) = (self.lines(of), installed.lines(of));
            match of {
                of if told.contains(of) => {}
                Subject::Set { table, set } => elements(&mut differences, table, set, &expected, &found),
                Subject::Chain { table, chain } => rules(&mut differences, table, chain, &expected, &found),
                _ => {}
            }
        }
        differences
    }

    /// The same where they are known to differ: if no words tell how, that is told of `what`.
    pub fn compare_unequal(&self, installed: &Self, what: Subject) -> Vec<Difference> {
        let mut differences = self.compare(installed);
        if differences.is_empty() {
            let found = "something that sidetrack has no words for".to_owned();
            differences.push(Difference::new(Kind::Changed, what, None, Some(found)));
        }
        differences
    }

    fn lines(&self, of: &Subject) -> Vec<&Line> {
        let list = self.lists.iter().find(|list| list.of == *of);
        list.into_iter().flat_map(|list| &list.lines).collect()
    }
}

/// How things differ: of two that are the same but in how they are, one was changed into the other.
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

/// How the rules of a chain differ. Rules of others matter where ours should be the first.
fn rules(differences: &mut Vec<Difference>, table: &str, chain: &str, expected: &[&Line], found: &[&Line]) {
    let (foreign, ours): (Vec<&Line>, Vec<&Line>) = found.iter().partition(|rule| rule.foreign);
    let foreign = foreign
        .into_iter()
        .filter(|_| !expected.is_empty())
        .map(|rule| (None, Some(rule)));
    for (expected, found) in foreign.chain(lists::edits(expected, &ours)) {
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

/// How the elements of a set differ.
fn elements(differences: &mut Vec<Difference>, table: &str, set: &str, expected: &[&Line], found: &[&Line]) {
    for (kind, these, others) in [(Kind::Missing, expected, found), (Kind::Extra, found, expected)] {
        let partners = lists::partners(others, these);
        let alone = these.iter().zip(partners).filter(|(_, partner)| partner.is_none());
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
