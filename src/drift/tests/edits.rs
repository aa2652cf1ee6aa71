//! The edits between two lists of rules: by hand, and properties of any.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::Line;
use super::super::lists::edits;
use super::{letters, numbered, rule};

/// The steps between lists of one letter a rule, shortly.
fn steps(expected: &str, found: &str) -> String {
    let (expected, found) = (letters(expected), letters(found));
    let (expected, found): (Vec<&Line>, Vec<&Line>) = (expected.iter().collect(), found.iter().collect());
    let steps = edits(&expected, &found).into_iter().map(|edit| match edit {
        (Some(from), Some(to)) if from.text == to.text => format!("{}{}-{}", from.text, from.position, to.position),
        (Some(from), Some(to)) => format!("{}>{}", from.text, to.text),
        (Some(rule), None) => format!("-{}", rule.text),
        (None, Some(rule)) => format!("+{}", rule.text),
        (None, None) => panic!("a step from nothing to nothing"),
    });
    steps.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_fewest_edits_are_reported() {
    let cases = [
        ("abcdef", "abcdef", ""),
        ("abcdef", "bcdef", "-a"),
        ("abcdef", "abcdexf", "+x"),
        ("abcdef", "fabcde", "f6-1"),
        ("abcdef", "abdecf", "c3-5"),
        ("abcdef", "axcdef", "b>x"),
        ("abcdef", "axcyef", "b>x d>y"),
        ("abcdef", "xabcef", "-d +x"),
        ("abcdef", "", "-a -b -c -d -e -f"),
        ("", "ab", "+a +b"),
        ("abc", "cba", "b2-2 c3-1"),
        // Equal rules are paired in order.
        ("aba", "ba", "-a"),
        ("ab", "aba", "+a"),
        ("ab", "aab", "+a"),
    ];
    for (expected, found, wanted) in cases {
        assert_eq!(steps(expected, found), wanted, "{expected} {found}");
    }
}

#[test]
fn long_lists_are_compared_quickly() {
    let rules = |shift: usize| numbered((0..4000).map(|n| rule(&format!("rule {}", n + shift), "same")));
    let (one, other) = (rules(0), rules(2000));
    let (one, other): (Vec<&Line>, Vec<&Line>) = (one.iter().collect(), other.iter().collect());
    assert_eq!(edits(&one, &other).len(), 2000);
    let backwards: Vec<&Line> = one.iter().rev().copied().collect();
    assert_eq!(edits(&one, &backwards).len(), 3999);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The rules that no step names are the same, in the same order; with the steps, one list becomes the other.
    #[test]
    fn the_steps_account_for_every_rule(one in vec(0_u8..9, 0..12), other in vec(0_u8..9, 0..12)) {
        let list = |numbers: &[u8]| {
            let comment = |number: u8| if number.is_multiple_of(3) { "three" } else { "" };
            numbered(numbers.iter().map(|number| rule(&number.to_string(), comment(*number))))
        };
        let (expected, found) = (list(&one), list(&other));
        let (mut kept, mut left): (Vec<&Line>, Vec<&Line>) = (expected.iter().collect(), found.iter().collect());
        let steps = edits(&kept, &left);
        prop_assert_eq!(steps.is_empty(), one == other);
        for (from, to) in steps {
            prop_assert!(from.is_some() || to.is_some());
            kept.retain(|rule| Some(*rule) != from);
            left.retain(|rule| Some(*rule) != to);
        }
        let texts = |rules: Vec<&Line>| rules.into_iter().map(|rule| rule.text.clone()).collect::<Vec<_>>();
        prop_assert_eq!(texts(kept), texts(left));
    }
}
