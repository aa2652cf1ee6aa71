//! What every part of a plan is made from.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::sets::Sets;
use crate::facts::Facts;
use crate::mesh::{self, Delivery};
use crate::options::{Config, Dialect};
use crate::ruleset::{Action, Addresses, Match, Protocol, Rule};
use crate::types::{Cidrs, DnsServers, Families, Family, InterfaceName, Port};

/// The configuration, what follows from it for the whole plan, and the sets made so far.
pub struct Context<'c> {
    /// The configuration.
    pub config: &'c Config,
    /// The families to redirect.
    pub families: Families,
    /// The name lookups to capture, if any.
    pub dns: Option<Lookups>,
    /// The sets made so far.
    pub sets: Sets,
}

impl Context<'_> {
    /// Leaves traffic to loopback addresses alone.
    pub fn leave_loopback_alone(&mut self) -> Vec<Rule> {
        let v4 = IpNet::from(self.config.general.loopback_cidr.net());
        let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
        let loopback: Cidrs = [v4, v6].into_iter().collect();
        self.sets
            .addresses("loopback", &loopback, self.families, Match::Destination)
            .into_iter()
            .map(|destination| leave_alone([destination], "loopback"))
            .collect()
    }

    /// How the proxy hands connections to the application.
    pub fn delivery(&self) -> Delivery {
        mesh::delivery(self.config.proxy.mesh)
    }

    /// Whether the proxy takes name lookups over TCP.
    pub fn dns_over_tcp(&self) -> bool {
        mesh::named(self.config.proxy.mesh).is_none_or(|mesh| mesh.dns_over_tcp)
    }

    /// The matches for the proxy's users, and for its groups.
    pub fn proxy_owners(&mut self) -> Vec<Match> {
        let proxy = &self.config.proxy;
        let uids = self.sets.uid("proxy_uids", &proxy.uids);
        let gids = self.sets.gid("proxy_gids", &proxy.gids);
        [uids, gids].into_iter().flatten().collect()
    }
}

/// The port of name servers.
pub const DNS_PORT: Port = match Port::new(53) {
    Some(port) => port,
    None => unreachable!(),
};

/// The name lookups that are captured.
pub enum Lookups {
    /// All.
    All,
    /// Those to these servers; never none.
    To(Cidrs),
    /// Those to these servers on loopback, of everybody: the proxy does not ask them, and nobody else answers there.
    OfEverybody(Cidrs),
}

impl Lookups {
    /// What is captured, if anything: without a single name server nothing is.
    pub fn new(config: &Config, facts: &Facts) -> Option<Self> {
        let servers = |addresses: &[IpAddr]| addresses.iter().map(|address| (*address).into()).collect::<Cidrs>();
        // Istio's rules go half the way where nothing is to be captured: all queries change their zone nevertheless.
        let outbound = &config.outbound;
        let left_alone = outbound.exclude_ports.contains(DNS_PORT) || outbound.include_gids.is_empty();
        if !config.dns.redirect {
            return None;
        }
        let asked: &[IpAddr] = match &config.dns.servers {
            DnsServers::All => &[],
            DnsServers::These(addresses) => addresses,
            DnsServers::ResolvConf => &facts.resolvers,
        };
        let of_mesh = mesh::named(config.proxy.mesh).is_some_and(|mesh| mesh.dns_on_loopback);
        if of_mesh && !asked.is_empty() && asked.iter().all(IpAddr::is_loopback) {
            return Some(Self::OfEverybody(servers(asked)));
        }
        if left_alone && config.dialect == Dialect::Sidetrack {
            return None;
        }
        if config.dns.servers == DnsServers::All {
            return Some(Self::All);
        }
        (!asked.is_empty()).then(|| Self::To(servers(asked)))
    }

    /// Whether what the proxy asks could be taken for what an application asked, unless they have zones of their own.
    pub fn need_zones(&self) -> bool {
        !matches!(self, Self::OfEverybody(_))
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
