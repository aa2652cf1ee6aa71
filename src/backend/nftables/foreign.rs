//! The effects of foreign rules on a packet, as far as their expressions are understood.

use super::decode::{nested, number, text};
use super::listing::{Expression, Listing, Rule};
use crate::backend::iptables::PREFIX;
use crate::drift::{BaseChain, Catch, CatchEffect, Place};
use crate::ruleset::Hook;
use crate::types::Family;

/// The base chains of a table at the hooks that sidetrack uses, except those that jump to our chains: their position is
/// checked by the comparison.
pub fn base_chains(table: &str, family: Option<Family>, listing: &Listing) -> Vec<BaseChain> {
    // NF_DROP (linux/netfilter.h).
    const DROP: u32 = 0;
    let base_chain = |(name, chain): (&String, &super::listing::Chain)| {
        let base = chain.hook.as_ref()?;
        let is_used = |hook: &Hook| matches!(hook, Hook::Prerouting | Hook::Output);
        let hook = Hook::of_number(base.hook).filter(is_used)?;
        let mut search = Search {
            listing,
            seen: Vec::new(),
            catches: Vec::new(),
        };
        search.follow(name);
        if search.seen.iter().any(|chain| chain.starts_with(PREFIX)) {
            return None;
        }
        let policy = (base.policy == DROP).then_some(Catch {
            effect: CatchEffect::Drop,
            rule: None,
            protocol: None,
        });
        Some(BaseChain {
            table: table.to_owned(),
            chain: name.clone(),
            family,
            place: Place {
                hook,
                priority: base.priority,
                nat: base.kind == "nat",
            },
            catches: search.catches.into_iter().chain(policy).collect(),
        })
    };
    listing.chains.iter().filter_map(base_chain).collect()
}

/// A traversal of a table from one of its base chains.
struct Search<'l> {
    listing: &'l Listing,
    /// The chains already visited.
    seen: Vec<String>,
    catches: Vec<Catch>,
}

impl Search<'_> {
    fn follow(&mut self, chain: &str) {
        if self.seen.iter().any(|seen| seen == chain) {
            return;
        }
        self.seen.push(chain.to_owned());
        let rules = self.listing.chains.get(chain).map(|chain| chain.rules.as_slice());
        for (rule, number) in rules.unwrap_or_default().iter().zip(1..) {
            let effect = rule.expressions.iter().find_map(catching);
            self.catches.extend(effect.map(|effect| Catch {
                effect,
                rule: Some((chain.to_owned(), number)),
                protocol: protocol(rule),
            }));
            if let Some(target) = rule.expressions.iter().find_map(target) {
                self.follow(&target);
            }
        }
    }
}

/// The verdict of an expression, and its target chain if it has one.
pub(super) fn verdict((name, attributes): &Expression) -> Option<(i32, Option<String>)> {
    // NFTA_IMMEDIATE_DATA, in it NFTA_DATA_VERDICT, in it NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN.
    let verdict = nested(attributes.get(&2).filter(|_| name == "immediate")?, 2)?;
    let code = i32::from_be_bytes(*nested(&verdict, 1)?.as_array()?);
    Some((code, nested(&verdict, 2).and_then(|name| text(&name))))
}

/// The chain that an expression jumps to.
pub(super) fn target(expression: &Expression) -> Option<String> {
    verdict(expression)?.1
}

/// The effect of an expression on a packet that our rules would redirect.
pub(super) fn catching(expression: &Expression) -> Option<CatchEffect> {
    // NF_DROP, and NF_QUEUE with the queue number in its upper half (linux/netfilter.h).
    const DROP: i32 = 0;
    const QUEUE: i32 = 3;
    let (name, attributes) = expression;
    Some(match name.as_str() {
        "immediate" => match verdict(expression)?.0 {
            DROP => CatchEffect::Drop,
            code if code > 0 && code & 0xff == QUEUE => CatchEffect::Queue,
            _ => return None,
        },
        "redir" => CatchEffect::Redirect,
        // NFTA_NAT_TYPE is NFT_NAT_DNAT; the zero of NFT_NAT_SNAT is not listed.
        "nat" if attributes.contains_key(&1) => CatchEffect::Dnat,
        "tproxy" => CatchEffect::Tproxy,
        "reject" => CatchEffect::Reject,
        "queue" => CatchEffect::Queue,
        "notrack" => CatchEffect::Untrack,
        // An iptables extension: NFTA_TARGET_NAME and NFTA_TARGET_INFO.
        "target" => {
            let info = attributes.get(&3).map(Vec::as_slice).unwrap_or_default();
            return CatchEffect::of_target(&text(attributes.get(&1)?)?, info);
        }
        _ => return None,
    })
}

/// The transport protocol that a rule matches, if only one.
pub(super) fn protocol(rule: &Rule) -> Option<u8> {
    rule.expressions.windows(2).find_map(|pair| {
        let [(loads, from), (compares, with)] = pair else {
            return None;
        };
        // NFT_META_L4PROTO, or the protocol byte of an IPv4 or IPv6 header.
        let is_protocol = match loads.as_str() {
            "meta" => number(from, 2)? == 16,
            "payload" => number(from, 2)? == 1 && number(from, 4)? == 1 && matches!(number(from, 3)?, 6 | 9),
            _ => false,
        };
        let equals = compares == "cmp" && number(with, 2)? == 0;
        match nested(with.get(&3).filter(|_| is_protocol && equals)?, 1)?.as_slice() {
            [protocol] => Some(*protocol),
            _ => None,
        }
    })
}
