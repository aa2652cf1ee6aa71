//! Foreign rules that catch traffic before ours do.

use super::{Difference, Kind, Subject};
use crate::facts::InstalledChain;
use crate::mesh::redirectors;
use crate::ruleset::{Action, BaseHook, ChainType, Hook, Match, Protocol, Ruleset, priority};
use crate::types::Family;

/// A foreign base chain, and what its rules and the rules they jump to can do to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Table, as a person writes it.
    pub table: String,
    /// Name.
    pub chain: String,
    /// The family of its packets, if only one.
    pub family: Option<Family>,
    /// The hook and priority that call it.
    pub place: Place,
    /// The rules that can catch a packet, in order.
    pub catches: Vec<Catch>,
}

/// The hook and priority at which a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Netfilter hook.
    pub hook: Hook,
    /// Priority among the chains at that hook.
    pub priority: i32,
    /// Whether it is a NAT chain.
    pub nat: bool,
}

/// A rule of a base chain or of a chain that it jumps to, or a policy, that catches packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catch {
    /// The effect on the packet.
    pub effect: CatchEffect,
    /// The chain and the position of the rule, from 1; none for the policy of the base chain.
    pub rule: Option<(String, usize)>,
    /// The transport protocol that the rule matches (RFC 5237), if only one.
    pub protocol: Option<u8>,
}

/// An effect that keeps a packet from our rules, or our rules from working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchEffect {
    /// Redirects the connection to a port of this host.
    Redirect,
    /// Translates the destination address.
    Dnat,
    /// Hands the packet to a transparent socket.
    Tproxy,
    /// Drops the packet.
    Drop,
    /// Rejects the packet with an error to its sender.
    Reject,
    /// Queues the packet to a program.
    Queue,
    /// Exempts the packet from connection tracking, and so from NAT.
    Untrack,
}

impl CatchEffect {
    /// The effect of an iptables target, from its name and data.
    pub fn of_target(name: &str, data: &[u8]) -> Option<Self> {
        /// `XT_CT_NOTRACK` in the first field of `struct xt_ct_target_info` (linux/netfilter/xt_CT.h).
        const NOTRACK: u16 = 1;
        Some(match name {
            "REDIRECT" => Self::Redirect,
            "DNAT" => Self::Dnat,
            "TPROXY" => Self::Tproxy,
            "REJECT" => Self::Reject,
            "NFQUEUE" => Self::Queue,
            "NOTRACK" => Self::Untrack,
            "CT" => {
                let flags = data.first_chunk().map(|flags| u16::from_ne_bytes(*flags))?;
                return (flags & NOTRACK != 0).then_some(Self::Untrack);
            }
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirects",
            Self::Dnat => "translates destinations",
            Self::Tproxy => "hands to a transparent proxy",
            Self::Drop => "drops",
            Self::Reject => "rejects",
            Self::Queue => "queues to a program",
            Self::Untrack => "takes out of connection tracking",
        }
    }
}

impl Place {
    /// Whether it comes before the last of `ours` at the same hook, or has the same priority, where the kernel's order
    /// is unknown: the chain registered last comes first.
    pub fn is_before_last_of(self, ours: &[Self]) -> bool {
        self.last_order_at_hook(ours).is_some_and(|last| self.order() <= last)
    }

    /// Whether it has the same hook and order as the last of `ours`.
    fn ties_with_last_of(self, ours: &[Self]) -> bool {
        self.last_order_at_hook(ours) == Some(self.order())
    }

    fn last_order_at_hook(self, ours: &[Self]) -> Option<(i32, i32)> {
        let own = ours.iter().filter(|own| own.hook == self.hook);
        own.map(|own| own.order()).max()
    }

    /// The order at a hook: all NAT runs at one priority, and NAT chains have an order among themselves.
    fn order(self) -> (i32, i32) {
        if self.nat {
            (priority::NAT, self.priority)
        } else {
            (self.priority, i32::MIN)
        }
    }
}

/// Foreign base chains that come before ours and may catch packets that ours would redirect.
pub fn in_front(ruleset: &Ruleset, ours: &[Place], foreign: &[BaseChain]) -> Vec<Difference> {
    let protocols: &[u8] = if captures_udp(ruleset) { &[TCP, UDP] } else { &[TCP] };
    let is_relevant = |catch: &&Catch| catch.protocol.is_none_or(|protocol| protocols.contains(&protocol));
    foreign
        .iter()
        .filter(|other| other.place.is_before_last_of(ours))
        .filter(|other| other.family.is_none_or(|family| ruleset.families.contains(family)))
        .filter_map(|other| {
            let catches: Vec<&Catch> = other.catches.iter().filter(is_relevant).collect();
            let (first, more) = catches.split_first()?;
            let subject = Subject::BaseChain {
                table: other.table.clone(),
                chain: other.chain.clone(),
                hook: other.place.hook,
                priority: other.place.priority,
            };
            let place = match &first.rule {
                Some((chain, number)) if *chain == other.chain => format!("its rule {number}"),
                Some((chain, number)) => format!("rule {number} of its chain {chain}"),
                None => "its policy".to_owned(),
            };
            let more = match more.len() {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let perhaps = if other.place.ties_with_last_of(ours) {
                "; among chains of equal priority, the one registered last comes first"
            } else {
                ""
            };
            let found = format!("{place} {}{more}{perhaps}", first.effect.name());
            Some(Difference::new(Kind::Foreign, subject, None, Some(found)))
        })
        .collect()
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn captures_udp(ruleset: &Ruleset) -> bool {
    let is_udp = |matched: &Match| {
        matches!(
            matched,
            Match::Protocol(Protocol::Udp) | Match::DestinationPort(Protocol::Udp, _)
        )
    };
    let mut rules = ruleset.chains.iter().flat_map(|chain| &chain.rules);
    rules.any(|rule| matches!(rule.action, Action::Redirect(_)) && rule.matches.iter().any(is_udp))
}

/// The hooks and priorities of our base chains in nf_tables.
pub fn places(ruleset: &Ruleset) -> Vec<Place> {
    places_by(ruleset, |base| base.priority)
}

/// The hooks and priorities of the iptables chains that jump to ours.
pub fn places_in_iptables(ruleset: &Ruleset) -> Vec<Place> {
    places_by(ruleset, |base| priority::in_iptables(base.kind, base.hook))
}

/// Chains that only set timeouts or reject are left out: no foreign chain before them changes their effect.
fn places_by(ruleset: &Ruleset, priority: impl Fn(BaseHook) -> i32) -> Vec<Place> {
    let ruleset = ruleset.without_timeouts();
    let hooks = ruleset.chains.iter().filter_map(|chain| chain.hook);
    let hooks = hooks.filter(|base| base.kind != ChainType::Filter);
    hooks
        .map(|base| Place {
            hook: base.hook,
            priority: priority(base),
            nat: base.kind == ChainType::Nat,
        })
        .collect()
}

/// Other tools that also redirect traffic, before or after ours: each catches what the other leaves.
pub fn redirectors<'c>(chains: impl IntoIterator<Item = &'c InstalledChain>) -> Vec<Difference> {
    let found = redirectors::redirectors(chains).into_iter();
    found
        .map(|other| {
            let subject = Subject::Chain {
                table: other.table,
                chain: other.chain,
            };
            Difference::new(Kind::Foreign, subject, None, Some(other.tool.to_owned()))
        })
        .collect()
}
