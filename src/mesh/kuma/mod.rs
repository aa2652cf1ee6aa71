//! Kuma: <https://kuma.io>.

pub mod front_end;

use serde_json::Value;

use super::annotations::Annotations;
use super::annotations::table::{
    ALL_DNS_SERVERS, Annotation, DROP_INVALID, Meaning, NO_INBOUND, NOTHING, REDIRECT_DNS, annotation, option,
};
use super::{Delivery, Injection, Mesh, Place};
use crate::options::Layer;
use crate::types::{MeshName, Port, parse_ports};
use crate::yaml;

/// The init container that its injector adds.
pub const INIT_CONTAINER: &str = "kuma-init";

/// The entry of the mesh in the table.
pub const KUMA: Mesh = Mesh {
    name: "Kuma",
    option: MeshName::Kuma,
    delivery: Delivery::FromPassthrough,
    dns_over_tcp: false,
    dns_on_loopback: false,
    domain: "kuma.io",
    options: &[("proxy-uid", "5678"), ("proxy-gid", ""), ("mesh-ports", "")],
    rewrites_probes: true,
    detects_protocols: false,
    mark: &[("kuma.io/sidecar-injected", Some("true"))],
    injection: Injection {
        name: "kuma.io/sidecar-injection",
        place: Place::Label,
        yes: |injection| matches!(injection, "enabled" | "true" | "yes"),
        no: |injection| matches!(injection, "disabled" | "false" | "no"),
    },
    // Kuma redirects pods with `kuma.io/transparent-proxying: disabled`, too.
    opt_outs: &[],
    annotations: ANNOTATIONS,
    proxies: &["kuma-sidecar"],
    proxy_images: &["kuma-dp"],
    init_containers: &[INIT_CONTAINER],
    validators: &["kuma-validation"],
    chains: &[("KUMA_MESH_", "Kuma")],
    tables: &[],
    traces: &[&["--comment", "kuma/mesh/transparent/proxy/"]],
    policy_routing: None,
    ports: &[],
};

const ANNOTATIONS: &[Annotation] = &[
    option(EXCLUDE_INBOUND_PORTS, "exclude-inbound-ports"),
    option(EXCLUDE_OUTBOUND_PORTS, "exclude-outbound-ports"),
    annotation(
        "traffic.kuma.io/exclude-outbound-ports-for-uids",
        Meaning::KumaPortsForUids(""),
    ),
    // Up to Kuma 2.8.
    annotation(
        "traffic.kuma.io/exclude-outbound-tcp-ports-for-uids",
        Meaning::KumaPortsForUids("tcp"),
    ),
    annotation(
        "traffic.kuma.io/exclude-outbound-udp-ports-for-uids",
        Meaning::KumaPortsForUids("udp"),
    ),
    option("traffic.kuma.io/exclude-inbound-ips", "exclude-inbound-cidrs"),
    option("traffic.kuma.io/exclude-outbound-ips", "exclude-outbound-cidrs"),
    annotation("traffic.kuma.io/drop-invalid-packets", DROP_INVALID),
    option("kuma.io/sidecar-uid", "proxy-uid"),
    option("kuma.io/transparent-proxying-inbound-port", "proxy-inbound-port"),
    option("kuma.io/transparent-proxying-outbound-port", "proxy-outbound-port"),
    annotation("kuma.io/transparent-proxying-ip-family-mode", IP_FAMILY),
    annotation(
        "kuma.io/builtin-dns",
        Meaning::Switch {
            on: &[("redirect-dns", "true"), ("dns-servers", "all")],
            off: &[("redirect-dns", "false")],
        },
    ),
    option("kuma.io/builtin-dns-port", "dns-port"),
    annotation(
        "kuma.io/gateway",
        Meaning::Word(&[
            ("enabled", NO_INBOUND),
            ("builtin", NO_INBOUND),
            ("disabled", NOTHING),
            ("true", NO_INBOUND),
            ("false", NOTHING),
        ]),
    ),
    annotation(PROBE_PROXY_PORT, Meaning::AlsoExcludedInbound),
    annotation(WHOLE_CONFIG, Meaning::Document(CONFIG)),
];

const EXCLUDE_INBOUND_PORTS: &str = "traffic.kuma.io/exclude-inbound-ports";
const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.kuma.io/exclude-outbound-ports";
const PROBE_PROXY_PORT: &str = "kuma.io/application-probe-proxy-port";
/// Kuma's whole configuration of a pod's redirection, as Kuma 3 writes it. It includes the effect of other annotations.
const WHOLE_CONFIG: &str = "traffic.kuma.io/transparent-proxy-config";
/// The networks of a pod: they include [`CNI_NETWORK`] if a CNI plugin redirects.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
const CNI_NETWORK: &str = "kuma-cni";

/// Envoy's admin port, which Kuma 2 excludes in both directions by default.
const ADMIN_PORT: &str = "9901";
/// The default port of the proxy for probes.
const DEFAULT_PROBE_PROXY_PORT: Option<Port> = Port::new(9001);

/// Whether an annotation of this name has an effect: the whole configuration replaces Kuma's other annotations.
pub fn has_effect(name: &str, annotations: &Annotations) -> bool {
    name == WHOLE_CONFIG
        || annotations.get(WHOLE_CONFIG).is_none()
        || !ANNOTATIONS.iter().any(|annotation| annotation.name == name)
}

/// The defaults of an injected pod that its annotations do not set.
pub struct Defaults {
    /// Default options.
    pub layer: Layer,
    /// An additional excluded port.
    pub probe_proxy_port: Option<Port>,
}

/// The defaults of Kuma 2's plugin for a pod without the whole configuration.
pub fn defaults(annotations: &Annotations) -> Option<Defaults> {
    if !KUMA.has_injected(|name| annotations.get(name)) || annotations.get(WHOLE_CONFIG).is_some() {
        return None;
    }
    let ports = parse_ports(ADMIN_PORT).ok();
    let is_unset = |name: &str| annotations.get(name).is_none();
    Some(Defaults {
        layer: Layer {
            exclude_inbound_ports: ports.clone().filter(|_| is_unset(EXCLUDE_INBOUND_PORTS)),
            exclude_outbound_ports: ports.filter(|_| is_unset(EXCLUDE_OUTBOUND_PORTS)),
            ..Layer::default()
        },
        probe_proxy_port: DEFAULT_PROBE_PROXY_PORT.filter(|_| is_unset(PROBE_PROXY_PORT)),
    })
}

/// Why a plugin must not redirect an injected pod: without a network for Kuma's plugin, and without `cniMode` in the
/// whole configuration, Kuma adds the init container `kuma-init`.
pub fn redirects_by_init_container(annotations: &Annotations) -> Option<String> {
    if !KUMA.has_injected(|name| annotations.get(name)) {
        return None;
    }
    let networks = annotations.get(NETWORKS).unwrap_or_default();
    let names = networks
        .split(',')
        .map(|name| name.trim().rsplit('/').next().unwrap_or_default());
    let is_listed = names
        .map(|name| name.split('@').next())
        .any(|name| name == Some(CNI_NETWORK));
    let cni_mode = annotations.get(WHOLE_CONFIG).is_some_and(|config| {
        let config = yaml::document(config).map(|config| config.to_json());
        config.is_ok_and(|config| config.get("cniMode") == Some(&Value::Bool(true)))
    });
    (!is_listed && !cni_mode).then(|| {
        format!(
            "its init container {INIT_CONTAINER} redirects it: {NETWORKS} does not list {CNI_NETWORK}, and cniMode is not \
             true in {WHOLE_CONFIG}"
        )
    })
}

/// `auto` redirects IPv6 if the pod can use it.
const IP_FAMILY: Meaning = Meaning::Word(&[
    ("dualstack", &[("ip-family", "auto")]),
    ("ipv4", &[("ip-family", "ipv4")]),
    ("ipv6", &[("ip-family", "ipv6")]),
]);

/// Kuma's whole configuration of transparent proxying.
const CONFIG: &[(&str, Meaning)] = &[
    ("kumaDPUser", Meaning::Option("proxy-uid")),
    ("ipFamilyMode", IP_FAMILY),
    ("dropInvalidPackets", DROP_INVALID),
    (
        "redirect.inbound.enabled",
        Meaning::Switch {
            on: NOTHING,
            off: NO_INBOUND,
        },
    ),
    ("redirect.inbound.port", Meaning::Option("proxy-inbound-port")),
    (
        "redirect.inbound.includePorts",
        Meaning::Option("include-inbound-ports"),
    ),
    (
        "redirect.inbound.excludePorts",
        Meaning::Option("exclude-inbound-ports"),
    ),
    (
        "redirect.inbound.excludePortsForIPs",
        Meaning::Option("exclude-inbound-cidrs"),
    ),
    (
        "redirect.outbound.enabled",
        Meaning::Switch {
            on: NOTHING,
            off: &[("include-outbound-ports", ""), ("include-outbound-cidrs", "")],
        },
    ),
    ("redirect.outbound.port", Meaning::Option("proxy-outbound-port")),
    (
        "redirect.outbound.includePorts",
        Meaning::Option("include-outbound-ports"),
    ),
    (
        "redirect.outbound.excludePorts",
        Meaning::Option("exclude-outbound-ports"),
    ),
    (
        "redirect.outbound.excludePortsForIPs",
        Meaning::Option("exclude-outbound-cidrs"),
    ),
    ("redirect.outbound.excludePortsForUIDs", Meaning::KumaPortsForUids("")),
    ("redirect.dns.enabled", REDIRECT_DNS),
    ("redirect.dns.port", Meaning::Option("dns-port")),
    ("redirect.dns.captureAll", ALL_DNS_SERVERS),
];
