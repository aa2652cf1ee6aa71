//! Which of several sources sets a value.

use super::*;

#[test]
fn proxy_users_keep_their_order_and_default_to_envoy_user() {
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
fn flags_override_aliases_variables_and_defaults() {
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
fn variables_equal_their_flags() {
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
fn empty_values_are_empty_lists_or_defaults() {
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
    assert!(config.dns.redirect, "an empty alias is ignored");
    assert_eq!(config.proxy.inbound_port.get(), 15006);
    assert_eq!(config.proxy.outbound_port.get(), 15001);
    assert!(
        config.inbound.include_ports.is_empty(),
        "the flag overrides the variable"
    );
    assert_eq!(
        config.inbound.tproxy_mark.get(),
        1337,
        "the flag overrides the variable"
    );
    assert_eq!(
        mistakes(&[("redirect-dns", "")], &[]),
        ["--redirect-dns: \"\" is not true or false"]
    );
}

#[test]
fn overridden_values_are_not_validated() {
    let config = config(
        &[("proxy-uid", "5")],
        &[("PROXY_UID", "five"), ("ENVOY_PORT", "tcp://10.0.0.1")],
    );
    assert_eq!(uids(&config), [5]);
}
