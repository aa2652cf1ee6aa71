use super::table::Setting;
use super::{Parsed, VARIABLES, read};
use crate::mesh::front_end::Mistake;
use crate::options::{Config, Dialect, KumaRules, Settings};
use crate::types::{Accounts, AccountsError, Backend, DnsServers, IpFamily};

/// A host with these users.
struct Host(&'static [(&'static str, u32)]);

impl Accounts for Host {
    fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok(self.0.iter().find(|(known, _)| *known == name).map(|(_, uid)| *uid))
    }

    fn gid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Ok(None)
    }

    fn has_uid(&self, uid: u32) -> Result<bool, AccountsError> {
        Ok(self.0.iter().any(|(_, known)| *known == uid))
    }
}

/// An image without `/etc/passwd`.
struct NoPasswd;

impl Accounts for NoPasswd {
    fn uid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Err(missing())
    }

    fn gid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Ok(None)
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Err(missing())
    }
}

fn missing() -> AccountsError {
    AccountsError::Missing {
        file: "/etc/passwd".into(),
    }
}

/// A host whose `/etc/passwd` is unreadable.
struct Unreadable;

impl Unreadable {
    fn error() -> AccountsError {
        AccountsError::Unreadable {
            file: "/etc/passwd".into(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        }
    }
}

impl Accounts for Unreadable {
    fn uid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Err(Self::error())
    }

    fn gid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        Err(Self::error())
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Err(Self::error())
    }
}

/// Reads flags as `NAME=VALUE`, and variables likewise, without their prefix.
fn parsed(flags: &[&str], files: &[&str], variables: &[&str], accounts: &dyn Accounts) -> Parsed {
    let flag = |setting: &Setting| {
        let pairs = flags.iter().filter_map(|flag| flag.split_once('='));
        let texts: Vec<String> = pairs
            .filter(|(name, _)| *name == setting.name)
            .map(|(_, text)| text.to_owned())
            .collect();
        (!texts.is_empty()).then_some(texts)
    };
    let files: Vec<(String, String)> = files
        .iter()
        .enumerate()
        .map(|(number, text)| (format!("file {number}"), (*text).to_owned()))
        .collect();
    let variable = |name: &str| {
        let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
        pairs
            .filter(|(known, _)| name.strip_prefix(VARIABLES) == Some(*known))
            .map(|(_, text)| text.to_owned())
            .next()
    };
    read(flag, &files, variable, accounts)
}

fn parsed_file(text: &str) -> Parsed {
    parsed(&[], &[text], &[], &NoPasswd)
}

fn settings(flags: &[&str], files: &[&str], variables: &[&str]) -> Settings {
    let parsed = parsed(flags, files, variables, &NoPasswd);
    parsed
        .settings
        .unwrap_or_else(|mistakes| panic!("{flags:?} {files:?} {variables:?}: {mistakes:?}"))
}

fn config(flags: &[&str]) -> Config {
    settings(flags, &[], &[]).config
}

fn kuma(config: &Config) -> &KumaRules {
    let Dialect::Kuma(kuma) = &config.dialect else {
        panic!("{:?}", config.dialect);
    };
    kuma
}

fn sentences(mistakes: &[Mistake]) -> Vec<String> {
    mistakes.iter().map(ToString::to_string).collect()
}

fn refused(flags: &[&str], files: &[&str], accounts: &dyn Accounts) -> String {
    match parsed(flags, files, &[], accounts).settings {
        Ok(settings) => panic!("{flags:?} {files:?}: {settings:?}"),
        Err(mistakes) => sentences(&mistakes).join("\n"),
    }
}

#[test]
fn defaults_match_kuma() {
    let settings = settings(&[], &[], &[]);
    let config = &settings.config;
    assert_eq!(config.proxy.uids.to_string(), "5678");
    assert!(config.proxy.gids.is_empty() && config.proxy.mesh_ports.is_empty());
    assert_eq!(
        (
            config.proxy.inbound_port.get(),
            config.proxy.outbound_port.get(),
            config.dns.port.get()
        ),
        (15006, 15001, 15053)
    );
    assert!(config.inbound.include_ports.is_everything() && config.outbound.include_cidrs.is_everything());
    assert!(!config.dns.redirect && !config.general.drop_invalid);
    assert_eq!(config.general.ip_family, IpFamily::Auto);
    assert_eq!(kuma(config), &KumaRules::default());
    assert_eq!(settings.install.backend, Backend::Auto);
}

#[test]
fn variables_apply_only_with_a_file() {
    let variables = &[
        "REDIRECT_INBOUND_PORT=7",
        "REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS=1000,22:7",
    ];
    let without = settings(&[], &[], variables).config;
    assert_eq!(without.proxy.inbound_port.get(), 15006);
    let with = settings(
        &["redirect-outbound-port=9"],
        &["redirect: {inbound: {port: 8}, outbound: {port: 8}}"],
        variables,
    );
    assert_eq!(
        (
            with.config.proxy.inbound_port.get(),
            with.config.proxy.outbound_port.get()
        ),
        (7, 9)
    );
    assert_eq!(with.config.outbound.exclude_ports_for_uids.len(), 2);
    let error = parsed(&[], &[""], &["REDIRECT_DNS_ENABLED="], &NoPasswd)
        .settings
        .unwrap_err();
    assert!(
        error[0]
            .to_string()
            .contains("KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_ENABLED"),
        "{error:?}"
    );
}

#[test]
fn configuration_of_the_injector_is_read() {
    let annotation = "cniMode: false\nipFamilyMode: ipv4\nkumaDPUser: \"5679\"\nredirect:\n  \
                      dns: {captureAll: true, enabled: true, port: 15054, resolvConfigPath: /etc/resolv.conf}\n  \
                      inbound: {enabled: true, excludePorts: [9001, 9902], port: 15007, excludePortsForIPs: [10.0.0.1]}\n  \
                      outbound: {enabled: true, port: 15002, excludePortsForUIDs: ['tcp:22:7', '1000-2000']}\n  \
                      vnet: {networks: ['docker0:172.17.0.0/16', 'docker0:172.18.0.1/16', 'docker0:fd00::/64']}\n\
                      retry: {maxRetries: 4, sleepBetweenRetries: 2s}\nwait: 5\nwaitInterval: 0\nunknown: true\n";
    let config = settings(&[], &["redirect: {inbound: {port: 1}}", annotation], &[]).config;
    assert_eq!(config.proxy.uids.to_string(), "5679");
    assert_eq!(
        (config.proxy.inbound_port.get(), config.proxy.outbound_port.get()),
        (15007, 15002)
    );
    assert_eq!(config.general.ip_family, IpFamily::Ipv4);
    assert!(config.dns.redirect && config.dns.servers == DnsServers::All);
    assert_eq!(config.dns.port.get(), 15054);
    assert_eq!(config.inbound.exclude_ports.to_string(), "9001,9902");
    assert_eq!(config.inbound.exclude_cidrs.to_string(), "10.0.0.1/32");
    let entries: Vec<String> = config
        .outbound
        .exclude_ports_for_uids
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(entries, ["tcp:22:7", "*:1000-2000"]);
    let networks: Vec<String> = kuma(&config)
        .networks
        .iter()
        .map(|network| network.cidr.to_string())
        .collect();
    assert_eq!(networks, ["172.18.0.0/16", "fd00::/64"]);
}

#[test]
fn exclusions_for_users_accept_every_form_of_kuma() {
    for (text, expected) in [
        ("1000", "*:1000"),
        ("22:1000", "22:1000"),
        (":1000", "*:1000"),
        ("*:1000", "*:1000"),
        ("tcp:22:1000", "tcp:22:1000"),
        ("tcp::1000", "tcp:*:1000"),
        ("::1000", "*:1000"),
        ("*:*:1000", "*:1000"),
        ("tcp,udp:80:1000", "80:1000"),
        ("UDP: 53 , 3000-5000 :106-108", "udp:53,3000-5000:106-108"),
        ("tcp:0-80:65535", "tcp:1-80:65535"),
        ("80:1000680000", "80:1000680000"),
        ("tcp:80:", "tcp:80:*"),
        ("80:", "80:*"),
        ("", "*:*"),
    ] {
        let flag = format!("exclude-outbound-ports-for-uids={text}");
        let entries = config(&[&flag]).outbound.exclude_ports_for_uids;
        assert_eq!(
            entries.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [expected],
            "{text}"
        );
    }
    for text in [
        "*",
        "80:*",
        "1,2",
        "tcp:80:envoy",
        "sctp:80:1",
        "a:b:c:d",
        "80-70:1",
        "x:1",
    ] {
        let flag = format!("exclude-outbound-ports-for-uids={text}");
        assert!(
            refused(&[&flag], &[], &NoPasswd).contains("--exclude-outbound-ports-for-uids"),
            "{text}"
        );
    }
    let every_user = parsed(&["exclude-outbound-ports-for-uids=80:"], &[], &[], &NoPasswd);
    assert!(
        every_user.warnings[0].contains("for every user"),
        "{:?}",
        every_user.warnings
    );
}

#[test]
fn users_of_the_proxy_are_looked_up_like_kuma() {
    let uid = |flags: &[&str], accounts: &dyn Accounts| {
        let settings = parsed(flags, &[], &[], accounts).settings;
        let uids = settings.map(|settings| settings.config.proxy.uids.to_string());
        uids.map_err(|mistakes| sentences(&mistakes))
    };
    let both = Host(&[("someone", 5678), ("kuma-dp", 7)]);
    assert_eq!(uid(&[], &both).unwrap(), "5678");
    assert_eq!(uid(&[], &Host(&[("kuma-dp", 7)])).unwrap(), "7");
    assert!(uid(&[], &Host(&[("root", 0)])).unwrap_err()[0].contains("could not be found"));
    assert_eq!(uid(&["kuma-dp-user=kuma-dp"], &both).unwrap(), "7");
    assert_eq!(uid(&["kuma-dp-user=1234"], &NoPasswd).unwrap(), "1234");
    assert!(uid(&["kuma-dp-user=nobody"], &both).unwrap_err()[0].contains("does not refer to a valid user"));
    assert!(uid(&["kuma-dp-user=4294967295"], &both).is_err());
    assert_eq!(uid(&[], &NoPasswd).unwrap(), "5678");
    for flags in [&[][..], &["kuma-dp-user=kuma-dp"]] {
        let refused = uid(flags, &Unreadable).unwrap_err();
        assert!(refused[0].contains("/etc/passwd cannot be read"), "{refused:?}");
    }
    assert_eq!(uid(&["kuma-dp-user=7"], &Unreadable).unwrap(), "7");
}

#[test]
fn included_ports_disable_excluded_ones() {
    let file = "redirect: {inbound: {includePorts: [80], excludePorts: [80, 81]}, \
                outbound: {includePorts: '443', excludePorts: [443]}}";
    let both = settings(&[], &[file], &[]).config;
    assert_eq!(both.inbound.include_ports.to_string(), "80");
    assert!(both.inbound.exclude_ports.is_empty() && both.outbound.exclude_ports.is_empty());
    assert_eq!(both.outbound.include_ports.to_string(), "443");
    assert!(both.outbound.include_cidrs.is_empty());
    let neither = settings(
        &["redirect-inbound=false"],
        &["redirect: {outbound: {enabled: false}}"],
        &[],
    )
    .config;
    assert!(neither.inbound.include_ports.is_empty() && !neither.captures_outbound());
}

#[test]
fn dns_switches_set_dns_options() {
    let all = config(&["redirect-all-dns-traffic=true", "redirect-dns=false"]);
    assert!(all.dns.redirect && all.dns.servers == DnsServers::All);
    let servers = config(&["redirect-dns=1", "skip-dns-conntrack-zone-split=true"]);
    assert!(
        servers.dns.redirect && servers.dns.servers == DnsServers::ResolvConf && !kuma(&servers).splits_conntrack_zones
    );
    let inserted = config(&["redirect-outbound-insert-instead-of-append=true"]);
    assert!(kuma(&inserted).redirects_dns_over_tcp);
    let both = refused(&["redirect-dns=true", "redirect-all-dns-traffic=true"], &[], &NoPasswd);
    assert!(both.contains("only one of"), "{both}");
}

#[test]
fn unsupported_settings_are_rejected_with_a_reason() {
    for (flag, expected) in [
        ("store-firewalld=true", "--persist"),
        ("ip-family-mode=IPv4", "dualstack or ipv4"),
        ("ip-family-mode=ipv6", "dualstack or ipv4"),
        ("redirect-inbound-port=0", "a port"),
        ("redirect-inbound-port= 80", "a port"),
        (
            "redirect-inbound-port=15001",
            "redirect-inbound-port and --redirect-outbound-port",
        ),
        ("exclude-inbound-ports=80-90", "a port"),
        ("exclude-outbound-ips=", "an address"),
        ("exclude-outbound-ips=host.example", "an address"),
        ("exclude-outbound-ips=*", "an address"),
        ("vnet=br+:10.0.0.0/8", "without wildcards"),
        ("vnet=eth0:10.0.0.1", "INTERFACE:CIDR"),
        ("vnet=eth0", "INTERFACE:CIDR"),
        ("iptables-executables=nft:/sbin/nft", "NAME:PATH"),
        ("redirect-dns=yes", "true or false"),
    ] {
        let mistakes = refused(&[flag], &[], &NoPasswd);
        assert!(mistakes.contains(expected), "{flag}: {mistakes}");
    }
    for (file, expected) in [
        (
            "redirect: {inbound: {excludePortsForUIDs: ['1']}}",
            "redirect.inbound.enabled",
        ),
        (
            "redirect: {dns: {resolvConfigPath: /tmp/resolv.conf}}",
            "/etc/resolv.conf",
        ),
        ("redirect: {inbound: {port: [[1]]}}", "redirect.inbound.port"),
        ("a: b: c", "file 0"),
    ] {
        let mistakes = refused(&[], &[file], &NoPasswd);
        assert!(mistakes.contains(expected), "{file}: {mistakes}");
    }
}

#[test]
fn executables_select_the_backend() {
    for (text, backend) in [
        ("", Backend::Auto),
        ("iptables:/usr/sbin/iptables", Backend::Auto),
        (
            "iptables:/usr/sbin/iptables-nft,iptables-save:/x/iptables-nft-save",
            Backend::IptablesNft,
        ),
        ("ip6tables:/usr/sbin/ip6tables-legacy", Backend::IptablesLegacy),
    ] {
        let flag = format!("iptables-executables={text}");
        assert_eq!(settings(&[&flag], &[], &[]).install.backend, backend, "{text}");
    }
}

#[test]
fn settings_without_effect_are_accepted_with_a_note() {
    let flags = [
        "verbose=true",
        "wait=0x5",
        "max-retries=1",
        "sleep-between-retries=2000000000",
        "iptables-logs=true",
    ];
    let parsed = parsed(&flags, &[], &[], &NoPasswd);
    assert!(parsed.settings.is_ok());
    assert_eq!(parsed.notes.len(), flags.len(), "{:?}", parsed.notes);
    let defaults = parsed_file("verbose: false\nwait: 5\nretry: {sleepBetweenRetries: 2s}\n");
    assert_eq!(defaults.notes, [""; 0]);
}
