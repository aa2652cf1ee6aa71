//! The rules, in nftables' terms: one table of chains with hooks and priorities, rules, and named sets.
//!
//! The plan writes a [`Ruleset`] once. Every renderer, both kernel backends and the simulator read that same value,
//! and match on it exhaustively: a new match or action does not compile until each of them knows it.

mod counting;
mod hook;
mod installed;
mod matching;
pub mod netfilter;
pub mod priority;
mod record;
mod sets;
mod soundness;
mod tables;
mod timeouts;

use std::borrow::Cow;
use std::net::IpAddr;

use crate::types::{CgroupPath, Families, Family, Gid, InterfaceName, IpProtocol, Mark, Port, Uid};

pub use counting::{Counted, Counter, Counts};
pub use hook::{BaseHook, ChainType, Hook};
pub use installed::{Installed, Place, Unreadable};
pub use matching::{Known, OPENING_FLAGS, RTN_LOCAL, TCP_SYN, Tracking, Value, View, applies, holds};
pub use record::Record;
pub use sets::{Elements, Set, ipv4_addresses, ipv6_addresses};
pub use soundness::{MAX_JUMP_DEPTH, ProxyTraffic, Sender, Unsound, check};
pub use tables::{Layout, TableFamily};
pub use timeouts::{TIMEOUTS, TcpState, Timeouts};

/// The name of the table owned by sidetrack, and, in capitals, the name prefix of its iptables chains.
pub const TABLE: &str = "sidetrack";

/// How the names of base chains of type filter begin. iptables has no types: the name says it.
pub const FILTER_PREFIX: &str = "filter_";

/// The name of a chain or set.
pub type Name = Cow<'static, str>;

/// A complete set of rules for one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The families whose traffic the rules may change. If it is a single one, the rules match it themselves; a
    /// renderer with a program for each family needs none for the other.
    pub families: Families,
    /// The ct timeouts that rules set.
    pub timeouts: Option<Timeouts>,
    /// The named sets.
    pub sets: Vec<Set>,
    /// The chains, base chains and others.
    pub chains: Vec<Chain>,
    /// The options that the rules were planned from. It has no effect on packets.
    pub record: Option<Record>,
}

impl Ruleset {
    /// The set called `name`.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// The path of a cgroup that a rule matches, by its level and ID.
    pub fn cgroup_path(&self, of: &Cgroup) -> Option<CgroupPath> {
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        let cgroups = rules
            .flat_map(|rule| &rule.matches)
            .filter_map(|matched| match matched {
                Match::Cgroup(cgroup) => Some(cgroup),
                _ => None,
            });
        let mut same = cgroups.filter(|one| one.level == of.level && one.id == of.id);
        same.find_map(|one| one.path.clone())
    }

    /// The same rules without timeouts, which leaves them to the kernel.
    #[must_use]
    pub fn without_timeouts(&self) -> Self {
        let mut ruleset = self.clone();
        if ruleset.timeouts.take().is_some() {
            for chain in &mut ruleset.chains {
                chain.rules.retain(|rule| rule.action != Action::SetTimeouts);
            }
            // A base chain that only sets timeouts.
            let does_something =
                |chain: &Chain| chain.hook.is_none() || chain.rules.iter().any(|rule| rule.action != Action::Return);
            ruleset.chains.retain(does_something);
        }
        ruleset
    }

    /// Removes the chains that no packet reaches, and the sets that no rule matches.
    pub fn remove_unreachable(&mut self) {
        let mut reached: Vec<Name> = Vec::new();
        let mut next: Vec<Name> = self
            .chains
            .iter()
            .filter(|c| c.hook.is_some())
            .map(|c| c.name.clone())
            .collect();
        while let Some(name) = next.pop() {
            if reached.contains(&name) {
                continue;
            }
            let rules = self.chain(&name).into_iter().flat_map(|chain| &chain.rules);
            next.extend(rules.filter_map(|rule| rule.action.target().cloned()));
            reached.push(name);
        }
        self.chains.retain(|chain| reached.contains(&chain.name));
        let matches = self
            .chains
            .iter()
            .flat_map(|chain| &chain.rules)
            .flat_map(|rule| &rule.matches);
        let used: Vec<Name> = matches.filter_map(|matched| matched.set().cloned()).collect();
        self.sets.retain(|set| used.contains(&set.name));
    }

    /// The chain called `name`.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

/// A chain: rules that are evaluated in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name, unique in the table.
    pub name: Name,
    /// The hook of a base chain; `None` for a chain that only rules jump to.
    pub hook: Option<BaseHook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// Whether its rules do nothing with further packets of connections.
    pub fn decides_about_first_packets_alone(&self) -> bool {
        let new = Match::ConntrackState(ConntrackState::New);
        let mut rules = self.rules.iter();
        rules.all(|rule| rule.action == Action::Return || rule.matches.contains(&new))
    }
}

/// A rule: where every match holds, the action is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions, in the order of evaluation.
    pub matches: Vec<Match>,
    /// The action.
    pub action: Action,
    /// Whether the rule counts the packets that it takes the action on. iptables always counts.
    pub has_counter: bool,
    /// The comment that states the rule's purpose. It is stored with the rule in the kernel.
    pub comment: Cow<'static, str>,
}

impl Rule {
    /// Whether the rule can match packets of a family, by its addresses.
    pub fn can_match(&self, family: Family) -> bool {
        self.matches.iter().filter_map(Match::family).all(|only| only == family)
    }
}

/// A condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The address family.
    Family(Family),
    /// The transport protocol.
    Protocol(Protocol),
    /// The interface that the packet arrived on.
    InInterface(InterfaceName),
    /// The interface that the packet leaves by.
    OutInterface(InterfaceName),
    /// The source address.
    Source(Addresses),
    /// The destination address.
    Destination(Addresses),
    /// The source port, of this protocol.
    SourcePort(Protocol, PortMatch),
    /// The destination port, of this protocol.
    DestinationPort(Protocol, PortMatch),
    /// The user that owns the sending socket. A packet without a socket does not match.
    Uid(UidMatch),
    /// The group that owns the sending socket; supplementary groups do not count.
    Gid(GidMatch),
    /// The cgroup of the process that created the sending socket, or one that this is in.
    Cgroup(Cgroup),
    /// The packet's mark.
    Mark(Mark),
    /// Any other mark, or none.
    MarkIsNot(Mark),
    /// The mark of the packet's connection.
    ConntrackMark(Mark),
    /// The conntrack state of the packet.
    ConntrackState(ConntrackState),
    /// The packet answers the first packet of its connection, or belongs to a connection that such a packet announced.
    /// A packet without a connection does not match.
    Reply,
    /// The destination of the packet's connection has been translated.
    DestinationTranslated,
    /// The source address is one of this host.
    SourceIsLocal,
    /// The source address is not reached by the interface that the packet arrived on (strict reverse path, RFC 3704).
    NoReversePath,
    /// The destination address is one of this host.
    DestinationIsLocal,
    /// The packet's socket is open in a process. Packets of the kernel and of closed sockets do not match.
    HasOwner,
    /// A TCP segment that does not begin a connection: any flags of FIN, SYN, RST and ACK but SYN alone.
    TcpNotSyn,
    /// The type of an ICMPv6 message.
    Icmpv6Type(u8),
}

impl Match {
    /// Gives a cgroup that was read without a path the one that is found for it.
    pub fn name_cgroup(&mut self, path: CgroupPaths) {
        if let Self::Cgroup(cgroup) = self
            && cgroup.path.is_none()
        {
            cgroup.path = path(cgroup);
        }
    }

    /// The set that the match uses, if any.
    pub fn set(&self) -> Option<&Name> {
        match self {
            Self::Source(Addresses::Set(_, set))
            | Self::Destination(Addresses::Set(_, set))
            | Self::SourcePort(_, PortMatch::Set(set))
            | Self::DestinationPort(_, PortMatch::Set(set))
            | Self::Uid(UidMatch::Set(set))
            | Self::Gid(GidMatch::Set(set)) => Some(set),
            Self::Family(_)
            | Self::Protocol(_)
            | Self::InInterface(_)
            | Self::OutInterface(_)
            | Self::Source(Addresses::Ip(_))
            | Self::Destination(Addresses::Ip(_))
            | Self::SourcePort(_, PortMatch::Port(_))
            | Self::DestinationPort(_, PortMatch::Port(_))
            | Self::Uid(UidMatch::Uid(_))
            | Self::Gid(GidMatch::Gid(_))
            | Self::Cgroup(_)
            | Self::Mark(_)
            | Self::MarkIsNot(_)
            | Self::ConntrackMark(_)
            | Self::ConntrackState(_)
            | Self::Reply
            | Self::DestinationTranslated
            | Self::SourceIsLocal
            | Self::NoReversePath
            | Self::DestinationIsLocal
            | Self::HasOwner
            | Self::TcpNotSyn
            | Self::Icmpv6Type(_) => None,
        }
    }

    /// The family that the match restricts a rule to, if any.
    pub fn family(&self) -> Option<Family> {
        match self {
            Self::Family(family) => Some(*family),
            Self::Source(addresses) | Self::Destination(addresses) => Some(addresses.family()),
            Self::Icmpv6Type(_) => Some(Family::V6),
            Self::Protocol(_)
            | Self::InInterface(_)
            | Self::OutInterface(_)
            | Self::SourcePort(..)
            | Self::DestinationPort(..)
            | Self::Uid(_)
            | Self::Gid(_)
            | Self::Cgroup(_)
            | Self::Mark(_)
            | Self::MarkIsNot(_)
            | Self::ConntrackMark(_)
            | Self::ConntrackState(_)
            | Self::Reply
            | Self::DestinationTranslated
            | Self::SourceIsLocal
            | Self::NoReversePath
            | Self::DestinationIsLocal
            | Self::HasOwner
            | Self::TcpNotSyn => None,
        }
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl From<Protocol> for IpProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::TCP,
            Protocol::Udp => Self::UDP,
        }
    }
}

/// The conntrack state of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConntrackState {
    /// It belongs to no connection and cannot begin one.
    Invalid,
    /// It is the first one of its connection that connection tracking sees.
    New,
    /// Another connection announced it, or it is an error about a packet of another connection.
    Related,
    /// It belongs to a connection that packets have gone through in both directions, or to one that such a connection
    /// announced.
    Established,
}

/// A conntrack zone: connections of different zones are distinct even if all their addresses are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone(pub u16);

/// Addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// One address.
    Ip(IpAddr),
    /// A named set of this family.
    Set(Family, Name),
}

impl Addresses {
    /// The family of the addresses.
    pub fn family(&self) -> Family {
        match self {
            Self::Ip(IpAddr::V4(_)) => Family::V4,
            Self::Ip(IpAddr::V6(_)) => Family::V6,
            Self::Set(family, _) => *family,
        }
    }
}

/// One port or a named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortMatch {
    /// One port.
    Port(Port),
    /// A named set.
    Set(Name),
}

/// One user or a named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UidMatch {
    /// One user.
    Uid(Uid),
    /// A named set.
    Set(Name),
}

/// One group or a named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GidMatch {
    /// One group.
    Gid(Gid),
    /// A named set.
    Set(Name),
}

/// A cgroup (v2). nftables has it by level and ID, and iptables by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path, unless it was read from nftables.
    pub path: Option<CgroupPath>,
    /// Its level below the root.
    pub level: u32,
    /// Its ID, unless it was not observed.
    pub id: Option<u64>,
}

/// Finds the path of a cgroup that was read without one.
pub type CgroupPaths<'f> = &'f dyn Fn(&Cgroup) -> Option<CgroupPath>;

impl Cgroup {
    /// Its path, or else its ID.
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.to_string(),
            None => format!("with ID {}", self.id.unwrap_or_default()),
        }
    }
}

/// The action of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Returns to the calling chain; in a base chain, accepts the packet unchanged.
    Return,
    /// Jumps to another chain, and continues here when that chain returns.
    Jump(Name),
    /// Accepts the packet; no further rule of this base chain, or of chains it jumps to, is evaluated.
    Accept,
    /// Drops the packet.
    Drop,
    /// Rejects the packet and reports that to its sender.
    Reject(Rejection),
    /// Redirects the connection to a port of this host; the proxy can read the original destination.
    Redirect(Port),
    /// Hands the packet, unchanged, to the transparent socket on a port of this host, and marks it. Without such a
    /// socket the rule does not apply on nftables; on iptables the packet is dropped.
    Tproxy {
        /// The port.
        port: Port,
        /// The mark.
        mark: Mark,
    },
    /// Marks the packet; the next rule is evaluated.
    SetMark(Mark),
    /// Gives the connection the packet's mark; the next rule is evaluated.
    SaveMark,
    /// Gives the packet the connection's mark; the next rule is evaluated.
    RestoreMark,
    /// Sets the conntrack zone, unless an earlier rule has set one; the next rule is evaluated.
    SetZone(Zone),
    /// Gives a new connection the [timeouts](Ruleset::timeouts) of the ruleset; the next rule is evaluated.
    SetTimeouts,
}

/// How the sender of a rejected packet is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// By a TCP segment with the flag RST.
    TcpReset,
    /// By an ICMP or ICMPv6 error: administratively prohibited.
    AdminProhibited,
}

impl Action {
    /// The chain that the action jumps to, if any.
    pub fn target(&self) -> Option<&Name> {
        match self {
            Self::Jump(target) => Some(target),
            Self::Return
            | Self::Accept
            | Self::Drop
            | Self::Reject(_)
            | Self::Redirect(_)
            | Self::Tproxy { .. }
            | Self::SetMark(_)
            | Self::SaveMark
            | Self::RestoreMark
            | Self::SetZone(_)
            | Self::SetTimeouts => None,
        }
    }
}
