//! Flags as Linkerd's injector and its users pass them.

use super::values::MODES;
use super::*;
use crate::mesh::linkerd::front_end::table::SETTINGS;
use crate::types::{Backend, IpFamily, LogFormat, LogLevel, MeshName, Output, Timeout};

/// The default flags of Linkerd's chart.
const CHART: &str = "firewall-bin-path=iptables-nft firewall-save-bin-path=iptables-nft-save ipv6=false \
                     incoming-proxy-port=4143 outgoing-proxy-port=4140 proxy-uid=2102 \
                     inbound-ports-to-ignore=4190,4191,4567,4568 outbound-ports-to-ignore=4567,4568";

fn parse(flags: &[(&str, &str)]) -> Parsed {
    for (name, _) in flags {
        assert!(SETTINGS.iter().any(|setting| setting.name == *name), "{name}");
    }
    read(|setting| {
        let texts = flags.iter().filter(|(name, _)| *name == setting.name);
        texts.map(|(_, text)| (*text).to_owned()).collect()
    })
}

/// Reads the required flags and these.
fn with(flags: &[(&str, &str)]) -> Parsed {
    let needed = [
        ("incoming-proxy-port", "4143"),
        ("outgoing-proxy-port", "4140"),
        ("proxy-uid", "2102"),
    ];
    parse(&[&needed, flags].concat())
}

#[track_caller]
fn accepted(flags: &[(&str, &str)]) -> Request {
    with(flags).request.unwrap()
}

#[track_caller]
fn refused(flags: &[(&str, &str)]) -> String {
    let mistakes = with(flags).request.unwrap_err();
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

#[test]
fn default_flags_of_the_chart_are_read() {
    let flags: Vec<(&str, &str)> = CHART
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let parsed = parse(&flags);
    let request = parsed.request.unwrap();
    let config = &request.settings.config;
    assert_eq!(config.proxy.mesh, MeshName::Linkerd);
    assert_eq!(config.proxy.inbound_port.get(), 4143);
    assert_eq!(config.proxy.outbound_port.get(), 4140);
    assert_eq!(config.proxy.uids.to_string(), "2102");
    assert!(config.proxy.gids.is_empty() && config.proxy.mesh_ports.is_empty());
    assert!(config.inbound.include_ports.is_everything());
    assert_eq!(config.inbound.exclude_ports.to_string(), "4190-4191,4567-4568");
    assert_eq!(config.outbound.exclude_ports.to_string(), "4567-4568");
    assert_eq!(config.general.ip_family, IpFamily::Ipv4);
    assert_eq!(request.settings.install.backend, Backend::Auto);
    assert_eq!(request.netns, None);
    assert_eq!(
        config.general.close_wait_timeout,
        Settings::default().config.general.close_wait_timeout
    );
    assert_eq!(parsed.notes, ["--firewall-save-bin-path is accepted and ignored"]);
}

#[test]
fn ports_of_the_proxy_are_required() {
    let mistakes = parse(&[("proxy-uid", "2102")]).request.unwrap_err();
    let missing = ["incoming-proxy-port", "outgoing-proxy-port"].map(|name| Mistake::of_flag(name, "it is required"));
    assert_eq!(mistakes, missing);
    for text in ["-1", "0", "65536", "http", ""] {
        assert!(
            refused(&[("incoming-proxy-port", text)]).contains("--incoming-proxy-port"),
            "{text}"
        );
    }
    let same = refused(&[("outgoing-proxy-port", "4143")]);
    assert!(
        same.contains("--incoming-proxy-port and --outgoing-proxy-port: both are 4143"),
        "{same}"
    );
}

#[test]
fn numbers_are_read_like_go() {
    for text in ["2000", "0x7d0", "2_000", "+2000", "03720"] {
        let request = accepted(&[("proxy-uid", text), ("proxy-gid", text)]);
        assert_eq!(request.settings.config.proxy.uids.to_string(), "2000", "{text}");
        assert_eq!(request.settings.config.proxy.gids.to_string(), "2000", "{text}");
    }
    for text in ["4294967295", "4294967296", "root", "2102,2103", ""] {
        assert!(refused(&[("proxy-uid", text)]).contains("--proxy-uid"), "{text}");
    }
}

#[test]
fn owners_not_above_0_are_ignored() {
    for text in ["-1", "0", "-99999999999"] {
        let request = accepted(&[("proxy-gid", text)]);
        assert!(request.settings.config.proxy.gids.is_empty(), "{text}");
        let request = accepted(&[("proxy-uid", text), ("proxy-gid", "2102")]);
        assert!(request.settings.config.proxy.uids.is_empty(), "{text}");
        let neither = refused(&[("proxy-uid", text)]);
        assert!(neither.contains("--proxy-uid and --proxy-gid"), "{neither}");
    }
}

#[test]
fn last_values_apply_and_lists_add_up() {
    let request = accepted(&[
        ("incoming-proxy-port", "0"),
        ("incoming-proxy-port", "14143"),
        ("ports-to-redirect", "80,81"),
        ("ports-to-redirect", "8080"),
        ("outbound-ports-to-ignore", "25"),
        ("outbound-ports-to-ignore", "443,6443"),
    ]);
    let config = &request.settings.config;
    assert_eq!(config.proxy.inbound_port.get(), 14143);
    assert_eq!(config.inbound.include_ports.to_string(), "80-81,8080");
    assert_eq!(config.outbound.exclude_ports.to_string(), "25,443,6443");
    assert!(refused(&[("proxy-uid", "root"), ("proxy-uid", "2102")]).contains("\"root\""));
}

#[test]
fn invalid_ports_to_ignore_are_skipped_unless_all_are_invalid() {
    let parsed = with(&[
        (
            "inbound-ports-to-ignore",
            "+80,080,90-90,100-200, 25,http,9-8,1-2-3,a:b,65536",
        ),
        ("inbound-ports-to-ignore", "0,0-7"),
    ]);
    let excluded = parsed.request.unwrap().settings.config.inbound.exclude_ports;
    assert_eq!(excluded.to_string(), "1-7,80,90,100-200");
    let bad = [" 25", "http", "9-8", "1-2-3", "a:b", "65536"];
    assert_eq!(parsed.ignored_items.len(), bad.len(), "{:?}", parsed.ignored_items);
    for (message, item) in parsed.ignored_items.iter().zip(bad) {
        assert!(
            message.contains(&format!("--inbound-ports-to-ignore: {item:?} is not a port")),
            "{message}"
        );
    }
    for text in ["http", ",", " 25", "1-2-3,x", "\"25", "-80"] {
        assert!(
            refused(&[("outbound-ports-to-ignore", text)]).contains("--outbound-ports-to-ignore"),
            "{text}"
        );
    }
    assert!(
        accepted(&[("inbound-ports-to-ignore", "")])
            .settings
            .config
            .inbound
            .exclude_ports
            .is_empty()
    );
    assert!(
        accepted(&[("inbound-ports-to-ignore", "0")])
            .settings
            .config
            .inbound
            .exclude_ports
            .is_empty()
    );
}

#[test]
fn ports_to_redirect_are_numbers() {
    for text in ["80, 443", "", "70000", "-5", "0", "8000-8010", "80,"] {
        assert!(
            refused(&[("ports-to-redirect", text)]).contains("--ports-to-redirect"),
            "{text}"
        );
    }
}

#[test]
fn subnets_require_a_prefix_length() {
    let request = accepted(&[("subnets-to-ignore", " 10.1.2.3/8 ,2001:db8::1/32")]);
    let excluded = &request.settings.config.inbound.exclude_cidrs;
    assert_eq!(excluded.to_string(), "10.0.0.0/8,2001:db8::/32");
    for text in [
        "10.0.0.1",
        "*",
        "10.0.0.0/33",
        "10.0.0.0/8,",
        "\"10.0.0.0/8,11.0.0.0/8\"",
        "::1/129",
    ] {
        assert!(
            refused(&[("subnets-to-ignore", text)]).contains("is not a CIDR"),
            "{text}"
        );
    }
}

#[test]
fn ipv6_is_enabled_by_default() {
    let family = |flags: &[(&str, &str)]| accepted(flags).settings.config.general.ip_family;
    assert_eq!(family(&[]), IpFamily::Auto);
    assert_eq!(family(&[("ipv6", "T")]), IpFamily::Auto);
    assert_eq!(family(&[("ipv6", "0")]), IpFamily::Ipv4);
    assert!(refused(&[("ipv6", "no")]).contains("--ipv6"));
}

#[test]
fn iptables_mode_overrides_firewall_bin_path() {
    let backend = |flags: &[(&str, &str)]| accepted(flags).settings.install.backend;
    for (mode, program, expected) in MODES {
        assert_eq!(backend(&[("iptables-mode", mode)]), expected);
        assert_eq!(backend(&[("firewall-bin-path", program)]), expected);
        assert_eq!(
            backend(&[("iptables-mode", mode), ("firewall-bin-path", "/x")]),
            expected
        );
    }
    assert_eq!(backend(&[]), Backend::Auto);
    assert_eq!(
        backend(&[("iptables-mode", ""), ("firewall-bin-path", "")]),
        Backend::Auto
    );
    assert!(refused(&[("iptables-mode", "NFT")]).contains("is not legacy, nft, plain"));
    let path = refused(&[("firewall-bin-path", "/usr/sbin/iptables-nft")]);
    assert!(
        path.contains("is not iptables-legacy, iptables-nft, iptables"),
        "{path}"
    );
}

#[test]
fn log_and_remaining_flags_set_their_options() {
    let log = |flags: &[(&str, &str)]| with(flags).logging;
    assert_eq!(log(&[("log-format", "json")]).format, LogFormat::Json);
    for plain in ["plain", "JSON", "", "xml"] {
        assert_eq!(log(&[("log-format", plain)]).format, LogFormat::Text, "{plain}");
    }
    for (text, level) in [
        ("panic", LogLevel::Error),
        ("FATAL", LogLevel::Error),
        ("Warning", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ] {
        assert_eq!(log(&[("log-level", text)]).level, level, "{text}");
    }
    assert!(refused(&[("log-level", "loud")]).contains("--log-level"));
    let request = accepted(&[
        ("netns", "/proc/1/ns/net"),
        ("timeout-close-wait-secs", "3600"),
        ("simulate", "1"),
    ]);
    assert_eq!(request.netns.as_deref(), Some("/proc/1/ns/net"));
    let close_wait = |request: Request| request.settings.config.general.close_wait_timeout;
    assert_eq!(close_wait(request.clone()), Timeout::new(3600));
    assert_eq!(close_wait(accepted(&[("timeout-close-wait-secs", "0")])), None);
    for nothing in ["-5", "1728001", "9223372036854775807"] {
        let said = refused(&[("timeout-close-wait-secs", nothing)]);
        assert!(said.contains("seconds from 0 to 1728000"), "{said}");
    }
    assert!(request.settings.dry_run.requested);
    let simulated = |flags| accepted(flags).settings.dry_run.output;
    assert_eq!(simulated(&[]), Output::Nft);
    assert_eq!(simulated(&[("iptables-mode", "legacy")]), Output::Iptables);
    assert_eq!(
        with(&[("use-wait-flag", "true")]).notes,
        ["--use-wait-flag is accepted and ignored"]
    );
    assert!(refused(&[("use-wait-flag", "maybe")]).contains("--use-wait-flag"));
}

#[test]
fn invalid_iptables_mode_is_reported_with_other_errors() {
    for (flag, text) in [("iptables-mode", "best"), ("firewall-bin-path", "/opt/iptables")] {
        let error = refused(&[(flag, text), ("proxy-uid", "nobody"), ("log-level", "loud")]);
        for wrong in [flag, "proxy-uid", "log-level"] {
            assert!(error.contains(&format!("--{wrong}: ")), "{error}");
        }
        let error = refused(&[(flag, text), ("outgoing-proxy-port", "4143")]);
        assert!(
            error.contains(&format!("--{flag}: ")) && error.contains("both are 4143"),
            "{error}"
        );
    }
}
