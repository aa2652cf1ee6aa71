//! What is to be redirected: merged from every source, and valid by type.

pub mod file;
pub mod problem;
pub mod sources;
pub mod table;
mod value;

use ipnet::IpNet;

use self::problem::Problem;
pub use self::table::{Dns, DryRun, General, Inbound, Installation, Layer, Logging, Outbound, Proxy};
use crate::types::{Cidrs, Family, Gid, InterfaceName, Uid};

/// What is to be redirected, grouped by direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The proxy that traffic goes to.
    pub proxy: Proxy,
    /// Which connections to the pod are captured.
    pub inbound: Inbound,
    /// Which connections from the pod are captured.
    pub outbound: Outbound,
    /// Which name lookups are captured.
    pub dns: Dns,
    /// What holds in both directions.
    pub general: General,
    /// Whose behaviour it is where ours and a mesh's differ.
    pub dialect: Dialect,
}

/// Whose behaviour the plan has where ours and a mesh's differ. What differs is described in `docs/istio-iptables.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Ours.
    Sidetrack,
    /// That of Istio's iptables rules, to the letter. They depend on the order in which the proxy's users and groups
    /// are given.
    Istio(OwnerOrder),
    /// That of Kuma's iptables rules, to the letter. What differs is described in `docs/kuma-init.md`.
    Kuma(KumaRules),
}

impl Config {
    /// Whether anything is captured on its way out, lookups aside.
    pub fn captures_outbound(&self) -> bool {
        !self.outbound.include_ports.is_empty() || !self.outbound.include_cidrs.is_empty()
    }
}

/// What Kuma's rules depend on besides options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KumaRules {
    /// Whether lookups over TCP are captured like any other connection. They are left alone otherwise, where lookups
    /// over UDP are captured.
    pub captures_lookups_over_tcp: bool,
    /// Whether captured lookups have zones of connection tracking of their own.
    pub splits_zones: bool,
    /// Virtual networks whose traffic passes through this host.
    pub networks: Vec<VirtualNetwork>,
}

impl Default for KumaRules {
    fn default() -> Self {
        Self {
            captures_lookups_over_tcp: false,
            splits_zones: true,
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

/// Everything that the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is to be redirected.
    pub config: Config,
    /// How rules are installed.
    pub install: Installation,
    /// Whether the plan is only printed, and how.
    pub dry_run: DryRun,
    /// How to log.
    pub logging: Logging,
    /// Whether somebody said which families are redirected, rather than the mesh's defaults.
    pub names_family: bool,
}

impl Settings {
    /// Fills what `layer` leaves open with the defaults, and checks what no single value can show.
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
        // Whoever lists ports does not mean "and everything else".
        if layer
            .include_outbound_ports
            .as_ref()
            .is_some_and(|ports| !ports.is_empty())
        {
            layer.include_outbound_cidrs.get_or_insert_with(Cidrs::default);
        }
        Self {
            names_family: layer.ip_family.is_some(),
            config: Config {
                proxy: Proxy::from_layer(&mut layer),
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

/// What happens with no options at all.
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
                "both are {}; the proxy tells the directions apart by port",
                proxy.inbound_port
            ),
        ));
    }
    if proxy.uids.is_empty() && proxy.gids.is_empty() {
        problems.push(Problem::between(
            &["proxy-uid", "proxy-gid"],
            "neither names anyone; without the proxy's user or group its own traffic would come back to it for ever",
        ));
    }
    if proxy.uids.is_everything() || proxy.gids.is_everything() {
        problems.push(Problem::between(
            &["proxy-uid", "proxy-gid"],
            "* is everyone; name the user or group that the proxy runs as",
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Gids, Port, Uids};

    #[test]
    fn an_empty_layer_gives_the_defaults() {
        assert_eq!(Settings::from_layer(Layer::default()).unwrap(), Settings::default());
    }

    #[test]
    fn a_list_of_outbound_ports_stands_alone_unless_cidrs_are_given_too() {
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
}
