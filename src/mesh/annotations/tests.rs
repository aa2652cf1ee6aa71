//! Case by case: what annotations say is what flags say.

mod bounds;

use serde_json::json;

use super::*;
use crate::options::{Config, Settings, sources};

/// The options of a pod with these annotations, where the NetConf says that.
fn layer(annotations: &[(&str, &str)], netconf: Layer) -> Result<Layer, Vec<Problem>> {
    let object: Value = annotations.iter().map(|(name, text)| (*name, *text)).collect();
    parse(&Annotations::of(&object).unwrap()).over(netconf)
}

fn config(layer: Layer) -> Config {
    Settings::from_layer(layer).unwrap().config
}

/// What an init container with these flags would do.
fn flags(given: &[(&str, &str)]) -> Layer {
    let texts = |option: &options::OptionSpec| {
        let of_option = given.iter().filter(|(name, _)| *name == option.name);
        let texts: Vec<String> = of_option.map(|(_, text)| (*text).to_owned()).collect();
        (!texts.is_empty()).then_some(texts)
    };
    let parsed = sources::from_flags(texts, &NoAccounts);
    assert_eq!(parsed.problems, []);
    parsed.layer
}

type Pairs = &'static [(&'static str, &'static str)];

/// Annotations, and the flags that say the same. Every annotation of the table is here, and every member of a document.
const CASES: &[(Pairs, Pairs)] = &[
    (
        &[("traffic.sidecar.istio.io/includeInboundPorts", "")],
        &[("include-inbound-ports", "")],
    ),
    (
        &[("traffic.sidecar.istio.io/includeInboundPorts", "80,443")],
        &[("include-inbound-ports", "80,443")],
    ),
    (
        &[("traffic.sidecar.istio.io/includeInboundPorts", "*")],
        &[("include-inbound-ports", "*")],
    ),
    (
        &[
            ("traffic.sidecar.istio.io/excludeInboundPorts", "22"),
            ("status.sidecar.istio.io/port", "15999"),
        ],
        &[("exclude-inbound-ports", "22,15999")],
    ),
    (&[("status.sidecar.istio.io/port", "0")], &[]),
    (
        &[("traffic.sidecar.istio.io/includeOutboundPorts", "9000")],
        &[("include-outbound-ports", "9000"), ("include-outbound-cidrs", "*")],
    ),
    (
        &[
            ("traffic.sidecar.istio.io/includeOutboundPorts", "9000"),
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "10.0.0.0/8,fd00::/8",
            ),
        ],
        &[
            ("include-outbound-ports", "9000"),
            ("include-outbound-cidrs", "10.0.0.0/8,fd00::/8"),
        ],
    ),
    (
        &[("traffic.sidecar.istio.io/includeOutboundIPRanges", "")],
        &[("include-outbound-cidrs", "")],
    ),
    (
        &[
            ("traffic.sidecar.istio.io/excludeOutboundPorts", "3306,6379"),
            ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.1.0.0/16"),
        ],
        &[
            ("exclude-outbound-ports", "3306,6379"),
            ("exclude-outbound-cidrs", "10.1.0.0/16"),
        ],
    ),
    (
        &[("traffic.sidecar.istio.io/excludeInterfaces", "net1,net2")],
        &[("exclude-interfaces", "net1,net2")],
    ),
    (
        &[("traffic.sidecar.istio.io/kubevirtInterfaces", "tap0")],
        &[("reroute-interfaces", "tap0")],
    ),
    (
        &[
            ("traffic.sidecar.istio.io/kubevirtInterfaces", "tap0"),
            ("istio.io/reroute-virtual-interfaces", "docker0"),
        ],
        &[("reroute-interfaces", "docker0")],
    ),
    (
        &[("sidecar.istio.io/interceptionMode", "TPROXY")],
        &[("inbound-mode", "tproxy")],
    ),
    (
        &[("sidecar.istio.io/interceptionMode", "REDIRECT")],
        &[("inbound-mode", "redirect")],
    ),
    (
        &[(
            "proxy.istio.io/config",
            "concurrency: 2\nproxyMetadata:\n  ISTIO_META_DNS_CAPTURE: \"true\"\n  ISTIO_DUAL_STACK: true\n  \
             INVALID_DROP: \"True\"\n  PROXY_GID: \"1500\"\n  OTHER: x\n",
        )],
        &[
            ("redirect-dns", "true"),
            ("ip-family", "auto"),
            ("drop-invalid", "true"),
            ("proxy-gid", "1500"),
        ],
    ),
    (
        &[(
            "proxy.istio.io/config",
            r#"{"proxyMetadata": {"REDIRECT_DNS": "1", "CAPTURE_ALL_DNS": "true", "DUAL_STACK": "false",
                "DROP_INVALID": "false", "ISTIO_INBOUND_TPROXY_MARK": "1400", "ISTIO_INBOUND_TPROXY_ROUTE_TABLE": "200",
                "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.1/8", "ISTIO_OUTBOUND_OWNER_GROUPS": "2000,3000",
                "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "2000"}}"#,
        )],
        &[
            ("redirect-dns", "true"),
            ("dns-servers", "all"),
            ("tproxy-mark", "1400"),
            ("tproxy-route-table", "200"),
            ("loopback-cidr", "127.0.0.0/8"),
            ("include-gids", "2000,3000"),
            ("exclude-gids", "2000"),
        ],
    ),
    (&[("proxy.istio.io/config", "")], &[]),
    // What Go's `strconv.ParseBool` does not read is false to Istio.
    (
        &[(
            "proxy.istio.io/config",
            "proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"yes\", CAPTURE_ALL_DNS: on, INVALID_DROP: enabled}",
        )],
        &[("redirect-dns", "false"), ("drop-invalid", "false")],
    ),
    (
        &[
            (
                "proxy.istio.io/overrides",
                r#"{"containers": [{"name": "istio-proxy", "image": "auto", "env": [{"name": "INVALID_DROP", "value": "1"}],
                    "securityContext": {"runAsUser": 2000, "runAsGroup": 3000}}]}"#,
            ),
            ("proxy.istio.io/config", "proxyMetadata: {INVALID_DROP: \"false\"}"),
        ],
        &[("proxy-uid", "2000"), ("proxy-gid", "3000"), ("drop-invalid", "true")],
    ),
    (
        &[
            ("config.linkerd.io/skip-inbound-ports", "25,8000-8010"),
            ("config.linkerd.io/skip-outbound-ports", "25,443"),
            ("config.linkerd.io/skip-subnets", "10.5.0.0/16"),
            ("config.linkerd.io/proxy-uid", "2102"),
            ("config.linkerd.io/proxy-gid", "2102"),
            ("config.linkerd.io/inbound-port", "4143"),
            ("config.linkerd.io/outbound-port", "4140"),
            ("config.linkerd.io/control-port", "4190"),
            ("config.linkerd.io/admin-port", "5191"),
        ],
        &[
            ("exclude-inbound-ports", "25,8000-8010"),
            ("mesh-ports", "4190,5191"),
            ("exclude-outbound-ports", "25,443"),
            ("exclude-inbound-cidrs", "10.5.0.0/16"),
            ("proxy-uid", "2102"),
            ("proxy-gid", "2102"),
            ("proxy-inbound-port", "4143"),
            ("proxy-outbound-port", "4140"),
        ],
    ),
    (
        &[
            ("traffic.kuma.io/exclude-inbound-ports", "1234"),
            ("traffic.kuma.io/exclude-outbound-ports", "5678,8900"),
            (
                "traffic.kuma.io/exclude-outbound-ports-for-uids",
                "tcp:22:1000;udp:53:1000680000",
            ),
            ("traffic.kuma.io/exclude-inbound-ips", "10.0.0.1"),
            ("traffic.kuma.io/exclude-outbound-ips", "fe80::/10"),
            ("traffic.kuma.io/drop-invalid-packets", "true"),
            ("kuma.io/sidecar-uid", "5678"),
            ("kuma.io/transparent-proxying-inbound-port", "15106"),
            ("kuma.io/transparent-proxying-outbound-port", "15101"),
            ("kuma.io/transparent-proxying-ip-family-mode", "ipv4"),
            ("kuma.io/builtin-dns", "enabled"),
            ("kuma.io/builtin-dns-port", "15153"),
            ("kuma.io/application-probe-proxy-port", "9001"),
            ("kuma.io/virtual-probes-port", "9000"), // Its listener is reached through the redirection.
        ],
        &[
            ("exclude-inbound-ports", "1234,9001"),
            ("exclude-outbound-ports", "5678,8900"),
            ("exclude-outbound-ports-for-uids", "tcp:22:1000;udp:53:1000680000"),
            ("exclude-inbound-cidrs", "10.0.0.1"),
            ("exclude-outbound-cidrs", "fe80::/10"),
            ("drop-invalid", "true"),
            ("proxy-uid", "5678"),
            ("proxy-inbound-port", "15106"),
            ("proxy-outbound-port", "15101"),
            ("ip-family", "ipv4"),
            ("redirect-dns", "true"),
            ("dns-servers", "all"),
            ("dns-port", "15153"),
        ],
    ),
    (
        &[
            (
                "traffic.kuma.io/exclude-outbound-tcp-ports-for-uids",
                "22,80:1000;443:7;",
            ),
            ("traffic.kuma.io/exclude-outbound-udp-ports-for-uids", "*:106-108"),
            (
                "traffic.kuma.io/exclude-outbound-ports-for-uids",
                "1000; :1001 ; tcp::1002;*:*:1003",
            ),
        ],
        &[(
            "exclude-outbound-ports-for-uids",
            "*:1000;*:1001;tcp:*:1002;*:1003;tcp:22,80:1000;tcp:443:7;udp:*:106-108",
        )],
    ),
    (
        &[("kuma.io/sidecar-injected", "true")],
        &[
            ("exclude-inbound-ports", "9001,9901"),
            ("exclude-outbound-ports", "9901"),
        ],
    ),
    (
        &[
            ("kuma.io/sidecar-injected", "true"),
            ("traffic.kuma.io/exclude-inbound-ports", "80"),
            ("traffic.kuma.io/exclude-outbound-ports", "81"),
            ("kuma.io/application-probe-proxy-port", "0"),
        ],
        &[("exclude-inbound-ports", "80"), ("exclude-outbound-ports", "81")],
    ),
    (
        &[
            ("kuma.io/sidecar-injected", "true"),
            ("traffic.kuma.io/exclude-inbound-ports", "1234"),
            ("kuma.io/builtin-dns", "disabled"),
            ("kuma.io/gateway", "enabled"),
            ("kuma.io/application-probe-proxy-port", "9000"),
            (
                "traffic.kuma.io/transparent-proxy-config",
                "cniMode: true\nredirect: {inbound: {excludePorts: [1234, 9001, 9902]}}",
            ),
        ],
        &[("exclude-inbound-ports", "1234,9001,9902")],
    ),
    (&[("kuma.io/gateway", "enabled")], &[("include-inbound-ports", "")]),
    (&[("kuma.io/gateway", "disabled")], &[]),
    (
        &[(
            "traffic.kuma.io/transparent-proxy-config",
            "kumaDPUser: \"5678\"\nipFamilyMode: dualstack\ndropInvalidPackets: false\nverbose: true\nredirect:\n  \
             inbound: {enabled: true, port: 15106, includePorts: [], excludePorts: [7777, 8888],\n    \
             excludePortsForIPs: [10.0.0.1]}\n  \
             outbound: {enabled: true, port: 15101, includePorts: \"80,443\", excludePorts: [],\n    \
             excludePortsForIPs: [10.0.0.2], excludePortsForUIDs: [\"tcp:22:1000\", \"53:7\"]}\n  \
             dns: {enabled: true, port: 15153, captureAll: true}\n",
        )],
        &[
            ("proxy-uid", "5678"),
            ("proxy-inbound-port", "15106"),
            ("exclude-inbound-ports", "7777,8888"),
            ("exclude-inbound-cidrs", "10.0.0.1"),
            ("proxy-outbound-port", "15101"),
            ("include-outbound-ports", "80,443"),
            ("exclude-outbound-cidrs", "10.0.0.2"),
            ("exclude-outbound-ports-for-uids", "tcp:22:1000;53:7"),
            ("redirect-dns", "true"),
            ("dns-port", "15153"),
            ("dns-servers", "all"),
        ],
    ),
    (
        &[(
            "traffic.kuma.io/transparent-proxy-config",
            "redirect: {inbound: {enabled: false}, outbound: {enabled: false}}",
        )],
        &[
            ("include-inbound-ports", ""),
            ("include-outbound-ports", ""),
            ("include-outbound-cidrs", ""),
        ],
    ),
    (
        &[
            (
                "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports",
                "9102, 9000:9100,:80",
            ),
            (
                "consul.hashicorp.com/transparent-proxy-exclude-outbound-ports",
                "8200,65000:,90-91",
            ),
            (
                "consul.hashicorp.com/transparent-proxy-exclude-outbound-cidrs",
                "10.96.0.1/32",
            ),
            ("consul.hashicorp.com/transparent-proxy-exclude-uids", "1000,2000"),
        ],
        &[
            ("exclude-inbound-ports", "1-80,9000-9100,9102"),
            ("exclude-outbound-ports", "90-91,8200,65000-65535"),
            ("exclude-outbound-cidrs", "10.96.0.1/32"),
            ("exclude-uids", "1000,2000"),
        ],
    ),
    (
        &[
            (
                "consul.hashicorp.com/redirect-traffic-config",
                r#"{"ConsulDNSIP":"127.0.0.1","ConsulDNSPort":8600,"ProxyUserID":"5995","ProxyInboundPort":20000,
                    "ProxyOutboundPort":15001,"ExcludeInboundPorts":["9102","20200","9000:9100"],"ExcludeOutboundPorts":null,
                    "ExcludeOutboundCIDRs":["10.96.0.1/32"],"ExcludeUIDs":["5996"],"NetNS":"","IptablesProvider":null}"#,
            ),
            ("consul.hashicorp.com/transparent-proxy-exclude-inbound-ports", "9102"),
        ],
        &[
            ("redirect-dns", "true"),
            ("dns-servers", "127.0.0.1"),
            ("dns-port", "8600"),
            ("proxy-uid", "5995"),
            ("proxy-inbound-port", "20000"),
            ("proxy-outbound-port", "15001"),
            ("exclude-inbound-ports", "9000-9100,9102,20200"),
            ("exclude-outbound-cidrs", "10.96.0.1/32"),
            ("exclude-uids", "5996"),
        ],
    ),
    (
        &[(
            "consul.hashicorp.com/redirect-traffic-config",
            r#"{"ConsulDNSIP":"","ConsulDNSPort":0,"ProxyOutboundPort":0,"ExcludeOutboundPorts":["8200"]}"#,
        )],
        &[("exclude-outbound-ports", "8200")],
    ),
    (
        &[
            (
                "consul.hashicorp.com/redirect-traffic-config",
                r#"{"ConsulDNSIP":"::1","ConsulDNSPort":8600,"ProxyUserID":"1000699998"}"#,
            ),
            ("consul.hashicorp.com/dual-stack", "true"),
        ],
        &[
            ("redirect-dns", "true"),
            ("dns-servers", "::1"),
            ("dns-port", "8600"),
            ("proxy-uid", "1000699998"),
            ("ip-family", "auto"),
        ],
    ),
    (
        &[("consul.hashicorp.com/dual-stack", "false")],
        &[("ip-family", "ipv4")],
    ),
    (&[("consul.hashicorp.com/dual-stack", "T")], &[("ip-family", "ipv4")]),
    (
        &[
            ("traffic.sidetrack.dev/exclude-inbound-ports", "1"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "2"),
            ("traffic.sidetrack.dev/redirect", "true"),
            ("app.kubernetes.io/name", "web"),
        ],
        &[("exclude-inbound-ports", "1")],
    ),
];

#[test]
fn annotations_say_what_flags_say() {
    for (annotations, given) in CASES {
        let read = layer(annotations, Layer::default());
        let read = read.unwrap_or_else(|problems| panic!("{annotations:?}: {problems:?}"));
        assert_eq!(config(read), config(flags(given)), "{annotations:?}");
    }
}

/// Every option of pods as an annotation of ours, with its default and with another value.
#[test]
fn every_option_is_an_annotation_of_ours() {
    let value = |name: &str| match name {
        "mesh" => "linkerd",
        "inbound-mode" => "tproxy",
        "ip-family" => "ipv4",
        "loopback-cidr" => "127.0.0.0/8",
        "dns-servers" => "10.96.0.10",
        "redirect-dns" | "drop-invalid" => "true",
        "exclude-outbound-ports-for-uids" => "tcp:22:1000",
        name if name.ends_with("cidrs") => "10.0.0.0/8",
        name if name.ends_with("interfaces") => "net1",
        _ => "12345",
    };
    for option in OPTIONS {
        let name = format!("{OURS}{}", option.name);
        let read = layer(&[(&name, value(option.name))], Layer::default());
        if option.scope == Scope::Pod {
            assert_eq!(read.unwrap(), flags(&[(option.name, value(option.name))]), "{name}");
        } else {
            let problems = read.unwrap_err();
            assert!(problems[0].to_string().contains(&name), "{problems:?}");
        }
    }
}

/// Each mesh has its own way to write one, and we have ours.
#[test]
fn booleans_are_read_as_whoever_they_are_for_reads_them() {
    let captured = |name: &str, text: &str| {
        layer(&[(name, text)], Layer::default())
            .map(|layer| config(layer).dns.redirect)
            .ok()
    };
    let istio = |text: &str| {
        let metadata = format!("proxyMetadata: {{ISTIO_META_DNS_CAPTURE: \"{text}\"}}");
        captured("proxy.istio.io/config", &metadata)
    };
    let ours = |text: &str| captured("traffic.sidetrack.dev/redirect-dns", text);
    for (text, istio_reads, we_read) in [
        ("true", true, Some(true)),
        ("1", true, Some(true)),
        ("T", true, None),
        ("yes", false, Some(true)),
        ("on", false, None),
        ("enabled", false, None),
        ("no", false, Some(false)),
        ("0", false, Some(false)),
        ("maybe", false, None),
    ] {
        assert_eq!(istio(text), Some(istio_reads), "{text}");
        assert_eq!(ours(text), we_read, "{text}");
    }
}

#[test]
fn every_annotation_of_the_table_has_a_case() {
    for Annotation { name, meaning, .. } in table::all() {
        let texts = CASES.iter().flat_map(|(annotations, _)| *annotations);
        let texts: Vec<&str> = texts.filter(|(of, _)| of == name).map(|(_, text)| *text).collect();
        assert!(!texts.is_empty(), "{name}");
        if let Meaning::Document(members) = meaning {
            for (path, _) in *members {
                let key = path.rsplit('.').next().unwrap();
                assert!(texts.iter().any(|text| text.contains(key)), "{name}: {path}");
            }
        }
    }
}

/// The texts that the table gives to options are valid ones.
#[test]
fn all_that_the_table_says_can_be_said() {
    fn check(meaning: &Meaning) {
        let all = |said: &Said| {
            for (option, text) in said {
                read_option(&mut Layer::default(), option, &[(*text).to_owned()]).unwrap();
            }
        };
        match meaning {
            Meaning::Option(option) | Meaning::IptablesPorts(option) => {
                assert!(options::find(option).is_some_and(|found| found.name == *option));
            }
            Meaning::Switch { on, off } | Meaning::GoBoolean { on, off } => {
                [on, off].into_iter().for_each(|said| all(said))
            }
            Meaning::Word(words) => words.iter().for_each(|(_, said)| all(said)),
            Meaning::AlsoExcludedInbound | Meaning::Served { .. } | Meaning::KumaPortsForUids(_) | Meaning::Read(_) => {
            }
            Meaning::Document(members) => members.iter().for_each(|(_, meaning)| check(meaning)),
        }
    }
    table::all().for_each(|annotation| check(&annotation.meaning));
}

#[test]
fn a_port_that_linkerd_serves_takes_the_place_of_the_usual_one() {
    let admin = ("config.linkerd.io/admin-port", "5191");
    let ports = |annotations: &[(&str, &str)], netconf| layer(annotations, netconf).unwrap().mesh_ports;
    let text = |ports: Option<Ports>| ports.map(|ports| ports.to_string());
    assert_eq!(text(ports(&[admin], Layer::default())).as_deref(), Some("4190,5191"));
    let both = [admin, ("config.linkerd.io/control-port", "5190")];
    assert_eq!(text(ports(&both, Layer::default())).as_deref(), Some("5190-5191"));
    // Whoever lists them by themselves means them.
    let listed = flags(&[("mesh-ports", "4191,15021")]);
    assert_eq!(text(ports(&[admin], listed)).as_deref(), Some("4191,5191,15021"));
    assert_eq!(ports(&[("config.linkerd.io/admin-port", "0")], Layer::default()), None);
}

#[test]
fn an_annotation_counts_before_the_netconf_and_that_before_what_is_implied() {
    let netconf = || {
        flags(&[
            ("exclude-inbound-ports", "22"),
            ("include-outbound-cidrs", "10.0.0.0/8"),
        ])
    };
    let read = layer(&[("traffic.sidecar.istio.io/excludeInboundPorts", "23")], netconf()).unwrap();
    assert_eq!(read.exclude_inbound_ports.unwrap().to_string(), "23");
    let read = layer(&[("status.sidecar.istio.io/port", "15999")], netconf()).unwrap();
    assert_eq!(read.exclude_inbound_ports.unwrap().to_string(), "22,15999");
    let read = layer(&[("traffic.sidecar.istio.io/includeOutboundPorts", "9000")], netconf()).unwrap();
    assert_eq!(read.include_outbound_cidrs.unwrap().to_string(), "10.0.0.0/8");
}

#[test]
fn the_ports_of_the_mesh_stay_excluded_whatever_is_excluded_besides() {
    let read = layer(
        &[("traffic.sidecar.istio.io/excludeInboundPorts", "22")],
        Layer::default(),
    )
    .unwrap();
    assert_eq!(config(read).proxy.mesh_ports.to_string(), "15008,15020-15021,15090");
}

#[test]
fn everything_wrong_with_annotations_is_told_with_their_names() {
    let problems = layer(
        &[
            ("traffic.sidecar.istio.io/excludeInboundPorts", "22,http"),
            ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/33"),
            ("traffic.sidecar.istio.io/excludeInterfaces", "eth0\" accept"),
            ("sidecar.istio.io/interceptionMode", "tproxy"),
            ("proxy.istio.io/config", "proxyMetadata: {PROXY_GID: [[1]]}"),
            (
                "consul.hashicorp.com/redirect-traffic-config",
                r#"{"ConsulDNSIP": "192.168.1.117", "ExcludeInboundPorts": ["ssh", "90:80"]}"#,
            ),
            ("traffic.kuma.io/transparent-proxy-config", "a: b: c"),
            ("config.linkerd.io/proxy-uid", "linkerd"),
            ("traffic.sidetrack.dev/exclude-inbound-port", "1"),
            ("traffic.sidetrack.dev/proxy-inbound-port", "0"),
        ],
        Layer::default(),
    )
    .unwrap_err();
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let said = [
        "traffic.sidetrack.dev/exclude-inbound-port: exclude-inbound-port is not an option",
        "annotation traffic.sidetrack.dev/proxy-inbound-port: \"0\" is not a port",
        "annotation traffic.sidecar.istio.io/excludeInboundPorts: \"http\" is not a port",
        "annotation traffic.sidecar.istio.io/excludeOutboundIPRanges: \"10.0.0.0/33\"",
        "annotation traffic.sidecar.istio.io/excludeInterfaces: \"eth0\\\" accept\"",
        "annotation sidecar.istio.io/interceptionMode: \"tproxy\" is not one of REDIRECT, TPROXY, NONE",
        "redirect-traffic-config: ConsulDNSIP: \"192.168.1.117\" is not 127.0.0.1 or ::1",
        "redirect-traffic-config: ExcludeInboundPorts: \"ssh\" is not a port",
        "redirect-traffic-config: ExcludeInboundPorts: \"90-80\" is not a port",
        "annotation proxy.istio.io/config: proxyMetadata.PROXY_GID: \"[1]\" is not a text",
        "annotation config.linkerd.io/proxy-uid: \"linkerd\" is not a UID",
        "annotations: traffic.kuma.io/transparent-proxy-config:",
    ];
    assert_eq!(messages.len(), said.len(), "{messages:#?}");
    for text in said {
        assert!(
            messages.iter().any(|message| message.contains(text)),
            "{text}: {messages:#?}"
        );
    }
}

#[test]
fn a_switch_that_is_neither_on_nor_off_is_refused() {
    let problems = layer(&[("kuma.io/builtin-dns", "maybe")], Layer::default()).unwrap_err();
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(
        messages[0].contains("annotation kuma.io/builtin-dns: \"maybe\" is not true or false"),
        "{messages:?}"
    );
}

#[test]
fn what_is_no_object_of_texts_is_refused() {
    for value in [json!([]), json!("x"), json!({"a": 1}), json!({"a": null})] {
        assert!(Annotations::of(&value).is_err(), "{value}");
    }
    assert_eq!(Annotations::of(&Value::Null), Ok(Annotations::default()));
}
