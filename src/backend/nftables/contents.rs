//! The contents of a listing in nft syntax (nft(8)), for comparing and for people.
//!
//! The planned and the installed state go through the same code, and different objects have different texts.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::listing::{BaseHook, Boundary, Listing, Object, Rule, Set};
use super::uapi::{NFT_OBJECT_CT_TIMEOUT, NFT_SET_INTERVAL};
use super::{decode, elements};
use crate::drift::{Contents, Line, List, Subject, Thing};
use crate::render::nft;
use crate::ruleset::{CgroupPaths, TableFamily};

/// The contents of a table. Cgroups have the paths that `cgroups` finds.
pub fn contents(table: &str, listing: &Listing, cgroups: CgroupPaths) -> Contents {
    /// `NFT_TABLE_F_DORMANT`.
    const DORMANT: u32 = 1;
    let mut contents = Contents::default();
    let mut thing = |what: &Subject, text: String| {
        let what = what.clone();
        contents.things.push(Thing { what, text });
    };
    let table = table.to_owned();
    let flags = match listing.flags {
        0 => String::new(),
        DORMANT => "dormant, so that its rules do nothing".to_owned(),
        flags => format!("flags {flags:#x}"),
    };
    thing(&Subject::Table { table: table.clone() }, flags);
    for ((name, kind), object) in &listing.objects {
        let (table, name) = (table.clone(), name.clone());
        let text = self::object(listing.family, *kind, object);
        thing(&Subject::Object { table, name }, text);
    }
    for (name, listed) in &listing.sets {
        let (table, set) = (table.clone(), name.clone());
        let of = Subject::Set { table, set };
        thing(&of, kind(listed));
        contents.lists.push(List {
            of,
            lines: elements_of(listed),
        });
    }
    for (name, listed) in &listing.chains {
        let (table, chain) = (table.clone(), name.clone());
        let of = Subject::Chain { table, chain };
        thing(&of, listed.hook.as_ref().map(base_hook).unwrap_or_default());
        contents.lists.push(List {
            of,
            lines: listed
                .rules
                .iter()
                .zip(1..)
                .map(|(listed, position)| rule(listing.family, position, listed, cgroups))
                .collect(),
        });
    }
    contents
}

fn object(family: TableFamily, kind: u32, object: &Object) -> String {
    match (kind, decode::timeouts(family, object)) {
        (NFT_OBJECT_CT_TIMEOUT, Some(timeouts)) => format!("ct timeout, {}", nft::policy(&timeouts)),
        (NFT_OBJECT_CT_TIMEOUT, None) => format!("ct timeout, {object:?}"),
        (kind, _) => format!("type number {kind}"),
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

fn rule(family: TableFamily, position: usize, listed: &Rule, cgroups: CgroupPaths) -> Line {
    let comment = decode::comment(&listed.user_data);
    let as_we_write = listed.user_data.is_empty()
        || super::encode::rule_user_data(&comment).is_ok_and(|written| written == listed.user_data);
    let text = match decode::rule(family, listed) {
        Some(mut rule) if as_we_write => {
            for matched in &mut rule.matches {
                matched.name_cgroup(cgroups);
            }
            nft::rule(family, &rule)
        }
        _ => {
            let mut words = decode::words(family, listed);
            // A rule that is encoded in another way may have the same text as a planned one.
            if !words.contains('[') {
                words += " [in another encoding]";
            }
            if !comment.is_empty() {
                words += &format!(" comment \"{comment}\"");
            }
            words
        }
    };
    Line {
        position,
        text,
        comment,
        foreign: false,
    }
}

fn kind(listed: &Set) -> String {
    let kind = match listed.datatype {
        elements::IPV4_ADDRESS => "ipv4_addr",
        elements::IPV6_ADDRESS => "ipv6_addr",
        elements::PORT => "inet_service",
        elements::UID => "uid",
        elements::GID => "gid",
        number => return format!("type number {number}, flags {:#x}", listed.flags),
    };
    match listed.flags {
        0 => format!("type {kind}"),
        NFT_SET_INTERVAL => format!("type {kind}, flags interval"),
        flags => format!("type {kind}, flags {flags:#x}"),
    }
}

/// Each interval by itself: different programs may have added adjacent ones.
fn elements_of(listed: &Set) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = listed.boundaries.as_slice();
    while !rest.is_empty() {
        let length = match rest {
            [(_, Boundary::Begin), (_, Boundary::End), ..] => 2,
            _ => 1,
        };
        let (boundaries, after) = rest.split_at(length);
        rest = after;
        let text = interval(listed, boundaries).unwrap_or_else(|| format!("{boundaries:x?}"));
        lines.push(Line {
            text,
            ..Line::default()
        });
    }
    lines
}

/// An interval as text, from its beginning to before its end or to the largest key; or a single key.
fn interval(listed: &Set, boundaries: &[(Vec<u8>, Boundary)]) -> Option<String> {
    let (first, bits) = match boundaries {
        [(begin, Boundary::Begin), ..] => (decode::key(begin)?, u32::try_from(begin.len()).ok()?.checked_mul(8)?),
        _ => return None,
    };
    let largest = u128::MAX.checked_shr(128_u32.checked_sub(bits)?)?;
    let last = match boundaries {
        _ if listed.holds_single_keys() => first,
        [_, (end, Boundary::End)] => decode::key(end)?.checked_sub(1).filter(|last| *last >= first)?,
        _ => largest,
    };
    let name = |key: u128| match listed.datatype {
        elements::IPV4_ADDRESS => {
            u32::try_from(key).map_or_else(|_| key.to_string(), |key| Ipv4Addr::from(key).to_string())
        }
        elements::IPV6_ADDRESS => Ipv6Addr::from(key).to_string(),
        _ => key.to_string(),
    };
    // The number of host bits, if the interval is a network.
    let free = (first ^ last).count_ones();
    let is_network = matches!(listed.datatype, elements::IPV4_ADDRESS | elements::IPV6_ADDRESS)
        && first ^ last == u128::MAX.checked_shr(128 - free).unwrap_or_default()
        && first.trailing_zeros() >= free;
    Some(if first == last {
        name(first)
    } else if is_network {
        format!("{}/{}", name(first), bits - free)
    } else {
        format!("{}-{}", name(first), name(last))
    })
}

#[cfg(test)]
mod tests {
    use super::super::create;
    use super::*;
    use crate::facts::Facts;
    use crate::options::Settings;
    use crate::plan::Plan;
    use crate::types::{DnsServers, InboundMode, NoAccounts, parse_cidrs, parse_ids};

    /// A table with every kind of object.
    fn listing() -> Listing {
        let mut settings = Settings::default();
        let config = &mut settings.config;
        config.inbound.mode = InboundMode::Tproxy;
        config.dns.redirect = true;
        config.dns.servers = DnsServers::All;
        config.proxy.uids = parse_ids("1337,2000-2009", &NoAccounts).unwrap();
        config.outbound.exclude_cidrs = parse_cidrs("10.0.0.0/8,192.0.2.1,fd00::/8,ff00::/8").unwrap();
        let plan = Plan::new(config, &Facts::default()).unwrap();
        Listing::of_steps(&create(&plan.ruleset))
    }

    /// All byte strings that differ from this one in a single byte.
    fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..bytes.len()).map(|at| {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            flipped
        })
    }

    #[test]
    fn any_changed_byte_of_a_rule_changes_its_text() {
        let mut changes = 0;
        for listed in listing().chains.values().flat_map(|chain| &chain.rules) {
            let words = rule(TableFamily::Inet, 1, listed, &|_| None);
            let mut differs = |changed: &Rule| {
                assert_ne!(
                    rule(TableFamily::Inet, 1, changed, &|_| None).text,
                    words.text,
                    "{changed:?}"
                );
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
    fn any_changed_property_of_a_table_changes_its_text() {
        let listing = listing();
        let words = contents("t", &listing, &|_| None);
        let differs = |change: &dyn Fn(&mut Listing)| {
            let mut changed = listing.clone();
            change(&mut changed);
            assert_ne!(contents("t", &changed, &|_| None), words, "{changed:?}");
        };
        differs(&|listing| listing.flags = 1);
        differs(&|listing| listing.flags = 2);
        differs(&|listing| listing.objects.clear());
        differs(&|listing| drop(listing.objects.insert(("x".to_owned(), 1), Object::default())));
        for key in listing.objects.keys() {
            let object_with =
                |change: &dyn Fn(&mut Object)| differs(&|listing| change(listing.objects.get_mut(key).unwrap()));
            object_with(&|object| object.family = 2);
            object_with(&|object| object.protocol = 17);
            for state in listing.objects[key].timeouts.keys() {
                object_with(&|object| assert!(object.timeouts.remove(state).is_some()));
                object_with(&|object| assert!(object.timeouts.insert(*state, 1).is_some()));
            }
        }
        assert_eq!(listing.objects.len(), 1);
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
