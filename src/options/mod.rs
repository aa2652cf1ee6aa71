//! What is to be redirected: merged from every source, and valid by type.

pub mod file;
pub mod layer;
pub mod problem;
pub mod sources;
pub mod table;

use self::layer::Layer;
use self::problem::Problem;
use crate::types::{
    Backend, Cidrs, DnsServers, Gid, Gids, Id, InboundMode, InterfaceName, IpFamily, LogFormat, LogLevel, LoopbackCidr,
    Mark, Number, Output, Port, Ports, PortsForUids, Range, Ranges, RouteTable, Uid, Uids,
};

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
    /// Interfaces whose traffic is left alone in both directions.
    pub exclude_interfaces: Vec<InterfaceName>,
    /// Interfaces behind which there are processes of the pod: what arrives there is treated as outbound.
    pub reroute_interfaces: Vec<InterfaceName>,
    /// Whether packets that belong to no known connection are dropped.
    pub drop_invalid: bool,
    /// The IPv4 addresses that count as loopback.
    pub loopback_cidr: LoopbackCidr,
    /// The families to redirect.
    pub ip_family: IpFamily,
    /// Whose behaviour it is where ours and Istio's differ.
    pub dialect: Dialect,
}

/// Whose behaviour the plan has where ours and Istio's differ. What differs is described in `docs/istio-iptables.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Ours.
    Sidetrack,
    /// That of Istio's iptables rules, to the letter. They depend on the order in which the proxy's users and groups
    /// are given.
    Istio(OwnerOrder),
}

/// The proxy's users and groups in the order given: the same ones as in [`Proxy`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerOrder {
    /// Users.
    pub uids: Vec<Uid>,
    /// Groups.
    pub gids: Vec<Gid>,
}

/// Which name lookups are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Whether any are.
    pub redirect: bool,
    /// Where they go.
    pub port: Port,
    /// Whose: those to these servers.
    pub servers: DnsServers,
}

/// The proxy that traffic goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where inbound connections go.
    pub inbound_port: Port,
    /// Where outbound connections go.
    pub outbound_port: Port,
    /// The users that the proxy runs as.
    pub uids: Uids,
    /// The groups that the proxy runs as.
    pub gids: Gids,
    /// Ports that the mesh serves itself in the pod: never captured on the way in.
    pub mesh_ports: Ports,
}

/// Which connections to the pod are captured: to included ports, unless excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Ports to capture.
    pub include_ports: Ports,
    /// Ports to leave alone.
    pub exclude_ports: Ports,
    /// Sources to leave alone.
    pub exclude_cidrs: Cidrs,
    /// How the connections get to the proxy.
    pub mode: InboundMode,
    /// The mark of packets that TPROXY routes to the proxy.
    pub tproxy_mark: Mark,
    /// The routing table that they are looked up in.
    pub tproxy_route_table: RouteTable,
}

/// Which connections from the pod are captured: to included ports or included addresses, unless excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Ports to capture, whatever the address.
    pub include_ports: Ports,
    /// Ports to leave alone.
    pub exclude_ports: Ports,
    /// Destinations to capture, whatever the port.
    pub include_cidrs: Cidrs,
    /// Destinations to leave alone.
    pub exclude_cidrs: Cidrs,
    /// Users whose connections are left alone.
    pub exclude_uids: Uids,
    /// Groups whose connections are captured; those of others are left alone.
    pub include_gids: Gids,
    /// Groups whose connections are left alone.
    pub exclude_gids: Gids,
    /// Ports that are left alone for some users.
    pub exclude_ports_for_uids: Vec<PortsForUids>,
}

/// How a command goes about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the rules are written with.
    pub backend: Backend,
    /// Whether to print the plan, and do nothing else.
    pub dry_run: bool,
    /// How the plan is printed.
    pub output: Output,
}

/// How a command logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// How much.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

/// Everything that the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is to be redirected.
    pub config: Config,
    /// How to go about it.
    pub run: Run,
    /// How to log.
    pub logging: Logging,
}

impl Settings {
    /// Fills what `layer` leaves open with the defaults, and checks what no single value can show.
    ///
    /// # Errors
    /// Every contradiction between values.
    pub fn from_layer(layer: Layer) -> Result<Self, Vec<Problem>> {
        let defaults = Self::default();
        let (config, run, logging) = (defaults.config, defaults.run, defaults.logging);
        let include_cidrs = match &layer.include_outbound_ports {
            // Whoever lists ports does not mean "and everything else".
            Some(ports) if !ports.is_empty() => Cidrs::default(),
            _ => config.outbound.include_cidrs,
        };
        let settings = Self {
            config: Config {
                proxy: Proxy {
                    inbound_port: layer.proxy_inbound_port.unwrap_or(config.proxy.inbound_port),
                    outbound_port: layer.proxy_outbound_port.unwrap_or(config.proxy.outbound_port),
                    uids: layer.proxy_uid.unwrap_or(config.proxy.uids),
                    gids: layer.proxy_gid.unwrap_or(config.proxy.gids),
                    mesh_ports: layer.mesh_ports.unwrap_or(config.proxy.mesh_ports),
                },
                inbound: Inbound {
                    include_ports: layer.include_inbound_ports.unwrap_or(config.inbound.include_ports),
                    exclude_ports: layer.exclude_inbound_ports.unwrap_or(config.inbound.exclude_ports),
                    exclude_cidrs: layer.exclude_inbound_cidrs.unwrap_or(config.inbound.exclude_cidrs),
                    mode: layer.inbound_mode.unwrap_or(config.inbound.mode),
                    tproxy_mark: layer.tproxy_mark.unwrap_or(config.inbound.tproxy_mark),
                    tproxy_route_table: layer.tproxy_route_table.unwrap_or(config.inbound.tproxy_route_table),
                },
                outbound: Outbound {
                    include_ports: layer.include_outbound_ports.unwrap_or(config.outbound.include_ports),
                    exclude_ports: layer.exclude_outbound_ports.unwrap_or(config.outbound.exclude_ports),
                    include_cidrs: layer.include_outbound_cidrs.unwrap_or(include_cidrs),
                    exclude_cidrs: layer.exclude_outbound_cidrs.unwrap_or(config.outbound.exclude_cidrs),
                    exclude_uids: layer.exclude_uids.unwrap_or(config.outbound.exclude_uids),
                    include_gids: layer.include_gids.unwrap_or(config.outbound.include_gids),
                    exclude_gids: layer.exclude_gids.unwrap_or(config.outbound.exclude_gids),
                    exclude_ports_for_uids: layer
                        .exclude_outbound_ports_for_uids
                        .unwrap_or(config.outbound.exclude_ports_for_uids),
                },
                dns: Dns {
                    redirect: layer.redirect_dns.unwrap_or(config.dns.redirect),
                    port: layer.dns_port.unwrap_or(config.dns.port),
                    servers: layer.dns_servers.unwrap_or(config.dns.servers),
                },
                exclude_interfaces: layer.exclude_interfaces.unwrap_or(config.exclude_interfaces),
                reroute_interfaces: layer.reroute_interfaces.unwrap_or(config.reroute_interfaces),
                drop_invalid: layer.drop_invalid.unwrap_or(config.drop_invalid),
                loopback_cidr: layer.loopback_cidr.unwrap_or(config.loopback_cidr),
                ip_family: layer.ip_family.unwrap_or(config.ip_family),
                dialect: config.dialect,
            },
            run: Run {
                backend: layer.backend.unwrap_or(run.backend),
                dry_run: layer.dry_run.unwrap_or(run.dry_run),
                output: layer.output.unwrap_or(run.output),
            },
            logging: Logging {
                level: layer.log_level.unwrap_or(logging.level),
                format: layer.log_format.unwrap_or(logging.format),
            },
        };
        let problems = contradictions(&settings.config);
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems)
        }
    }
}

/// What happens with no options at all.
impl Default for Settings {
    fn default() -> Self {
        Self {
            config: Config {
                proxy: Proxy {
                    inbound_port: port(15006),
                    outbound_port: port(15001),
                    uids: id(1337),
                    gids: id(1337),
                    mesh_ports: [15008, 15020, 15021, 15090].map(port).into_iter().collect(),
                },
                inbound: Inbound {
                    include_ports: Ports::everything(),
                    exclude_ports: Ports::default(),
                    exclude_cidrs: Cidrs::default(),
                    mode: InboundMode::Redirect,
                    tproxy_mark: TPROXY_MARK,
                    tproxy_route_table: TPROXY_ROUTE_TABLE,
                },
                outbound: Outbound {
                    include_ports: Ports::default(),
                    exclude_ports: Ports::default(),
                    include_cidrs: Cidrs::everything(),
                    exclude_cidrs: Cidrs::default(),
                    exclude_uids: Uids::default(),
                    include_gids: Gids::everything(),
                    exclude_gids: Gids::default(),
                    exclude_ports_for_uids: Vec::new(),
                },
                dns: Dns {
                    redirect: false,
                    port: port(15053),
                    servers: DnsServers::ResolvConf,
                },
                exclude_interfaces: Vec::new(),
                reroute_interfaces: Vec::new(),
                drop_invalid: false,
                loopback_cidr: LoopbackCidr::default(),
                ip_family: IpFamily::Auto,
                dialect: Dialect::Sidetrack,
            },
            run: Run {
                backend: Backend::Auto,
                dry_run: false,
                output: Output::Nft,
            },
            logging: Logging {
                level: LogLevel::Info,
                format: LogFormat::Text,
            },
        }
    }
}

const TPROXY_MARK: Mark = match Mark::new(1337) {
    Some(mark) => mark,
    None => unreachable!(),
};

const TPROXY_ROUTE_TABLE: RouteTable = match RouteTable::new(133) {
    Some(table) => table,
    None => unreachable!(),
};

/// A default port: a constant above, so never 0.
fn port(number: u16) -> Port {
    Port::new(number).unwrap_or(Port::MAX)
}

/// A default ID: a constant above, so never 4294967295.
fn id<I: Id>(number: u32) -> Ranges<I> {
    I::new(number).map(Range::single).into_iter().collect()
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
