//! The ports that a foreign table publishes: those of its rules that translate the destinations of inbound connections.

use super::decode::{nested, number};
use super::foreign::{catching, protocol, target};
use super::listing::{Expression, Listing, Rule};
use crate::backend::published::{self, ALL, Effect, Ports};
use crate::drift::CatchEffect;
use crate::ruleset::Hook;

/// The chains of type `nat` at the hook prerouting that publish ports.
pub fn publishing(listing: &Listing) -> Vec<(String, Vec<Ports>)> {
    let rules = |name: &String| {
        let rules = listing.chains.get(name).map(|chain| chain.rules.as_slice());
        rules.unwrap_or_default().iter().filter_map(rule_of).collect()
    };
    let chains = listing.chains.iter().filter(|(_, chain)| {
        let base = chain.hook.as_ref();
        base.is_some_and(|base| base.kind == "nat" && base.hook == Hook::Prerouting.number())
    });
    chains
        .map(|(name, _)| (name.clone(), published::published(name, &rules)))
        .filter(|(_, ports)| !ports.is_empty())
        .collect()
}

fn rule_of(rule: &Rule) -> Option<published::Rule<String>> {
    let effect = match rule.expressions.iter().find_map(target) {
        Some(chain) => Effect::Jumps(chain),
        None => match rule.expressions.iter().find_map(catching)? {
            CatchEffect::Dnat => Effect::Translates,
            _ => return None,
        },
    };
    Some(published::Rule {
        ports: ports(rule)?,
        effect,
    })
}

/// The TCP ports that a rule matches; none if it is about another protocol, or about one address.
fn ports(rule: &Rule) -> Option<Ports> {
    const TCP: u8 = 6;
    let names_address = rule
        .expressions
        .iter()
        .any(|expression| is_destination(expression).unwrap_or(false));
    if names_address || protocol(rule).is_some_and(|protocol| protocol != TCP) {
        return None;
    }
    let compared = rule.expressions.windows(2).find_map(|pair| match pair {
        [load, compare] => compared_port(load, compare),
        _ => None,
    });
    let by_extension = || rule.expressions.iter().find_map(extension_ports);
    Some(compared.or_else(by_extension).unwrap_or(ALL))
}

/// Whether an expression loads the destination address.
fn is_destination((name, attributes): &Expression) -> Option<bool> {
    // NFT_PAYLOAD_NETWORK_HEADER; the offset of daddr in both headers.
    const NETWORK: u32 = 1;
    Some(name == "payload" && number(attributes, 2)? == NETWORK && matches!(number(attributes, 3)?, 16 | 24))
}

fn compared_port((load, from): &Expression, (compare, with): &Expression) -> Option<Ports> {
    // NFT_PAYLOAD_TRANSPORT_HEADER.
    const TRANSPORT: u32 = 2;
    let is_port = load == "payload" && number(from, 2)? == TRANSPORT && (number(from, 3)?, number(from, 4)?) == (2, 2);
    // NFTA_CMP_OP is NFT_CMP_EQ.
    if !is_port || compare != "cmp" || number(with, 2)? != 0 {
        return None;
    }
    let port = u16::from_be_bytes(*nested(with.get(&3)?, 1)?.as_array()?);
    Some(port..=port)
}

fn extension_ports((name, attributes): &Expression) -> Option<Ports> {
    // NFTA_MATCH_NAME, NFTA_MATCH_INFO.
    let extension = super::decode::text(attributes.get(&1).filter(|_| name == "match")?)?;
    published::of_extension(&extension, attributes.get(&3)?)
}
