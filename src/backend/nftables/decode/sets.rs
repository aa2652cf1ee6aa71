//! Decodes the elements of a set.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Subnets, Ipv6Subnets};

use super::super::elements;
use super::super::listing::{Boundary, Set};
use crate::ruleset::Elements;
use crate::types::{Id, Number, Port, Range, Ranges};

/// The elements of a set, each interval as networks or as a range.
pub fn elements(listed: &Set) -> Option<Elements> {
    let intervals = if listed.holds_single_keys() {
        runs(&listed.boundaries)?
    } else {
        intervals(&listed.boundaries)?
    };
    let elements = match listed.datatype {
        elements::IPV4_ADDRESS => Elements::Ipv4(networks(&intervals, |first, last| {
            let address = |key| Some(Ipv4Addr::from(u32::try_from(key).ok()?));
            Some(Ipv4Subnets::new(
                address(first)?,
                address(last.unwrap_or(u32::MAX.into()))?,
                0,
            ))
        })?),
        elements::IPV6_ADDRESS => Elements::Ipv6(networks(&intervals, |first, last| {
            Some(Ipv6Subnets::new(first.into(), last.unwrap_or(u128::MAX).into(), 0))
        })?),
        elements::PORT => Elements::Ports(ranges(&intervals, |key| Port::new(u16::try_from(key).ok()?))?),
        elements::UID => Elements::Uids(ranges(&intervals, |key| Id::new(u32::try_from(key).ok()?))?),
        elements::GID => Elements::Gids(ranges(&intervals, |key| Id::new(u32::try_from(key).ok()?))?),
        _ => return None,
    };
    (!elements.is_empty()).then_some(elements)
}

/// The first and the last key of an interval; no last key if it reaches to the largest key.
type Interval = (u128, Option<u128>);

fn intervals(boundaries: &[(Vec<u8>, Boundary)]) -> Option<Vec<Interval>> {
    let mut intervals = Vec::new();
    let mut rest = boundaries;
    while let [(first, Boundary::Begin), after @ ..] = rest {
        let (last, after) = match after {
            [(end, Boundary::End), after @ ..] => (Some(key(end)?.checked_sub(1)?), after),
            after => (None, after),
        };
        intervals.push((key(first)?, last));
        rest = after;
    }
    let open = intervals.iter().filter(|(_, last)| last.is_none()).count();
    let only_the_last = open == 0 || open == 1 && intervals.last().is_some_and(|(_, last)| last.is_none());
    (rest.is_empty() && only_the_last).then_some(intervals)
}

/// Single keys, with consecutive keys merged into intervals.
fn runs(keys: &[(Vec<u8>, Boundary)]) -> Option<Vec<Interval>> {
    let mut runs: Vec<Interval> = Vec::new();
    for (bytes, _) in keys {
        let key = key(bytes)?;
        match runs.last_mut() {
            Some((_, Some(last))) if last.checked_add(1) == Some(key) => *last = key,
            _ => runs.push((key, Some(key))),
        }
    }
    Some(runs)
}

/// The bytes of a key as a number.
pub fn key(bytes: &[u8]) -> Option<u128> {
    let shift = |number: u128, byte: &u8| number << 8 | u128::from(*byte);
    (bytes.len() <= 16).then(|| bytes.iter().fold(0, shift))
}

fn networks<S: Iterator>(
    intervals: &[Interval],
    subnets: impl Fn(u128, Option<u128>) -> Option<S>,
) -> Option<Vec<S::Item>> {
    let subnets: Option<Vec<S>> = intervals.iter().map(|(first, last)| subnets(*first, *last)).collect();
    Some(subnets?.into_iter().flatten().collect())
}

fn ranges<N: Number>(intervals: &[Interval], number: impl Fn(u128) -> Option<N>) -> Option<Ranges<N>> {
    let range = |(first, last): &Interval| {
        let last = last.map_or(Some(N::MAX), &number);
        Range::new(number(*first)?, last?)
    };
    intervals.iter().map(range).collect()
}
