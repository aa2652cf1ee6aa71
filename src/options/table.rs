//! The table of options. A row defines an option completely: field and default, flag with aliases, environment variable
//! and file key (from the name), help and documentation, and scope.
//!
//! The rows generate the groups of [`Config`](super::Config) and [`Settings`](super::Settings), and the [`Layer`] of one
//! source.

use super::value::Value;
use crate::types::{
    Accounts, Backend, CgroupPath, Cidrs, DnsServers, Gid, Gids, Id, InboundMode, InterfaceName, Invalid, IpFamily,
    LogFormat, LogLevel, LoopbackCidr, Mark, MeshName, Number as _, Output, Policy, Port, Ports, PortsForUids, Range,
    Ranges, RouteTable, Timeout, Uid, Uids,
};

/// An option, independent of its source.
pub struct OptionSpec {
    /// Its name: the flag without `--`, the key of the file.
    pub name: &'static str,
    /// Names of equivalent flags of other tools. Not shown in help.
    pub aliases: &'static [&'static str],
    /// The placeholder of its value in help; `None` for a switch.
    pub value_name: Option<&'static str>,
    /// One line of help.
    pub help: &'static str,
    /// The heading in help and documentation.
    pub group: Group,
    /// Which sources may set it.
    pub scope: Scope,
    /// Parses the value into a layer.
    pub read: Reader,
    /// Formats the value of a layer as one text that can be read back.
    pub write: fn(&Layer) -> Option<String>,
    /// The default, as one text.
    pub default: fn() -> String,
    /// The excess length of a list, if it is too long for a pod.
    pub excess: fn(&Layer) -> Option<Excess>,
    /// The names of all values, if the type is a choice.
    pub names: fn() -> Vec<&'static str>,
}

/// A list that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The number of elements.
    pub length: usize,
    /// The maximum for a pod.
    pub max: usize,
}

/// Reads the texts given for an option (a flag may be repeated) into a layer.
///
/// # Errors
/// Every text, or part of one, that is not valid.
pub type Reader = fn(&mut Layer, &[String], &dyn Accounts) -> Result<(), Vec<Invalid>>;

/// The scope of an option: which sources may set it, and which commands know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The redirection of a pod, known to every command that makes a plan.
    Pod,
    /// The redirection, by something of the host that sidetrack runs on: neither for pods nor for the CNI plugin.
    Here,
    /// The installation of rules: not for pods to choose.
    Host,
    /// A dry run of `apply`; never persisted.
    DryRun,
    /// Logging.
    Logging,
}

impl Scope {
    /// Whether it affects the redirection, rather than one run of a command.
    pub fn affects_redirection(self) -> bool {
        matches!(self, Self::Pod | Self::Here | Self::Host)
    }

    /// Whether the CNI plugin has it.
    pub fn is_of_plugin(self) -> bool {
        matches!(self, Self::Pod | Self::Host)
    }

    /// Whether the plan depends on it.
    pub fn is_planned(self) -> bool {
        matches!(self, Self::Pod | Self::Here)
    }
}

/// The group of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The proxy.
    Proxy,
    /// Connections to the pod.
    Inbound,
    /// Connections from the pod.
    Outbound,
    /// DNS.
    Dns,
    /// Both directions.
    General,
    /// The run of the command.
    Run,
}

impl Group {
    /// The heading in help and documentation.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Proxy => "Proxy",
            Self::Inbound => "Inbound",
            Self::Outbound => "Outbound",
            Self::Dns => "DNS",
            Self::General => "Both directions",
            Self::Run => "Run",
        }
    }
}

macro_rules! options {
    ($(
        $(#[$group_meta:meta])*
        $group:ident $scope:ident $struct:ident {
            $(
                $(#[$meta:meta])*
                $field:ident: $type:ty = $default:expr,
                $option:ident $name:literal $(| $alias:literal)* $(<$value:literal>)?, $help:literal;
            )*
        }
    )*) => {
        $(
            $(#[$group_meta])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $struct { $( $(#[$meta])* pub $field: $type, )* }

            impl $struct {
                /// The values of `layer`, completed with the defaults.
                pub(super) fn from_layer(layer: &mut Layer) -> Self {
                    Self { $($field: layer.$option.take().unwrap_or_else(|| $default),)* }
                }

                /// The options that differ from those of `other`: each name, and the value as one text that can be
                /// read back.
                pub fn differing(&self, other: &Self) -> Vec<(&'static str, String)> {
                    let mut differing = Vec::new();
                    $(if self.$field != other.$field {
                        differing.push(($name, self.$field.written()));
                    })*
                    differing
                }
            }
        )*

        /// The options that one source sets; the fields are their names.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Layer { $($( $(#[$meta])* pub $option: Option<$type>, )*)* }

        impl Layer {
            /// Merges two layers; values of this one take precedence.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $($($option: self.$option.or(lower.$option),)*)* }
            }
        }

        /// Every option, in the order of help and documentation.
        pub const OPTIONS: &[OptionSpec] = &[$($(OptionSpec {
            name: $name,
            aliases: &[$($alias),*],
            value_name: options!(@value $($value)?),
            help: $help,
            group: Group::$group,
            scope: Scope::$scope,
            read: |layer, texts, accounts| {
                layer.$option = Some(Value::read(texts, accounts)?);
                Ok(())
            },
            write: |layer| layer.$option.as_ref().map(Value::written),
            default: || {
                let default: $type = $default;
                default.written()
            },
            excess: |layer| {
                let (length, max) = (layer.$option.as_ref().map_or(0, Value::length), <$type as Value>::MAX_FROM_POD);
                (length > max).then_some(Excess { length, max })
            },
            names: <$type as Value>::names,
        },)*)*];
    };
    (@value) => { None };
    (@value $value:literal) => { Some($value) };
}

options! {
    /// The proxy that traffic is redirected to.
    Proxy Pod Proxy {
        /// The mesh that the proxy belongs to: it sets the defaults of the other options.
        mesh: MeshName = MeshName::Istio,
        mesh "mesh" <"MESH">,
        "Mesh of the proxy: sets the ports, users and behaviour that no option sets";

        /// The port for inbound connections.
        inbound_port: Port = port(15006),
        proxy_inbound_port "proxy-inbound-port" | "incoming-proxy-port" | "redirect-inbound-port" <"PORT">,
        "Port of the proxy that inbound TCP goes to";

        /// The port for outbound connections.
        outbound_port: Port = port(15001),
        proxy_outbound_port "proxy-outbound-port" | "outgoing-proxy-port" | "redirect-outbound-port" <"PORT">,
        "Port of the proxy that outbound TCP goes to";

        /// The users that the proxy runs as.
        uids: Uids = id::<Uid>(1337),
        proxy_uid "proxy-uid" | "kuma-dp-user" <"UIDS">,
        "Users that the proxy runs as; their traffic is not redirected";

        /// The groups that the proxy runs as.
        gids: Gids = id::<Gid>(1337),
        proxy_gid "proxy-gid" <"GIDS">,
        "Groups that the proxy runs as; their traffic is not redirected";

        /// The mark of the proxy's sockets (`SO_MARK`), which its traffic must have in addition.
        mark: Option<Mark> = None,
        proxy_mark "proxy-mark" <"MARK">,
        "Mark of the proxy's sockets, required beside user or group; empty for none";

        /// Ports that the mesh serves itself in the pod: never captured inbound.
        mesh_ports: Ports = [15008, 15020, 15021, 15090].map(port).into_iter().collect(),
        mesh_ports "mesh-ports" <"PORTS">,
        "Ports that the mesh serves itself; never captured inbound";
    }

    /// How this host knows the proxy's processes.
    Proxy Here Processes {
        /// The cgroup of the proxy's processes, which they must be in in addition.
        cgroup: Option<CgroupPath> = None,
        proxy_cgroup "proxy-cgroup" <"PATH">,
        "Cgroup of the proxy, required beside user or group; empty for none";
    }

    /// Which connections to the pod are captured: to included ports, unless excluded.
    Inbound Pod Inbound {
        /// Ports to capture.
        include_ports: Ports = Ports::everything(),
        include_inbound_ports "include-inbound-ports" | "ports-to-redirect" <"PORTS">,
        "Capture TCP to these ports of the pod; empty for none";

        /// Excluded ports.
        exclude_ports: Ports = Ports::default(),
        exclude_inbound_ports "exclude-inbound-ports" | "inbound-ports-to-ignore" <"PORTS">,
        "Exclude TCP to these ports of the pod";

        /// Excluded sources.
        exclude_cidrs: Cidrs = Cidrs::default(),
        exclude_inbound_cidrs "exclude-inbound-cidrs" | "subnets-to-ignore" | "exclude-inbound-ips" <"CIDRS">,
        "Exclude TCP from these addresses";

        /// How inbound connections reach the proxy.
        mode: InboundMode = InboundMode::Redirect,
        inbound_mode "inbound-mode" <"MODE">,
        "How inbound TCP reaches the proxy; with tproxy, the app sees the client";

        /// The mark of packets that TPROXY routes to the proxy.
        tproxy_mark: Mark = TPROXY_MARK,
        tproxy_mark "tproxy-mark" <"MARK">,
        "Mark of the packets that tproxy routes to the proxy";

        /// The routing table for these packets.
        tproxy_route_table: RouteTable = TPROXY_ROUTE_TABLE,
        tproxy_route_table "tproxy-route-table" <"TABLE">,
        "Routing table that tproxy may use";

        /// What becomes of packets that are neither captured nor excluded.
        policy: Policy = Policy::Allow,
        inbound_policy "inbound-policy" <"POLICY">,
        "With proxy-only, reject inbound traffic that is not captured";
    }

    /// Which connections from the pod are captured: to included ports or included addresses, unless excluded.
    Outbound Pod Outbound {
        /// Ports to capture, at any address.
        include_ports: Ports = Ports::default(),
        include_outbound_ports "include-outbound-ports" <"PORTS">,
        "Capture TCP to these ports, at any address";

        /// Excluded ports.
        exclude_ports: Ports = Ports::default(),
        exclude_outbound_ports "exclude-outbound-ports" | "outbound-ports-to-ignore" <"PORTS">,
        "Exclude TCP to these ports";

        /// Destinations to capture, at any port.
        include_cidrs: Cidrs = Cidrs::everything(),
        include_outbound_cidrs "include-outbound-cidrs" <"CIDRS">,
        "Capture TCP to these addresses; none where only ports are included";

        /// Excluded destinations.
        exclude_cidrs: Cidrs = Cidrs::default(),
        exclude_outbound_cidrs "exclude-outbound-cidrs" | "exclude-outbound-ips" <"CIDRS">,
        "Exclude TCP to these addresses";

        /// Users whose connections are excluded.
        exclude_uids: Uids = Uids::default(),
        exclude_uids "exclude-uids" <"UIDS">,
        "Exclude TCP from processes of these users";

        /// Groups whose connections are captured; those of other groups are not.
        include_gids: Gids = Gids::everything(),
        include_gids "include-gids" <"GIDS">,
        "Capture only traffic of these groups";

        /// Groups whose connections are excluded.
        exclude_gids: Gids = Gids::default(),
        exclude_gids "exclude-gids" <"GIDS">,
        "Exclude TCP from processes of these groups";

        /// Ports that are excluded for some users.
        exclude_ports_for_uids: Vec<PortsForUids> = Vec::new(),
        exclude_outbound_ports_for_uids "exclude-outbound-ports-for-uids" <"PROTO:PORTS:UIDS">,
        "Exclude these ports for these users";

        /// What becomes of packets that are neither captured nor excluded.
        policy: Policy = Policy::Allow,
        outbound_policy "outbound-policy" <"POLICY">,
        "With proxy-only, reject outbound traffic that is not captured";

        /// Whether the policy leaves DNS queries to the pod's name servers.
        allow_dns: bool = false,
        allow_dns "allow-dns",
        "Let DNS queries reach the pod's name servers despite the outbound policy";
    }

    /// Which DNS queries are captured.
    Dns Pod Dns {
        /// Whether DNS is captured.
        redirect: bool = false,
        redirect_dns "redirect-dns",
        "Capture DNS, over UDP and TCP";

        /// The port of the proxy for DNS.
        port: Port = port(15053),
        dns_port "dns-port" | "redirect-dns-port" <"PORT">,
        "Port of the proxy that DNS goes to";

        /// The servers whose queries are captured.
        servers: DnsServers = DnsServers::ResolvConf,
        dns_servers "dns-servers" <"SERVERS">,
        "Capture queries to these: resolv.conf, all, or addresses";
    }

    /// Options for both directions.
    General Pod General {
        /// Interfaces whose traffic is excluded in both directions.
        exclude_interfaces: Vec<InterfaceName> = Vec::new(),
        exclude_interfaces "exclude-interfaces" <"NAMES">,
        "Exclude traffic of these interfaces";

        /// Interfaces whose bound sockets reach the proxy by a route to the loopback address.
        bound_interfaces: Vec<InterfaceName> = Vec::new(),
        bound_interfaces "bound-interfaces" <"NAMES">,
        "Let sockets bound to these interfaces (SO_BINDTODEVICE) reach the proxy";

        /// Interfaces with workloads of the pod behind them: packets from them are treated as outbound.
        reroute_interfaces: Vec<InterfaceName> = Vec::new(),
        reroute_interfaces "reroute-interfaces" <"NAMES">,
        "Treat packets from these as outbound: a VM's tap, a container bridge";

        /// Whether packets that belong to no known connection are dropped.
        drop_invalid: bool = false,
        drop_invalid "drop-invalid" | "drop-invalid-packets",
        "Drop packets that belong to no known connection";

        /// The conntrack timeout of captured half-closed connections; `None` keeps the kernel's.
        close_wait_timeout: Option<Timeout> = Timeout::new(5 * 86_400),
        close_wait_timeout "close-wait-timeout" | "timeout-close-wait-secs" <"DURATION">,
        "Conntrack timeout of captured half-closed connections; 0 keeps the kernel's";

        /// The IPv4 addresses that count as loopback.
        loopback_cidr: LoopbackCidr = LoopbackCidr::default(),
        loopback_cidr "loopback-cidr" <"CIDR">,
        "IPv4 addresses that count as loopback";

        /// The families to redirect.
        ip_family: IpFamily = IpFamily::Auto,
        ip_family "ip-family" <"FAMILY">,
        "IP families to redirect";

        /// Whether rules count the connections that they decide about.
        counters: bool = false,
        counters "counters",
        "Count connections by reason, for sidetrack stats";
    }

    /// How rules are installed.
    #[derive(Copy)]
    Run Host Installation {
        /// The backend that installs the rules.
        backend: Backend = Backend::Auto,
        backend "backend" <"BACKEND">,
        "Backend of the rules";
    }

    /// Dry runs.
    #[derive(Copy)]
    Run DryRun DryRun {
        /// Whether to print the plan, and do nothing else.
        requested: bool = false,
        dry_run "dry-run" | "simulate",
        "Print the plan and do nothing else";

        /// The output format.
        output: Output = Output::Nft,
        output "output" <"FORMAT">,
        "Format in which a dry run prints the plan";
    }

    /// Logging.
    #[derive(Copy)]
    Run Logging Logging {
        /// The log level.
        level: LogLevel = LogLevel::Info,
        log_level "log-level" <"LEVEL">,
        "Log level; -v is debug, -vv trace";

        /// The log format.
        format: LogFormat = LogFormat::Text,
        log_format "log-format" <"FORMAT">,
        "Log format";
    }
}

/// The option called `name`. Files may also write it in camelCase or with underscores.
pub fn find(name: &str) -> Option<&'static OptionSpec> {
    let bare = |name: &str| name.replace(['-', '_'], "").to_lowercase();
    let wanted = bare(name);
    OPTIONS.iter().find(|option| bare(option.name) == wanted)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Settings;
    use crate::types::NoAccounts;

    #[test]
    fn documented_defaults_are_the_defaults() {
        let mut layer = Layer::default();
        for option in OPTIONS {
            (option.read)(&mut layer, &[(option.default)()], &NoAccounts).unwrap();
        }
        let expected = Settings {
            has_explicit_family: true,
            ..Settings::default()
        };
        assert_eq!(Settings::from_layer(layer).unwrap(), expected);
    }

    #[test]
    fn names_and_aliases_are_unique() {
        let mut names: Vec<&str> = OPTIONS.iter().map(|option| option.name).collect();
        names.extend(OPTIONS.iter().flat_map(|option| option.aliases));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn names_are_found_in_each_spelling() {
        for name in ["proxy-inbound-port", "proxyInboundPort", "proxy_inbound_port"] {
            assert_eq!(find(name).unwrap().name, "proxy-inbound-port");
        }
        assert!(find("proxy-inbound").is_none());
    }

    #[test]
    fn upper_layers_take_precedence() {
        let upper = Layer {
            proxy_inbound_port: Port::new(1),
            ..Layer::default()
        };
        let lower = Layer {
            proxy_inbound_port: Port::new(2),
            proxy_outbound_port: Port::new(3),
            ..Layer::default()
        };
        let merged = upper.over(lower);
        assert_eq!(merged.proxy_inbound_port, Port::new(1));
        assert_eq!(merged.proxy_outbound_port, Port::new(3));
    }
}
