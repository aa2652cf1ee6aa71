//! Input and shared state of the functions that build a plan.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::sets::Sets;
use crate::facts::Facts;
use crate::mesh::{self, Delivery};
use crate::options::{Config, Dialect};
use crate::ruleset::{Action, Addresses, Cgroup, Match, Protocol, Rule};
use crate::types::{Cidrs, DnsServers, Families, Family, InterfaceName, Port};

/// The configuration, values derived from it, and the sets added so far.
pub struct Context<'c> {
    /// The configuration.
    pub config: &'c Config,
    /// The families to redirect.
    pub families: Families,
    /// The ID of the proxy's cgroup, if it was observed.
    pub proxy_cgroup: Option<u64>,
    /// The name lookups to capture, if any.
    pub dns: Option<Lookups>,
    /// The name servers of `/etc/resolv.conf`.
    pub resolvers: &'c [IpAddr],
    /// The sets added so far.
    pub sets: Sets,
}

impl Context<'_> {
    /// Rules that skip traffic to loopback addresses.
    pub fn skip_loopback(&mut self) -> Vec<Rule> {
        let v4 = IpNet::from(self.config.general.loopback_cidr.net());
        let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
        let loopback: Cidrs = [v4, v6].into_iter().collect();
        self.sets
            .addresses("loopback", &loopback, self.families, Match::Destination)
            .into_iter()
            .map(|destination| skip([destination], "loopback"))
            .collect()
    }

    /// How the proxy connects to the application.
    pub fn delivery(&self) -> Delivery {
        mesh::delivery(self.config.proxy.mesh)
    }

    /// Whether the proxy answers name lookups over TCP.
    pub fn dns_over_tcp(&self) -> bool {
        mesh::answers_dns_over_tcp(self.config.proxy.mesh)
    }

    /// The matches for packets of the proxy's sockets: one list for its users, and one for its groups. Mark and cgroup are
    /// required in addition to them, or alone where there are none.
    pub fn proxy_senders(&mut self) -> Vec<Vec<Match>> {
        let mark = self.config.proxy.mark.map(Match::Mark);
        let cgroup = self.config.processes.cgroup.as_ref().map(|path| {
            Match::Cgroup(Cgroup {
                level: path.level(),
                path: Some(path.clone()),
                id: self.proxy_cgroup,
            })
        });
        let required: Vec<Match> = mark.into_iter().chain(cgroup).collect();
        let owners = self.proxy_owners();
        if owners.is_empty() {
            return vec![required];
        }
        let with_owner = |owner| [owner].into_iter().chain(required.clone()).collect();
        owners.into_iter().map(with_owner).collect()
    }

    /// The matches for answers of the proxy to name lookups, from its port: by user and by group. The proxy may have
    /// marked only the sockets with which it connects; answers leave the pod only where its port is reachable from
    /// outside, and the rules for them set nothing but the conntrack zone.
    pub fn answering_owners(&mut self) -> Vec<Option<Match>> {
        match self.proxy_owners() {
            owners if owners.is_empty() => vec![None],
            owners => owners.into_iter().map(Some).collect(),
        }
    }

    fn proxy_owners(&mut self) -> Vec<Match> {
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
    /// Those of all senders, the proxy included, to these servers on loopback: the proxy answers there itself.
    FromAllSenders(Cidrs),
}

impl Lookups {
    /// The captured lookups; `None` if there is no name server or lookups are not redirected.
    pub fn new(config: &Config, facts: &Facts) -> Option<Self> {
        let servers = |addresses: &[IpAddr]| addresses.iter().map(|address| (*address).into()).collect::<Cidrs>();
        // With Istio's rules all queries change their zone, even where none is captured.
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
            return Some(Self::FromAllSenders(servers(asked)));
        }
        if left_alone && config.dialect == Dialect::Sidetrack {
            return None;
        }
        if config.dns.servers == DnsServers::All {
            return Some(Self::All);
        }
        (!asked.is_empty()).then(|| Self::To(servers(asked)))
    }

    /// Whether conntrack could confuse the proxy's queries with an application's, so that they need separate zones.
    pub fn need_zones(&self) -> bool {
        !matches!(self, Self::FromAllSenders(_))
    }
}

/// Builds a rule.
pub fn rule(matches: impl IntoIterator<Item = Match>, action: Action, comment: &'static str) -> Rule {
    Rule {
        matches: matches.into_iter().collect(),
        action,
        has_counter: false,
        comment: comment.into(),
    }
}

/// A rule that skips matching packets.
pub fn skip(matches: impl IntoIterator<Item = Match>, comment: &'static str) -> Rule {
    rule(matches, Action::Return, comment)
}

/// The match for TCP.
pub fn tcp() -> Match {
    Match::Protocol(Protocol::Tcp)
}

/// Packets that leave by the loopback interface: local processes send them to this host.
pub fn over_loopback() -> Match {
    Match::OutInterface(InterfaceName::loopback())
}

/// Packets of the proxy to the application, by their source address.
pub fn from_passthrough(family: Family) -> Match {
    Match::Source(Addresses::Ip(super::passthrough(family)))
}
