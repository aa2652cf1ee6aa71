//! Kuma: <https://kuma.io>.

pub mod front_end;

use super::annotations::table::{
    ALL_DNS_SERVERS, Annotation, DROP_INVALID, Meaning, NO_INBOUND, NOTHING, REDIRECT_DNS, annotation, option,
};
use super::{Delivery, Mesh, OptOut, is_false};
use crate::types::MeshName;

/// What is known of it.
pub const KUMA: Mesh = Mesh {
    name: "Kuma",
    option: MeshName::Kuma,
    delivery: Delivery::FromPassthrough,
    dns_over_tcp: false,
    domain: "kuma.io",
    options: &[("proxy-uid", "5678"), ("proxy-gid", ""), ("mesh-ports", "")],
    rewrites_probes: true,
    mark: &[("kuma.io/sidecar-injected", Some("true"))],
    opt_outs: &[OptOut {
        annotation: "kuma.io/transparent-proxying",
        says: |proxying| proxying == "disabled" || is_false(proxying),
        reason: "Kuma is told to intercept nothing",
    }],
    annotations: ANNOTATIONS,
    proxies: &["kuma-sidecar"],
    proxy_images: &["kuma-dp"],
    init_containers: &["kuma-init"],
    chains: &[("KUMA_MESH_", "Kuma")],
    tables: &[],
    traces: &[&["--comment", "kuma/mesh/transparent/proxy/"]],
    policy_routing: None,
    ports: &[],
};

const ANNOTATIONS: &[Annotation] = &[
    option("traffic.kuma.io/exclude-inbound-ports", "exclude-inbound-ports"),
    option("traffic.kuma.io/exclude-outbound-ports", "exclude-outbound-ports"),
    option(
        "traffic.kuma.io/exclude-outbound-ports-for-uids",
        "exclude-outbound-ports-for-uids",
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
    annotation("kuma.io/application-probe-proxy-port", Meaning::AlsoExcludedInbound),
    annotation("kuma.io/virtual-probes-port", Meaning::AlsoExcludedInbound),
    annotation("traffic.kuma.io/transparent-proxy-config", Meaning::Document(CONFIG)),
];

/// `auto` redirects IPv6 wherever a pod could use it, and not where there is none.
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
    (
        "redirect.outbound.excludePortsForUIDs",
        Meaning::Option("exclude-outbound-ports-for-uids"),
    ),
    ("redirect.dns.enabled", REDIRECT_DNS),
    ("redirect.dns.port", Meaning::Option("dns-port")),
    ("redirect.dns.captureAll", ALL_DNS_SERVERS),
];
