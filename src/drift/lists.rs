//! How one list of rules becomes another, in the fewest steps that a person would name.

use super::Line;

/// A step: from a rule that is expected to one that was found, or from one of them to nothing.
pub type Edit<'l> = (Option<&'l Line>, Option<&'l Line>);

/// The steps from `expected` to `found`, in the order of the rules that are expected; then what is there besides.
///
/// Equal rules are paired, and the longest run of pairs that is in order on both sides has stayed where it is. Of the
/// rest, rules of one comment, or without one between the same neighbours, are one rule that was changed.
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

/// For each line of `found`, the number of an equal one in `expected`, each of which has one partner at most. It is
/// looked for behind the last one first: as a rule, most lines are in order.
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

/// Pairs rules that have no equal: those of one comment first, then those between the same rules that stayed, where
/// one has no comment to tell it by.
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
