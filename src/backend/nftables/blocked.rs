//! Finds firewall chains in this network namespace that drop redirected connections.

use super::decode::{nested, number, text};
use super::foreign::{catching, protocol, verdict};
use super::listing::{Expression, Listing, Rule};
use super::uapi::{
    LOOPBACK_IFINDEX, NF_CT_STATE_NEW, NFT_CMP_EQ, NFT_CT_STATE, NFT_META_IIF, NFT_META_IIFNAME,
    NFT_PAYLOAD_TRANSPORT_HEADER,
};
use crate::backend::arrival::{self, Arrival, Matching, Verdict};
use crate::drift::CatchEffect;
use crate::ruleset::Hook;

const TCP: u8 = 6;

/// The input chains of a table that drop such connections.
pub fn blocking(listing: &Listing, arrival: Arrival) -> Vec<String> {
    const DROP: u32 = 0;
    let rules = |name: &String| {
        let chain = listing.chains.get(name);
        let rules = chain.map(|chain| chain.rules.as_slice()).unwrap_or_default();
        rules
            .iter()
            .map(|rule| (matching(rule, arrival), verdict_of(rule)))
            .collect()
    };
    let chains = listing.chains.iter().filter(|(name, chain)| {
        let base = chain.hook.as_ref().filter(|base| base.hook == Hook::Input.number());
        base.is_some_and(|base| arrival::is_dropped(*name, base.policy == DROP, &rules))
    });
    chains.map(|(name, _)| name.clone()).collect()
}

/// The verdict of a rule.
fn verdict_of(rule: &Rule) -> Verdict<String> {
    // NF_ACCEPT, NFT_GOTO, NFT_RETURN.
    const ACCEPT: i32 = 1;
    const GOTO: i32 = -4;
    const RETURN: i32 = -5;
    match rule.expressions.iter().find_map(verdict) {
        Some((ACCEPT, _)) => return Verdict::Accept,
        Some((RETURN, _)) => return Verdict::Return,
        Some((GOTO, Some(chain))) => return Verdict::Goto(chain),
        Some((_, Some(chain))) => return Verdict::Jump(chain),
        _ => {}
    }
    match rule.expressions.iter().find_map(catching) {
        Some(CatchEffect::Drop | CatchEffect::Reject) => Verdict::Drop,
        // The program that reads the queue decides.
        Some(CatchEffect::Queue) => Verdict::Accept,
        // A verdict map, of any content.
        _ if rule.expressions.last().is_some_and(|(name, _)| name == "lookup") => Verdict::Accept,
        _ => Verdict::Continue,
    }
}

/// Whether a rule matches the connection.
fn matching(rule: &Rule, arrival: Arrival) -> Matching {
    if !could_match(rule, arrival) {
        return Matching::Never;
    }
    let has_condition = |(name, attributes): &Expression| match name.as_str() {
        "counter" | "log" | "immediate" | "reject" | "target" => false,
        // NFTA_MATCH_NAME.
        "match" => attributes.get(&1).and_then(|name| text(name)).as_deref() != Some("comment"),
        _ => true,
    };
    let conditions = rule.expressions.iter().filter(|expression| has_condition(expression));
    // The protocol is loaded and compared.
    match (conditions.count(), protocol(rule)) {
        (0, _) | (2, Some(TCP)) => Matching::Always,
        _ => Matching::Maybe,
    }
}

/// Whether no understood part of a rule excludes the connection.
fn could_match(rule: &Rule, arrival: Arrival) -> bool {
    if protocol(rule).is_some_and(|protocol| protocol != TCP) {
        return false;
    }
    let pairs = rule.expressions.windows(2);
    let excluded = pairs.into_iter().any(|pair| match pair {
        [load, compare] => excludes(load, compare, arrival).unwrap_or(false),
        _ => false,
    });
    // NFTA_MATCH_NAME, NFTA_MATCH_INFO.
    let is_excluded_by_extension = rule.expressions.iter().any(|(name, attributes)| {
        let extension = attributes.get(&1).filter(|_| name == "match");
        let data = attributes.get(&3).map(Vec::as_slice).unwrap_or_default();
        extension
            .and_then(|name| text(name))
            .is_some_and(|extension| arrival.is_excluded_by(&extension, data))
    });
    !excluded && !is_excluded_by_extension
}

/// Whether a rule compares a value with another one than the connection has.
fn excludes((load, from): &Expression, (compare, with): &Expression, arrival: Arrival) -> Option<bool> {
    if (load.as_str(), compare.as_str()) == ("ct", "bitwise") {
        // NFTA_CT_KEY, NFTA_BITWISE_MASK: `ct state established,related`.
        let mask = nested(with.get(&4)?, 1)?;
        let mask = u32::from_ne_bytes(*mask.as_array()?);
        return Some(number(from, 2)? == NFT_CT_STATE && mask & NF_CT_STATE_NEW == 0);
    }
    // NFTA_CMP_OP.
    if compare != "cmp" || number(with, 2)? != NFT_CMP_EQ {
        return None;
    }
    let value = nested(with.get(&3)?, 1)?;
    match load.as_str() {
        "meta" => {
            let of_loopback = match number(from, 2)? {
                NFT_META_IIF => u32::from_ne_bytes(*value.as_array()?) == LOOPBACK_IFINDEX,
                NFT_META_IIFNAME => text(value.split(|byte| *byte == 0).next()?)? == "lo",
                _ => return None,
            };
            Some(of_loopback != arrival.over_loopback)
        }
        "payload"
            if number(from, 2)? == NFT_PAYLOAD_TRANSPORT_HEADER && number(from, 3)? == 2 && number(from, 4)? == 2 =>
        {
            Some(u16::from_be_bytes(*value.as_array()?) != arrival.port.get())
        }
        _ => None,
    }
}
