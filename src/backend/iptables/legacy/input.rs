//! What the chains INPUT and PREROUTING of legacy iptables do with the connections that sidetrack redirects.

use std::iter;

use super::entries::{HEADER, Layout, NAME, Target, entry, short, text};
use crate::backend::arrival::{self, Arrival, Matching, Verdict};
use crate::backend::published::{self, Effect, Ports};
use crate::drift::CatchEffect;

/// Verdicts of a standard target: `-NF_DROP - 1`, `-NF_ACCEPT - 1`, `-NF_QUEUE - 1`, `XT_RETURN`
/// (linux/netfilter/x_tables.h). A positive one is the offset of the next rule.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const QUEUE: i32 = -4;
const RETURN: i32 = -5;

const TCP: u8 = 6;

/// `IPT_INV_VIA_IN` and `IP6T_INV_VIA_IN`.
const NOT_THIS_INTERFACE: u8 = 0x01;

/// Whether the built-in chain whose first entry and policy are at these offsets drops the connection.
pub fn drops(layout: &Layout, entries: &[u8], (first, policy): (usize, usize), arrival: Arrival) -> bool {
    let is_drop = |offset| {
        let bytes = entries.get(offset..)?;
        Some(matches!(entry(layout, bytes, offset)?.0.target, Target::Standard(DROP)))
    };
    let policy_drops = is_drop(policy).unwrap_or(false);
    arrival::is_dropped(&first, policy_drops, &|chain| {
        let rules = rules(layout, entries, *chain, policy).into_iter();
        rules
            .map(|rule| {
                (
                    matching(layout, rule.bytes, rule.protocol, arrival),
                    verdict(layout, &rule),
                )
            })
            .collect()
    })
}

/// The ports that the built-in chain whose first entry and policy are at these offsets publishes.
pub fn published_ports(layout: &Layout, entries: &[u8], (first, policy): (usize, usize)) -> Vec<Ports> {
    published::published(&first, &|chain| {
        let rules = rules(layout, entries, *chain, policy);
        let publishing = rules.iter().filter_map(|rule| {
            Some(published::Rule {
                ports: ports(layout, rule)?,
                effect: match (&rule.target, verdict(layout, rule)) {
                    (Target::Extension(Some(CatchEffect::Dnat)), _) => Effect::Translates,
                    (_, Verdict::Jump(chain) | Verdict::Goto(chain)) => Effect::Jumps(chain),
                    _ => return None,
                },
            })
        });
        publishing.collect()
    })
}

/// A rule of a chain.
struct Rule<'b> {
    bytes: &'b [u8],
    protocol: Option<u8>,
    target: Target,
    /// Offset of the next rule.
    next: usize,
}

/// The rules of a chain, up to the policy or to the next chain. A chain is identified by the offset of its first rule.
fn rules<'b>(layout: &Layout, entries: &'b [u8], chain: usize, policy: usize) -> Vec<Rule<'b>> {
    let (mut rules, mut offset) = (Vec::new(), chain);
    while let Some(bytes) = entries.get(offset..).filter(|_| offset != policy) {
        let Some((entry, length)) = entry(layout, bytes, offset) else {
            break;
        };
        if matches!(entry.target, Target::Chain(_)) {
            break;
        }
        offset += length;
        rules.push(Rule {
            bytes: &bytes[..length.min(bytes.len())],
            protocol: entry.protocol,
            target: entry.target,
            next: offset,
        });
    }
    rules
}

fn verdict(layout: &Layout, rule: &Rule<'_>) -> Verdict<usize> {
    match rule.target {
        // The program that reads the queue decides.
        Target::Standard(ACCEPT | QUEUE) | Target::Extension(Some(CatchEffect::Queue)) => Verdict::Accept,
        Target::Standard(DROP) | Target::Extension(Some(CatchEffect::Drop | CatchEffect::Reject)) => Verdict::Drop,
        Target::Standard(RETURN) => Verdict::Return,
        Target::Standard(verdict) => match usize::try_from(verdict) {
            // A rule without a target.
            Ok(target) if target == rule.next => Verdict::Continue,
            Ok(target)
                if rule
                    .bytes
                    .get(layout.flags)
                    .is_some_and(|flags| flags & layout.goto != 0) =>
            {
                Verdict::Goto(target)
            }
            Ok(target) => Verdict::Jump(target),
            Err(_) => Verdict::Continue,
        },
        Target::Extension(_) | Target::Chain(_) => Verdict::Continue,
    }
}

/// The TCP ports that a rule matches; none if it is about another protocol, or about one address.
fn ports(layout: &Layout, rule: &Rule<'_>) -> Option<Ports> {
    // The mask of the destination is the last quarter of the addresses and masks.
    let mask = rule.bytes.get(layout.in_interface / 4 * 3..layout.in_interface)?;
    if mask.iter().any(|byte| *byte != 0) || rule.protocol.is_some_and(|protocol| protocol != TCP) {
        return None;
    }
    let named = extensions(layout, rule.bytes).find_map(|(name, data)| published::of_extension(name, data));
    Some(named.unwrap_or(published::ALL))
}

/// The matches of an entry: their names and data.
fn extensions<'b>(layout: &Layout, entry: &'b [u8]) -> impl Iterator<Item = (&'b str, &'b [u8])> {
    let end = short(entry, layout.target_offset).map_or(0, usize::from);
    let mut at = layout.size;
    iter::from_fn(move || {
        let length = short(entry, at)
            .map(usize::from)
            .filter(|length| at < end && *length >= HEADER)?;
        let start = at;
        at += length;
        Some((
            text(entry, start + NAME).unwrap_or_default(),
            entry.get(start + HEADER..at).unwrap_or_default(),
        ))
    })
}

/// Whether the rule of an entry matches the connection.
fn matching(layout: &Layout, entry: &[u8], protocol: Option<u8>, arrival: Arrival) -> Matching {
    if protocol.is_some_and(|protocol| protocol != TCP) {
        return Matching::Never;
    }
    let interface = interface_matching(layout, entry, arrival);
    if interface == Matching::Never {
        return Matching::Never;
    }
    let mut matching = match has_other_condition(layout, entry) {
        true => Matching::Maybe,
        false => interface,
    };
    for (name, data) in extensions(layout, entry) {
        if arrival.is_excluded_by(name, data) {
            return Matching::Never;
        }
        if name != "comment" {
            matching = Matching::Maybe;
        }
    }
    matching
}

/// Whether the interface of a rule is the one that the connection comes over.
fn interface_matching(layout: &Layout, entry: &[u8], arrival: Arrival) -> Matching {
    const LOOPBACK: &[u8] = b"lo\0";
    let field = |at: usize| entry.get(at..at + libc::IFNAMSIZ).unwrap_or_default();
    // The masks follow the names of both interfaces.
    let name = field(layout.in_interface);
    let mask = field(layout.in_interface + 2 * libc::IFNAMSIZ);
    if mask.iter().all(|byte| *byte == 0) {
        return Matching::Always;
    }
    let inverted = entry
        .get(layout.flags + 1)
        .is_some_and(|flags| flags & NOT_THIS_INTERFACE != 0);
    let is_loopback_alone = name.starts_with(LOOPBACK) && mask.starts_with(&[0xff; LOOPBACK.len()]);
    let mut masked = LOOPBACK.iter().zip(name.iter().zip(mask));
    let includes_loopback = masked.all(|(byte, (name, mask))| (byte ^ name) & mask == 0);
    let matches = if arrival.over_loopback {
        includes_loopback != inverted
    } else if is_loopback_alone {
        inverted
    } else {
        return Matching::Maybe;
    };
    if matches { Matching::Always } else { Matching::Never }
}

/// Whether a rule has addresses, negations or flags that restrict it.
fn has_other_condition(layout: &Layout, entry: &[u8]) -> bool {
    // The masks of source and destination are the second half of the addresses.
    let masks = entry
        .get(layout.in_interface / 2..layout.in_interface)
        .unwrap_or_default();
    let [flags, inverted] = entry
        .get(layout.flags..)
        .and_then(|bytes| bytes.first_chunk())
        .copied()
        .unwrap_or_default();
    masks.iter().any(|byte| *byte != 0)
        || flags & !layout.flags_without_condition != 0
        || inverted & !NOT_THIS_INTERFACE != 0
}
