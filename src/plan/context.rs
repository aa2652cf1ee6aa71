//! What every part of a plan is made from.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::dns::Capture;
use super::sets::Sets;
use crate::config::Config;
use crate::config::types::{Cidrs, InterfaceName};
use crate::ruleset::{Action, Addresses, Families, Family, Match, Protocol, Rule};

/// The configuration, what follows from it for the whole plan, and the sets made so far.
pub struct Context<'c> {
    /// The configuration.
    pub config: &'c Config,
    /// The families to redirect.
    pub families: Families,
    /// The name lookups to capture, if any.
    pub dns: Option<Capture>,
    /// The sets made so far.
    pub sets: Sets,
}

impl Context<'_> {
    /// Leaves traffic to loopback addresses alone.
    pub fn leave_loopback_alone(&mut self) -> Vec<Rule> {
        let v4 = IpNet::from(self.config.loopback_cidr.net());
        let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
        let loopback: Cidrs = [v4, v6].into_iter().collect();
        self.sets
            .addresses("loopback", &loopback, self.families, Match::Destination)
            .into_iter()
            .map(|destination| leave_alone([destination], "loopback"))
            .collect()
    }

    /// The matches for the proxy's users, and for its groups.
    pub fn proxy_owners(&mut self) -> Vec<Match> {
        let proxy = &self.config.proxy;
        let uids = self.sets.uid("proxy_uids", &proxy.uids);
        let gids = self.sets.gid("proxy_gids", &proxy.gids);
        [uids, gids].into_iter().flatten().collect()
    }
}

/// A rule.
pub fn rule(matches: impl IntoIterator<Item = Match>, action: Action, comment: &'static str) -> Rule {
    Rule {
        matches: matches.into_iter().collect(),
        action,
        comment: comment.into(),
    }
}

/// A rule that leaves what matches alone.
pub fn leave_alone(matches: impl IntoIterator<Item = Match>, comment: &'static str) -> Rule {
    rule(matches, Action::Return, comment)
}

/// TCP.
pub fn tcp() -> Match {
    Match::Protocol(Protocol::Tcp)
}

/// What local processes send to this host.
pub fn over_loopback() -> Match {
    Match::OutInterface(InterfaceName::loopback())
}

/// What comes from the address that the proxy passes traffic on from.
pub fn from_passthrough(family: Family) -> Match {
    Match::Source(Addresses::Ip(super::passthrough(family)))
}
