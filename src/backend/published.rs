//! The ports whose inbound connections a foreign chain translates to another destination, as docker does for published
//! ports and kube-proxy for node ports.
//!
//! Rules that name their ports by a set or a map are not followed.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::RangeInclusive;

/// A range of ports.
pub type Ports = RangeInclusive<u16>;

/// All ports.
pub const ALL: Ports = 0..=u16::MAX;

/// A rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<C> {
    /// The ports that it matches.
    pub ports: Ports,
    /// What it does with them.
    pub effect: Effect<C>,
}

/// What a rule does. `C` identifies a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<C> {
    /// It translates the destination.
    Translates,
    /// It jumps to a chain.
    Jumps(C),
}

/// The ports that the rules of a chain, and of those that it jumps to, name and translate: sorted, without repetition.
pub fn published<C: Clone + Eq + Hash>(chain: &C, rules: &impl Fn(&C) -> Vec<Rule<C>>) -> Vec<Ports> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut waiting = vec![(chain.clone(), ALL)];
    while let Some((chain, ports)) = waiting.pop() {
        if !seen.insert((chain.clone(), ports.clone())) {
            continue;
        }
        for rule in rules(&chain) {
            let both = *ports.start().max(rule.ports.start())..=*ports.end().min(rule.ports.end());
            match rule.effect {
                Effect::Translates if both != ALL => found.push(both),
                Effect::Translates => {}
                Effect::Jumps(chain) => waiting.push((chain, both)),
            }
        }
    }
    found.retain(|ports| !ports.is_empty());
    found.sort_by_key(|ports| (*ports.start(), *ports.end()));
    found.dedup();
    found
}

/// Ports as an option has them: the first few.
pub fn text(ports: &[Ports]) -> String {
    const MAX_LISTED: usize = 10;
    let listed = ports
        .iter()
        .take(MAX_LISTED)
        .map(|ports| match (ports.start(), ports.end()) {
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start}-{end}"),
        });
    let listed = listed.collect::<Vec<_>>().join(",");
    match ports.len().saturating_sub(MAX_LISTED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// The destination ports that a match of iptables names, from its name and data.
pub fn of_extension(name: &str, data: &[u8]) -> Option<Ports> {
    /// `struct xt_tcp`: the destination ports, and which parts are inverted.
    const PORTS: usize = 4;
    const INVERTED: usize = 11;
    let half = |at: usize| Some(u16::from_ne_bytes(*data.get(at..)?.first_chunk()?));
    (name == "tcp" && data.get(INVERTED) == Some(&0)).then_some(half(PORTS)?..=half(PORTS + 2)?)
}

#[cfg(test)]
mod tests {
    use super::Effect::{Jumps, Translates};
    use super::{ALL, Rule, published};

    #[test]
    fn ports_are_those_of_the_whole_path() {
        let rule = |ports, effect| Rule { ports, effect };
        let chains = [
            vec![rule(ALL, Jumps(1)), rule(443..=443, Translates), rule(ALL, Translates)],
            vec![
                rule(8088..=8089, Jumps(2)),
                rule(80..=80, Jumps(2)),
                rule(9..=9, Jumps(1)),
            ],
            vec![
                rule(8000..=8088, Translates),
                rule(8000..=8088, Translates),
                rule(ALL, Jumps(1)),
            ],
        ];
        assert_eq!(
            published(&0, &|chain: &usize| chains[*chain].clone()),
            [443..=443, 8088..=8088]
        );
    }
}
