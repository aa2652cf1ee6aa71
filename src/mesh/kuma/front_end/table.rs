//! The table of settings: one definition gives flags, keys, variables, help and documentation.

use super::draft::Draft;
use super::{VARIABLES, values};
use crate::mesh::front_end::{each, set, set_list};
use crate::mesh::go;
use crate::types::{Accounts, Invalid};

/// A setting of `kumactl install transparent-proxy`.
pub struct Setting {
    /// Its name: the flag without `--`, or the key if there is no flag.
    pub name: &'static str,
    /// The kind of value.
    pub kind: Kind,
    /// The default, in the notation of the flag.
    pub default: &'static str,
    /// Its key in a configuration file; empty if there is none.
    pub key: &'static str,
    /// Its variable without the prefix [`VARIABLES`]; empty if there is none.
    pub variable: &'static str,
    /// The corresponding option of `sidetrack apply`; empty if there is none.
    pub option: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Reads the value.
    pub read: Reader,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; a flag without a value means `true`.
    Switch,
    /// A single value, which may be a list in one text. The last of several flags applies.
    Value(&'static str),
    /// Values; each flag adds one.
    Many(&'static str),
    /// A switch that is accepted without effect.
    IgnoredSwitch,
    /// A value that is accepted without effect.
    Ignored(&'static str),
}

/// Reads the texts of a setting into a draft: one text, or any number for [`Kind::Many`].
///
/// # Errors
/// Every part that is not valid.
pub type Reader = fn(&mut Draft, &[String], &dyn Accounts) -> Result<(), Vec<Invalid>>;

impl Setting {
    /// Whether there is a flag. Settings without one are called by their key.
    pub fn has_flag(&self) -> bool {
        self.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    }

    /// Its variable.
    pub fn variable(&self) -> Option<String> {
        (!self.variable.is_empty()).then(|| format!("{VARIABLES}{}", self.variable))
    }

    /// The placeholder of its value in help; `None` for a switch.
    pub fn value_name(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Switch | Kind::IgnoredSwitch => None,
            Kind::Value(name) | Kind::Many(name) | Kind::Ignored(name) => Some(name),
        }
    }

    pub(super) fn default_texts(&self) -> Vec<String> {
        match self.kind {
            Kind::Many(_) => Vec::new(),
            _ => vec![self.default.to_owned()],
        }
    }
}

macro_rules! settings {
    ($($name:literal, $kind:expr, $default:literal, $key:literal, $variable:literal => $option:literal, $help:literal,
       $read:expr;)*) => {
        /// Every setting, in the order of help and documentation.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            kind: $kind,
            default: $default,
            key: $key,
            variable: $variable,
            option: $option,
            help: $help,
            read: $read,
        },)*];
    };
}

use Kind::{Ignored, IgnoredSwitch, Many, Switch, Value};

settings! {
    "dry-run", Switch, "false", "dryRun", "DRY_RUN" => "dry-run",
        "Print the rules and do nothing else",
        |draft, texts, _| set(&mut draft.layer.dry_run, go::boolean(only(texts)));
    "ip-family-mode", Value("MODE"), "dualstack", "ipFamilyMode", "IP_FAMILY_MODE" => "ip-family",
        "dualstack: IPv4, and IPv6 where there is an IPv6 address; or ipv4",
        |draft, texts, _| set(&mut draft.layer.ip_family, values::family_mode(only(texts)));
    "redirect-outbound-port", Value("PORT"), "15001", "redirect.outbound.port", "REDIRECT_OUTBOUND_PORT"
        => "proxy-outbound-port", "Port of the proxy that outbound TCP goes to",
        |draft, texts, _| set(&mut draft.layer.proxy_outbound_port, values::port(only(texts)));
    "redirect-inbound", Switch, "true", "redirect.inbound.enabled", "REDIRECT_INBOUND_ENABLED" => "",
        "Redirect inbound TCP; false for gateways",
        |draft, texts, _| set(&mut draft.redirects_inbound, go::boolean(only(texts)));
    "redirect-inbound-port", Value("PORT"), "15006", "redirect.inbound.port", "REDIRECT_INBOUND_PORT"
        => "proxy-inbound-port", "Port of the proxy that inbound TCP goes to",
        |draft, texts, _| set(&mut draft.layer.proxy_inbound_port, values::port(only(texts)));
    "exclude-inbound-ports", Value("PORTS"), "", "redirect.inbound.excludePorts", "REDIRECT_INBOUND_EXCLUDE_PORTS"
        => "exclude-inbound-ports", "Exclude TCP to these ports of the pod",
        |draft, texts, _| set_list(&mut draft.layer.exclude_inbound_ports, values::ports(only(texts)));
    "exclude-outbound-ports", Value("PORTS"), "", "redirect.outbound.excludePorts", "REDIRECT_OUTBOUND_EXCLUDE_PORTS"
        => "exclude-outbound-ports", "Exclude TCP to these ports, at any address",
        |draft, texts, _| set_list(&mut draft.layer.exclude_outbound_ports, values::ports(only(texts)));
    "kuma-dp-user", Value("USER"), "", "kumaDPUser", "KUMA_DP_USER" => "proxy-uid",
        "User that the proxy runs as; empty for 5678, or kuma-dp where there is no user 5678",
        |draft, texts, _| { draft.user = only(texts).to_owned(); Ok(()) };
    "redirect-dns", Switch, "false", "redirect.dns.enabled", "REDIRECT_DNS_ENABLED" => "redirect-dns",
        "Redirect DNS over UDP to the servers of /etc/resolv.conf",
        |draft, texts, _| set(&mut draft.redirects_dns, go::boolean(only(texts)));
    "redirect-all-dns-traffic", Switch, "false", "redirect.dns.captureAll", "REDIRECT_DNS_CAPTURE_ALL" => "dns-servers",
        "Redirect DNS over UDP to any server",
        |draft, texts, _| set(&mut draft.redirects_all_dns, go::boolean(only(texts)));
    "redirect-dns-port", Value("PORT"), "15053", "redirect.dns.port", "REDIRECT_DNS_PORT" => "dns-port",
        "Port of the proxy that DNS goes to",
        |draft, texts, _| set(&mut draft.layer.dns_port, values::port(only(texts)));
    "skip-dns-conntrack-zone-split", Switch, "false", "redirect.dns.skipConntrackZoneSplit",
        "REDIRECT_DNS_SKIP_CONNTRACK_ZONE_SPLIT" => "",
        "Do not track captured DNS in a conntrack zone of its own",
        |draft, texts, _| set(&mut draft.kuma.splits_conntrack_zones, go::boolean(only(texts)).map(|skip| !skip));
    "drop-invalid-packets", Switch, "false", "dropInvalidPackets", "DROP_INVALID_PACKETS" => "drop-invalid",
        "Drop packets that belong to no known connection",
        |draft, texts, _| set(&mut draft.layer.drop_invalid, go::boolean(only(texts)));
    "exclude-outbound-ports-for-uids", Many("[PROTOCOLS:][PORTS:]USERS"), "", "redirect.outbound.excludePortsForUIDs",
        "REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS" => "exclude-outbound-ports-for-uids",
        "Exclude these ports for these users; may be repeated", ports_for_uids;
    "exclude-inbound-ips", Many("CIDRS"), "", "redirect.inbound.excludePortsForIPs",
        "REDIRECT_INBOUND_EXCLUDE_PORTS_FOR_IPS" => "exclude-inbound-cidrs",
        "Exclude TCP from these addresses; may be repeated",
        |draft, texts, _| set_list(&mut draft.layer.exclude_inbound_cidrs, values::cidrs(texts));
    "exclude-outbound-ips", Many("CIDRS"), "", "redirect.outbound.excludePortsForIPs",
        "REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS" => "exclude-outbound-cidrs",
        "Exclude all traffic to these addresses, DNS included; may be repeated",
        |draft, texts, _| set_list(&mut draft.layer.exclude_outbound_cidrs, values::cidrs(texts));
    "vnet", Many("INTERFACE:CIDR"), "", "redirect.vnet.networks", "REDIRECT_VNET_NETWORKS" => "",
        "Redirect packets from this virtual network; may be repeated",
        |draft, texts, _| set_list(&mut draft.kuma.networks, values::networks(texts));
    "redirect-inbound-insert-instead-of-append", Switch, "false", "redirect.inbound.insertRedirectInsteadOfAppend",
        "REDIRECT_INBOUND_INSERT_REDIRECT_INSTEAD_OF_APPEND" => "",
        "Accepted: sidetrack's rules always come before foreign rules", always_on;
    "redirect-outbound-insert-instead-of-append", Switch, "false", "redirect.outbound.insertRedirectInsteadOfAppend",
        "REDIRECT_OUTBOUND_INSERT_REDIRECT_INSTEAD_OF_APPEND" => "",
        "Also redirect DNS over TCP, like other TCP",
        |draft, texts, _| set(&mut draft.kuma.redirects_dns_over_tcp, go::boolean(only(texts)));
    "store-firewalld", Switch, "false", "storeFirewalld", "STORE_FIREWALLD" => "",
        "Refused: on a host, use sidetrack apply --mesh kuma --persist", |_, texts, _| store_firewalld(only(texts));
    "config", Many("FILE"), "", "", "" => "",
        "Read this YAML or JSON file, or standard input: -; may be repeated, and variables count then", nothing;
    "verbose", IgnoredSwitch, "false", "verbose", "VERBOSE" => "",
        "Accepted, without effect", always_on;
    "wait", Ignored("SECONDS"), "5", "wait", "WAIT" => "", "Accepted, without effect", nothing;
    "wait-interval", Ignored("MICROSECONDS"), "0", "waitInterval", "WAIT_INTERVAL" => "",
        "Accepted, without effect", nothing;
    "max-retries", Ignored("NUMBER"), "4", "retry.maxRetries", "RETRY_MAX_RETRIES" => "",
        "Accepted: rules are applied as a whole or not at all", nothing;
    "sleep-between-retries", Ignored("DURATION"), "2s", "retry.sleepBetweenRetries", "RETRY_SLEEP_BETWEEN_RETRIES"
        => "", "Accepted, without effect", nothing;
    "iptables-logs", IgnoredSwitch, "false", "log.enabled", "LOG_ENABLED" => "",
        "Accepted, without effect: sidetrack explain shows the path of a packet", always_on;
    "disable-comments", IgnoredSwitch, "false", "comments.disabled", "COMMENTS_DISABLED" => "",
        "Accepted, without effect", always_on;
    "iptables-executables", Value("NAME:PATH,…"), "", "iptablesExecutables", "IPTABLES_EXECUTABLES" => "backend",
        "Use the iptables that this names: iptables-nft or iptables-legacy of PATH; empty for nftables without iptables",
        |draft, texts, _| set(&mut draft.layer.backend, values::executables(only(texts)));
    "config-file", Ignored("FILE"), "", "", "" => "", "Accepted: a global flag of kumactl", nothing;
    "context", Ignored("NAME"), "", "", "" => "", "Accepted, likewise", nothing;
    "log-level", Ignored("LEVEL"), "", "", "" => "", "Accepted, likewise", nothing;
    "api-timeout", Ignored("DURATION"), "", "", "" => "", "Accepted, likewise", nothing;
    "no-config", IgnoredSwitch, "false", "", "" => "", "Accepted, likewise", always_on;

    "redirect.outbound.enabled", Switch, "true", "redirect.outbound.enabled", "REDIRECT_OUTBOUND_ENABLED" => "",
        "Redirect outbound TCP",
        |draft, texts, _| set(&mut draft.redirects_outbound, go::boolean(only(texts)));
    "redirect.inbound.includePorts", Value("PORTS"), "", "redirect.inbound.includePorts",
        "REDIRECT_INBOUND_INCLUDE_PORTS" => "include-inbound-ports",
        "Redirect TCP to these ports of the pod alone; excluded ports do not count then",
        |draft, texts, _| set_list(&mut draft.layer.include_inbound_ports, values::ports(only(texts)));
    "redirect.outbound.includePorts", Value("PORTS"), "", "redirect.outbound.includePorts",
        "REDIRECT_OUTBOUND_INCLUDE_PORTS" => "include-outbound-ports",
        "Redirect TCP to these ports alone; excluded ports do not count then",
        |draft, texts, _| set_list(&mut draft.layer.include_outbound_ports, values::ports(only(texts)));
    "redirect.inbound.excludePortsForUIDs", Many("USERS"), "", "redirect.inbound.excludePortsForUIDs",
        "REDIRECT_INBOUND_EXCLUDE_PORTS_FOR_UIDS" => "",
        "Refused: inbound packets have no local user", |_, texts, _| no_inbound_users(texts);
    "redirect.dns.resolvConfigPath", Value("FILE"), "/etc/resolv.conf", "redirect.dns.resolvConfigPath",
        "REDIRECT_DNS_RESOLV_CONFIG_PATH" => "", "Refused unless it is the default",
        |_, texts, _| no_other_resolvers(only(texts));
    "cniMode", Switch, "false", "cniMode", "CNI_MODE" => "",
        "Use the proxy's user without looking it up in /etc/passwd",
        |draft, texts, _| set(&mut draft.cni_mode, go::boolean(only(texts)));
}

/// The only text of a setting of one value.
fn only(texts: &[String]) -> &str {
    texts.last().map(String::as_str).unwrap_or_default()
}

fn ports_for_uids(draft: &mut Draft, texts: &[String], _: &dyn Accounts) -> Result<(), Vec<Invalid>> {
    let entries = each(texts.iter().map(String::as_str), values::ports_for_uids)?;
    for (entry, text) in entries.iter().zip(texts) {
        if entry.uids.is_everything() {
            let note = format!("{text:?} names no user: it excludes the ports for every user, the proxy included");
            draft.warnings.push(note);
        }
    }
    draft.layer.exclude_outbound_ports_for_uids = Some(entries);
    Ok(())
}

fn store_firewalld(text: &str) -> Result<(), Vec<Invalid>> {
    match go::boolean(text) {
        Ok(false) => Ok(()),
        Ok(true) => Err(vec![Invalid::new(
            text,
            "supported: sidetrack's rules are independent of firewalld. They survive its reloads, and with \
             `sidetrack apply --mesh kuma --persist` a reboot, too",
        )]),
        Err(invalid) => Err(vec![invalid]),
    }
}

fn no_inbound_users(texts: &[String]) -> Result<(), Vec<Invalid>> {
    let refused = |text: &String| {
        let expected = "supported: Kuma's rules would redirect nothing inbound; set redirect.inbound.enabled to false";
        Invalid::new(text, expected)
    };
    let errors: Vec<Invalid> = texts.iter().map(refused).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn no_other_resolvers(text: &str) -> Result<(), Vec<Invalid>> {
    match text {
        "" | "/etc/resolv.conf" => Ok(()),
        _ => Err(vec![Invalid::new(
            text,
            "/etc/resolv.conf, the only list of name servers that is read",
        )]),
    }
}

/// A switch for something that sidetrack always does.
fn always_on(_: &mut Draft, texts: &[String], _: &dyn Accounts) -> Result<(), Vec<Invalid>> {
    go::boolean(only(texts)).map(drop).map_err(|invalid| vec![invalid])
}

fn nothing(_: &mut Draft, _: &[String], _: &dyn Accounts) -> Result<(), Vec<Invalid>> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::table;

    #[test]
    fn names_are_unique_and_options_exist() {
        let flags = SETTINGS.iter().filter(|setting| setting.has_flag());
        let mut names: Vec<String> = flags.map(|setting| format!("--{}", setting.name)).collect();
        names.extend(SETTINGS.iter().filter_map(Setting::variable));
        names.extend(
            SETTINGS
                .iter()
                .map(|setting| setting.key.to_owned())
                .filter(|key| !key.is_empty()),
        );
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for setting in SETTINGS.iter().filter(|setting| !setting.option.is_empty()) {
            assert!(
                table::find(setting.option).is_some(),
                "{}: {}",
                setting.name,
                setting.option
            );
        }
    }

    /// The table as the documentation shows it.
    fn documented() -> String {
        let code = |text: &str| match text {
            "" => String::new(),
            text => format!("`{text}`"),
        };
        let row = |setting: &Setting| {
            let dashed = |name: &str| match name {
                "" => String::new(),
                name => format!("--{name}"),
            };
            let flag = if setting.has_flag() {
                dashed(setting.name)
            } else {
                String::new()
            };
            let cells = [
                code(&flag),
                code(setting.key),
                code(setting.variable),
                code(setting.default),
                code(&dashed(setting.option)),
            ];
            format!("| {} | {} |\n", cells.join(" | "), setting.help)
        };
        SETTINGS.iter().map(row).collect()
    }

    #[test]
    fn the_documentation_shows_this_table() {
        let document = include_str!("../../../../docs/kuma-init.md");
        let table = documented();
        assert!(
            document.contains(&table),
            "docs/kuma-init.md should hold these rows:\n{table}"
        );
    }
}
