//! Finds firewall chains in this network namespace that drop redirected connections: these arrive at the port of the
//! proxy, while an input chain with policy drop may accept the original port alone.

use super::decode::{nested, number, text};
use super::foreign::{protocol, target, verdict};
use super::listing::{Expression, Listing, Rule};
use crate::types::Port;

/// `NF_INET_LOCAL_IN` (linux/netfilter.h).
const INPUT: u32 = 1;
const TCP: u8 = 6;

/// A redirected connection as it arrives at the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The destination port.
    pub port: Port,
    /// Whether it comes over the loopback interface.
    pub over_loopback: bool,
}

/// The chains of a table that drop such connections by policy. A rule that may accept them, as far as it is understood,
/// counts as accepting them.
pub fn blocking(listing: &Listing, arrival: Arrival) -> Vec<String> {
    const DROP: u32 = 0;
    let is_closed = |name: &str| {
        let mut seen = Vec::new();
        !may_accept(listing, name, arrival, &mut seen)
    };
    let chains = listing.chains.iter().filter(|(name, chain)| {
        let base = chain.hook.as_ref();
        base.is_some_and(|base| base.hook == INPUT && base.policy == DROP) && is_closed(name)
    });
    chains.map(|(name, _)| name.clone()).collect()
}

/// Whether a rule of a chain, or of one that it jumps to, may accept the connection.
fn may_accept(listing: &Listing, name: &str, arrival: Arrival, seen: &mut Vec<String>) -> bool {
    if seen.iter().any(|seen| seen == name) {
        return false;
    }
    seen.push(name.to_owned());
    let rules = listing.chains.get(name).map(|chain| chain.rules.as_slice());
    rules.unwrap_or_default().iter().any(|rule| {
        /// `NF_ACCEPT`.
        const ACCEPT: i32 = 1;
        let accepts = rule.expressions.iter().any(|expression| match expression.0.as_str() {
            "immediate" => verdict(expression).is_some_and(|(code, _)| code == ACCEPT),
            _ => false,
        });
        // A verdict map, of any content.
        let has_verdict_map = rule.expressions.last().is_some_and(|(name, _)| name == "lookup");
        let jump_target = || rule.expressions.iter().find_map(target);
        ((accepts || has_verdict_map) && could_match(rule, arrival))
            || jump_target()
                .is_some_and(|chain| could_match(rule, arrival) && may_accept(listing, &chain, arrival, seen))
    })
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
    let is_excluded_by_extension = rule
        .expressions
        .iter()
        .any(|expression| iptables_excludes(expression, arrival));
    !excluded && !is_excluded_by_extension
}

/// Whether a rule compares a value with another one than the connection has.
fn excludes((load, from): &Expression, (compare, with): &Expression, arrival: Arrival) -> Option<bool> {
    // NFT_META_IIF, NFT_META_IIFNAME, NFT_CT_STATE; NFT_PAYLOAD_TRANSPORT_HEADER.
    const IIF: u32 = 4;
    const IIFNAME: u32 = 6;
    const CT_STATE: u32 = 0;
    const TRANSPORT: u32 = 2;
    // NF_CT_STATE_BIT(IP_CT_NEW).
    const NEW: u32 = 8;
    if (load.as_str(), compare.as_str()) == ("ct", "bitwise") {
        // NFTA_CT_KEY, NFTA_BITWISE_MASK: `ct state established,related`.
        let mask = nested(with.get(&4)?, 1)?;
        let mask = u32::from_ne_bytes(*mask.as_array()?);
        return Some(number(from, 2)? == CT_STATE && mask & NEW == 0);
    }
    // NFTA_CMP_OP is NFT_CMP_EQ.
    if compare != "cmp" || number(with, 2)? != 0 {
        return None;
    }
    let value = nested(with.get(&3)?, 1)?;
    match load.as_str() {
        "meta" => {
            let of_loopback = match number(from, 2)? {
                IIF => u32::from_ne_bytes(*value.as_array()?) == 1,
                IIFNAME => text(value.split(|byte| *byte == 0).next()?)? == "lo",
                _ => return None,
            };
            Some(of_loopback != arrival.over_loopback)
        }
        "payload" if number(from, 2)? == TRANSPORT && number(from, 3)? == 2 && number(from, 4)? == 2 => {
            Some(u16::from_be_bytes(*value.as_array()?) != arrival.port.get())
        }
        _ => None,
    }
}

/// The same for an iptables extension: NFTA_MATCH_NAME and NFTA_MATCH_INFO.
fn iptables_excludes((name, attributes): &Expression, arrival: Arrival) -> bool {
    /// `struct xt_tcp`: the destination ports; `struct xt_conntrack_mtinfo3`: the flags and the states.
    const PORTS: usize = 4;
    const INVERTED: usize = 11;
    const FLAGS: usize = 146;
    const STATES: usize = 150;
    let info = attributes.get(&3).map(Vec::as_slice).unwrap_or_default();
    let half = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let excludes = || match text(attributes.get(&1)?)?.as_str() {
        "tcp" => {
            let (first, last) = (half(PORTS)?, half(PORTS + 2)?);
            let inside = (first..=last).contains(&arrival.port.get());
            Some(!inside && info.get(INVERTED) == Some(&0))
        }
        "conntrack" => Some(half(FLAGS)? & 1 != 0 && half(FLAGS + 2)? & 1 == 0 && half(STATES)? & 8 == 0),
        _ => None,
    };
    name == "match" && excludes().unwrap_or(false)
}
