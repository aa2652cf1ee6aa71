//! What bypasses the proxy despite a policy: the proxy's own traffic, and everything that options exclude.

use std::fmt;

use super::policy;
use crate::facts::Facts;
use crate::options::{Config, Dialect};
use crate::types::Policy;

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
/// the kernel itself sends stay in any case.
pub fn bypasses(config: &Config, facts: &Facts) -> Vec<Bypass> {
    let mut bypasses = Vec::new();
    if config.dialect != Dialect::Sidetrack {
        return bypasses;
    }
    if config.outbound.policy == Policy::ProxyOnly {
        bypasses.extend(listed(Direction::Outbound, outbound(config)));
        bypasses.extend(allowed_queries(config, facts));
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

/// The DNS queries that are allowed.
fn allowed_queries(config: &Config, facts: &Facts) -> Option<Bypass> {
    let servers = policy::name_servers(config, &facts.resolvers);
    let v4 = servers.v4().iter().map(|server| server.addr().to_string());
    let servers: Vec<String> = v4
        .chain(servers.v6().iter().map(|server| server.addr().to_string()))
        .collect();
    let is_any = config.outbound.allow_dns && !servers.is_empty();
    is_any.then(|| Bypass {
        direction: Direction::Outbound,
        option: "--allow-dns".to_owned(),
        value: None,
        traffic: format!("DNS queries to {}", servers.join(", ")),
    })
}

fn joined<T: ToString>(values: &[T], separator: &str) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(separator)
}
