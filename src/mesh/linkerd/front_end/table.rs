//! The table of flags: one definition gives flags, help and documentation.

use super::draft::Draft;
use super::values;
use crate::mesh::front_end::set_list;
use crate::mesh::go;
use crate::types::{Gid, Invalid, Uid};

/// A flag of `proxy-init`.
pub struct Setting {
    /// Its name, without `--`.
    pub name: &'static str,
    /// The short flag.
    pub short: Option<char>,
    /// The kind of value.
    pub kind: Kind,
    /// The default, in the notation of the flag.
    pub default: &'static str,
    /// The corresponding option of `sidetrack apply`; empty if there is none.
    pub option: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Reads its values, at least one.
    pub read: Reader,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; the flag alone means `true`.
    Switch,
    /// A single value: the last one applies.
    Single(&'static str),
    /// A list, to which each flag adds.
    List(&'static str),
    /// Accepted without effect; a switch if it has no value.
    Ignored(Option<&'static str>),
}

/// Reads the texts of a flag into a draft.
///
/// # Errors
/// Every part that is not valid.
pub type Reader = fn(&mut Draft, &[String]) -> Result<(), Vec<Invalid>>;

impl Setting {
    /// The placeholder of its value in help; `None` for a switch.
    pub fn value_name(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Switch => None,
            Kind::Single(name) | Kind::List(name) => Some(name),
            Kind::Ignored(name) => name,
        }
    }
}

macro_rules! settings {
    ($($name:literal $($short:literal)?, $kind:expr, $default:literal => $option:literal, $help:literal, $read:expr;)*) => {
        /// Every flag, in the order of help and documentation.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            short: settings!(@short $($short)?),
            kind: $kind,
            default: $default,
            option: $option,
            help: $help,
            read: $read,
        },)*];
    };
    (@short) => { None };
    (@short $short:literal) => { Some($short) };
}

use Kind::{Ignored, List, Single, Switch};

settings! {
    "incoming-proxy-port" 'p', Single("PORT"), "" => "proxy-inbound-port",
        "Port of the proxy that inbound TCP goes to; required",
        |draft, texts| last(&mut draft.layer.proxy_inbound_port, texts, go::integer, values::port);
    "outgoing-proxy-port" 'o', Single("PORT"), "" => "proxy-outbound-port",
        "Port of the proxy that outbound TCP goes to; required",
        |draft, texts| last(&mut draft.layer.proxy_outbound_port, texts, go::integer, values::port);
    "proxy-uid" 'u', Single("UID"), "-1" => "proxy-uid",
        "User that the proxy runs as; none where it is not above 0",
        |draft, texts| last(&mut draft.layer.proxy_uid, texts, go::integer, values::owner::<Uid>);
    "proxy-gid" 'g', Single("GID"), "-1" => "proxy-gid",
        "Group that the proxy runs as; none where it is not above 0",
        |draft, texts| last(&mut draft.layer.proxy_gid, texts, go::integer, values::owner::<Gid>);
    "ports-to-redirect" 'r', List("PORTS"), "" => "include-inbound-ports",
        "Redirect TCP to these ports of the pod alone; empty for all",
        |draft, texts| set_list(&mut draft.layer.include_inbound_ports, values::ports_to_redirect(texts));
    "inbound-ports-to-ignore", List("PORTS"), "" => "exclude-inbound-ports",
        "Exclude TCP to these ports and ranges a-b of the pod",
        |draft, texts| set_list(&mut draft.layer.exclude_inbound_ports, values::ignored_ports(texts, &mut draft.ignored_items));
    "outbound-ports-to-ignore", List("PORTS"), "" => "exclude-outbound-ports",
        "Exclude TCP to these ports and ranges a-b, at any address",
        |draft, texts| set_list(&mut draft.layer.exclude_outbound_ports, values::ignored_ports(texts, &mut draft.ignored_items));
    "subnets-to-ignore", List("CIDRS"), "" => "exclude-inbound-cidrs",
        "Exclude inbound TCP from these addresses",
        |draft, texts| set_list(&mut draft.layer.exclude_inbound_cidrs, values::subnets(texts));
    "simulate", Switch, "false" => "dry-run",
        "Print the rules and do nothing else",
        |draft, texts| last(&mut draft.layer.dry_run, texts, go::boolean, unchanged);
    "netns", Single("PATH"), "" => "netns",
        "Work in this network namespace; empty for the current one",
        |draft, texts| last(&mut draft.netns, texts, text, unchanged);
    "use-wait-flag" 'w', Ignored(None), "false" => "",
        "Accepted: sidetrack always waits for the iptables lock",
        |_, texts| last(&mut None, texts, go::boolean, unchanged);
    "timeout-close-wait-secs", Single("SECONDS"), "432000" => "close-wait-timeout",
        "Conntrack timeout of captured half-closed connections; 0 keeps the kernel's",
        |draft, texts| last(&mut draft.layer.close_wait_timeout, texts, go::integer, values::timeout);
    "log-format", Single("FORMAT"), "plain" => "log-format",
        "json, or anything else for lines of text",
        |draft, texts| last(&mut draft.layer.log_format, texts, text, values::log_format);
    "log-level", Single("LEVEL"), "info" => "log-level",
        "panic, fatal, error, warn, info, debug or trace, in any case",
        |draft, texts| last(&mut draft.layer.log_level, texts, text, values::log_level);
    "iptables-mode", Single("MODE"), "" => "backend",
        "legacy for legacy iptables; nft and plain for nftables without iptables",
        |draft, texts| last(&mut draft.mode, texts, text, unchanged);
    "ipv6", Switch, "true" => "ip-family",
        "Redirect IPv6 too",
        |draft, texts| last(&mut draft.layer.ip_family, texts, go::boolean, values::families);
    "firewall-bin-path", Single("PROGRAM"), "" => "backend",
        "iptables-legacy, iptables-nft or iptables: as --iptables-mode, which counts before it",
        |draft, texts| last(&mut draft.program, texts, text, unchanged);
    "firewall-save-bin-path", Ignored(Some("PROGRAM")), "" => "",
        "Accepted and ignored, as by Linkerd",
        |_, _| Ok(());
}

/// Stores the last of several values, all of which must have a valid form.
fn last<F, T>(
    place: &mut Option<T>,
    texts: &[String],
    form: fn(&str) -> Result<F, Invalid>,
    meaning: fn(&str, F) -> Result<T, Invalid>,
) -> Result<(), Vec<Invalid>> {
    let formed: Result<Vec<F>, Invalid> = texts.iter().map(|text| form(text)).collect();
    let value = formed.map(|mut formed| formed.pop().zip(texts.last()));
    let meant = value.and_then(|last| last.map(|(value, text)| meaning(text, value)).transpose());
    *place = meant.map_err(|invalid| vec![invalid])?;
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "a form of values like the others")]
fn text(text: &str) -> Result<String, Invalid> {
    Ok(text.to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "a meaning of values like the others")]
fn unchanged<T>(_: &str, value: T) -> Result<T, Invalid> {
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::table;

    #[test]
    fn names_are_unique_and_options_exist() {
        let mut names: Vec<String> = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
        names.extend(SETTINGS.iter().filter_map(|setting| setting.short).map(String::from));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let elsewhere = ["", "netns"];
        for setting in SETTINGS.iter().filter(|setting| !elsewhere.contains(&setting.option)) {
            assert!(table::find(setting.option).is_some(), "{}", setting.name);
        }
    }

    /// The table as the documentation shows it.
    fn documented() -> String {
        let code = |text: String| if text.is_empty() { text } else { format!("`{text}`") };
        let option = |setting: &Setting| match setting.option {
            "" => String::new(),
            option => format!("--{option}"),
        };
        let row = |setting: &Setting| {
            let short = setting.short.map(|short| format!("-{short}")).unwrap_or_default();
            let cells = [
                format!("--{}", setting.name),
                short,
                setting.default.to_owned(),
                option(setting),
            ];
            format!("| {} | {} |\n", cells.map(code).join(" | "), setting.help)
        };
        SETTINGS.iter().map(row).collect()
    }

    #[test]
    fn the_documentation_shows_this_table() {
        let document = include_str!("../../../../docs/linkerd-proxy-init.md");
        let table = documented();
        assert!(
            document.contains(&table),
            "docs/linkerd-proxy-init.md should hold these rows:\n{table}"
        );
    }
}
