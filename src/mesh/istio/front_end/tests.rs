//! Flags and variables, and what they mean.

use super::*;
use crate::options::{Config, Dialect};
use crate::types::{
    AccountsError, Backend, DnsServers, Id, InboundMode, InterfaceName, IpFamily, LogFormat, LogLevel, Mark, Output,
    Ports, RouteTable, parse_cidrs, parse_ports,
};

/// The accounts of an ordinary image.
struct Image;

impl Accounts for Image {
    fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok((name == "envoy").then_some(1500))
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok((name == "java").then_some(2201))
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Ok(false)
    }
}

/// An image whose `/etc/passwd` is not there, or cannot be read.
struct NoList(fn() -> AccountsError);

impl Accounts for NoList {
    fn uid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Err((self.0)())
    }

    fn gid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Err((self.0)())
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Err((self.0)())
    }
}

/// Flags by long name, and variables.
fn parsed_in(accounts: &dyn Accounts, flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Parsed {
    let find = |pairs: &[(&str, &str)], name: &str| {
        let pair = pairs.iter().find(|(key, _)| *key == name);
        pair.map(|(_, text)| (*text).to_owned())
    };
    for (name, _) in flags {
        assert!(
            SETTINGS
                .iter()
                .any(|setting| setting.name == *name && setting.has_flag()),
            "no flag {name}"
        );
    }
    read(
        |setting| find(flags, setting.name),
        |name| find(variables, name),
        accounts,
    )
}

fn parsed(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Parsed {
    parsed_in(&Image, flags, variables)
}

fn request(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Request {
    parsed(flags, variables).request.unwrap()
}

fn config(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Config {
    request(flags, variables).settings.config
}

fn mistakes(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Vec<String> {
    let mistakes = parsed(flags, variables).request.unwrap_err();
    mistakes.iter().map(ToString::to_string).collect()
}

fn uids(config: &Config) -> Vec<u32> {
    let Dialect::Istio(order) = &config.dialect else {
        panic!("{:?}", config.dialect);
    };
    assert_eq!(config.proxy.uids, order.uids.iter().copied().collect());
    assert_eq!(config.proxy.gids, order.gids.iter().copied().collect());
    order.uids.iter().map(|uid| uid.get()).collect()
}

fn gids(config: &Config) -> Vec<u32> {
    let Dialect::Istio(order) = &config.dialect else {
        panic!("{:?}", config.dialect);
    };
    order.gids.iter().map(|gid| gid.get()).collect()
}

fn interfaces(names: &[&str]) -> Vec<InterfaceName> {
    names.iter().map(|name| InterfaceName::parse(name).unwrap()).collect()
}

fn ports(text: &str) -> Ports {
    parse_ports(text).unwrap()
}

#[test]
fn without_settings_nothing_but_the_proxy_is_known() {
    let request = request(&[], &[]);
    let config = &request.settings.config;
    assert_eq!(config.proxy.outbound_port, Port::new(15001).unwrap());
    assert_eq!(config.proxy.inbound_port, Port::new(15006).unwrap());
    assert_eq!(config.proxy.mesh_ports, ports("15008"));
    assert_eq!((uids(config), gids(config)), (vec![1337], vec![1337]));
    assert!(config.inbound.include_ports.is_empty() && config.inbound.exclude_ports.is_empty());
    assert!(config.outbound.include_cidrs.is_empty() && config.outbound.include_ports.is_empty());
    assert!(config.outbound.include_gids.is_everything() && config.outbound.exclude_gids.is_empty());
    assert!(!config.dns.redirect && !config.general.drop_invalid);
    assert_eq!(config.dns.port, Port::new(15053).unwrap());
    assert_eq!(config.general.ip_family, IpFamily::Auto);
    assert_eq!(config.inbound.mode, InboundMode::Redirect);
    assert_eq!(request.settings.install.backend, Backend::Auto);
    assert_eq!(request.settings.dry_run.output, Output::Iptables);
    assert!(!request.settings.dry_run.requested);
    assert_eq!((request.task, request.probe), (Task::Apply, None));
    assert_eq!((request.netns, request.dry_run_file), (None, None));
}

#[test]
fn defaults_that_are_written_out_change_nothing() {
    let written: Vec<(&str, &str)> = SETTINGS
        .iter()
        .filter(|setting| setting.has_flag() && !matches!(setting.kind, Kind::Ignored(_)))
        .map(|setting| (setting.name, setting.default))
        .collect();
    assert_eq!(request(&written, &[]), request(&[], &[]));
}

#[test]
fn each_setting_becomes_what_the_table_says() {
    let both = config(
        &[
            ("envoy-port", "1"),
            ("inbound-capture-port", "2"),
            ("inbound-tunnel-port", "3"),
        ],
        &[],
    );
    assert_eq!(both.proxy.outbound_port, Port::new(1).unwrap());
    assert_eq!(both.proxy.inbound_port, Port::new(2).unwrap());
    assert_eq!(both.proxy.mesh_ports, ports("3"));
    let tproxy = config(
        &[
            ("istio-inbound-interception-mode", "TPROXY"),
            ("istio-inbound-tproxy-mark", "1400"),
            ("istio-inbound-tproxy-route-table", "200"),
        ],
        &[],
    );
    assert_eq!(tproxy.inbound.mode, InboundMode::Tproxy);
    assert_eq!(tproxy.inbound.tproxy_mark, Mark::new(1400).unwrap());
    assert_eq!(tproxy.inbound.tproxy_route_table, RouteTable::new(200).unwrap());
    let outbound = config(
        &[
            ("istio-service-cidr", "10.0.0.0/8,fd00::/8"),
            ("istio-service-exclude-cidr", "10.1.0.0/16"),
            ("istio-outbound-ports", "443,8000:8080"),
            ("istio-local-outbound-ports-exclude", "3306"),
        ],
        &[],
    )
    .outbound;
    assert_eq!(outbound.include_cidrs, parse_cidrs("10.0.0.0/8,fd00::/8").unwrap());
    assert_eq!(outbound.exclude_cidrs, parse_cidrs("10.1.0.0/16").unwrap());
    assert_eq!(outbound.include_ports, ports("443,8000-8080"));
    assert_eq!(outbound.exclude_ports, ports("3306"));
    assert!(
        config(&[("istio-service-cidr", "*")], &[])
            .outbound
            .include_cidrs
            .is_everything()
    );
    let general = config(
        &[
            ("istio-exclude-interfaces", "eth1,eth2"),
            ("kube-virt-interfaces", "tap0"),
            ("drop-invalid", "true"),
            ("dual-stack", "true"),
            ("redirect-dns", "true"),
            ("capture-all-dns", "true"),
        ],
        &[("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.1/8")],
    );
    assert_eq!(general.general.exclude_interfaces, interfaces(&["eth1", "eth2"]));
    assert_eq!(general.general.reroute_interfaces, interfaces(&["tap0"]));
    assert!(general.general.drop_invalid && general.dns.redirect);
    assert_eq!(general.dns.servers, DnsServers::All);
    assert_eq!(general.general.ip_family, IpFamily::Dual);
    assert_eq!(general.general.loopback_cidr.to_string(), "127.0.0.0/8");
}

#[test]
fn excluded_inbound_ports_count_only_where_all_are_included() {
    let excluded = |included| {
        let flags = [
            ("istio-inbound-ports", included),
            ("istio-local-exclude-ports", "15090"),
        ];
        config(&flags, &[]).inbound.exclude_ports
    };
    assert_eq!(excluded("*"), ports("15090"));
    assert!(excluded("8080,15090").is_empty());
    assert!(excluded("").is_empty());
}

#[test]
fn the_proxy_is_its_users_in_their_order_and_else_the_user_of_the_variable() {
    let of = |flags: &[(&str, &str)], variables: &[(&str, &str)]| {
        let config = config(flags, variables);
        (uids(&config), gids(&config))
    };
    assert_eq!(
        of(&[("proxy-uid", "4,3"), ("proxy-gid", "2,1")], &[]),
        (vec![4, 3], vec![2, 1])
    );
    assert_eq!(of(&[("proxy-uid", "4,3")], &[]), (vec![4, 3], vec![4, 3]));
    assert_eq!(of(&[("proxy-gid", "7")], &[]), (vec![1337], vec![7]));
    assert_eq!(of(&[("proxy-uid", "0")], &[]), (vec![0], vec![0]));
    assert_eq!(of(&[("proxy-uid", "envoy")], &[]), (vec![1500], vec![1500]));
    assert_eq!(of(&[], &[("ENVOY_USER", "envoy")]), (vec![1500], vec![1500]));
    assert_eq!(of(&[], &[("ENVOY_USER", "no-such-user")]), (vec![1337], vec![1337]));
    assert_eq!(
        of(&[("proxy-uid", "")], &[("PROXY_UID", "5"), ("ENVOY_USER", "envoy")]).0,
        [1500]
    );
    assert_eq!(of(&[("proxy-uid", "9")], &[("ENVOY_USER", "envoy")]).0, [9]);
}

#[test]
fn excluded_groups_count_only_where_all_are_included() {
    let of = |variables: &[(&str, &str)]| {
        let outbound = config(&[], variables).outbound;
        (outbound.include_gids.to_string(), outbound.exclude_gids.to_string())
    };
    let (include, exclude) = ("ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE");
    let is = |include: &str, exclude: &str| (include.to_owned(), exclude.to_owned());
    assert_eq!(of(&[]), is("*", ""));
    assert_eq!(of(&[(include, "java,202")]), is("202,2201", ""));
    assert_eq!(of(&[(include, "java"), (exclude, "888")]), is("2201", ""));
    assert_eq!(of(&[(exclude, "888,java")]), is("*", "888,2201"));
    assert_eq!(of(&[(include, "*"), (exclude, "888")]), is("*", "888"));
    assert_eq!(of(&[(include, ""), (exclude, "888")]), is("", ""));
}

#[test]
fn a_flag_counts_before_an_alias_before_a_variable_before_the_default() {
    for setting in SETTINGS.iter().filter(|setting| setting.kind == Kind::Switch) {
        let variables = setting.variables();
        for (index, variable) in variables.iter().enumerate() {
            let lower: Vec<(&str, &str)> = variables[index + 1..]
                .iter()
                .map(|name| (name.as_str(), "false"))
                .collect();
            let all = [&[(variable.as_str(), "true")], lower.as_slice()].concat();
            assert_eq!(
                request(&[], &all),
                request(&[(setting.name, "true")], &[]),
                "{variable}"
            );
            assert_eq!(
                request(&[(setting.name, "false")], &all),
                request(&[], &[]),
                "{variable}"
            );
        }
    }
    let port = |flags: &[(&str, &str)], variables: &[(&str, &str)]| config(flags, variables).proxy.inbound_port.get();
    let variable = [("INBOUND_CAPTURE_PORT", "3")];
    assert_eq!(port(&[("inbound-capture-port", "2")], &variable), 2);
    assert_eq!(port(&[], &variable), 3);
    assert_eq!(config(&[], &[("ENVOY_PORT", "3")]).proxy.outbound_port.get(), 15001);
}

#[test]
fn a_variable_says_what_the_flag_of_its_name_does() {
    let sample = |setting: &Setting| match setting.value_name() {
        None => "true",
        Some("MODE") => "TPROXY",
        Some("CIDRS") => "10.0.0.0/8",
        Some("NAMES") => "eth7",
        Some("BINARY") => "legacy",
        Some("DURATION") => "9s",
        Some("PATH") => "/run/netns/pod",
        Some(_) => "42",
    };
    let base = [("run-validation", "true"), ("istio-inbound-ports", "*")];
    let accepted = ["cni-mode", "reconcile", "force-apply"];
    let settings = SETTINGS
        .iter()
        .filter(|setting| setting.has_flag() && !setting.name.starts_with("log_"));
    for setting in settings.filter(|setting| !matches!(setting.kind, Kind::Ignored(_))) {
        let others: Vec<(&str, &str)> = base.into_iter().filter(|(name, _)| *name != setting.name).collect();
        let by_flag = request(&[others.as_slice(), &[(setting.name, sample(setting))]].concat(), &[]);
        assert_eq!(
            by_flag == request(&others, &[]),
            accepted.contains(&setting.name),
            "{}",
            setting.name
        );
        for variable in setting.variables() {
            assert_eq!(request(&others, &[(&variable, sample(setting))]), by_flag, "{variable}");
        }
    }
}

#[test]
fn an_empty_text_is_an_empty_list_or_the_default() {
    let variables = [
        ("REDIRECT_DNS", "true"),
        ("ISTIO_META_DNS_CAPTURE", ""),
        ("PROBE_TIMEOUT", ""),
        ("INBOUND_CAPTURE_PORT", ""),
        ("ISTIO_INBOUND_PORTS", "*"),
        ("ISTIO_INBOUND_TPROXY_MARK", "7"),
    ];
    let flags = [
        ("envoy-port", ""),
        ("istio-inbound-interception-mode", ""),
        ("istio-inbound-ports", ""),
        ("istio-inbound-tproxy-mark", ""),
    ];
    let config = config(&flags, &variables);
    assert!(config.dns.redirect, "an empty alias says nothing");
    assert_eq!(config.proxy.inbound_port.get(), 15006);
    assert_eq!(config.proxy.outbound_port.get(), 15001);
    assert!(
        config.inbound.include_ports.is_empty(),
        "the flag counts, not the variable"
    );
    assert_eq!(
        config.inbound.tproxy_mark.get(),
        1337,
        "the flag counts, not the variable"
    );
    assert_eq!(
        mistakes(&[("redirect-dns", "")], &[]),
        ["--redirect-dns: \"\" is not true or false"]
    );
}

#[test]
fn the_task_and_the_tools_follow_from_several_switches() {
    let task = |flags: &[(&str, &str)]| request(flags, &[]).task;
    assert_eq!(task(&[("cleanup-only", "true")]), Task::Cleanup);
    assert_eq!(task(&[("skip-rule-apply", "true")]), Task::Nothing);
    assert_eq!(
        task(&[("skip-rule-apply", "true"), ("cleanup-only", "true")]),
        Task::Nothing
    );
    let run = |flags: &[(&str, &str)]| {
        let settings = request(flags, &[]).settings;
        (settings.install.backend, settings.dry_run.output)
    };
    assert_eq!(run(&[("native-nftables", "true")]), (Backend::Auto, Output::Nft));
    assert_eq!(
        run(&[("force-iptables-binary", "legacy")]),
        (Backend::IptablesLegacy, Output::Iptables)
    );
    assert_eq!(
        run(&[("force-iptables-binary", "nft")]),
        (Backend::IptablesNft, Output::Iptables)
    );
    assert_eq!(
        run(&[("force-iptables-binary", "nft"), ("native-nftables", "true")]),
        (Backend::Auto, Output::Nft)
    );
    let probe = |port, seconds| {
        Some(Probe {
            port: Port::new(port).unwrap(),
            timeout: Duration::from_secs(seconds),
        })
    };
    assert_eq!(request(&[("run-validation", "true")], &[]).probe, probe(15002, 5));
    let flags = [
        ("run-validation", "true"),
        ("iptables-probe-port", "9"),
        ("probe-timeout", "1m"),
    ];
    assert_eq!(request(&flags, &[]).probe, probe(9, 60));
    assert_eq!(request(&flags[1..], &[]).probe, None);
    let elsewhere = request(
        &[("network-namespace", "/run/netns/pod")],
        &[("DRY_RUN_FILE_PATH", "rules")],
    );
    assert_eq!(elsewhere.netns.as_deref(), Some("/run/netns/pod"));
    assert_eq!(elsewhere.dry_run_file, Some(PathBuf::from("rules")));
}

#[test]
fn flags_about_the_log_are_honoured_or_noted() {
    let parsed = parsed(
        &[
            ("log_as_json", "true"),
            ("log_output_level", "default:debug"),
            ("log_target", "stdout"),
        ],
        &[],
    );
    assert_eq!(parsed.logging.format, LogFormat::Json);
    assert_eq!(parsed.logging.level, LogLevel::Debug);
    assert_eq!(parsed.notes, ["--log_target is accepted, but does nothing"]);
    assert!(parsed.request.is_ok());
}

#[test]
fn everything_wrong_is_told_at_once_with_where_it_was_given() {
    let flags = [
        ("envoy-port", "0"),
        ("istio-inbound-interception-mode", "tproxy"),
        ("istio-inbound-ports", "*,80"),
        ("istio-local-exclude-ports", "15090,65536,x"),
        ("istio-service-exclude-cidr", "*"),
        ("istio-service-cidr", "10.0.0.0/33"),
        ("istio-exclude-interfaces", "eth0,$(reboot)"),
        ("force-iptables-binary", "iptables"),
    ];
    let variables = [
        ("INBOUND_CAPTURE_PORT", "tcp://10.96.0.1:80"),
        ("PROXY_UID", "1000-2000"),
        ("PROXY_GID", "no-such-group"),
        ("ISTIO_META_DNS_CAPTURE", "yes"),
        ("IPTABLES_PROBE_PORT", "70000"),
        ("PROBE_TIMEOUT", "5"),
        ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "10.0.0.0/8"),
    ];
    let mistakes = mistakes(&flags, &variables);
    let told: Vec<&str> = mistakes
        .iter()
        .filter_map(|mistake| mistake.split(" is not ").next())
        .collect();
    assert_eq!(
        told,
        [
            "--envoy-port: \"0\"",
            "INBOUND_CAPTURE_PORT: \"tcp://10.96.0.1:80\"",
            "PROXY_UID: \"1000-2000\"",
            "PROXY_GID: \"no-such-group\"",
            "--istio-inbound-interception-mode: \"tproxy\"",
            "--istio-inbound-ports: \"*\"",
            "--istio-local-exclude-ports: \"65536\"",
            "--istio-local-exclude-ports: \"x\"",
            "--istio-service-cidr: \"10.0.0.0/33\"",
            "--istio-service-exclude-cidr: \"*\"",
            "--istio-exclude-interfaces: \"$(reboot)\"",
            "ISTIO_META_DNS_CAPTURE: \"yes\"",
            "--force-iptables-binary: \"iptables\"",
            "IPTABLES_PROBE_PORT: \"70000\"",
            "PROBE_TIMEOUT: \"5\"",
            "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR: \"10.0.0.0/8\"",
        ]
    );
}

#[test]
fn a_value_that_does_not_count_is_not_looked_at() {
    let config = config(
        &[("proxy-uid", "5")],
        &[("PROXY_UID", "five"), ("ENVOY_PORT", "tcp://10.0.0.1")],
    );
    assert_eq!(uids(&config), [5]);
}

#[test]
fn contradictions_are_told_in_istio_s_words() {
    assert_eq!(
        mistakes(&[("envoy-port", "15001"), ("inbound-capture-port", "15001")], &[]),
        ["--inbound-capture-port and --envoy-port: both are 15001; the proxy tells the directions apart by port"]
    );
}

#[test]
fn only_a_bad_value_of_a_flag_that_istio_checks_is_wrong_usage() {
    let usage = |flags: &[(&str, &str)], variables: &[(&str, &str)]| {
        let mistakes = parsed(flags, variables).request.unwrap_err();
        mistakes
            .iter()
            .any(|mistake| matches!(mistake, Mistake::Value { usage: true, .. }))
    };
    assert!(usage(&[("redirect-dns", "yes")], &[]));
    assert!(usage(&[("iptables-probe-port", "99999")], &[]));
    assert!(usage(&[("probe-timeout", "5")], &[]));
    assert!(usage(&[("log_output_level", "loud")], &[]));
    assert!(!usage(&[("envoy-port", "x")], &[]));
    assert!(!usage(&[], &[("REDIRECT_DNS", "yes")]));
}

#[test]
fn a_list_of_users_that_cannot_be_read_is_an_error_where_a_name_is_needed() {
    let missing = NoList(|| AccountsError::Missing {
        file: "/etc/passwd".into(),
    });
    let unreadable = NoList(|| AccountsError::Unreadable {
        file: "/etc/passwd".into(),
        source: std::io::ErrorKind::PermissionDenied.into(),
    });
    let proxy = |accounts: &NoList, flags: &[(&str, &str)], variables: &[(&str, &str)]| {
        let request = parsed_in(accounts, flags, variables).request;
        request
            .map(|request| uids(&request.settings.config))
            .map_err(|mistakes| mistakes[0].to_string())
    };
    let named = [("ENVOY_USER", "envoy")];
    // An image without users, and nobody named any.
    assert_eq!(proxy(&missing, &[], &[]), Ok(vec![1337]));
    for (accounts, variables) in [(&missing, &named[..]), (&unreadable, &named), (&unreadable, &[])] {
        let refused = proxy(accounts, &[], variables).unwrap_err();
        assert!(
            refused.starts_with("ENVOY_USER: ") && refused.contains("/etc/passwd"),
            "{refused}"
        );
        assert!(refused.contains("--proxy-uid"), "{refused}");
        assert_eq!(proxy(accounts, &[("proxy-uid", "7")], variables), Ok(vec![7]));
        let refused = proxy(accounts, &[("proxy-uid", "envoy")], variables).unwrap_err();
        assert!(
            refused.starts_with("--proxy-uid: ") && refused.contains("/etc/passwd"),
            "{refused}"
        );
    }
}

#[test]
fn what_is_wrong_together_is_told_beside_what_is_wrong_alone() {
    let ports = [("envoy-port", "15006"), ("inbound-capture-port", "15006")];
    let told = mistakes(&[&ports[..], &[("force-iptables-binary", "best")]].concat(), &[]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("--force-iptables-binary: ") && told[1].contains("both are 15006"),
        "{told:?}"
    );
    // But not what follows from a value that is wrong itself.
    let told = mistakes(&[("envoy-port", "x"), ("inbound-capture-port", "15001")], &[]);
    assert_eq!(told.len(), 1, "{told:?}");
}
