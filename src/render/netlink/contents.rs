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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::config::types::{DnsServers, InboundMode, NoAccounts, parse_cidrs, parse_ids};
    use crate::facts::Facts;
    use crate::plan::Plan;
    use crate::render::netlink::{Step, create};

    /// A table in which there is a bit of everything.
    fn listing() -> Listing {
        let mut settings = Settings::default();
        let config = &mut settings.config;
        config.inbound.mode = InboundMode::Tproxy;
        config.dns.redirect = true;
        config.dns.servers = DnsServers::All;
        config.proxy.uids = parse_ids("1337,2000-2009", &NoAccounts).unwrap();
        config.outbound.exclude_cidrs = parse_cidrs("10.0.0.0/8,192.0.2.1,fd00::/8,ff00::/8").unwrap();
        let plan = Plan::new(config, &Facts::default()).unwrap();
        Listing::of(create(&plan.ruleset).iter().map(Step::message))
    }

    /// Each text that differs from this one in a single byte.
    fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..bytes.len()).map(|at| {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            flipped
        })
    }

    #[test]
    fn no_byte_of_a_rule_can_change_without_its_words() {
        let mut changes = 0;
        for listed in listing().chains.values().flat_map(|chain| &chain.rules) {
            let words = rule(1, listed);
            let mut differs = |changed: &Rule| {
                assert_ne!(rule(1, changed).text, words.text, "{changed:?}");
                changes += 1;
            };
            for user_data in flipped(&listed.user_data) {
                differs(&Rule {
                    user_data,
                    ..listed.clone()
                });
            }
            for (at, (_, attributes)) in listed.expressions.iter().enumerate() {
                for (key, value) in attributes {
                    let mut changed = listed.clone();
                    changed.expressions[at].1.remove(key);
                    differs(&changed);
                    for value in flipped(value) {
                        changed.expressions[at].1.insert(*key, value);
                        differs(&changed);
                    }
                }
                let mut changed = listed.clone();
                changed.expressions.remove(at);
                differs(&changed);
            }
        }
        assert!(changes > 2000, "{changes}");
    }

    #[test]
    fn nothing_else_of_a_table_can_change_without_its_words() {
        let listing = listing();
        let words = contents(&listing);
        let differs = |change: &dyn Fn(&mut Listing)| {
            let mut changed = listing.clone();
            change(&mut changed);
            assert_ne!(contents(&changed), words, "{changed:?}");
        };
        differs(&|listing| listing.flags = 1);
        differs(&|listing| listing.flags = 2);
        for name in listing.chains.keys() {
            differs(&|listing| drop(listing.chains.remove(name)));
            if listing.chains[name].hook.is_some() {
                let hook = |change: fn(&mut BaseHook)| {
                    differs(&|listing| {
                        listing
                            .chains
                            .get_mut(name)
                            .and_then(|chain| chain.hook.as_mut())
                            .into_iter()
                            .for_each(change)
                    })
                };
                hook(|hook| hook.kind = "filtered".to_owned());
                hook(|hook| hook.hook += 1);
                hook(|hook| hook.priority += 1);
                hook(|hook| hook.policy = 0);
                differs(&|listing| listing.chains.get_mut(name).unwrap().hook = None);
            }
        }
        assert!(listing.sets.len() > 2);
        for (name, set) in &listing.sets {
            let set_with = |change: &dyn Fn(&mut Set)| differs(&|listing| change(listing.sets.get_mut(name).unwrap()));
            set_with(&|set| set.datatype += 1);
            set_with(&|set| set.flags |= 16);
            set_with(&|set| set.boundaries.clear());
            for (at, (key, _)) in set.boundaries.iter().enumerate() {
                set_with(&|set| drop(set.boundaries.remove(at)));
                for key in flipped(key) {
                    set_with(&|set| set.boundaries[at].0.clone_from(&key));
                }
            }
        }
    }
}
