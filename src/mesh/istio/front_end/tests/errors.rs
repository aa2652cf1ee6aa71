//! Invalid values and contradictions.

use super::*;

/// An image whose `/etc/passwd` is missing or unreadable.
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

#[test]
fn all_invalid_values_are_reported_with_their_origin() {
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
    let reported: Vec<&str> = mistakes
        .iter()
        .filter_map(|mistake| mistake.split(" is not ").next())
        .collect();
    assert_eq!(
        reported,
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
fn contradictions_name_flags_of_istio() {
    assert_eq!(
        mistakes(&[("envoy-port", "15001"), ("inbound-capture-port", "15001")], &[]),
        ["--inbound-capture-port and --envoy-port: both are 15001; the proxy distinguishes the directions by port"]
    );
}

#[test]
fn invalid_values_of_checked_flags_are_usage_errors() {
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
fn unreadable_passwd_fails_only_lookups_of_names() {
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
    // An image without a passwd file uses the default UID.
    assert_eq!(proxy(&missing, &[], &[]), Ok(vec![1337]));
    for (accounts, variables) in [(&missing, &named[..]), (&unreadable, &named), (&unreadable, &[])] {
        let error = proxy(accounts, &[], variables).unwrap_err();
        assert!(
            error.starts_with("ENVOY_USER: ") && error.contains("/etc/passwd"),
            "{error}"
        );
        assert!(error.contains("--proxy-uid"), "{error}");
        assert_eq!(proxy(accounts, &[("proxy-uid", "7")], variables), Ok(vec![7]));
        let error = proxy(accounts, &[("proxy-uid", "envoy")], variables).unwrap_err();
        assert!(
            error.starts_with("--proxy-uid: ") && error.contains("/etc/passwd"),
            "{error}"
        );
    }
}

#[test]
fn contradictions_are_reported_beside_invalid_values() {
    let ports = [("envoy-port", "15006"), ("inbound-capture-port", "15006")];
    let reported = mistakes(&[&ports[..], &[("force-iptables-binary", "best")]].concat(), &[]);
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(
        reported[0].starts_with("--force-iptables-binary: ") && reported[1].contains("both are 15006"),
        "{reported:?}"
    );
    // A contradiction that follows from an invalid value is not reported.
    let reported = mistakes(&[("envoy-port", "x"), ("inbound-capture-port", "15001")], &[]);
    assert_eq!(reported.len(), 1, "{reported:?}");
}
