//! The table of settings: one definition gives flags, variables, help and documentation.

use super::draft::Draft;
use super::values;
use crate::mesh::front_end::{set, set_list};
use crate::options::table;
use crate::types::{
    Accounts, Cidrs, DnsServers, Gid, Gids, Invalid, IpFamily, LogFormat, Port, Ports, Uid, parse_duration,
};

/// A setting of `istio-iptables`.
pub struct Setting {
    /// Its name: the flag without `--`, or the variable if there is no flag.
    pub name: &'static str,
    /// The short flag.
    pub short: Option<char>,
    /// The sources that can set it.
    pub given: Given,
    /// The kind of value.
    pub kind: Kind,
    /// The default, in the notation of the flag.
    pub default: &'static str,
    /// The corresponding option of `sidetrack apply`; empty if there is none.
    pub option: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Reads the value.
    pub read: Reader,
}

/// The sources that can set a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// A flag.
    Flag,
    /// A flag, or else the variable of its name.
    FlagOrVariable,
    /// A flag, or else this variable, or else the variable of its name.
    FlagOrAlias(&'static str),
    /// Only a variable.
    Variable,
}

/// The kind of a value, and the meaning of an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; a flag without a value means `true`. An empty variable counts as unset.
    Switch,
    /// A value that Istio checks while it parses flags: an invalid one is a usage error. An empty variable counts as unset.
    Checked(&'static str),
    /// Any other single value. An empty one selects the default.
    Text(&'static str),
    /// A list, which may be empty.
    List(&'static str),
    /// Accepted without effect.
    Ignored(&'static str),
}

/// Reads the text of a setting into a draft.
///
/// # Errors
/// Every part that is not valid.
pub type Reader = fn(&mut Draft, &str, &dyn Accounts) -> Result<(), Vec<Invalid>>;

impl Setting {
    /// Whether there is a flag.
    pub fn has_flag(&self) -> bool {
        self.given != Given::Variable
    }

    /// Its variables, in order of precedence.
    pub fn variables(&self) -> Vec<String> {
        let own = || self.name.to_uppercase().replace('-', "_");
        match self.given {
            Given::Flag => Vec::new(),
            Given::FlagOrVariable => vec![own()],
            Given::FlagOrAlias(alias) => vec![alias.to_owned(), own()],
            Given::Variable => vec![self.name.to_owned()],
        }
    }

    /// The placeholder of its value in help; `None` for a switch.
    pub fn value_name(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Switch => None,
            Kind::Checked(name) | Kind::Text(name) | Kind::List(name) | Kind::Ignored(name) => Some(name),
        }
    }
}

macro_rules! settings {
    ($($name:literal $($short:literal)?, $given:expr, $kind:expr, $default:literal => $option:literal,
       $help:literal $(, $read:expr)?;)*) => {
        /// Every setting, in the order of help and documentation.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            short: settings!(@short $($short)?),
            given: $given,
            kind: $kind,
            default: $default,
            option: $option,
            help: $help,
            read: settings!(@read $option $(, $read)?),
        },)*];
    };
    (@short) => { None };
    (@short $short:literal) => { Some($short) };
    (@read $option:literal) => { |draft, text, accounts| as_option($option, draft, text, accounts) };
    (@read $option:literal, $read:expr) => { $read };
}

use Given::{Flag, FlagOrAlias, FlagOrVariable, Variable};
use Kind::{Checked, Ignored, List, Switch, Text};

settings! {
    "envoy-port" 'p', Flag, Text("PORT"), "15001" => "proxy-outbound-port",
        "Port of the proxy that outbound TCP goes to",
        |draft, text, _| set(&mut draft.layer.proxy_outbound_port, values::port(text));
    "inbound-capture-port" 'z', FlagOrVariable, Text("PORT"), "15006" => "proxy-inbound-port",
        "Port of the proxy that inbound TCP goes to",
        |draft, text, _| set(&mut draft.layer.proxy_inbound_port, values::port(text));
    "inbound-tunnel-port" 'e', FlagOrVariable, Text("PORT"), "15008" => "mesh-ports",
        "Port of the mesh's tunnel; not redirected",
        |draft, text, _| set(&mut draft.layer.mesh_ports, values::port(text).map(|port| Ports::from_iter([port])));
    "proxy-uid" 'u', FlagOrVariable, List("UIDS"), "" => "proxy-uid",
        "Users that the proxy runs as; empty for the one that ENVOY_USER names",
        |draft, text, accounts| set_list(&mut draft.order.uids, values::ids::<Uid>(text, accounts));
    "proxy-gid" 'g', FlagOrVariable, List("GIDS"), "" => "proxy-gid",
        "Groups that the proxy runs as; empty for the same numbers as its users",
        |draft, text, accounts| set_list(&mut draft.order.gids, values::ids::<Gid>(text, accounts));
    "istio-inbound-interception-mode" 'm', FlagOrVariable, Text("MODE"), "REDIRECT" => "inbound-mode",
        "REDIRECT, or TPROXY: the app sees the client's own address",
        |draft, text, _| set(&mut draft.layer.inbound_mode, values::mode(text));
    "istio-inbound-tproxy-mark" 't', FlagOrVariable, Text("MARK"), "1337" => "tproxy-mark",
        "Mark of the packets that TPROXY routes to the proxy";
    "istio-inbound-tproxy-route-table" 'r', FlagOrVariable, Text("TABLE"), "133" => "tproxy-route-table",
        "Routing table that TPROXY may use";
    "istio-inbound-ports" 'b', FlagOrVariable, List("PORTS"), "" => "include-inbound-ports",
        "Redirect TCP to these ports of the pod, or to all: *",
        |draft, text, _| set_list(&mut draft.layer.include_inbound_ports,
            values::or_all(text, Ports::everything, values::ports));
    "istio-local-exclude-ports" 'd', FlagOrVariable, List("PORTS"), "" => "exclude-inbound-ports",
        "Exclude TCP to these ports of the pod; counts only with -b '*'",
        |draft, text, _| set_list(&mut draft.layer.exclude_inbound_ports, values::ports(text));
    "istio-service-cidr" 'i', FlagOrVariable, List("CIDRS"), "" => "include-outbound-cidrs",
        "Redirect TCP to these addresses, or to all: *",
        |draft, text, _| set_list(&mut draft.layer.include_outbound_cidrs,
            values::or_all(text, Cidrs::everything, values::cidrs));
    "istio-service-exclude-cidr" 'x', FlagOrVariable, List("CIDRS"), "" => "exclude-outbound-cidrs",
        "Exclude TCP to these addresses",
        |draft, text, _| set_list(&mut draft.layer.exclude_outbound_cidrs, values::cidrs(text));
    "istio-outbound-ports" 'q', FlagOrVariable, List("PORTS"), "" => "include-outbound-ports",
        "Redirect TCP to these ports, at any address",
        |draft, text, _| set_list(&mut draft.layer.include_outbound_ports, values::ports(text));
    "istio-local-outbound-ports-exclude" 'o', FlagOrVariable, List("PORTS"), "" => "exclude-outbound-ports",
        "Exclude TCP and UDP to these ports",
        |draft, text, _| set_list(&mut draft.layer.exclude_outbound_ports, values::ports(text));
    "istio-exclude-interfaces" 'c', FlagOrVariable, List("NAMES"), "" => "exclude-interfaces",
        "Exclude traffic of these interfaces";
    "kube-virt-interfaces" 'k', FlagOrVariable, List("NAMES"), "" => "reroute-interfaces",
        "Treat packets from these interfaces as outbound";
    "redirect-dns", FlagOrAlias("ISTIO_META_DNS_CAPTURE"), Switch, "false" => "redirect-dns",
        "Redirect DNS to port 15053 of the agent",
        |draft, text, _| set(&mut draft.layer.redirect_dns, values::boolean(text));
    "capture-all-dns", FlagOrVariable, Switch, "false" => "dns-servers",
        "Redirect DNS to any server, not only to those of /etc/resolv.conf",
        |draft, text, _| set(&mut draft.layer.dns_servers, choice(text, DnsServers::All, DnsServers::ResolvConf));
    "drop-invalid", FlagOrAlias("INVALID_DROP"), Switch, "false" => "drop-invalid",
        "Drop packets that belong to no known connection",
        |draft, text, _| set(&mut draft.layer.drop_invalid, values::boolean(text));
    "dual-stack", FlagOrAlias("ISTIO_DUAL_STACK"), Switch, "false" => "ip-family",
        "Redirect IPv6 wherever the pod has an IPv6 address, not only where that is its first one",
        |draft, text, _| set(&mut draft.layer.ip_family, choice(text, IpFamily::Dual, IpFamily::Auto));
    "native-nftables", FlagOrVariable, Switch, "false" => "backend",
        "Use nftables, overriding --force-iptables-binary; a dry run prints nft syntax",
        |draft, text, _| set(&mut draft.native_nftables, values::boolean(text));
    "force-iptables-binary", FlagOrVariable, Text("BINARY"), "" => "backend",
        "Use this iptables: legacy or nft; empty for nftables without iptables",
        |draft, text, _| set(&mut draft.layer.backend, values::backend(text));
    "dry-run" 'n', FlagOrVariable, Switch, "false" => "dry-run",
        "Print the rules and do nothing else",
        |draft, text, _| set(&mut draft.layer.dry_run, values::boolean(text));
    "skip-rule-apply", FlagOrVariable, Switch, "false" => "",
        "Do not change any rules",
        |draft, text, _| set(&mut draft.skip_rule_apply, values::boolean(text));
    "cleanup-only", FlagOrVariable, Switch, "false" => "",
        "Remove the rules, like sidetrack cleanup",
        |draft, text, _| set(&mut draft.cleanup_only, values::boolean(text));
    "run-validation", FlagOrVariable, Switch, "false" => "",
        "Validate the redirection afterwards with a connection",
        |draft, text, _| set(&mut draft.run_validation, values::boolean(text));
    "iptables-probe-port", FlagOrVariable, Checked("PORT"), "15002" => "",
        "Port that the validation calls",
        |draft, text, _| set(&mut draft.probe_port, Port::parse(text));
    "probe-timeout", FlagOrVariable, Checked("DURATION"), "5s" => "",
        "How long the validation may take",
        |draft, text, _| set(&mut draft.probe_timeout, parse_duration(text));
    "network-namespace", FlagOrVariable, Text("PATH"), "" => "netns",
        "Work in this network namespace; empty for the current one",
        |draft, text, _| given(&mut draft.netns, text);
    "cni-mode", FlagOrVariable, Switch, "false" => "",
        "Accepted, without effect", always_on;
    "reconcile", FlagOrVariable, Switch, "false" => "",
        "Accepted: rules that differ are always replaced", always_on;
    "force-apply", FlagOrVariable, Switch, "false" => "",
        "Accepted: existing rules never prevent applying", always_on;

    "ENVOY_USER", Variable, Text("NAME"), "istio-proxy" => "",
        "User that the proxy runs as where --proxy-uid is empty; where there is no such user, 1337",
        |draft, text, _| given(&mut draft.envoy_user, text);
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", Variable, Text("CIDR"), "127.0.0.1/32" => "loopback-cidr",
        "IPv4 addresses that count as loopback";
    "ISTIO_OUTBOUND_OWNER_GROUPS", Variable, List("GROUPS"), "*" => "include-gids",
        "Redirect outbound traffic of these groups, at most 64, or of all: *; empty for none",
        |draft, text, accounts| set_list(&mut draft.layer.include_gids,
            values::or_all(text, Gids::everything, |text| values::included_groups(text, accounts)));
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", Variable, List("GROUPS"), "" => "exclude-gids",
        "Exclude outbound traffic of these groups; counts only where all groups are redirected",
        |draft, text, accounts| match &draft.layer.include_gids {
            // They are ignored then, even if they do not exist.
            Some(included) if !included.is_everything() => Ok(()),
            _ => set_list(&mut draft.layer.exclude_gids, values::groups(text, accounts)),
        };
    "DRY_RUN_FILE_PATH", Variable, Text("FILE"), "" => "",
        "Also write the output of a dry run to this file",
        |draft, text, _| given(&mut draft.dry_run_file, text);

    "log_output_level", Flag, Checked("LEVELS"), "default:info" => "log-level",
        "none, error, warn, info or debug; of several scopes, that of default or all counts",
        |draft, text, _| set(&mut draft.layer.log_level, values::log_level(text));
    "log_as_json", Flag, Switch, "false" => "log-format",
        "Log as JSON",
        |draft, text, _| set(&mut draft.layer.log_format, choice(text, LogFormat::Json, LogFormat::Text));
    "log_target", Flag, Ignored("PATH"), "" => "", "Accepted: the log goes to standard error", nothing;
    "log_caller", Flag, Ignored("SCOPES"), "" => "", "Accepted, without effect", nothing;
    "log_stacktrace_level", Flag, Ignored("LEVELS"), "" => "", "Accepted, without effect", nothing;
    "log_rotate", Flag, Ignored("PATH"), "" => "", "Accepted, without effect", nothing;
    "log_rotate_max_age", Flag, Ignored("DAYS"), "" => "", "Accepted, without effect", nothing;
    "log_rotate_max_size", Flag, Ignored("MEGABYTES"), "" => "", "Accepted, without effect", nothing;
    "log_rotate_max_backups", Flag, Ignored("NUMBER"), "" => "", "Accepted, without effect", nothing;
    "vklog", Flag, Ignored("LEVEL"), "" => "", "Accepted, without effect", nothing;
}

/// Reads a value like the corresponding option of `sidetrack apply`.
fn as_option(name: &str, draft: &mut Draft, text: &str, accounts: &dyn Accounts) -> Result<(), Vec<Invalid>> {
    match table::find(name) {
        Some(option) => (option.read)(&mut draft.layer, &[text.to_owned()], accounts),
        None => Err(vec![Invalid::new(text, format!("supported: {name} is not an option"))]),
    }
}

fn given(place: &mut Option<String>, text: &str) -> Result<(), Vec<Invalid>> {
    *place = (!text.is_empty()).then(|| text.to_owned());
    Ok(())
}

fn choice<T>(text: &str, yes: T, no: T) -> Result<T, Invalid> {
    values::boolean(text).map(|answer| if answer { yes } else { no })
}

/// A switch for something that sidetrack always does.
fn always_on(_: &mut Draft, text: &str, _: &dyn Accounts) -> Result<(), Vec<Invalid>> {
    values::boolean(text).map(drop).map_err(|invalid| vec![invalid])
}

fn nothing(_: &mut Draft, _: &str, _: &dyn Accounts) -> Result<(), Vec<Invalid>> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_flags_match_istio() {
        let short = |letter| SETTINGS.iter().find(|setting| setting.short == Some(letter));
        let expected = "p envoy-port z inbound-capture-port e inbound-tunnel-port u proxy-uid g proxy-gid \
                        m istio-inbound-interception-mode t istio-inbound-tproxy-mark \
                        r istio-inbound-tproxy-route-table b istio-inbound-ports d istio-local-exclude-ports \
                        i istio-service-cidr x istio-service-exclude-cidr q istio-outbound-ports \
                        o istio-local-outbound-ports-exclude c istio-exclude-interfaces k kube-virt-interfaces n dry-run";
        let words: Vec<&str> = expected.split_whitespace().collect();
        for pair in words.chunks(2) {
            let letter = pair[0].chars().next().unwrap();
            assert_eq!(short(letter).map(|setting| setting.name), Some(pair[1]));
        }
        assert_eq!(
            SETTINGS.iter().filter(|setting| setting.short.is_some()).count(),
            words.len() / 2
        );
    }

    #[test]
    fn names_are_unique_and_options_exist() {
        let mut names: Vec<String> = SETTINGS.iter().flat_map(Setting::variables).collect();
        let flags = SETTINGS.iter().filter(|setting| setting.has_flag());
        names.extend(flags.clone().map(|setting| format!("--{}", setting.name)));
        names.extend(
            flags
                .filter_map(|setting| setting.short)
                .map(|short| format!("-{short}")),
        );
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let elsewhere = ["", "netns"];
        for setting in SETTINGS.iter().filter(|setting| !elsewhere.contains(&setting.option)) {
            assert!(
                table::find(setting.option).is_some(),
                "{}: no option {}",
                setting.name,
                setting.option
            );
        }
    }

    /// The table as the documentation shows it.
    fn documented() -> String {
        let code = |text: String| {
            if text.is_empty() {
                String::new()
            } else {
                format!("`{text}`")
            }
        };
        let row = |setting: &Setting| {
            let flag = if setting.has_flag() {
                format!("--{}", setting.name)
            } else {
                String::new()
            };
            let short = setting.short.map(|short| format!("-{short}")).unwrap_or_default();
            let variables: Vec<String> = setting.variables().into_iter().map(code).collect();
            let option = match setting.option {
                "" => String::new(),
                option => format!("--{option}"),
            };
            let cells = [
                code(flag),
                code(short),
                variables.join(", "),
                code(setting.default.to_owned()),
                code(option),
            ];
            format!("| {} | {} |\n", cells.join(" | "), setting.help)
        };
        SETTINGS.iter().map(row).collect()
    }

    #[test]
    fn the_documentation_shows_this_table() {
        let document = include_str!("../../../../docs/istio-iptables.md");
        let table = documented();
        assert!(
            document.contains(&table),
            "docs/istio-iptables.md should hold these rows:\n{table}"
        );
    }
}
