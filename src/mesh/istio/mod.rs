//! Istio: <https://istio.io>.

pub mod front_end;
mod overrides;

use serde_json::Value;

use super::annotations::table::{Annotation, Meaning, NOTHING, annotation, option};
use super::{Delivery, Injection, Mesh, OptOut, Place};
use crate::types::MeshName;

/// The init container that its injector adds.
pub const INIT_CONTAINER: &str = "istio-init";

/// What is known of it. Its numbers are our defaults.
pub const ISTIO: Mesh = Mesh {
    name: "Istio",
    option: MeshName::Istio,
    delivery: Delivery::FromPassthrough,
    dns_over_tcp: true,
    dns_on_loopback: false,
    domain: "istio.io",
    options: &[],
    rewrites_probes: true,
    mark: &[("sidecar.istio.io/status", None)],
    // Any other text leaves it to the namespace.
    injection: Injection {
        name: "sidecar.istio.io/inject",
        place: Place::LabelOrAnnotation,
        yes: |inject| inject == "true",
        no: |inject| inject == "false",
    },
    opt_outs: &[
        OptOut {
            annotation: "sidecar.istio.io/interceptionMode",
            says: |mode| mode == "NONE",
            reason: "Istio is told to intercept nothing",
        },
        OptOut {
            annotation: "inject.istio.io/templates",
            says: makes_no_sidecar,
            reason: "it is an Istio gateway or gRPC agent: what was injected is not a sidecar",
        },
        OptOut {
            annotation: "sidecar.istio.io/status",
            says: has_istio_init,
            reason: "its init container istio-init redirects it",
        },
    ],
    annotations: ANNOTATIONS,
    proxies: &["istio-proxy"],
    proxy_images: &["proxyv2"],
    init_containers: &[INIT_CONTAINER],
    chains: &[("ISTIO_", "Istio (istio-init or istio-cni)")],
    tables: &[("inet istio-proxy-", "Istio (native nftables)")],
    // Those of TPROXY: 0x539 is 1337, the mark of packets to the proxy; 0x53a that of its own.
    traces: &[
        &["-p", "tcp", "mark", "0x539", "CONNMARK", "--save-mark"],
        &["-p", "tcp", "-o", "lo", "mark", "0x539", "RETURN"],
        &["-p", "tcp", "-o", "lo", "owner", "MARK", "0x53a/0xffffffff"],
        &["-p", "tcp", "connmark", "0x539", "CONNMARK", "--restore-mark"],
    ],
    policy_routing: Some((1337, 133)),
    ports: &[
        (15000, "Envoy's administration"),
        (15001, "outbound connections"),
        (PROBE_PORT, "finding out whether rules are in place"),
        (15004, "debugging"),
        (15006, "inbound connections"),
        (15008, "the mesh's tunnel"),
        (15020, "metrics and probes"),
        (15021, "health"),
        (15053, "DNS"),
        (15090, "Envoy's metrics"),
    ],
};

const ANNOTATIONS: &[Annotation] = &[
    option("traffic.sidecar.istio.io/includeInboundPorts", "include-inbound-ports"),
    option("traffic.sidecar.istio.io/excludeInboundPorts", "exclude-inbound-ports"),
    annotation("status.sidecar.istio.io/port", Meaning::AlsoExcludedInbound),
    Annotation {
        name: "traffic.sidecar.istio.io/includeOutboundPorts",
        meaning: Meaning::Option("include-outbound-ports"),
        // Its init container is always told to include addresses as well, all of them unless others are given.
        implies: &[("include-outbound-cidrs", "*")],
    },
    option(
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "exclude-outbound-ports",
    ),
    option(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        "include-outbound-cidrs",
    ),
    option(
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "exclude-outbound-cidrs",
    ),
    option("traffic.sidecar.istio.io/excludeInterfaces", "exclude-interfaces"),
    option("istio.io/reroute-virtual-interfaces", "reroute-interfaces"),
    option("traffic.sidecar.istio.io/kubevirtInterfaces", "reroute-interfaces"),
    annotation(
        "sidecar.istio.io/interceptionMode",
        Meaning::Word(&[
            ("REDIRECT", &[("inbound-mode", "redirect")]),
            ("TPROXY", &[("inbound-mode", "tproxy")]),
            ("NONE", NOTHING), // Such a pod is let through.
        ]),
    ),
    // The container that the pod's author has laid over the template's: its environment counts before ProxyMetadata.
    annotation("proxy.istio.io/overrides", overrides::MEANING),
    annotation("proxy.istio.io/config", Meaning::Document(PROXY_METADATA)),
];

/// The port that Istio's own validation of its rules connects to.
pub const PROBE_PORT: u16 = 15002;

/// `auto` redirects IPv6 wherever a pod could use it, and not where there is none.
const DUAL_STACK: Meaning = Meaning::GoBoolean {
    on: &[("ip-family", "auto")],
    off: NOTHING,
};

const REDIRECT_DNS: Meaning = Meaning::GoBoolean {
    on: &[("redirect-dns", "true")],
    off: &[("redirect-dns", "false")],
};

const ALL_DNS_SERVERS: Meaning = Meaning::GoBoolean {
    on: &[("dns-servers", "all")],
    off: NOTHING,
};

const DROP_INVALID: Meaning = Meaning::GoBoolean {
    on: &[("drop-invalid", "true")],
    off: &[("drop-invalid", "false")],
};

/// Variables that Istio's injector gives to its init container, and that decide about its rules.
const PROXY_METADATA: &[(&str, Meaning)] = &[
    ("proxyMetadata.ISTIO_META_DNS_CAPTURE", REDIRECT_DNS),
    ("proxyMetadata.REDIRECT_DNS", REDIRECT_DNS),
    ("proxyMetadata.CAPTURE_ALL_DNS", ALL_DNS_SERVERS),
    ("proxyMetadata.ISTIO_DUAL_STACK", DUAL_STACK),
    ("proxyMetadata.DUAL_STACK", DUAL_STACK),
    ("proxyMetadata.INVALID_DROP", DROP_INVALID),
    ("proxyMetadata.DROP_INVALID", DROP_INVALID),
    ("proxyMetadata.PROXY_GID", Meaning::Option("proxy-gid")),
    (
        "proxyMetadata.ISTIO_INBOUND_TPROXY_MARK",
        Meaning::Option("tproxy-mark"),
    ),
    (
        "proxyMetadata.ISTIO_INBOUND_TPROXY_ROUTE_TABLE",
        Meaning::Option("tproxy-route-table"),
    ),
    (
        "proxyMetadata.ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        Meaning::Option("loopback-cidr"),
    ),
    (
        "proxyMetadata.ISTIO_OUTBOUND_OWNER_GROUPS",
        Meaning::Option("include-gids"),
    ),
    (
        "proxyMetadata.ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        Meaning::Option("exclude-gids"),
    ),
];

/// Templates of istiod's own that make something else than a sidecar. Templates of other names are somebody's own, and
/// nothing tells what they make but for the mark: a sidecar that is not redirected would be bypassed.
const OTHER_TEMPLATES: [&str; 7] = [
    "agentgateway",
    "agentgateway-waypoint",
    "gateway",
    "grpc-agent",
    "grpc-simple",
    "kube-gateway",
    "waypoint",
];

/// Whether a choice of templates makes something else than a sidecar.
fn makes_no_sidecar(templates: &str) -> bool {
    let chosen = || templates.split(',').map(str::trim);
    chosen().any(|template| OTHER_TEMPLATES.contains(&template)) && !chosen().any(|template| template == "sidecar")
}

/// Whether the injector says that it put the init container there.
fn has_istio_init(status: &str) -> bool {
    let status: Option<Value> = serde_json::from_str(status).ok();
    let containers = status
        .as_ref()
        .and_then(|status| status.get("initContainers")?.as_array());
    containers.is_some_and(|containers| containers.iter().any(|name| name == INIT_CONTAINER))
}
