//! Annotations compared with the equivalent flags.

mod bounds;
mod cases;
mod floor;

use serde_json::json;

use self::cases::CASES;
use super::*;
use crate::options::{Config, Settings, sources};

/// The options of a pod with these annotations and this NetConf.
fn layer(annotations: &[(&str, &str)], netconf: Layer) -> Result<Layer, Vec<Problem>> {
    let object: Value = annotations.iter().map(|(name, text)| (*name, *text)).collect();
    parse(&Annotations::of(&object).unwrap()).over(netconf)
}

fn config(layer: Layer) -> Config {
    Settings::from_layer(layer).unwrap().config
}

/// The options of these flags.
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

#[test]
fn annotations_equal_their_flags() {
    for (annotations, given) in CASES {
        let read = layer(annotations, Layer::default());
        let read = read.unwrap_or_else(|problems| panic!("{annotations:?}: {problems:?}"));
        assert_eq!(config(read), config(flags(given)), "{annotations:?}");
    }
}

#[test]
fn every_option_of_pods_is_an_annotation() {
    let value = |name: &str| match name {
        "mesh" => "linkerd",
        "inbound-mode" => "tproxy",
        "ip-family" => "ipv4",
        "loopback-cidr" => "127.0.0.0/8",
        "dns-servers" => "10.96.0.10",
        "redirect-dns" | "drop-invalid" | "counters" | "allow-dns" => "true",
        "inbound-policy" | "outbound-policy" => "proxy-only",
        "exclude-outbound-ports-for-uids" => "tcp:22:1000",
        name if name.ends_with("cidrs") => "10.0.0.0/8",
        name if name.ends_with("interfaces") => "net1",
        _ => "12345",
    };
    for option in OPTIONS {
        let name = format!("{PREFIX}{}", option.name);
        let read = layer(&[(&name, value(option.name))], Layer::default());
        if option.scope == Scope::Pod {
            assert_eq!(read.unwrap(), flags(&[(option.name, value(option.name))]), "{name}");
        } else {
            let problems = read.unwrap_err();
            assert!(problems[0].to_string().contains(&name), "{problems:?}");
        }
    }
}

/// Each mesh has its own notation, and so has sidetrack.
#[test]
fn booleans_are_read_as_their_tool_reads_them() {
    let captured = |name: &str, text: &str| {
        layer(&[(name, text)], Layer::default())
            .map(|layer| config(layer).dns.redirect)
            .ok()
    };
    let istio = |text: &str| {
        let metadata = format!("proxyMetadata: {{ISTIO_META_DNS_CAPTURE: \"{text}\"}}");
        captured("proxy.istio.io/config", &metadata)
    };
    let sidetrack = |text: &str| captured("traffic.sidetrack.dev/redirect-dns", text);
    for (text, istio_reads, sidetrack_reads) in [
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
        assert_eq!(sidetrack(text), sidetrack_reads, "{text}");
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

#[test]
fn option_values_of_the_table_are_valid() {
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
fn linkerds_port_annotations_replace_default_mesh_ports() {
    let admin = ("config.linkerd.io/admin-port", "5191");
    let ports = |annotations: &[(&str, &str)], netconf| layer(annotations, netconf).unwrap().mesh_ports;
    let text = |ports: Option<Ports>| ports.map(|ports| ports.to_string());
    assert_eq!(text(ports(&[admin], Layer::default())).as_deref(), Some("4190,5191"));
    let both = [admin, ("config.linkerd.io/control-port", "5190")];
    assert_eq!(text(ports(&both, Layer::default())).as_deref(), Some("5190-5191"));
    // A list in the NetConf is kept.
    let listed = flags(&[("mesh-ports", "4191,15021")]);
    assert_eq!(text(ports(&[admin], listed)).as_deref(), Some("4191,5191,15021"));
    assert_eq!(ports(&[("config.linkerd.io/admin-port", "0")], Layer::default()), None);
}

#[test]
fn annotations_override_the_netconf_which_overrides_implied_options() {
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
fn excluded_ports_keep_mesh_ports_excluded() {
    let read = layer(
        &[("traffic.sidecar.istio.io/excludeInboundPorts", "22")],
        Layer::default(),
    )
    .unwrap();
    assert_eq!(config(read).proxy.mesh_ports.to_string(), "15008,15020-15021,15090");
}

#[test]
fn all_errors_of_annotations_are_reported_with_their_names() {
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
        "annotation proxy.istio.io/config: proxyMetadata.PROXY_GID: \"[1]\" is not a string",
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
fn invalid_switches_are_rejected() {
    let problems = layer(&[("kuma.io/builtin-dns", "maybe")], Layer::default()).unwrap_err();
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(
        messages[0].contains("annotation kuma.io/builtin-dns: \"maybe\" is not true or false"),
        "{messages:?}"
    );
}

#[test]
fn values_other_than_objects_of_strings_are_rejected() {
    for value in [json!([]), json!("x"), json!({"a": 1}), json!({"a": null})] {
        assert!(Annotations::of(&value).is_err(), "{value}");
    }
    assert_eq!(Annotations::of(&Value::Null), Ok(Annotations::default()));
}
