//! Sets of numbers as ranges that never overlap.

use std::fmt;

/// The element type of ranges: a port, a UID, a GID.
pub trait Number: Copy + Ord + fmt::Display {
    /// The smallest value the type allows.
    const MIN: Self;
    /// The largest value the type allows.
    const MAX: Self;
    /// The next larger value, or `None` after [`Number::MAX`].
    fn next(self) -> Option<Self>;
}

/// An inclusive range; `first <= last` holds by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range<N> {
    first: N,
    last: N,
}

impl<N: Number> Range<N> {
    /// The range `first..=last`, or `None` when `last` comes before `first`.
    pub fn new(first: N, last: N) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The range that holds one number.
    pub fn single(number: N) -> Self {
        Self {
            first: number,
            last: number,
        }
    }

    /// The smallest number in the range.
    pub fn first(&self) -> N {
        self.first
    }

    /// The largest number in the range.
    pub fn last(&self) -> N {
        self.last
    }

    /// Whether `number` lies in the range.
    pub fn contains(&self, number: N) -> bool {
        self.first <= number && number <= self.last
    }
}

impl<N: Number> fmt::Display for Range<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A set of numbers: its ranges are sorted, and neither overlap nor touch.
///
/// The kernel rejects interval sets whose ranges overlap, so they are merged here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ranges<N>(Vec<Range<N>>);

impl<N> Default for Ranges<N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<N: Number> Ranges<N> {
    /// The set of every number of the type, written `*`.
    pub fn everything() -> Self {
        Self(vec![Range {
            first: N::MIN,
            last: N::MAX,
        }])
    }

    /// Whether the set holds no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set holds every number of the type.
    pub fn is_everything(&self) -> bool {
        matches!(self.0.as_slice(), [all] if all.first == N::MIN && all.last == N::MAX)
    }

    /// The number, if the set holds exactly one.
    pub fn only(&self) -> Option<N> {
        match self.0.as_slice() {
            [range] if range.first == range.last => Some(range.first),
            _ => None,
        }
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: N) -> bool {
        let after = self.0.partition_point(|range| range.first <= number);
        after > 0 && self.0[after - 1].contains(number)
    }

    /// The ranges, in ascending order.
    pub fn iter(&self) -> std::slice::Iter<'_, Range<N>> {
        self.0.iter()
    }

    /// The number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The numbers that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).copied().collect()
    }
}

impl<N: Number> FromIterator<Range<N>> for Ranges<N> {
    fn from_iter<I: IntoIterator<Item = Range<N>>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable_by_key(|range| (range.first, range.last));
        let mut merged: Vec<Range<N>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(before) if before.last.next().is_none_or(|next| range.first <= next) => {
                    before.last = before.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl<N: Number> FromIterator<N> for Ranges<N> {
    fn from_iter<I: IntoIterator<Item = N>>(numbers: I) -> Self {
        numbers.into_iter().map(Range::single).collect()
    }
}

impl<'a, N: Number> IntoIterator for &'a Ranges<N> {
    type Item = &'a Range<N>;
    type IntoIter = std::slice::Iter<'a, Range<N>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// In the notation of options: `80,8000-8080`, or `*` for everything.
impl<N: Number> fmt::Display for Ranges<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("*");
        }
        for (i, range) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Number for u8 {
        const MIN: Self = 0;
        const MAX: Self = u8::MAX;
        fn next(self) -> Option<Self> {
            self.checked_add(1)
        }
    }

    fn set(ranges: &[(u8, u8)]) -> Ranges<u8> {
        ranges
            .iter()
            .map(|&(first, last)| Range::new(first, last).unwrap())
            .collect()
    }

    #[test]
    fn overlapping_and_touching_ranges_become_one() {
        let merged = set(&[(10, 20), (5, 7), (15, 30), (31, 31), (8, 9)]);
        assert_eq!(merged.to_string(), "5-31");
        assert_eq!(set(&[(1, 1), (3, 3)]).to_string(), "1,3");
    }

    #[test]
    fn ranges_up_to_the_largest_number_do_not_wrap() {
        assert_eq!(set(&[(200, 255), (0, 3), (255, 255)]).to_string(), "0-3,200-255");
        assert!(set(&[(0, 100), (101, 255)]).is_everything());
    }

    #[test]
    fn contains_finds_the_range_of_a_number() {
        let ranges = set(&[(3, 5), (9, 9)]);
        let found: Vec<u8> = (0..=12).filter(|n| ranges.contains(*n)).collect();
        assert_eq!(found, [3, 4, 5, 9]);
    }

    #[test]
    fn reversed_ranges_are_rejected() {
        assert_eq!(Range::new(5_u8, 4), None);
    }
}
