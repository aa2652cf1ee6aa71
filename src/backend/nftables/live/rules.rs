//! The installed rules by their handles, read from nf_tables messages.

use std::collections::BTreeMap;

use libc::{NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE};

use super::super::attributes::{Malformed, find, text};
use super::super::decode;
use super::super::foreign;
use super::super::foreign_tables::table_name;
use super::super::listing::{Listing, Rule as Listed};
use super::super::uapi::*;
use super::super::{Message, contents};
use crate::drift::Subject;
use crate::ruleset::Hook;
use crate::trace::{BaseChain, ChainId, Rule, Rules};

/// The rules of a dump of all chains and of the rules of each table.
///
/// # Errors
/// An attribute is truncated.
pub fn rules(messages: Vec<Message>) -> Result<Rules, Malformed> {
    let mut tables: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for message in messages {
        if let Some(name) = message.table() {
            let table = table_name(message.family, &name);
            tables.entry(table).or_default().push(message);
        }
    }
    let mut rules = Rules::default();
    for (table, messages) in tables {
        add(&mut rules, &table, &messages)?;
    }
    Ok(rules)
}

fn add(rules: &mut Rules, table: &str, messages: &[Message]) -> Result<(), Malformed> {
    let mut listing = Listing::of(messages)?;
    listing.take_counts();
    for (name, chain) in &listing.chains {
        if let Some(base) = &chain.hook {
            let base = BaseChain {
                hook: Hook::of_number(base.hook),
                is_nat: base.kind == "nat",
            };
            rules.base_chains.insert(id(table, name), base);
        }
    }
    let handles = handles(messages);
    for list in contents(table, &listing, &|_| None).lists {
        let Subject::Chain { chain, .. } = list.of else {
            continue;
        };
        let listed = listing.chains.get(&chain).map(|chain| chain.rules.as_slice());
        let handles = handles.get(&chain).map(Vec::as_slice).unwrap_or_default();
        for ((line, listed), handle) in list.lines.into_iter().zip(listed.unwrap_or_default()).zip(handles) {
            rules.match_udp |= foreign::protocol(listed) == Some(IPPROTO_UDP);
            let comment = match line.comment.as_str() {
                "" => xtables_comment(listed).unwrap_or_default(),
                _ => line.comment,
            };
            let rule = Rule {
                number: line.position,
                text: line.text,
                comment,
                tproxy: tproxy(listed),
            };
            rules.rules.insert((id(table, &chain), *handle), rule);
        }
    }
    Ok(())
}

fn id(table: &str, chain: &str) -> ChainId {
    ChainId {
        table: table.to_owned(),
        chain: chain.to_owned(),
    }
}

/// The handles of the rules of each chain, in their order.
fn handles(messages: &[Message]) -> BTreeMap<String, Vec<u64>> {
    let mut handles: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in messages.iter().filter(|message| message.kind == NFT_MSG_NEWRULE) {
        let chain = find(&message.attributes, NFTA_RULE_CHAIN).map(text);
        let handle = find(&message.attributes, NFTA_RULE_HANDLE).and_then(|value| value.as_array());
        if let (Some(chain), Some(handle)) = (chain, handle) {
            handles.entry(chain).or_default().push(u64::from_be_bytes(*handle));
        }
    }
    handles
}

/// The comment of a rule of iptables-nft: a match of its own (`struct xt_comment_info`, linux/netfilter/xt_comment.h).
fn xtables_comment(rule: &Listed) -> Option<String> {
    let is_comment = |name: &Vec<u8>| text(name) == "comment";
    let comment = rule.expressions.iter().find_map(|(name, attributes)| {
        let is_wanted = name == "match" && attributes.get(&NFTA_MATCH_NAME).is_some_and(is_comment);
        attributes.get(&NFTA_MATCH_INFO).filter(|_| is_wanted)
    })?;
    Some(text(comment).replace(char::is_control, "\u{fffd}"))
}

/// The port of the transparent socket that a rule hands packets to.
fn tproxy(rule: &Listed) -> Option<u16> {
    let at = rule.expressions.iter().position(|(name, attributes)| {
        name == "tproxy"
            || name == "target"
                && attributes
                    .get(&NFTA_TARGET_NAME)
                    .is_some_and(|name| text(name) == "TPROXY")
    })?;
    let (name, attributes) = rule.expressions.get(at)?;
    let port = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    if name == "tproxy" {
        let loaded = rule
            .expressions
            .get(..at)?
            .iter()
            .rev()
            .find(|(name, _)| name == "immediate")?;
        return port(&decode::nested(loaded.1.get(&NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VALUE)?);
    }
    // `struct xt_tproxy_target_info` and `struct xt_tproxy_target_info_v1` (linux/netfilter/xt_TPROXY.h).
    let revision = decode::number(attributes, NFTA_TARGET_REV)?;
    let port_at = if revision == 0 { 12 } else { 24 };
    port(attributes.get(&NFTA_TARGET_INFO)?.get(port_at..)?)
}

/// The packets that the rules of a chain have counted, in the order of the rules.
pub fn counters(messages: &[Message], chain: &str) -> Result<Vec<u64>, Malformed> {
    let counts = Listing::of(messages)?.take_counts();
    Ok(counts.of_chain(chain).collect())
}

/// The tables of these chains, each with its family, once.
pub fn tables(chains: &[Message]) -> Vec<(u8, String)> {
    let mut tables = Vec::new();
    for chain in chains.iter().filter(|message| message.kind == NFT_MSG_NEWCHAIN) {
        if let Some(table) = chain.table().map(|name| (chain.family, name))
            && !tables.contains(&table)
        {
            tables.push(table);
        }
    }
    tables
}
