//! A redirected connection as it arrives at the port of the proxy, and whether the rules of a foreign input chain drop it:
//! such a chain may accept the original port alone.
//!
//! A rule that is understood in part, and could accept the connection, counts as accepting it.

use super::published;
use crate::types::Port;

/// A redirected connection as it arrives at the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The destination port.
    pub port: Port,
    /// Whether it comes over the loopback interface.
    pub over_loopback: bool,
}

impl Arrival {
    /// Whether a match of iptables excludes the connection, from its name and data.
    pub fn is_excluded_by(self, extension: &str, data: &[u8]) -> bool {
        /// `struct xt_conntrack_mtinfo3`: the flags and the states.
        const FLAGS: usize = 146;
        const STATES: usize = 150;
        /// `XT_CONNTRACK_STATE`, and the bit of new connections.
        const STATE: u16 = 1;
        const NEW: u16 = 8;
        let half = |at: usize| Some(u16::from_ne_bytes(*data.get(at..)?.first_chunk()?));
        let excludes = || match extension {
            "tcp" => Some(!published::of_extension(extension, data)?.contains(&self.port.get())),
            "conntrack" => Some(half(FLAGS)? & STATE != 0 && half(FLAGS + 2)? & STATE == 0 && half(STATES)? & NEW == 0),
            _ => None,
        };
        excludes().unwrap_or(false)
    }
}

/// Whether a rule matches the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    Never,
    /// As far as it is understood.
    Maybe,
    Always,
}

/// What a rule does with the packets that it matches. `C` identifies a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<C> {
    Accept,
    Drop,
    Return,
    Jump(C),
    Goto(C),
    /// The next rule follows.
    Continue,
}

/// A rule of a chain.
pub type Rule<C> = (Matching, Verdict<C>);

/// Whether a base chain with these rules and this policy drops the connection.
pub fn is_dropped<C: Clone + PartialEq>(chain: &C, policy_drops: bool, rules: &impl Fn(&C) -> Vec<Rule<C>>) -> bool {
    match end(chain, rules, &mut Vec::new()) {
        End::MayBeAccepted => false,
        End::Dropped => true,
        End::Returns => policy_drops,
    }
}

/// Where a chain leaves the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    MayBeAccepted,
    Dropped,
    /// It may return to the chain that jumped here, or to the policy.
    Returns,
}

fn end<C: Clone + PartialEq>(chain: &C, rules: &impl Fn(&C) -> Vec<Rule<C>>, seen: &mut Vec<C>) -> End {
    if seen.contains(chain) {
        return End::Returns;
    }
    seen.push(chain.clone());
    let mut may_return = false;
    for (matching, verdict) in rules(chain) {
        if matching == Matching::Never {
            continue;
        }
        let is_goto = matches!(verdict, Verdict::Goto(_));
        let end = match verdict {
            Verdict::Continue => continue,
            Verdict::Accept => End::MayBeAccepted,
            Verdict::Drop => End::Dropped,
            Verdict::Return => End::Returns,
            Verdict::Jump(target) | Verdict::Goto(target) => match end(&target, rules, seen) {
                End::Returns if !is_goto => continue,
                end => end,
            },
        };
        match end {
            End::MayBeAccepted => return end,
            End::Returns => may_return = true,
            End::Dropped => {}
        }
        if matching == Matching::Always {
            return if may_return { End::Returns } else { end };
        }
    }
    End::Returns
}

#[cfg(test)]
mod tests {
    use super::Matching::{Always, Maybe, Never};
    use super::Verdict::{Accept, Continue, Drop, Goto, Jump, Return};
    use super::{Rule, is_dropped};

    fn dropped(policy_drops: bool, chains: &[&[Rule<usize>]]) -> bool {
        is_dropped(&0, policy_drops, &|chain| chains[*chain].to_vec())
    }

    #[test]
    fn the_policy_decides_where_no_rule_does() {
        for policy_drops in [true, false] {
            assert_eq!(dropped(policy_drops, &[&[]]), policy_drops);
            assert_eq!(
                dropped(policy_drops, &[&[(Never, Accept), (Maybe, Drop), (Always, Continue)]]),
                policy_drops
            );
            assert_eq!(
                dropped(policy_drops, &[&[(Always, Return), (Always, Drop)]]),
                policy_drops
            );
            assert_eq!(
                dropped(policy_drops, &[&[(Maybe, Return), (Always, Drop)]]),
                policy_drops
            );
            assert_eq!(
                dropped(policy_drops, &[&[(Maybe, Goto(1)), (Always, Drop)], &[]]),
                policy_drops
            );
            assert!(!dropped(policy_drops, &[&[(Maybe, Accept), (Always, Drop)]]));
            assert!(dropped(
                policy_drops,
                &[&[(Maybe, Drop), (Always, Drop), (Always, Accept)]]
            ));
        }
    }

    #[test]
    fn chains_are_followed() {
        assert!(!dropped(
            true,
            &[&[(Maybe, Jump(1)), (Always, Drop)], &[(Maybe, Accept)]]
        ));
        assert!(dropped(
            false,
            &[&[(Always, Jump(1)), (Always, Accept)], &[(Always, Drop)]]
        ));
        assert!(!dropped(
            false,
            &[&[(Maybe, Jump(1)), (Always, Accept)], &[(Always, Drop)]]
        ));
        assert!(dropped(
            false,
            &[
                &[(Maybe, Jump(1)), (Always, Drop)],
                &[(Always, Return), (Always, Accept)]
            ]
        ));
        // Each chain is read once.
        let twice: &[Rule<usize>] = &[(Always, Jump(1)), (Always, Jump(1)), (Always, Drop)];
        assert!(dropped(false, &[twice, &[(Maybe, Drop)]]));
    }
}
