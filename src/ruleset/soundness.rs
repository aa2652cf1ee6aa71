//! What must hold for any ruleset before a kernel sees it.

use std::collections::HashMap;
use std::net::IpAddr;

use thiserror::Error;

use super::{
    Action, Addresses, Chain, Elements, Family, GidMatch, Hook, Known, Match, PortMatch, Rule, Ruleset, UidMatch,
    Value, View, applies,
};
use crate::config::types::{Gid, InterfaceName, Uid};

/// How many chains a packet may be in at once (`NFT_JUMP_STACK_SIZE`, net/netfilter/nf_tables.h).
pub const MAX_DEPTH: usize = 16;

/// A ruleset that must not be installed. It is our mistake, never the user's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unsound {
    /// Two chains or two sets have one name.
    #[error("the name {0} is used twice")]
    DuplicateName(String),
    /// A rule jumps to a chain that is not there, or that the kernel itself calls.
    #[error("chain {chain}: no chain {target} to jump to")]
    NoTarget {
        /// The chain of the rule.
        chain: String,
        /// Where it jumps.
        target: String,
    },
    /// A chain can be reached from itself.
    #[error("chain {0} leads back to itself")]
    Cycle(String),
    /// More chains follow upon one another than the kernel allows.
    #[error("more than {MAX_DEPTH} chains jump to one another, at chain {0}")]
    TooDeep(String),
    /// A rule looks into a set that is not there, is empty, or holds other things.
    #[error("chain {chain}: no set {set} of the kind that the rule looks for")]
    NoSet {
        /// The chain of the rule.
        chain: String,
        /// The set.
        set: String,
    },
    /// A redirection that would also catch other protocols.
    #[error("chain {0}: a redirection without a protocol")]
    RedirectWithoutProtocol(String),
    /// The proxy's own traffic could be sent back to it: an endless loop.
    #[error("chain {chain}: {traffic:?} can be captured by the rule '{comment}'")]
    ProxyCaptured {
        /// The chain of the rule.
        chain: String,
        /// The rule.
        comment: String,
        /// Which of the proxy's traffic.
        traffic: ProxyTraffic,
    },
}

/// A kind of traffic that the proxy sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyTraffic {
    /// By one of the proxy's users, to other hosts.
    OutboundOf(Uid),
    /// By one of the proxy's groups, to other hosts.
    OutboundOfGroup(Gid),
    /// By any user over loopback, from this address: what the proxy passes on to the application.
    Passthrough(IpAddr),
}

/// Checks a ruleset: names, targets, cycles and sets, and that none of the `proxy`'s traffic is captured.
///
/// # Errors
/// The first thing that does not hold.
pub fn check(ruleset: &Ruleset, proxy: &[ProxyTraffic]) -> Result<(), Unsound> {
    let index = Index::of(ruleset)?;
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            check_rule(&index, chain, rule)?;
        }
    }
    let mut heights = HashMap::new();
    for chain in &ruleset.chains {
        check_acyclic(&index, chain, &mut Vec::new(), &mut heights)?;
    }
    for traffic in proxy {
        for chain in &ruleset.chains {
            if chain.hook.is_some_and(|base| base.hook == Hook::Output) {
                escapes(ruleset, chain, *traffic)?;
            }
        }
    }
    Ok(())
}

/// Chains and sets by their names: a ruleset that somebody made up may have very many.
struct Index<'r> {
    ruleset: &'r Ruleset,
    chains: HashMap<&'r str, usize>,
    sets: HashMap<&'r str, usize>,
}

impl<'r> Index<'r> {
    fn of(ruleset: &'r Ruleset) -> Result<Self, Unsound> {
        let mut index = Self {
            ruleset,
            chains: HashMap::new(),
            sets: HashMap::new(),
        };
        let chains = ruleset.chains.iter().map(|chain| chain.name.as_ref());
        let sets = ruleset.sets.iter().map(|set| set.name.as_ref());
        let mut twice = chains
            .enumerate()
            .find(|(place, name)| index.chains.insert(name, *place).is_some());
        twice = twice.or_else(|| {
            sets.enumerate()
                .find(|(place, name)| index.sets.insert(name, *place).is_some())
        });
        match twice {
            Some((_, name)) => Err(Unsound::DuplicateName(name.to_owned())),
            None => Ok(index),
        }
    }

    fn chain(&self, name: &str) -> Option<&'r Chain> {
        Some(&self.ruleset.chains[*self.chains.get(name)?])
    }

    /// The elements of a set that has any.
    fn elements(&self, name: &str) -> Option<&'r Elements> {
        let elements = &self.ruleset.sets[*self.sets.get(name)?].elements;
        (!elements.is_empty()).then_some(elements)
    }
}

fn check_rule(index: &Index, chain: &Chain, rule: &Rule) -> Result<(), Unsound> {
    for matcher in &rule.matches {
        if let Some(set) = missing_set(index, matcher) {
            return Err(Unsound::NoSet {
                chain: chain.name.to_string(),
                set: set.to_owned(),
            });
        }
    }
    match &rule.action {
        Action::Return
        | Action::Accept
        | Action::Drop
        | Action::SetMark(_)
        | Action::SaveMark
        | Action::RestoreMark
        | Action::SetZone(_) => Ok(()),
        Action::Jump(target) => match index.chain(target) {
            Some(Chain { hook: None, .. }) => Ok(()),
            _ => Err(Unsound::NoTarget {
                chain: chain.name.to_string(),
                target: target.to_string(),
            }),
        },
        Action::Redirect(_) | Action::Tproxy { .. } => {
            let has_protocol = |m: &Match| {
                matches!(
                    m,
                    Match::Protocol(_) | Match::SourcePort(..) | Match::DestinationPort(..)
                )
            };
            if rule.matches.iter().any(has_protocol) {
                Ok(())
            } else {
                Err(Unsound::RedirectWithoutProtocol(chain.name.to_string()))
            }
        }
    }
}

/// The set that the match looks into, where it is not there as it should be.
fn missing_set<'m>(index: &Index, matcher: &'m Match) -> Option<&'m str> {
    let elements = |name: &str| index.elements(name);
    let (name, fits) = match matcher {
        Match::Source(Addresses::Set(family, name)) | Match::Destination(Addresses::Set(family, name)) => {
            let fits = match family {
                Family::V4 => matches!(elements(name), Some(Elements::Ipv4(_))),
                Family::V6 => matches!(elements(name), Some(Elements::Ipv6(_))),
            };
            (name, fits)
        }
        Match::SourcePort(_, PortMatch::Set(name)) | Match::DestinationPort(_, PortMatch::Set(name)) => {
            (name, matches!(elements(name), Some(Elements::Ports(_))))
        }
        Match::Uid(UidMatch::Set(name)) => (name, matches!(elements(name), Some(Elements::Uids(_)))),
        Match::Gid(GidMatch::Set(name)) => (name, matches!(elements(name), Some(Elements::Gids(_)))),
        Match::Source(Addresses::Ip(_))
        | Match::Destination(Addresses::Ip(_))
        | Match::SourcePort(_, PortMatch::Port(_))
        | Match::DestinationPort(_, PortMatch::Port(_))
        | Match::Uid(UidMatch::Uid(_))
        | Match::Gid(GidMatch::Gid(_))
        | Match::Family(_)
        | Match::Protocol(_)
        | Match::InInterface(_)
        | Match::OutInterface(_)
        | Match::Mark(_)
        | Match::MarkIsNot(_)
        | Match::ConntrackMark(_)
        | Match::ConntrackState(_) => return None,
    };
    (!fits).then_some(name.as_ref())
}

/// Follows all jumps from a chain, each chain once, and returns how many chains a packet may be in at once from there
/// on. `heights` are those that are known already.
fn check_acyclic<'r>(
    index: &Index<'r>,
    chain: &'r Chain,
    path: &mut Vec<&'r str>,
    heights: &mut HashMap<&'r str, usize>,
) -> Result<usize, Unsound> {
    let name = chain.name.as_ref();
    if path.contains(&name) {
        return Err(Unsound::Cycle(name.to_owned()));
    }
    if let Some(height) = heights.get(name) {
        return Ok(*height);
    }
    path.push(name);
    let mut height = 1;
    for target in chain.rules.iter().filter_map(|rule| rule.action.target()) {
        if let Some(target) = index.chain(target) {
            // Looked at before going on, so that a hostile ruleset cannot exhaust the stack.
            if path.len() >= MAX_DEPTH {
                return Err(Unsound::TooDeep(target.name.to_string()));
            }
            height = height.max(1 + check_acyclic(index, target, path, heights)?);
        }
    }
    path.pop();
    heights.insert(name, height);
    if height > MAX_DEPTH {
        return Err(Unsound::TooDeep(name.to_owned()));
    }
    Ok(height)
}

/// Follows `traffic` through a chain, both ways wherever a match is not known.
fn escapes(ruleset: &Ruleset, chain: &Chain, traffic: ProxyTraffic) -> Result<(), Unsound> {
    let interface = InterfaceName::loopback();
    let packet = view(traffic, &interface);
    for rule in &chain.rules {
        match (&rule.action, applies(ruleset, rule, &packet)) {
            (_, Known::No)
            | (Action::Return | Action::Accept | Action::Drop, Known::Perhaps)
            | (Action::SetMark(_) | Action::SaveMark | Action::RestoreMark | Action::SetZone(_), _) => {}
            (Action::Return | Action::Accept | Action::Drop, Known::Yes) => return Ok(()),
            (Action::Jump(target), Known::Yes | Known::Perhaps) => {
                if let Some(target) = ruleset.chain(target) {
                    escapes(ruleset, target, traffic)?;
                }
            }
            (Action::Redirect(_) | Action::Tproxy { .. }, Known::Yes | Known::Perhaps) => {
                return Err(Unsound::ProxyCaptured {
                    chain: chain.name.to_string(),
                    comment: rule.comment.to_string(),
                    traffic,
                });
            }
        }
    }
    Ok(())
}

/// What is known of the proxy's traffic where it is sent.
fn view(traffic: ProxyTraffic, loopback: &InterfaceName) -> View<'_> {
    let to_others = View {
        in_interface: Value::Missing,
        out_interface: Value::IsNot(loopback),
        ..View::UNKNOWN
    };
    match traffic {
        ProxyTraffic::OutboundOf(uid) => View {
            uid: Value::Is(uid),
            ..to_others
        },
        ProxyTraffic::OutboundOfGroup(gid) => View {
            gid: Value::Is(gid),
            ..to_others
        },
        ProxyTraffic::Passthrough(address) => View {
            family: Value::Is(Family::of(address)),
            source: Value::Is(address),
            out_interface: Value::Is(loopback),
            ..to_others
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::{Id as _, Port};
    use crate::ruleset::{BaseHook, ChainType, Families, Protocol};

    const TCP: Match = Match::Protocol(Protocol::Tcp);

    /// A ruleset with one chain, in which these rules come before one that captures all TCP.
    fn capturing(before: Vec<(Vec<Match>, Action)>) -> Ruleset {
        let redirect = (vec![TCP], Action::Redirect(Port::new(15001).unwrap()));
        let rule = |(matches, action)| Rule {
            matches,
            action,
            comment: "a rule".into(),
        };
        let hook = BaseHook {
            kind: ChainType::Nat,
            hook: Hook::Output,
            priority: -101,
        };
        let rules = before.into_iter().chain([redirect]).map(rule).collect();
        Ruleset {
            families: Families::Both,
            sets: Vec::new(),
            chains: vec![Chain {
                name: "output".into(),
                hook: Some(hook),
                rules,
            }],
        }
    }

    fn uid(uid: u32) -> Match {
        Match::Uid(UidMatch::Uid(Uid::new(uid).unwrap()))
    }

    fn loopback() -> Match {
        Match::OutInterface(InterfaceName::loopback())
    }

    #[test]
    fn traffic_of_the_proxy_that_could_be_captured_is_noticed() {
        let of_user = ProxyTraffic::OutboundOf(Uid::new(1337).unwrap());
        let of_group = ProxyTraffic::OutboundOfGroup(Gid::new(1337).unwrap());
        let passed_on = ProxyTraffic::Passthrough([127, 0, 0, 6].into());
        let from = Match::Source(Addresses::Ip([127, 0, 0, 6].into()));
        for (before, escaping) in [
            (vec![], None),
            (vec![(vec![uid(1337)], Action::Return)], Some(of_user)),
            (vec![(vec![uid(1338)], Action::Return)], None),
            // Not all that the proxy sends is TCP, or goes there.
            (vec![(vec![uid(1337), TCP], Action::Return)], None),
            (vec![(vec![uid(1337), loopback()], Action::Return)], None),
            (vec![(vec![loopback(), from.clone()], Action::Return)], Some(passed_on)),
            (vec![(vec![Match::Family(Family::V4)], Action::Return)], Some(passed_on)),
            (vec![(vec![Match::Family(Family::V6)], Action::Return)], None),
        ] {
            let ruleset = capturing(before);
            for traffic in [of_user, of_group, passed_on] {
                let found = check(&ruleset, &[traffic]);
                assert_eq!(
                    found.is_ok(),
                    escaping == Some(traffic),
                    "{traffic:?}: {found:?}: {ruleset:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_captured_on_loopback_alone_does_not_concern_what_leaves() {
        let mut ruleset = capturing(vec![]);
        ruleset.chains[0].rules[0].matches.push(loopback());
        let check = |traffic| check(&ruleset, &[traffic]);
        assert_eq!(check(ProxyTraffic::OutboundOf(Uid::new(1337).unwrap())), Ok(()));
        assert!(check(ProxyTraffic::Passthrough([127, 0, 0, 6].into())).is_err());
    }
}
