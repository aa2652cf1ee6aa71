//! The settings that single flags and variables lead to.

use super::*;

#[test]
fn no_settings_give_the_defaults() {
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
fn explicit_defaults_change_nothing() {
    let written: Vec<(&str, &str)> = SETTINGS
        .iter()
        .filter(|setting| setting.has_flag() && !matches!(setting.kind, Kind::Ignored(_)))
        .map(|setting| (setting.name, setting.default))
        .collect();
    assert_eq!(request(&written, &[]), request(&[], &[]));
}

#[test]
fn each_setting_sets_its_option() {
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
fn excluded_inbound_ports_need_all_ports_included() {
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
fn excluded_groups_need_all_groups_included() {
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
fn switches_select_task_backend_and_probe() {
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
fn log_flags_are_applied_or_reported_as_ignored() {
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
    assert_eq!(parsed.notes, ["--log_target is accepted and ignored"]);
    assert!(parsed.request.is_ok());
}
