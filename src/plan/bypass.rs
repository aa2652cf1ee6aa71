//! What bypasses the proxy despite a policy: the proxy's own traffic, and everything that options exclude.

use std::fmt;
use std::net::IpAddr;

use super::captured::captures_query;
use super::context::Lookups;
use super::policy;
use crate::facts::Facts;
use crate::options::{Config, Dialect};
use crate::ruleset::Protocol;
use crate::types::{Families, Family, Policy};

/// The direction of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What leaves the pod, or what processes behind rerouted interfaces send.
    Outbound,
    /// What arrives.
    Inbound,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Traffic that a policy leaves because of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// Its direction.
    pub direction: Direction,
    /// The option, as flags write it.
    pub option: String,
    /// Its value, as flags write it, if it has one.
    pub value: Option<String>,
    /// The traffic, a phrase.
    pub traffic: String,
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.option)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        write!(f, ": {}", self.traffic)
    }
}

/// What bypasses the proxy although a policy of these options rejects all else. Traffic within the pod, answers and what
/// the kernel itself sends stay in any case. `families` are those that are redirected.
pub fn bypasses(config: &Config, facts: &Facts, families: Families) -> Vec<Bypass> {
    let mut bypasses = Vec::new();
    if config.dialect != Dialect::Sidetrack {
        return bypasses;
    }
    if config.outbound.policy == Policy::ProxyOnly {
        bypasses.extend(listed(Direction::Outbound, outbound(config)));
        bypasses.extend(allowed_queries(config, facts, families));
    }
    if config.inbound.policy == Policy::ProxyOnly {
        bypasses.extend(listed(Direction::Inbound, inbound(config)));
    }
    bypasses
}

/// An option, its value, and what it lets pass; without a value, nothing.
type Entry = (&'static str, String, &'static str);

fn listed<const N: usize>(direction: Direction, entries: [Entry; N]) -> impl Iterator<Item = Bypass> {
    let used = entries.into_iter().filter(|(_, value, _)| !value.is_empty());
    used.map(move |(option, value, traffic)| Bypass {
        direction,
        option: option.to_owned(),
        value: Some(value),
        traffic: traffic.to_owned(),
    })
}

fn outbound(config: &Config) -> [Entry; 11] {
    let (proxy, outbound, general) = (&config.proxy, &config.outbound, &config.general);
    let for_uids = joined(&outbound.exclude_ports_for_uids, ";");
    let cgroup = config.processes.cgroup.as_ref();
    let of_proxy = match (proxy.mark, cgroup) {
        (Some(_), Some(_)) => "the proxy's traffic, with its mark and in its cgroup",
        (Some(_), None) => "the proxy's traffic, with its mark",
        (None, Some(_)) => "the proxy's traffic, in its cgroup",
        (None, None) => "the proxy's traffic",
    };
    let interfaces = joined(&general.exclude_interfaces, ",");
    let rerouted = joined(&general.reroute_interfaces, ",");
    let to_networks = "everything to these networks";
    [
        ("--proxy-uid", proxy.uids.to_string(), of_proxy),
        ("--proxy-gid", proxy.gids.to_string(), of_proxy),
        ("--proxy-mark", joined(proxy.mark.as_slice(), ","), of_proxy),
        ("--proxy-cgroup", joined(cgroup.as_slice(), ","), of_proxy),
        (
            "--exclude-outbound-ports",
            outbound.exclude_ports.to_string(),
            "TCP to these ports",
        ),
        (
            "--exclude-uids",
            outbound.exclude_uids.to_string(),
            "everything that these users send",
        ),
        (
            "--exclude-gids",
            outbound.exclude_gids.to_string(),
            "everything that these groups send",
        ),
        (
            "--exclude-outbound-ports-for-uids",
            for_uids,
            "what these users send to these ports",
        ),
        (
            "--exclude-outbound-cidrs",
            outbound.exclude_cidrs.to_string(),
            to_networks,
        ),
        (
            "--exclude-interfaces",
            interfaces,
            "everything that leaves by these interfaces",
        ),
        (
            "--reroute-interfaces",
            rerouted,
            "what is forwarded between these interfaces",
        ),
    ]
}

fn inbound(config: &Config) -> [Entry; 5] {
    let (inbound, general) = (&config.inbound, &config.general);
    let interfaces = joined(&general.exclude_interfaces, ",");
    let rerouted = joined(&general.reroute_interfaces, ",");
    let by_interfaces = "everything that arrives on these interfaces";
    [
        (
            "--mesh-ports",
            config.proxy.mesh_ports.to_string(),
            "TCP to these ports",
        ),
        (
            "--exclude-inbound-ports",
            inbound.exclude_ports.to_string(),
            "TCP to these ports",
        ),
        (
            "--exclude-inbound-cidrs",
            inbound.exclude_cidrs.to_string(),
            "everything from these networks",
        ),
        ("--exclude-interfaces", interfaces, by_interfaces),
        ("--reroute-interfaces", rerouted, by_interfaces),
    ]
}

/// The queries to a name server that leave the pod past the proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queries {
    All,
    OverUdp,
    OverTcp,
    None,
}

/// The DNS queries that are allowed, and that are not captured.
fn allowed_queries(config: &Config, facts: &Facts, families: Families) -> Vec<Bypass> {
    if !config.outbound.allow_dns {
        return Vec::new();
    }
    let servers = policy::name_servers(config, &facts.resolvers);
    let v4 = servers.v4().iter().map(|server| IpAddr::from(server.addr()));
    let v6 = servers.v6().iter().map(|server| IpAddr::from(server.addr()));
    // Queries to loopback addresses stay in the pod.
    let remote = v4.chain(v6).filter(|server| !server.is_loopback());
    let lookups = Lookups::new(config, facts);
    let remote: Vec<(IpAddr, Queries)> = remote
        .map(|server| {
            let is_redirected = families.contains(Family::of(server));
            (server, uncaptured(config, lookups.as_ref(), server, is_redirected))
        })
        .collect();
    let list = |traffic, is_listed: &dyn Fn(Queries) -> bool| {
        let servers = remote.iter().filter(|(_, queries)| is_listed(*queries));
        let servers: Vec<String> = servers.map(|(server, _)| server.to_string()).collect();
        (!servers.is_empty()).then(|| Bypass {
            direction: Direction::Outbound,
            option: "--allow-dns".to_owned(),
            value: None,
            traffic: format!("{traffic} {}", servers.join(", ")),
        })
    };
    let captures_everyone = config.outbound.include_gids.is_everything();
    [
        list("DNS queries to", &|queries| queries == Queries::All),
        list("DNS queries over UDP to", &|queries| queries == Queries::OverUdp),
        list("DNS queries over TCP to", &|queries| queries == Queries::OverTcp),
        list("DNS queries of groups that are not included, to", &|queries| {
            !captures_everyone && queries != Queries::All
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The queries of included groups to this name server that are not captured.
fn uncaptured(config: &Config, lookups: Option<&Lookups>, server: IpAddr, is_redirected: bool) -> Queries {
    let is_captured = |protocol| is_redirected && captures_query(config, lookups, protocol, server);
    match (is_captured(Protocol::Udp), is_captured(Protocol::Tcp)) {
        (true, true) => Queries::None,
        (true, false) => Queries::OverTcp,
        (false, true) => Queries::OverUdp,
        (false, false) => Queries::All,
    }
}

fn joined<T: ToString>(values: &[T], separator: &str) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::options::Settings;
    use crate::types::{DnsServers, Gid, Gids, Id as _, MeshName, parse_cidrs};

    /// What of the allowed queries leaves.
    fn queries(change: impl FnOnce(&mut Config), families: Families) -> Vec<String> {
        let mut config = Settings::default().config;
        config.outbound.policy = Policy::ProxyOnly;
        config.outbound.allow_dns = true;
        change(&mut config);
        let resolvers = ["10.96.0.10", "fd96::a", "127.0.0.53"];
        let facts = Facts {
            resolvers: resolvers.map(|server| server.parse().unwrap()).to_vec(),
            ..Facts::default()
        };
        let mut found = bypasses(&config, &facts, families);
        found.retain(|bypass| bypass.option == "--allow-dns");
        found.into_iter().map(|bypass| bypass.traffic).collect()
    }

    #[test]
    fn allowed_queries_are_listed_if_they_leave() {
        let all = "10.96.0.10, fd96::a";
        assert_eq!(
            queries(|_| {}, Families::Both),
            [format!("DNS queries over UDP to {all}")]
        );
        let uncaptured = queries(
            |config| config.outbound.include_cidrs = parse_cidrs("192.0.2.0/24").unwrap(),
            Families::Both,
        );
        assert_eq!(uncaptured, [format!("DNS queries to {all}")]);
    }

    #[test]
    fn captured_queries_are_not_listed() {
        for servers in [DnsServers::All, DnsServers::ResolvConf] {
            let captured = |config: &mut Config| {
                config.dns.redirect = true;
                config.dns.servers = servers.clone();
            };
            assert_eq!(queries(captured, Families::Both), [""; 0], "{servers:?}");
            let of_one = queries(captured, Families::Only(Family::V4));
            assert_eq!(of_one, ["DNS queries to fd96::a"], "{servers:?}");
        }
    }

    #[test]
    fn queries_of_others_and_those_that_the_proxy_does_not_answer_are_listed() {
        let of_group = |config: &mut Config| {
            config.dns.redirect = true;
            config.outbound.include_gids = [Gid::new(1000).unwrap()].into_iter().collect::<Gids>();
        };
        assert_eq!(
            queries(of_group, Families::Only(Family::V4)),
            [
                "DNS queries to fd96::a",
                "DNS queries of groups that are not included, to 10.96.0.10"
            ]
        );
        let over_udp = |config: &mut Config| {
            config.dns.redirect = true;
            config.proxy.mesh = MeshName::Kuma;
        };
        assert_eq!(
            queries(over_udp, Families::Both),
            ["DNS queries over TCP to 10.96.0.10, fd96::a"]
        );
    }

    #[test]
    fn cgroup_of_the_proxy_is_listed() {
        let mut config = Settings::default().config;
        config.outbound.policy = Policy::ProxyOnly;
        config.processes.cgroup = Some(crate::types::CgroupPath::parse("system.slice/envoy.service").unwrap());
        let found = bypasses(&config, &Facts::default(), Families::Both);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        let expected = "--proxy-cgroup=system.slice/envoy.service: the proxy's traffic, in its cgroup";
        assert!(texts.iter().any(|text| text == expected), "{texts:?}");
    }
}
