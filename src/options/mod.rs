//! The configuration of a redirection: merged from every source, and valid by type.

pub mod file;
pub mod problem;
pub mod sources;
pub mod table;
mod value;

use ipnet::IpNet;

use self::problem::Problem;
pub use self::table::{Dns, DryRun, General, Inbound, Installation, Layer, Logging, Outbound, Processes, Proxy};
use crate::types::{Cidrs, Family, Gid, InboundMode, InterfaceName, Uid};

/// The configuration of a redirection, grouped by direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The proxy that traffic is redirected to.
    pub proxy: Proxy,
    /// How this host knows the proxy's processes.
    pub processes: Processes,
    /// Which connections to the pod are captured.
    pub inbound: Inbound,
    /// Which connections from the pod are captured.
    pub outbound: Outbound,
    /// Which DNS queries are captured.
    pub dns: Dns,
    /// Options for both directions.
    pub general: General,
    /// The behaviour where sidetrack and a mesh differ.
    pub dialect: Dialect,
}

/// The behaviour of the plan where sidetrack and a mesh differ. `docs/istio-iptables.md` describes the differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The behaviour of sidetrack.
    Sidetrack,
    /// Exactly the behaviour of Istio's iptables rules, which depend on the order of the proxy's users and groups.
    Istio(OwnerOrder),
    /// Exactly the behaviour of Kuma's iptables rules. `docs/kuma-init.md` describes the differences.
    Kuma(KumaRules),
}

impl Config {
    /// The options of a pod that differ from those of `other`: each name, and the value as one text that can be read
    /// back.
    pub fn differing(&self, other: &Self) -> Vec<(&'static str, String)> {
        let Self {
            proxy,
            processes,
            inbound,
            outbound,
            dns,
            general,
            dialect: _,
        } = self;
        [
            proxy.differing(&other.proxy),
            processes.differing(&other.processes),
            inbound.differing(&other.inbound),
            outbound.differing(&other.outbound),
            dns.differing(&other.dns),
            general.differing(&other.general),
        ]
        .concat()
    }

    /// Whether any outbound traffic besides DNS is captured.
    pub fn captures_outbound(&self) -> bool {
        !self.outbound.include_ports.is_empty() || !self.outbound.include_cidrs.is_empty()
    }

    /// Whether locally generated packets are redirected, to the loopback address: connections or DNS queries.
    pub fn redirects_to_loopback(&self) -> bool {
        self.captures_outbound() || self.dns.redirect
    }
}

/// The settings of Kuma's rules that are not options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KumaRules {
    /// Whether DNS over TCP is redirected like any other connection. If not, it is excluded while DNS over UDP is captured.
    pub redirects_dns_over_tcp: bool,
    /// Whether captured DNS is tracked in conntrack zones of its own.
    pub splits_conntrack_zones: bool,
    /// Virtual networks whose traffic passes through this host.
    pub networks: Vec<VirtualNetwork>,
}

impl Default for KumaRules {
    fn default() -> Self {
        Self {
            redirects_dns_over_tcp: false,
            splits_conntrack_zones: true,
            networks: Vec::new(),
        }
    }
}

/// A network of virtual machines or containers behind an interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualNetwork {
    /// The interface.
    pub interface: InterfaceName,
    /// The addresses of the network.
    pub cidr: IpNet,
}

impl VirtualNetwork {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.cidr.addr())
    }
}

/// The proxy's users and groups in the order given: the same ones as in [`Proxy`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerOrder {
    /// Users.
    pub uids: Vec<Uid>,
    /// Groups.
    pub gids: Vec<Gid>,
}

/// The settings from all options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The redirection.
    pub config: Config,
    /// How rules are installed.
    pub install: Installation,
    /// Whether the plan is only printed, and its format.
    pub dry_run: DryRun,
    /// How to log.
    pub logging: Logging,
    /// Whether an option sets the IP families, rather than the mesh's defaults.
    pub has_explicit_family: bool,
}

impl Settings {
    /// Completes `layer` with the defaults, and checks for contradictions.
    ///
    /// # Errors
    /// Every contradiction between values.
    pub fn from_layer(layer: Layer) -> Result<Self, Vec<Problem>> {
        let settings = Self::merged(layer);
        let problems = contradictions(&settings.config);
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems)
        }
    }

    fn merged(mut layer: Layer) -> Self {
        // A list of ports replaces the default of all addresses.
        if layer
            .include_outbound_ports
            .as_ref()
            .is_some_and(|ports| !ports.is_empty())
        {
            layer.include_outbound_cidrs.get_or_insert_with(Cidrs::default);
        }
        Self {
            has_explicit_family: layer.ip_family.is_some(),
            config: Config {
                proxy: Proxy::from_layer(&mut layer),
                processes: Processes::from_layer(&mut layer),
                inbound: Inbound::from_layer(&mut layer),
                outbound: Outbound::from_layer(&mut layer),
                dns: Dns::from_layer(&mut layer),
                general: General::from_layer(&mut layer),
                dialect: Dialect::Sidetrack,
            },
            install: Installation::from_layer(&mut layer),
            dry_run: DryRun::from_layer(&mut layer),
            logging: Logging::from_layer(&mut layer),
        }
    }
}

impl Logging {
    /// The log settings of these options.
    pub fn of(layer: &Layer) -> Self {
        Self::from_layer(&mut layer.clone())
    }
}

/// The settings without any options.
impl Default for Settings {
    fn default() -> Self {
        Self::merged(Layer::default())
    }
}

fn contradictions(config: &Config) -> Vec<Problem> {
    let proxy = &config.proxy;
    let mut problems = Vec::new();
    if proxy.inbound_port == proxy.outbound_port {
        problems.push(Problem::between(
            &["proxy-inbound-port", "proxy-outbound-port"],
            format!(
                "both are {}; the proxy distinguishes the directions by port",
                proxy.inbound_port
            ),
        ));
    }
    let is_known_otherwise = proxy.mark.is_some() || config.processes.cgroup.is_some();
    if proxy.uids.is_empty() && proxy.gids.is_empty() && !is_known_otherwise {
        problems.push(Problem::between(
            &["proxy-uid", "proxy-gid"],
            "both are empty, and there is neither --proxy-mark nor --proxy-cgroup; unless the rules exempt the proxy, its \
             own connections loop back to it",
        ));
    }
    if config.inbound.mode == InboundMode::Tproxy && proxy.mark == Some(config.inbound.tproxy_mark) {
        problems.push(Problem::between(
            &["proxy-mark", "tproxy-mark"],
            format!(
                "both are {}; packets with the mark of tproxy never leave the pod, so that the proxy would reach nobody",
                config.inbound.tproxy_mark
            ),
        ));
    }
    if proxy.uids.is_everything() || proxy.gids.is_everything() {
        problems.push(Problem::between(
            &["proxy-uid", "proxy-gid"],
            "* would exempt every process; name the user or group that the proxy runs as",
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Gids, Mark, Port, Uids};

    #[test]
    fn an_empty_layer_gives_the_defaults() {
        assert_eq!(Settings::from_layer(Layer::default()).unwrap(), Settings::default());
    }

    #[test]
    fn outbound_ports_replace_the_default_of_all_addresses() {
        let ports = Some(crate::types::parse_ports("443").unwrap());
        let only_ports = Layer {
            include_outbound_ports: ports.clone(),
            ..Layer::default()
        };
        assert!(
            Settings::from_layer(only_ports)
                .unwrap()
                .config
                .outbound
                .include_cidrs
                .is_empty()
        );
        let both = Layer {
            include_outbound_ports: ports,
            include_outbound_cidrs: Some(Cidrs::everything()),
            ..Layer::default()
        };
        assert!(
            Settings::from_layer(both)
                .unwrap()
                .config
                .outbound
                .include_cidrs
                .is_everything()
        );
    }

    #[test]
    fn contradictions_are_all_reported() {
        let layer = Layer {
            proxy_inbound_port: Port::new(15001),
            proxy_uid: Some(Uids::default()),
            proxy_gid: Some(Gids::default()),
            ..Layer::default()
        };
        assert_eq!(Settings::from_layer(layer).unwrap_err().len(), 2);
    }

    #[test]
    fn proxy_known_by_its_mark_alone_needs_no_user_or_group() {
        let layer = Layer {
            proxy_uid: Some(Uids::default()),
            proxy_gid: Some(Gids::default()),
            proxy_mark: Some(Mark::new(77)),
            ..Layer::default()
        };
        assert_eq!(Settings::from_layer(layer).unwrap().config.proxy.mark, Mark::new(77));
    }

    #[test]
    fn mark_of_tproxy_is_rejected_as_that_of_the_proxy_where_it_is_used() {
        let layer = |mode| Layer {
            inbound_mode: Some(mode),
            proxy_mark: Some(Mark::new(1337)),
            ..Layer::default()
        };
        assert!(Settings::from_layer(layer(InboundMode::Redirect)).is_ok());
        let problems = Settings::from_layer(layer(InboundMode::Tproxy)).unwrap_err();
        assert_eq!(problems[0].options(), ["proxy-mark", "tproxy-mark"]);
    }
}
