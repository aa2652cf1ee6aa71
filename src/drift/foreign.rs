//! Rules of others that get hold of traffic before ours do.

use super::{Difference, Kind, Subject};
use crate::facts::InstalledChain;
use crate::mesh::redirectors;
use crate::ruleset::{Action, BaseHook, ChainType, Hook, Match, Protocol, Ruleset, priority};
use crate::types::Family;

/// A base chain of somebody else's, and what its rules, and those that they lead to, can do to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Its table, as a person would write it.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// The family of the packets that it sees, where that is one alone.
    pub family: Option<Family>,
    /// Where it is called.
    pub place: Place,
    /// What could catch a packet, in order.
    pub catches: Vec<Catch>,
}

/// Where and when a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The hook.
    pub hook: Hook,
    /// The order among chains at that hook.
    pub priority: i32,
    /// Whether it translates addresses.
    pub nat: bool,
}

/// Something in a base chain, or a chain that it leads to, that catches packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catch {
    /// What it does.
    pub does: Catching,
    /// The chain and the number of the rule, from 1; none for the policy of the base chain.
    pub rule: Option<(String, usize)>,
    /// The number of the transport protocol that the rule is about (RFC 5237), where it is about one alone.
    pub protocol: Option<u8>,
}

/// What keeps a packet from our rules, or our rules from having an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catching {
    /// Sends the connection to a port of this host.
    Redirect,
    /// Sends the connection somewhere else.
    Dnat,
    /// Hands the packet to a transparent socket.
    Tproxy,
    /// Throws the packet away.
    Drop,
    /// Throws the packet away and says so.
    Reject,
    /// Hands the packet to a program.
    Queue,
    /// Takes the packet out of connection tracking, and with that out of any NAT.
    Untrack,
}

impl Catching {
    /// What a target of iptables does, by its name and its data.
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
    /// Whether it comes before the last of `ours` at the same hook; or at the same priority, where the one that was
    /// registered last comes first.
    pub fn is_before_the_last_of(self, ours: &[Self]) -> bool {
        self.last_at_the_hook(ours).is_some_and(|last| self.order() <= last)
    }

    /// Whether it is at the place of the last of `ours`.
    fn is_the_last_of(self, ours: &[Self]) -> bool {
        self.last_at_the_hook(ours) == Some(self.order())
    }

    fn last_at_the_hook(self, ours: &[Self]) -> Option<(i32, i32)> {
        let own = ours.iter().filter(|own| own.hook == self.hook);
        own.map(|own| own.order()).max()
    }

    /// What the order at a hook goes by: NAT chains have one among themselves.
    fn order(self) -> (i32, i32) {
        if self.nat {
            (priority::NAT, self.priority)
        } else {
            (self.priority, i32::MIN)
        }
    }
}

/// The base chains of others that come before ours, and that may catch what ours would capture.
pub fn in_front(ruleset: &Ruleset, ours: &[Place], others: &[BaseChain]) -> Vec<Difference> {
    let protocols: &[u8] = if captures_udp(ruleset) { &[TCP, UDP] } else { &[TCP] };
    let concerns_us = |catch: &&Catch| catch.protocol.is_none_or(|protocol| protocols.contains(&protocol));
    others
        .iter()
        .filter(|other| other.place.is_before_the_last_of(ours))
        .filter(|other| other.family.is_none_or(|family| ruleset.families.contains(family)))
        .filter_map(|other| {
            let catches: Vec<&Catch> = other.catches.iter().filter(concerns_us).collect();
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
            let perhaps = if other.place.is_the_last_of(ours) {
                "; of chains with one priority, the one that was registered last comes first"
            } else {
                ""
            };
            let found = format!("{place} {}{more}{perhaps}", first.does.name());
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

/// Where our base chains are called.
pub fn places(ruleset: &Ruleset) -> Vec<Place> {
    places_by(ruleset, |base| base.priority)
}

/// Where the chains of iptables are called that lead to ours.
pub fn places_in_iptables(ruleset: &Ruleset) -> Vec<Place> {
    places_by(ruleset, |base| priority::in_iptables(base.kind))
}

/// A chain that only sets timeouts decides nothing that a chain before it could decide.
fn places_by(ruleset: &Ruleset, priority: impl Fn(BaseHook) -> i32) -> Vec<Place> {
    let ruleset = ruleset.without_timeouts();
    let hooks = ruleset.chains.iter().filter_map(|chain| chain.hook);
    hooks
        .map(|base| Place {
            hook: base.hook,
            priority: priority(base),
            nat: base.kind == ChainType::Nat,
        })
        .collect()
}

/// Other tools that redirect traffic too, before ours or after: each takes what the other has left alone.
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
