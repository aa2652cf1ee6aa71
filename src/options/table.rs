//! The table of options: one definition gives flags, environment variables, file keys, help and documentation.

use super::layer::Layer;
use crate::types::{
    Accounts, Backend, Choice, Cidrs, DnsServers, Gids, InboundMode, InterfaceName, Invalid, IpFamily, LogFormat,
    LogLevel, LoopbackCidr, Mark, Output, Port, Ports, PortsForUids, RouteTable, Uids, parse_cidrs, parse_ids,
    parse_ports, parse_ports_for_uids,
};

/// An option, whatever source it comes from.
pub struct OptionSpec {
    /// Its name: the flag without `--`, the key of the file.
    pub name: &'static str,
    /// What other tools call the flag, where they mean the same. Not shown in help.
    pub aliases: &'static [&'static str],
    /// What its value is called in help; `None` for a switch.
    pub value_name: Option<&'static str>,
    /// The default, as one would write it.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// The heading that help and documentation list it under.
    pub group: Group,
    /// Reads the value into a layer.
    pub read: Reader,
    /// Writes the value that a layer has, as one text that is read back.
    pub write: fn(&Layer) -> Option<String>,
}

impl OptionSpec {
    /// Whether it is about a dry run: a matter of the moment, and of `apply` alone.
    pub fn is_of_dry_run(&self) -> bool {
        matches!(self.name, "dry-run" | "output")
    }
}

/// Reads the texts given for an option (a flag may be repeated) into a layer.
///
/// # Errors
/// Every text, or part of one, that is not valid.
pub type Reader = fn(&mut Layer, &[String], &dyn Accounts) -> Result<(), Vec<Invalid>>;

/// What an option is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The proxy.
    Proxy,
    /// Connections to the pod.
    Inbound,
    /// Connections from the pod.
    Outbound,
    /// Name lookups.
    Dns,
    /// Both directions.
    General,
    /// How the command works and reports.
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

/// A value as one text, which its option reads back.
trait Written {
    fn written(&self) -> String;
}

macro_rules! written {
    ($($type:ty),*) => {
        $(impl Written for $type {
            fn written(&self) -> String {
                self.to_string()
            }
        })*
    };
}

written!(
    bool,
    Port,
    Ports,
    Uids,
    Gids,
    Cidrs,
    LoopbackCidr,
    Mark,
    RouteTable,
    DnsServers
);
written!(InboundMode, IpFamily, Backend, Output, LogLevel, LogFormat);

impl Written for Vec<InterfaceName> {
    fn written(&self) -> String {
        self.iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(",")
    }
}

impl Written for Vec<PortsForUids> {
    fn written(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
    }
}

macro_rules! options {
    ($($group:ident $name:literal $(| $alias:literal)* $(<$value:literal>)? = $default:literal, $help:literal,
       $field:ident: $parse:expr;)*) => {
        /// Every option, in the order of help and documentation.
        pub const OPTIONS: &[OptionSpec] = &[$(OptionSpec {
            name: $name,
            aliases: &[$($alias),*],
            value_name: options!(@value $($value)?),
            default: $default,
            help: $help,
            group: Group::$group,
            read: |layer, texts, accounts| {
                layer.$field = Some($parse(texts, accounts)?);
                Ok(())
            },
            write: |layer| layer.$field.as_ref().map(Written::written),
        },)*];
    };
    (@value) => { None };
    (@value $value:literal) => { Some($value) };
}

options! {
    Proxy "proxy-inbound-port" | "incoming-proxy-port" | "redirect-inbound-port" <"PORT"> = "15006",
        "Port of the proxy that inbound TCP goes to",
        proxy_inbound_port: port;
    Proxy "proxy-outbound-port" | "outgoing-proxy-port" | "redirect-outbound-port" <"PORT"> = "15001",
        "Port of the proxy that outbound TCP goes to",
        proxy_outbound_port: port;
    Proxy "proxy-uid" | "kuma-dp-user" <"UIDS"> = "1337", "Users that the proxy runs as; their traffic is left alone",
        proxy_uid: |texts, accounts| parse_ids(&joined(texts), accounts);
    Proxy "proxy-gid" <"GIDS"> = "1337", "Groups that the proxy runs as; their traffic is left alone",
        proxy_gid: |texts, accounts| parse_ids(&joined(texts), accounts);
    Proxy "mesh-ports" <"PORTS"> = "15008,15020-15021,15090", "Ports that the mesh serves itself; never captured inbound",
        mesh_ports: ports;
    Inbound "include-inbound-ports" | "ports-to-redirect" <"PORTS"> = "*",
        "Capture TCP to these ports of the pod; empty for none",
        include_inbound_ports: ports;
    Inbound "exclude-inbound-ports" | "inbound-ports-to-ignore" <"PORTS"> = "",
        "Leave TCP to these ports of the pod alone",
        exclude_inbound_ports: ports;
    Inbound "exclude-inbound-cidrs" | "subnets-to-ignore" | "exclude-inbound-ips" <"CIDRS"> = "",
        "Leave TCP from these addresses alone",
        exclude_inbound_cidrs: cidrs;
    Inbound "inbound-mode" <"MODE"> = "redirect", "redirect, or tproxy: the app sees the client's own address",
        inbound_mode: |texts, _| one(texts, InboundMode::parse);
    Inbound "tproxy-mark" <"MARK"> = "1337", "Mark of the packets that tproxy routes to the proxy",
        tproxy_mark: |texts, _| one(texts, Mark::parse);
    Inbound "tproxy-route-table" <"TABLE"> = "133", "Routing table that tproxy may use",
        tproxy_route_table: |texts, _| one(texts, RouteTable::parse);
    Outbound "include-outbound-ports" <"PORTS"> = "", "Capture TCP to these ports, wherever it goes",
        include_outbound_ports: ports;
    Outbound "exclude-outbound-ports" | "outbound-ports-to-ignore" <"PORTS"> = "", "Leave TCP to these ports alone",
        exclude_outbound_ports: ports;
    Outbound "include-outbound-cidrs" <"CIDRS"> = "*", "Capture TCP to these addresses; none where only ports are included",
        include_outbound_cidrs: cidrs;
    Outbound "exclude-outbound-cidrs" | "exclude-outbound-ips" <"CIDRS"> = "", "Leave TCP to these addresses alone",
        exclude_outbound_cidrs: cidrs;
    Outbound "exclude-uids" <"UIDS"> = "", "Leave TCP of these users alone",
        exclude_uids: |texts, accounts| parse_ids(&joined(texts), accounts);
    Outbound "include-gids" <"GIDS"> = "*", "Capture traffic of these groups alone",
        include_gids: |texts, accounts| parse_ids(&joined(texts), accounts);
    Outbound "exclude-gids" <"GIDS"> = "", "Leave TCP of these groups alone",
        exclude_gids: |texts, accounts| parse_ids(&joined(texts), accounts);
    Outbound "exclude-outbound-ports-for-uids" <"PROTO:PORTS:UIDS"> = "", "Leave these ports alone for these users",
        exclude_outbound_ports_for_uids: |texts: &[String], accounts| parse_ports_for_uids(&texts.join(";"), accounts);
    Dns "redirect-dns" = "false", "Capture DNS, over UDP and TCP",
        redirect_dns: |texts, _| one(texts, boolean);
    Dns "dns-port" | "redirect-dns-port" <"PORT"> = "15053", "Port of the proxy that DNS goes to",
        dns_port: port;
    Dns "dns-servers" <"SERVERS"> = "resolv.conf", "Capture queries to these: resolv.conf, all, or addresses",
        dns_servers: |texts, _| DnsServers::parse(&joined(texts));
    General "exclude-interfaces" <"NAMES"> = "", "Leave traffic of these interfaces alone",
        exclude_interfaces: interfaces;
    General "reroute-interfaces" <"NAMES"> = "", "Treat what arrives on these as outbound: a VM's tap, a container bridge",
        reroute_interfaces: interfaces;
    General "drop-invalid" | "drop-invalid-packets" = "false", "Drop packets that belong to no known connection",
        drop_invalid: |texts, _| one(texts, boolean);
    General "loopback-cidr" <"CIDR"> = "127.0.0.1/32", "IPv4 addresses that count as loopback",
        loopback_cidr: |texts, _| one(texts, LoopbackCidr::parse);
    General "ip-family" <"FAMILY"> = "auto", "Families to redirect: auto, ipv4, ipv6 or dual",
        ip_family: |texts, _| one(texts, IpFamily::parse);
    Run "backend" <"BACKEND"> = "auto", "auto, nftables, iptables-nft or iptables-legacy",
        backend: |texts, _| one(texts, Backend::parse);
    Run "dry-run" | "simulate" = "false", "Print the plan and do nothing else",
        dry_run: |texts, _| one(texts, boolean);
    Run "output" <"FORMAT"> = "nft", "How a dry run prints the plan: nft, iptables or json",
        output: |texts, _| one(texts, Output::parse);
    Run "log-level" <"LEVEL"> = "info", "error, warn, info, debug or trace; -v is debug, -vv trace",
        log_level: |texts, _| one(texts, LogLevel::parse);
    Run "log-format" <"FORMAT"> = "text", "text or json, one line an event, on standard error",
        log_format: |texts, _| one(texts, LogFormat::parse);
}

/// The option called `name`. Files may also write it in camelCase or with underscores.
pub fn find(name: &str) -> Option<&'static OptionSpec> {
    let bare = |name: &str| name.replace(['-', '_'], "").to_lowercase();
    let wanted = bare(name);
    OPTIONS.iter().find(|option| bare(option.name) == wanted)
}

fn joined(texts: &[String]) -> String {
    texts.join(",")
}

fn ports(texts: &[String], _: &dyn Accounts) -> Result<Ports, Vec<Invalid>> {
    parse_ports(&joined(texts))
}

fn cidrs(texts: &[String], _: &dyn Accounts) -> Result<Cidrs, Vec<Invalid>> {
    parse_cidrs(&joined(texts))
}

fn port(texts: &[String], _: &dyn Accounts) -> Result<Port, Vec<Invalid>> {
    one(texts, Port::parse)
}

fn interfaces(texts: &[String], _: &dyn Accounts) -> Result<Vec<InterfaceName>, Vec<Invalid>> {
    let texts = joined(texts);
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    for text in texts.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match InterfaceName::parse(text) {
            Ok(name) if names.contains(&name) => {}
            Ok(name) => names.push(name),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(names) } else { Err(errors) }
}

fn boolean(text: &str) -> Result<bool, Invalid> {
    match text.trim() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(Invalid::new(text, "true or false")),
    }
}

/// Reads an option that has one value: where a flag is repeated, each text must be valid, and the last one counts.
fn one<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<T, Vec<Invalid>> {
    let (mut last, mut errors) = (None, Vec::new());
    for text in texts {
        match parse(text) {
            Ok(value) => last = Some(value),
            Err(error) => errors.push(error),
        }
    }
    match last {
        Some(value) if errors.is_empty() => Ok(value),
        None if errors.is_empty() => Err(vec![Invalid::new("", "a value")]),
        _ => Err(errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Settings;
    use crate::types::NoAccounts;

    #[test]
    fn the_defaults_that_help_shows_are_the_defaults() {
        let mut layer = Layer::default();
        for option in OPTIONS.iter().filter(|option| option.name != "include-outbound-cidrs") {
            (option.read)(&mut layer, &[option.default.to_owned()], &NoAccounts).unwrap();
        }
        assert_eq!(Settings::from_layer(layer).unwrap(), Settings::default());
        assert_eq!(Settings::default().config.outbound.include_cidrs.to_string(), "*");
    }

    #[test]
    fn no_two_options_share_a_name_or_an_alias() {
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
}
