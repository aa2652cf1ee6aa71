//! Options without effect: valid, but unused beside other options or the observed facts.

use std::fmt;

use super::context::{DNS_PORT, Lookups};
use super::{Plan, policy};
use crate::facts::Facts;
use crate::mesh;
use crate::options::Config;
use crate::ruleset::Action;
use crate::types::{Cidrs, DnsServers, Families, Family, InboundMode, Policy};

/// An option that has no effect, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEffect {
    /// No rule redirects anything.
    Everything,
    /// `--redirect-dns`: `/etc/resolv.conf` names no server.
    NoNameServer,
    /// `--redirect-dns`: no server is of a family that is redirected.
    NameServersOfOtherFamily,
    /// `--redirect-dns`: the port of name servers is excluded.
    LookupsExcluded,
    /// `--redirect-dns`: no groups are included.
    NoGroupsIncluded,
    /// `--dns-servers`: lookups are not captured.
    DnsNotRedirected,
    /// `--include-outbound-cidrs`: no network is of a family that is redirected.
    DestinationsOfOtherFamily,
    /// `--inbound-mode tproxy`: no inbound ports are captured.
    NoInboundPorts,
    /// `--bound-interfaces`: no outbound connections are captured.
    NoOutboundConnections,
    /// `--bound-interfaces`: all of them are excluded.
    BoundInterfacesExcluded,
    /// `--allow-dns`: no policy rejects DNS queries.
    NoOutboundPolicy,
    /// `--allow-dns`: there is no name server.
    NoAllowedServer,
}

impl NoEffect {
    /// The option, as flags write it.
    pub fn option(self) -> &'static str {
        match self {
            Self::Everything | Self::DestinationsOfOtherFamily => "--include-outbound-cidrs",
            Self::NoNameServer | Self::NameServersOfOtherFamily | Self::LookupsExcluded | Self::NoGroupsIncluded => {
                "--redirect-dns"
            }
            Self::DnsNotRedirected => "--dns-servers",
            Self::NoOutboundPolicy | Self::NoAllowedServer => "--allow-dns",
            Self::NoInboundPorts => "--inbound-mode tproxy",
            Self::NoOutboundConnections | Self::BoundInterfacesExcluded => "--bound-interfaces",
        }
    }

    /// Why it has no effect.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Everything => "no port and no address is included: nothing is redirected",
            Self::NoNameServer => "/etc/resolv.conf names no server by a valid address, so that no lookup is captured",
            Self::NameServersOfOtherFamily => {
                "all name servers are of the IP family that is not redirected, so that no lookup is captured"
            }
            Self::LookupsExcluded => "port 53 is excluded, so that no lookup is captured",
            Self::NoGroupsIncluded => "no group is included, so that no lookup is captured",
            Self::DnsNotRedirected => "lookups are captured with --redirect-dns alone",
            Self::DestinationsOfOtherFamily => {
                "all of them are of the IP family that is not redirected, so that no outbound connection is captured"
            }
            Self::NoInboundPorts => "no inbound port is captured",
            Self::NoOutboundConnections => "no outbound connection is captured",
            Self::BoundInterfacesExcluded => "--exclude-interfaces excludes these interfaces",
            Self::NoOutboundPolicy => "without --outbound-policy proxy-only nothing is rejected",
            Self::NoAllowedServer => {
                "/etc/resolv.conf names no server by a valid address, so that all queries are rejected"
            }
        }
    }

    /// What to do.
    fn advice(self) -> &'static str {
        match self {
            Self::Everything => "Include what shall be redirected",
            Self::NoNameServer => "Name the servers with --dns-servers, or pass --dns-servers all",
            Self::NameServersOfOtherFamily | Self::DestinationsOfOtherFamily => {
                "Give addresses of the family that is redirected, or set --ip-family to redirect both"
            }
            Self::LookupsExcluded => "Take 53 out of --exclude-outbound-ports, or leave --redirect-dns out",
            Self::NoGroupsIncluded => "Name groups with --include-gids, or leave --redirect-dns out",
            Self::DnsNotRedirected => "Pass --redirect-dns, too",
            Self::NoInboundPorts => "Include inbound ports, or leave the mode out",
            Self::NoOutboundConnections => "Include outbound ports or addresses, or leave the interfaces out",
            Self::NoOutboundPolicy => "Pass --outbound-policy proxy-only, too, or leave it out",
            Self::NoAllowedServer => "Name the servers with --dns-servers",
            Self::BoundInterfacesExcluded => "Name the interfaces with one of the two options only",
        }
    }
}

impl fmt::Display for NoEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has no effect: {}. {}",
            self.option(),
            self.reason(),
            self.advice()
        )
    }
}

/// The options that have no effect on this plan, which was made from these.
pub fn without_effect(config: &Config, facts: &Facts, plan: &Plan) -> Vec<NoEffect> {
    let rules = plan.ruleset.chains.iter().flat_map(|chain| &chain.rules);
    let acts = |action: &Action| matches!(action, Action::Redirect(_) | Action::Tproxy { .. } | Action::Reject(_));
    if !rules.into_iter().any(|rule| acts(&rule.action)) {
        return vec![NoEffect::Everything];
    }
    let families = plan.ruleset.families;
    let (dns, outbound, inbound) = (&config.dns, &config.outbound, &config.inbound);
    let of_mesh = mesh::named(config.proxy.mesh).and_then(|mesh| mesh.layer().dns_servers);
    let by_default = of_mesh.unwrap_or(DnsServers::ResolvConf);
    let of_other_family = outbound.include_ports.is_empty()
        && !outbound.include_cidrs.is_empty()
        && !has_any_of(&outbound.include_cidrs, families);
    [
        uncaptured_lookups(config, facts, families),
        (!dns.redirect && !outbound.allow_dns && dns.servers != by_default).then_some(NoEffect::DnsNotRedirected),
        of_other_family.then_some(NoEffect::DestinationsOfOtherFamily),
        (inbound.mode == InboundMode::Tproxy && inbound.include_ports.is_empty()).then_some(NoEffect::NoInboundPorts),
        bound_interfaces(config),
        allowed_lookups(config, facts),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Why no lookups are captured though they are to be, if so.
pub fn uncaptured_lookups(config: &Config, facts: &Facts, families: Families) -> Option<NoEffect> {
    match Lookups::new(config, facts) {
        _ if !config.dns.redirect => None,
        Some(Lookups::All) => None,
        Some(Lookups::To(servers) | Lookups::FromAllSenders(servers)) => {
            (!has_any_of(&servers, families)).then_some(NoEffect::NameServersOfOtherFamily)
        }
        None if config.outbound.exclude_ports.contains(DNS_PORT) => Some(NoEffect::LookupsExcluded),
        None if config.outbound.include_gids.is_empty() => Some(NoEffect::NoGroupsIncluded),
        None => Some(NoEffect::NoNameServer),
    }
}

fn allowed_lookups(config: &Config, facts: &Facts) -> Option<NoEffect> {
    match config.outbound.policy {
        _ if !config.outbound.allow_dns => None,
        Policy::Allow => Some(NoEffect::NoOutboundPolicy),
        Policy::ProxyOnly => policy::name_servers(config, &facts.resolvers)
            .is_empty()
            .then_some(NoEffect::NoAllowedServer),
    }
}

fn bound_interfaces(config: &Config) -> Option<NoEffect> {
    let general = &config.general;
    let is_excluded = |name| general.exclude_interfaces.contains(name);
    match general.bound_interfaces.as_slice() {
        [] => None,
        _ if !config.redirects_to_loopback() => Some(NoEffect::NoOutboundConnections),
        names => names
            .iter()
            .all(is_excluded)
            .then_some(NoEffect::BoundInterfacesExcluded),
    }
}

fn has_any_of(cidrs: &Cidrs, families: Families) -> bool {
    families.iter().any(|family| match family {
        Family::V4 => !cidrs.v4().is_empty(),
        Family::V6 => !cidrs.v6().is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Settings;
    use crate::types::{InterfaceName, IpFamily, Ports, parse_cidrs, parse_ports};

    fn found(facts: &Facts, change: impl FnOnce(&mut Config)) -> Vec<NoEffect> {
        let mut config = Settings::default().config;
        change(&mut config);
        let plan = Plan::new(&config, facts).unwrap();
        without_effect(&config, facts, &plan)
    }

    #[test]
    fn reports_why_lookups_are_not_captured() {
        let knows = |servers: &[&str]| Facts {
            resolvers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            ..Facts::default()
        };
        let with = |facts: &Facts, more: fn(&mut Config)| {
            found(facts, |config| {
                config.dns.redirect = true;
                more(config);
            })
        };
        let v4_alone = |config: &mut Config| config.general.ip_family = IpFamily::Ipv4;
        assert_eq!(with(&knows(&[]), |_| {}), [NoEffect::NoNameServer]);
        assert_eq!(with(&knows(&["::1"]), v4_alone), [NoEffect::NameServersOfOtherFamily]);
        assert_eq!(with(&knows(&["10.0.0.1"]), v4_alone), []);
        assert_eq!(
            with(&knows(&["10.0.0.1"]), |config| config.outbound.exclude_ports =
                parse_ports("50-60").unwrap()),
            [NoEffect::LookupsExcluded]
        );
        let all = |config: &mut Config| config.dns.servers = DnsServers::All;
        assert_eq!(with(&knows(&[]), all), []);
        assert_eq!(found(&knows(&[]), all), [NoEffect::DnsNotRedirected]);
    }

    #[test]
    fn reports_options_of_traffic_that_is_not_redirected() {
        let facts = Facts::default();
        let v6 = |config: &mut Config| config.outbound.include_cidrs = parse_cidrs("fd00::/8").unwrap();
        assert_eq!(found(&facts, v6), []);
        let of_v4_alone = |config: &mut Config| {
            v6(config);
            config.general.ip_family = IpFamily::Ipv4;
        };
        assert_eq!(found(&facts, of_v4_alone), [NoEffect::DestinationsOfOtherFamily]);
        let no_ports = |config: &mut Config| {
            config.inbound.mode = InboundMode::Tproxy;
            config.inbound.include_ports = Ports::default();
        };
        assert_eq!(found(&facts, no_ports), [NoEffect::NoInboundPorts]);
        let bound_alone = |config: &mut Config| {
            config.general.bound_interfaces = vec![InterfaceName::parse("eth0").unwrap()];
            config.outbound.include_cidrs = parse_cidrs("").unwrap();
        };
        assert_eq!(found(&facts, bound_alone), [NoEffect::NoOutboundConnections]);
        let excluded = |config: &mut Config| {
            let eth0 = InterfaceName::parse("eth0").unwrap();
            config.general.bound_interfaces = vec![eth0.clone()];
            config.general.exclude_interfaces = vec![eth0];
        };
        assert_eq!(found(&facts, excluded), [NoEffect::BoundInterfacesExcluded]);
        let nothing = |config: &mut Config| {
            no_ports(config);
            config.outbound.include_cidrs = parse_cidrs("").unwrap();
        };
        assert_eq!(found(&facts, nothing), [NoEffect::Everything]);
        assert_eq!(found(&facts, |_| {}), []);
    }

    #[test]
    fn each_option_without_effect_has_advice() {
        let text = NoEffect::NoNameServer.to_string();
        assert!(text.starts_with("--redirect-dns has no effect: "), "{text}");
        assert!(text.contains("--dns-servers all"), "{text}");
    }
}
