//! Whether the chain INPUT of a table of legacy iptables drops redirected connections.

use super::entries::{HEADER, Layout, NAME, Target, entry, short, text};
use crate::backend::arrival::{self, Arrival, Matching, Rule, Verdict};
use crate::drift::CatchEffect;

/// Verdicts of a standard target: `-NF_DROP - 1`, `-NF_ACCEPT - 1`, `-NF_QUEUE - 1`, `XT_RETURN`
/// (linux/netfilter/x_tables.h). A positive one is the offset of the next rule.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const QUEUE: i32 = -4;
const RETURN: i32 = -5;

/// `IPT_INV_VIA_IN` and `IP6T_INV_VIA_IN`.
const NOT_THIS_INTERFACE: u8 = 0x01;

/// Whether the built-in chain from the first offset to its policy drops the connection.
pub fn drops(layout: &Layout, entries: &[u8], first: usize, policy: usize, arrival: Arrival) -> bool {
    let is_drop = |offset| {
        let bytes = entries.get(offset..)?;
        Some(matches!(entry(layout, bytes, offset)?.0.target, Target::Standard(DROP)))
    };
    let policy_drops = is_drop(policy).unwrap_or(false);
    arrival::is_dropped(&first, policy_drops, &|chain| {
        rules(layout, entries, *chain, policy, arrival)
    })
}

/// The rules of a chain, up to the policy or to the next chain. A chain is identified by the offset of its first rule.
fn rules(layout: &Layout, entries: &[u8], chain: usize, policy: usize, arrival: Arrival) -> Vec<Rule<usize>> {
    let (mut rules, mut offset) = (Vec::new(), chain);
    while let Some(bytes) = entries.get(offset..).filter(|_| offset != policy) {
        let Some((entry, length)) = entry(layout, bytes, offset) else {
            break;
        };
        let next = offset + length;
        let is_goto = bytes.get(layout.flags).is_some_and(|flags| flags & layout.goto != 0);
        let verdict = match entry.target {
            Target::Chain(_) => break,
            Target::Standard(ACCEPT) => Verdict::Accept,
            // The program that reads the queue decides.
            Target::Standard(QUEUE) | Target::Extension(Some(CatchEffect::Queue)) => Verdict::Accept,
            Target::Standard(DROP) | Target::Extension(Some(CatchEffect::Drop | CatchEffect::Reject)) => Verdict::Drop,
            Target::Standard(RETURN) => Verdict::Return,
            Target::Standard(verdict) => match usize::try_from(verdict) {
                // A rule without a target.
                Ok(target) if target == next => Verdict::Continue,
                Ok(target) if is_goto => Verdict::Goto(target),
                Ok(target) => Verdict::Jump(target),
                Err(_) => Verdict::Continue,
            },
            Target::Extension(_) => Verdict::Continue,
        };
        rules.push((
            matching(layout, &bytes[..length.min(bytes.len())], entry.protocol, arrival),
            verdict,
        ));
        offset = next;
    }
    rules
}

/// Whether the rule of an entry matches the connection.
fn matching(layout: &Layout, entry: &[u8], protocol: Option<u8>, arrival: Arrival) -> Matching {
    const TCP: u8 = 6;
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
    let end = short(entry, layout.target_offset).map_or(0, usize::from);
    let mut at = layout.size;
    while let Some(length) = short(entry, at)
        .map(usize::from)
        .filter(|length| at < end && *length >= HEADER)
    {
        let name = text(entry, at + NAME).unwrap_or_default();
        let data = entry.get(at + HEADER..at + length).unwrap_or_default();
        if arrival.is_excluded_by(name, data) {
            return Matching::Never;
        }
        if name != "comment" {
            matching = Matching::Maybe;
        }
        at += length;
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
