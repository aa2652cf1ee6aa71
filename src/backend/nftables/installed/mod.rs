//! Decodes the tables of any program into [`Table`]s, as far as packets of IPv4 and IPv6 pass them.

mod conditions;
mod registers;
mod rule;
mod sets;

use std::collections::BTreeMap;

use self::sets::ElementSet;
use super::Message;
use super::attributes::Malformed;
use super::decode;
use super::listing::{self, Listing};
use super::uapi::{NF_ACCEPT, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6};
use crate::ruleset::netfilter::{Base, Chain, Table};
use crate::ruleset::{ChainType, Hook, TableFamily, priority};
use crate::types::Family;

/// The messages about one table: the table itself, its chains, rules, sets and elements.
#[derive(Clone, Debug)]
pub struct TableMessages {
    /// Family, as `NFPROTO_…` of linux/netfilter.h.
    pub family: u8,
    /// Name.
    pub name: String,
    /// Family and name in the syntax of nft.
    pub title: String,
    /// The messages.
    pub messages: Vec<Message>,
}

/// A decoded table, and its chains that are not simulated: phrases.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// The table, unless no packet of IPv4 or IPv6 passes it.
    pub table: Option<Table>,
    /// The chains with rules at hooks that are not simulated.
    pub unread: Vec<String>,
}

/// What rules refer to.
struct Context {
    /// The family of the table's packets, if it is only one.
    family: Option<Family>,
    sets: BTreeMap<String, ElementSet>,
}

/// Decodes a table.
///
/// # Errors
/// An attribute is truncated.
pub fn table(listed: &TableMessages) -> Result<Decoded, Malformed> {
    const DORMANT: u32 = 1;
    let mut listing = Listing::of(&listed.messages)?;
    listing.take_counts();
    if listing.flags & DORMANT != 0 {
        return Ok(Decoded::default());
    }
    let family = match listed.family {
        NFPROTO_IPV4 => Some(Family::V4),
        NFPROTO_IPV6 => Some(Family::V6),
        NFPROTO_INET => None,
        _ => {
            let has_rules = listing.chains.values().any(|chain| !chain.rules.is_empty());
            let unread = has_rules.then(|| format!("the rules of table {}, which are not followed", listed.title));
            return Ok(Decoded {
                table: None,
                unread: unread.into_iter().collect(),
            });
        }
    };
    let own_family = TableFamily::of_own_table(&listed.title);
    let own = own_family.map(|_| decode(&listing));
    let context = Context {
        family,
        sets: sets::read_sets(&listed.messages)?,
    };
    let mut unread = Vec::new();
    let mut chains = Vec::new();
    for (name, chain) in &listing.chains {
        let base = chain.hook.as_ref().map(base);
        if base == Some(None) && !chain.rules.is_empty() {
            unread.push(format!(
                "chain {name} of table {}, whose hook is not followed",
                listed.title
            ));
        }
        let rule = |rule: &listing::Rule| {
            let planned = own_family.and_then(|family| decode::rule(family, rule));
            planned.map_or_else(|| rule::decode(rule, &context), Into::into)
        };
        chains.push(Chain {
            name: decode::printable(name).into(),
            base: base.flatten(),
            rules: chain.rules.iter().map(rule).collect(),
        });
    }
    Ok(Decoded {
        table: Some(Table {
            name: listed.title.clone(),
            family,
            sets: own.map(|own| own.ruleset.sets).unwrap_or_default(),
            chains,
        }),
        unread,
    })
}

fn base(listed: &listing::BaseHook) -> Option<Base> {
    let hook = Hook::of_number(listed.hook)?;
    let kind = match (listed.kind.as_str(), hook) {
        ("nat", _) => ChainType::Nat,
        ("route", _) => ChainType::Mangle,
        ("filter", Hook::Prerouting | Hook::Output) if listed.priority < priority::CONNTRACK => ChainType::Raw,
        ("filter", Hook::Prerouting) => ChainType::Mangle,
        ("filter", _) => ChainType::Filter,
        _ => return None,
    };
    Some(Base {
        kind,
        hook,
        priority: listed.priority,
        drops: listed.policy != NF_ACCEPT,
    })
}
