//! Writes a layer as a configuration file, which [`super::sources::from_file`] reads back.

use super::table::{Layer, OPTIONS, Scope};

/// The options of `layer`, one per line, without those of dry runs.
pub fn text(layer: &Layer) -> String {
    let persistent = OPTIONS.iter().filter(|option| option.scope != Scope::DryRun);
    let lines = persistent.filter_map(|option| {
        // The path of a cgroup may have backslashes, as systemd escapes names; nothing else needs escaping.
        let value = (option.write)(layer)?.replace('\\', r"\\");
        Some(format!("{}: \"{value}\"\n", option.name))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::options::sources::{from_file, from_flags};
    use crate::options::table::OptionSpec;
    use crate::types::{NoAccounts, Output};

    /// Reads options, writes them to a file, and reads that: both layers.
    fn read_back(values: impl Fn(&OptionSpec) -> Option<Vec<String>>) -> (Layer, Layer) {
        let given = from_flags(values, &NoAccounts);
        assert_eq!(given.problems, []);
        let read = from_file(Path::new("c.yaml"), &text(&given.layer), &NoAccounts);
        assert_eq!(read.problems, []);
        (given.layer, read.layer)
    }

    /// A value of each option that is not its default.
    fn value(name: &str) -> &'static str {
        match name {
            "proxy-inbound-port" | "proxy-outbound-port" | "dns-port" => "1066",
            "tproxy-mark" | "tproxy-route-table" => "0x10",
            "proxy-mark" => "0x20",
            "proxy-cgroup" => r"system.slice/a\x2db.service",
            "exclude-outbound-ports-for-uids" => "tcp:22,80-90:*;udp:53:7;*:1000-1999",
            "redirect-dns" | "drop-invalid" | "counters" | "allow-dns" => "true",
            "inbound-policy" | "outbound-policy" => "proxy-only",
            "close-wait-timeout" => "90s",
            "dns-servers" => "10.0.0.10,fd00::a",
            "mesh" => "linkerd",
            "inbound-mode" => "tproxy",
            "exclude-interfaces" | "bound-interfaces" | "reroute-interfaces" => "eth0.7,tap_1-a",
            "loopback-cidr" => "127.0.0.0/8",
            "ip-family" => "dual",
            "backend" => "iptables-nft",
            "log-level" => "warn",
            "log-format" => "json",
            name if name.ends_with("-cidrs") => "10.0.0.0/8,192.0.2.7,2001:db8::/32",
            _ => "7,9-12,4000-65535",
        }
    }

    #[test]
    fn every_option_is_read_back() {
        let is_persistent = |option: &OptionSpec| option.scope != Scope::DryRun;
        let (given, read) = read_back(|option| is_persistent(option).then(|| vec![value(option.name).to_owned()]));
        assert_eq!(read, given);
        let missing = OPTIONS.iter().filter(|option| (option.write)(&given).is_none());
        assert_eq!(missing.filter(|option| is_persistent(option)).count(), 0);
    }

    #[test]
    fn empty_and_complete_lists_are_read_back() {
        for text in ["", "*"] {
            let list = |option: &OptionSpec| {
                let name = option.name;
                let plural = name.ends_with('s') || matches!(name, "proxy-uid" | "proxy-gid");
                let plural = plural
                    && !matches!(
                        name,
                        "redirect-dns" | "allow-dns" | "counters" | "exclude-outbound-ports-for-uids" | "dns-servers"
                    );
                let takes = plural && (text.is_empty() || !name.ends_with("-interfaces"));
                takes.then(|| vec![text.to_owned()])
            };
            let (given, read) = read_back(list);
            assert_eq!(read, given, "{text:?}");
            assert_eq!(given.exclude_uids.is_some_and(|uids| uids.is_everything()), text == "*");
        }
    }

    #[test]
    fn odd_lists_are_rejected_or_read_back() {
        const ODD: [&str; 12] = ["", " ", ",", " , ,", "*", "*,", ",*", "*,1", "1,,1", "0", ";", "; ;"];
        for option in OPTIONS.iter().filter(|option| option.scope != Scope::DryRun) {
            for text in ODD.into_iter().chain([value(option.name)]) {
                let of = |other: &OptionSpec| (other.name == option.name).then(|| vec![text.to_owned()]);
                if from_flags(of, &NoAccounts).problems.is_empty() {
                    let (given, read) = read_back(of);
                    assert_eq!(read, given, "{}: {text:?}", option.name);
                } else {
                    assert_ne!(text, value(option.name), "{}", option.name);
                }
            }
        }
    }

    #[test]
    fn files_hold_given_options_without_those_of_dry_runs() {
        let layer = Layer {
            dry_run: Some(true),
            output: Some(Output::Json),
            drop_invalid: Some(false),
            ..Layer::default()
        };
        assert_eq!(text(&layer), "drop-invalid: \"false\"\n");
        assert_eq!(text(&Layer::default()), "");
    }
}
