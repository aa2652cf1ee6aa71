//! Checks that any ruleset must pass before it is sent to the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use thiserror::Error;

use super::{
    Action, Addresses, Chain, ChainType, Elements, GidMatch, Hook, Known, Match, PortMatch, Protocol, RTN_LOCAL,
    Rejection, Rule, Ruleset, Timeouts, UidMatch, Value, View, applies,
};
use crate::types::{CgroupPath, Family, Gid, InterfaceName, Mark, Port, Uid};

/// The deepest nesting of jumps (`NFT_JUMP_STACK_SIZE`, net/netfilter/nf_tables.h).
pub const MAX_JUMP_DEPTH: usize = 16;

/// A ruleset that must not be installed. This is a bug of sidetrack, never a mistake of the user.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unsound {
    /// Two chains or two sets have the same name.
    #[error("the name {0} is used twice")]
    DuplicateName(String),
    /// A rule jumps to a missing chain or to a base chain.
    #[error("chain {chain}: no chain {target} to jump to")]
    NoTarget {
        /// The chain of the rule.
        chain: String,
        /// Target of the jump.
        target: String,
    },
    /// A chain can be reached from itself.
    #[error("chain {0} jumps back to itself")]
    Cycle(String),
    /// Jumps are nested deeper than the kernel allows.
    #[error("jumps are nested deeper than {MAX_JUMP_DEPTH} chains, at chain {0}")]
    TooDeep(String),
    /// A rule matches a set that is missing, empty, or of another type.
    #[error("chain {chain}: no set {set} of the type that the rule matches")]
    NoSet {
        /// The chain of the rule.
        chain: String,
        /// The set.
        set: String,
    },
    /// A rule sets timeouts that the ruleset does not have, or is in another chain than one that the kernel
    /// calls once there are connections.
    #[error("chain {0}: no timeouts that a rule could set")]
    NoTimeouts(String),
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
        /// The proxy traffic that would be captured.
        traffic: ProxyTraffic,
    },
    /// The proxy's own traffic could be rejected.
    #[error("chain {chain}: {traffic:?} can be rejected by the rule '{comment}'")]
    ProxyRejected {
        /// The chain of the rule.
        chain: String,
        /// The rule.
        comment: String,
        /// The proxy traffic that would be rejected.
        traffic: ProxyTraffic,
    },
    /// A TCP reset for packets of other protocols, which the kernel drops instead.
    #[error("chain {0}: a TCP reset for packets that may not be TCP")]
    ResetWithoutTcp(String),
}

/// A kind of traffic that the proxy sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyTraffic {
    /// To other hosts.
    Outbound(Sender),
    /// To other hosts and to the pod's own addresses.
    All(Sender),
    /// To any port of the pod's own addresses but this one.
    ToPod(Sender, Port),
    /// By any user over loopback, from this address: what the proxy passes on to the application.
    Passthrough(IpAddr),
}

/// The properties by which the rules recognise a socket of the proxy; the others are any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The user that owns it.
    pub uid: Option<Uid>,
    /// The group that owns it.
    pub gid: Option<Gid>,
    /// Its mark.
    pub mark: Option<Mark>,
    /// The cgroup of the process that created it.
    pub cgroup: Option<CgroupPath>,
}

/// Checks a ruleset: names, jump targets, cycles and sets, and that no traffic of the `proxy` is captured.
///
/// # Errors
/// The first violation.
pub fn check(ruleset: &Ruleset, proxy: &[ProxyTraffic]) -> Result<(), Unsound> {
    let index = Index::of(ruleset)?;
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            check_rule(&index, chain, rule)?;
        }
    }
    let mut heights = BTreeMap::new();
    for chain in &ruleset.chains {
        check_acyclic(&index, chain, &mut Vec::new(), &mut heights)?;
    }
    for traffic in proxy {
        for chain in &ruleset.chains {
            if chain.hook.is_some_and(|base| base.hook == Hook::Output) {
                escapes(ruleset, chain, traffic)?;
            }
        }
    }
    Ok(())
}

/// Chains and sets by name. A ruleset from a file may have very many.
struct Index<'r> {
    chains: BTreeMap<&'r str, &'r Chain>,
    sets: BTreeMap<&'r str, &'r Elements>,
    timeouts: Option<Timeouts>,
}

impl<'r> Index<'r> {
    fn of(ruleset: &'r Ruleset) -> Result<Self, Unsound> {
        let twice = |name: &str| Err(Unsound::DuplicateName(name.to_owned()));
        let (mut chains, mut sets) = (BTreeMap::new(), BTreeMap::new());
        for chain in &ruleset.chains {
            if chains.insert(chain.name.as_ref(), chain).is_some() {
                return twice(&chain.name);
            }
        }
        for set in &ruleset.sets {
            if sets.insert(set.name.as_ref(), &set.elements).is_some() {
                return twice(&set.name);
            }
        }
        Ok(Self {
            chains,
            sets,
            timeouts: ruleset.timeouts,
        })
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
        | Action::Reject(Rejection::AdminProhibited)
        | Action::SetMark(_)
        | Action::SaveMark
        | Action::RestoreMark
        | Action::SetZone(_) => Ok(()),
        Action::Reject(Rejection::TcpReset) => match rule.matches.iter().any(is_tcp) {
            true => Ok(()),
            false => Err(Unsound::ResetWithoutTcp(chain.name.to_string())),
        },
        // In a raw chain, packets have no connection yet.
        Action::SetTimeouts => match chain.hook {
            Some(base) if base.kind != ChainType::Raw && index.timeouts.is_some() => Ok(()),
            _ => Err(Unsound::NoTimeouts(chain.name.to_string())),
        },
        Action::Jump(target) => match index.chains.get(target.as_ref()) {
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

fn is_tcp(matcher: &Match) -> bool {
    matches!(
        matcher,
        Match::Protocol(Protocol::Tcp)
            | Match::SourcePort(Protocol::Tcp, _)
            | Match::DestinationPort(Protocol::Tcp, _)
            | Match::TcpNotSyn
    )
}

/// The set of the match, if it is missing, empty, or of another type.
fn missing_set<'m>(index: &Index, matcher: &'m Match) -> Option<&'m str> {
    let elements = |name: &str| index.sets.get(name).copied().filter(|elements| !elements.is_empty());
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
        | Match::Cgroup(_)
        | Match::Mark(_)
        | Match::MarkIsNot(_)
        | Match::ConntrackMark(_)
        | Match::ConntrackState(_)
        | Match::Reply
        | Match::DestinationTranslated
        | Match::SourceIsLocal
        | Match::NoReversePath
        | Match::DestinationIsLocal
        | Match::HasOwner
        | Match::TcpNotSyn
        | Match::Icmpv6Type(_) => return None,
    };
    (!fits).then_some(name.as_ref())
}

/// Follows all jumps from a chain, each chain once, and returns the deepest nesting of jumps from there
/// on. `heights`: the results so far.
fn check_acyclic<'r>(
    index: &Index<'r>,
    chain: &'r Chain,
    path: &mut Vec<&'r str>,
    heights: &mut BTreeMap<&'r str, usize>,
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
        if let Some(target) = index.chains.get(target.as_ref()) {
            // Checked before the recursion, so that a hostile ruleset cannot exhaust the stack.
            if path.len() >= MAX_JUMP_DEPTH {
                return Err(Unsound::TooDeep(target.name.to_string()));
            }
            height = height.max(1 + check_acyclic(index, target, path, heights)?);
        }
    }
    path.pop();
    heights.insert(name, height);
    if height > MAX_JUMP_DEPTH {
        return Err(Unsound::TooDeep(name.to_owned()));
    }
    Ok(height)
}

/// Follows `traffic` through a chain, on both branches if a match is unknown. Returns whether the chain surely ends for it.
fn escapes(ruleset: &Ruleset, chain: &Chain, traffic: &ProxyTraffic) -> Result<bool, Unsound> {
    let interface = InterfaceName::loopback();
    let packet = view(traffic, &interface);
    let (of, comment) = (|| chain.name.to_string(), |rule: &Rule| rule.comment.to_string());
    for rule in &chain.rules {
        match (&rule.action, applies(&ruleset.sets, rule, &packet)) {
            (_, Known::No)
            | (Action::Return | Action::Accept | Action::Drop, Known::Perhaps)
            | (Action::SetMark(_) | Action::SaveMark | Action::RestoreMark, _)
            | (Action::SetZone(_) | Action::SetTimeouts, _) => {}
            (Action::Return, Known::Yes) => return Ok(false),
            (Action::Accept | Action::Drop, Known::Yes) => return Ok(true),
            (Action::Jump(target), known @ (Known::Yes | Known::Perhaps)) => {
                if let Some(target) = ruleset.chain(target)
                    && escapes(ruleset, target, traffic)?
                    && known == Known::Yes
                {
                    return Ok(true);
                }
            }
            (Action::Reject(_), Known::Yes | Known::Perhaps) => {
                return Err(Unsound::ProxyRejected {
                    chain: of(),
                    comment: comment(rule),
                    traffic: traffic.clone(),
                });
            }
            (Action::Redirect(_) | Action::Tproxy { .. }, Known::Yes | Known::Perhaps) => {
                return Err(Unsound::ProxyCaptured {
                    chain: of(),
                    comment: comment(rule),
                    traffic: traffic.clone(),
                });
            }
        }
    }
    Ok(false)
}

/// The known properties of the proxy's traffic at the output hook.
fn view<'l>(traffic: &'l ProxyTraffic, loopback: &'l InterfaceName) -> View<'l> {
    let to_others = View {
        in_interface: Value::Missing,
        out_interface: Value::IsNot(loopback),
        ..View::UNKNOWN
    };
    let by = |sender: &'l Sender, view: View<'l>| View {
        uid: sender.uid.map_or(Value::Unknown, Value::Is),
        gid: sender.gid.map_or(Value::Unknown, Value::Is),
        mark: sender.mark.map_or(Value::Unknown, |mark| Value::Is(mark.get())),
        cgroup: sender
            .cgroup
            .as_ref()
            .map_or(Value::Unknown, |path| Value::Is(Some(path))),
        ..view
    };
    match traffic {
        ProxyTraffic::ToPod(sender, port) => View {
            out_interface: Value::Is(loopback),
            destination_port: Value::IsNot(*port),
            ..by(sender, to_others)
        },
        ProxyTraffic::Outbound(sender) => by(sender, to_others),
        ProxyTraffic::All(sender) => View {
            out_interface: Value::Unknown,
            ..by(sender, to_others)
        },
        ProxyTraffic::Passthrough(address) => View {
            family: Value::Is(Family::of(*address)),
            source: Value::Is(*address),
            source_type: Value::Is(RTN_LOCAL),
            destination_type: Value::Is(RTN_LOCAL),
            out_interface: Value::Is(loopback),
            ..to_others
        },
    }
}
