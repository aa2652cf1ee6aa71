//! What a listing holds, in nft's words (nft(8)), for comparing and for people.
//!
//! A plan and what is installed go through the same reading, and different things have different words.

use super::listing::{BaseHook, Boundary, Chain, Listing, Rule, Set};
use super::{decode, elements};
use crate::drift;
use crate::render::nft;
use crate::ruleset::TABLE;

/// The contents of our table.
pub fn contents(listing: &Listing) -> drift::Table {
    /// `NFT_TABLE_F_DORMANT`.
    const DORMANT: u32 = 1;
    let flaw = match listing.flags {
        0 => None,
        DORMANT => Some("dormant, so that its rules do nothing".to_owned()),
        flags => Some(format!("flags {flags:#x}")),
    };
    drift::Table {
        name: format!("inet {TABLE}"),
        flaw,
        chains: listing
            .chains
            .iter()
            .map(|(name, listed)| chain(name, listed))
            .collect(),
        sets: listing.sets.iter().map(|(name, listed)| set(name, listed)).collect(),
    }
}

fn chain(name: &str, listed: &Chain) -> drift::Chain {
    drift::Chain {
        name: name.to_owned(),
        ours: true,
        hook: listed.hook.as_ref().map(base_hook),
        rules: listed
            .rules
            .iter()
            .zip(1..)
            .map(|(listed, position)| rule(position, listed))
            .collect(),
    }
}

fn base_hook(
    BaseHook {
        kind,
        hook,
        priority,
        policy,
    }: &BaseHook,
) -> String {
    // `enum nf_inet_hooks` and the verdicts of linux/netfilter.h.
    const HOOKS: [&str; 6] = ["prerouting", "input", "forward", "output", "postrouting", "ingress"];
    const POLICIES: [&str; 2] = ["drop", "accept"];
    let name = |names: &[&str], number: u32| match names.get(number as usize) {
        Some(name) => (*name).to_owned(),
        None => number.to_string(),
    };
    let (hook, policy) = (name(&HOOKS, *hook), name(&POLICIES, *policy));
    format!("type {kind} hook {hook} priority {priority}; policy {policy};")
}

fn rule(position: usize, listed: &Rule) -> drift::Rule {
    let comment = decode::comment(&listed.user_data);
    let as_we_write = listed.user_data == super::rule_user_data(&comment);
    let text = match decode::rule(listed) {
        Some(rule) if as_we_write || listed.user_data.is_empty() => nft::rule(&rule),
        _ => {
            let words = decode::words(listed);
            // The words of a rule of ours may be those of one that is written in another way.
            let differs = if words.contains('[') {
                ""
            } else {
                " [in another encoding]"
            };
            let comment = match comment.as_str() {
                "" => String::new(),
                text => format!(" comment \"{text}\""),
            };
            format!("{words}{differs}{comment}")
        }
    };
    drift::Rule {
        position,
        text,
        comment,
        foreign: false,
    }
}

fn set(name: &str, listed: &Set) -> drift::Set {
    /// `NFT_SET_INTERVAL`.
    const INTERVAL: u32 = 4;
    let kind = match listed.datatype {
        elements::IPV4_ADDRESS => "ipv4_addr".to_owned(),
        elements::IPV6_ADDRESS => "ipv6_addr".to_owned(),
        elements::PORT => "inet_service".to_owned(),
        elements::UID => "uid".to_owned(),
        elements::GID => "gid".to_owned(),
        number => format!("number {number}"),
    };
    let flags = match listed.flags {
        INTERVAL => "flags interval".to_owned(),
        flags => format!("flags {flags:#x}"),
    };
    drift::Set {
        name: name.to_owned(),
        kind: format!("type {kind}, {flags}"),
        elements: intervals(listed),
    }
}

/// Each interval, told by itself: those that touch may have come from different hands.
fn intervals(listed: &Set) -> Vec<String> {
    let mut intervals = Vec::new();
    let mut rest = listed.boundaries.as_slice();
    while !rest.is_empty() {
        let length = match rest {
            [(_, Boundary::Begin), (_, Boundary::End), ..] => 2,
            _ => 1,
        };
        let (interval, after) = rest.split_at(length);
        let alone = Set {
            boundaries: interval.to_vec(),
            ..*listed
        };
        intervals.push(match decode::set(&alone) {
            Some(element) => nft::elements(&element).1.join(" and "),
            None => format!("{interval:x?}"),
        });
        rest = after;
    }
    intervals
}
