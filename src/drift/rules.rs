//! How one list of rules becomes another, in the fewest steps that a person would name.

use std::collections::{HashMap, VecDeque};

use super::Rule;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<'r> {
    /// A rule that is not there.
    Missing(&'r Rule),
    /// A rule that should not be there.
    Extra(&'r Rule),
    /// A rule in the place of another one.
    Changed(&'r Rule, &'r Rule),
    /// The same rule, on the other side of some that kept their order.
    Moved(&'r Rule, &'r Rule),
}

/// The steps from `expected` to `found`, in the order of the rules that are expected; then what is there besides.
///
/// Equal rules are paired, and the longest run of pairs that is in order on both sides has stayed where it is. Of the
/// rest, rules of one comment, or without one between the same neighbours, are one rule that was changed.
pub fn edits<'r>(expected: &'r [Rule], found: &'r [Rule]) -> Vec<Edit<'r>> {
    let prefix = expected
        .iter()
        .zip(found)
        .take_while(|(one, other)| one.text == other.text)
        .count();
    let (expected, found) = (&expected[prefix..], &found[prefix..]);
    let ends = expected.iter().rev().zip(found.iter().rev());
    let suffix = ends.take_while(|(one, other)| one.text == other.text).count();
    let (expected, found) = (&expected[..expected.len() - suffix], &found[..found.len() - suffix]);

    let partners = partners(expected, found);
    let stayed = longest_ascent(&partners);
    let mut partner_of: Vec<Option<usize>> = vec![None; expected.len()];
    for (at, number) in partners.iter().enumerate() {
        if let Some(number) = number {
            partner_of[*number] = Some(at);
        }
    }
    let changed = changed(expected, found, &partner_of, &partners, &stayed);
    let edit = |(number, rule): (usize, &'r Rule)| match (partner_of[number], changed[number]) {
        (Some(at), _) => (!stayed[at]).then(|| Edit::Moved(rule, &found[at])),
        (None, Some(at)) => Some(Edit::Changed(rule, &found[at])),
        (None, None) => Some(Edit::Missing(rule)),
    };
    let is_extra = |at: &usize| partners[*at].is_none() && !changed.contains(&Some(*at));
    let extra = (0..found.len()).filter(is_extra).map(|at| Edit::Extra(&found[at]));
    expected.iter().enumerate().filter_map(edit).chain(extra).collect()
}

/// For each rule that is expected and has no equal, the one that it was changed into, if there is any.
fn changed(
    expected: &[Rule],
    found: &[Rule],
    partner_of: &[Option<usize>],
    partners: &[Option<usize>],
    stayed: &[bool],
) -> Vec<Option<usize>> {
    // Between which rules, of those that stayed, each one is: how many are before it.
    let gaps = |stayed: &mut dyn Iterator<Item = bool>| -> Vec<usize> {
        stayed
            .scan(0, |before, one| {
                *before += usize::from(one);
                Some(*before)
            })
            .collect()
    };
    let stays = |partner: &Option<usize>| partner.is_some_and(|at| stayed[at]);
    let expected_gaps = gaps(&mut partner_of.iter().map(stays));
    let found_gaps = gaps(&mut stayed.iter().copied());
    let mut free: VecDeque<usize> = (0..found.len()).filter(|at| partners[*at].is_none()).collect();
    let mut changed = vec![None; expected.len()];
    let same_comment = |number: usize, at: usize| {
        let comment = &expected[number].comment;
        !comment.is_empty() && found[at].comment == *comment
    };
    let same_gap = |number: usize, at: usize| {
        let nameless = expected[number].comment.is_empty() || found[at].comment.is_empty();
        nameless && expected_gaps[number] == found_gaps[at]
    };
    for alike in [&same_comment as &dyn Fn(usize, usize) -> bool, &same_gap] {
        for number in 0..expected.len() {
            if partner_of[number].is_none() && changed[number].is_none() {
                let at = free.iter().position(|at| alike(number, *at));
                changed[number] = at.and_then(|at| free.remove(at));
            }
        }
    }
    changed
}

/// For each rule that was found, the number of the equal one that is expected: the first to the first, and so on.
fn partners(expected: &[Rule], found: &[Rule]) -> Vec<Option<usize>> {
    let mut numbers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, rule) in expected.iter().enumerate().rev() {
        numbers.entry(&rule.text).or_default().push(number);
    }
    found
        .iter()
        .map(|rule| numbers.get_mut(rule.text.as_str()).and_then(Vec::pop))
        .collect()
}

/// Which of these numbers, no two of them equal, belong to a longest ascending run.
fn longest_ascent(numbers: &[Option<usize>]) -> Vec<bool> {
    // For each length, where the run of that length with the smallest end ends.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; numbers.len()];
    for (at, number) in numbers.iter().enumerate() {
        if number.is_some() {
            let length = ends.partition_point(|end| numbers[*end] < *number);
            before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
            match ends.get_mut(length) {
                Some(end) => *end = at,
                None => ends.push(at),
            }
        }
    }
    let mut belongs = vec![false; numbers.len()];
    let mut next = ends.last().copied();
    while let Some(at) = next {
        belongs[at] = true;
        next = before[at];
    }
    belongs
}
