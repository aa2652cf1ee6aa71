//! The shortest list of edits that a person would name between two lists of rules.

use super::Line;

/// One edit: from an expected rule to the one found, or from one of them to nothing.
pub type Edit<'l> = (Option<&'l Line>, Option<&'l Line>);

/// The edits from `expected` to `found`, in the order of the expected rules; extra rules come last.
///
/// Equal rules are paired, and the longest run of pairs in the same order on both sides counts as not moved. Among the
/// rest, rules with the same comment, or without one between the same neighbours, count as one changed rule.
pub fn edits<'l>(expected: &[&'l Line], found: &[&'l Line]) -> Vec<Edit<'l>> {
    let alike = |(one, other): &(&&Line, &&Line)| one.text == other.text;
    let before = expected.iter().zip(found).take_while(alike).count();
    let (expected, found) = (&expected[before..], &found[before..]);
    let behind = expected.iter().rev().zip(found.iter().rev()).take_while(alike).count();
    let (expected, found) = (&expected[..expected.len() - behind], &found[..found.len() - behind]);

    let mut partners = partners(expected, found);
    let stayed = longest_ascent(&partners);
    pair_changed(expected, found, &mut partners, &stayed);
    let mut partner_of = vec![None; expected.len()];
    let mut extra = Vec::new();
    for (at, partner) in partners.into_iter().enumerate() {
        match partner {
            Some(number) => partner_of[number] = Some(at),
            None => extra.push((None, Some(found[at]))),
        }
    }
    let mut edits = Vec::new();
    for (rule, partner) in expected.iter().zip(partner_of) {
        if !partner.is_some_and(|at| stayed[at]) {
            edits.push((Some(*rule), partner.map(|at| found[at])));
        }
    }
    edits.append(&mut extra);
    edits
}

/// For each line of `found`, the index of an equal line in `expected`, each of which has at most one partner. The
/// search starts behind the last match, since most lines are in order.
pub fn partners(expected: &[&Line], found: &[&Line]) -> Vec<Option<usize>> {
    let mut taken = vec![false; expected.len()];
    let mut next = 0;
    let partner = |line: &&Line| {
        let mut numbers = (next..expected.len()).chain(0..next);
        let number = numbers.find(|number| !taken[*number] && expected[*number].text == line.text)?;
        taken[number] = true;
        next = number + 1;
        Some(number)
    };
    found.iter().map(partner).collect()
}

/// Which of these distinct numbers belong to a longest ascending subsequence.
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

/// Pairs rules that have no equal: first by comment, then those between the same unmoved rules where one has no comment
/// to identify it by.
fn pair_changed(expected: &[&Line], found: &[&Line], partners: &mut [Option<usize>], stayed: &[bool]) {
    let mut gap_of = vec![0; found.len()];
    let (mut taken, mut stays) = (vec![false; expected.len()], vec![false; expected.len()]);
    let mut gap = 0;
    for (at, partner) in partners.iter().enumerate() {
        gap += usize::from(stayed[at]);
        gap_of[at] = gap;
        if let Some(number) = partner {
            taken[*number] = true;
            stays[*number] = stayed[at];
        }
    }
    for by_comment in [true, false] {
        let mut gap = 0;
        // Before this one, all that was found has its partner.
        let mut first = 0;
        for (number, rule) in expected.iter().enumerate() {
            gap += usize::from(stays[number]);
            if taken[number] {
                continue;
            }
            let is_it = |at: usize| {
                let comment = &found[at].comment;
                let nameless = rule.comment.is_empty() || comment.is_empty();
                let alike = if by_comment {
                    !nameless && *comment == rule.comment
                } else {
                    nameless && gap_of[at] == gap
                };
                alike && partners[at].is_none()
            };
            while partners.get(first).is_some_and(Option::is_some) {
                first += 1;
            }
            if let Some(at) = (first..found.len()).find(|at| is_it(*at)) {
                partners[at] = Some(number);
                taken[number] = true;
            }
        }
    }
}
