//! Istio: <https://istio.io>.

pub mod front_end;
mod overrides;

use serde_json::Value;

use super::annotations::table::{Annotation, Meaning, NOTHING, annotation, option};
use super::{Delivery, Injection, Mesh, OptOut, Place};
use crate::types::MeshName;

/// The init container that its injector adds.
pub const INIT_CONTAINER: &str = "istio-init";

/// The container of its proxy.
const PROXY: &str = "istio-proxy";

/// The entry of the mesh in the table. Its ports and IDs are sidetrack's defaults.
pub const ISTIO: Mesh = Mesh {
    name: "Istio",
    option: MeshName::Istio,
    delivery: Delivery::FromPassthrough,
    dns_over_tcp: true,
    dns_on_loopback: false,
    domain: "istio.io",
    options: &[],
    rewrites_probes: true,
    detects_protocols: true,
    mark: &[("sidecar.istio.io/status", None)],
    // With any other value, the namespace decides.
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
            reason: "Istio's interception mode is NONE",
            init_container: None,
        },
        OptOut {
            annotation: "inject.istio.io/templates",
            says: creates_no_sidecar,
            reason: "it is an Istio gateway or gRPC agent, which has no sidecar",
            init_container: None,
        },
        OptOut {
            annotation: "sidecar.istio.io/status",
            says: has_istio_init,
            reason: "its init container istio-init redirects it",
            init_container: Some(INIT_CONTAINER),
        },
        OptOut {
            annotation: "sidecar.istio.io/status",
            says: has_no_proxy,
            reason: "the injected containers do not include istio-proxy",
            init_container: None,
        },
    ],
    annotations: ANNOTATIONS,
    proxies: &[PROXY],
    proxy_images: &["proxyv2"],
    init_containers: &[INIT_CONTAINER],
    validators: &["istio-validation"],
    chains: &[("ISTIO_", "Istio (istio-init or istio-cni)")],
    tables: &[("inet istio-proxy-", "Istio (native nftables)")],
    // Rules of TPROXY: 0x539 is 1337, the mark of packets to the proxy; 0x53a is the mark of the proxy's packets.
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
        (PROBE_PORT, "validation of the redirection"),
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
        // Its init container always gets a list of addresses to include as well, by default all.
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
            ("NONE", NOTHING), // Such a pod is skipped.
        ]),
    ),
    // The container that the pod's author merged over the template's: its environment overrides ProxyMetadata.
    annotation("proxy.istio.io/overrides", overrides::MEANING),
    annotation("proxy.istio.io/config", Meaning::Document(PROXY_METADATA)),
];

/// The port that Istio's own validation of its rules connects to.
pub const PROBE_PORT: u16 = 15002;

/// `auto` redirects IPv6 if the pod can use it.
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

/// Variables that Istio's injector passes to its init container, and that affect its rules.
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

/// The templates of istiod that do not create a sidecar. Templates with other names are custom, and are assumed to create
/// one: a sidecar without redirection would be bypassed.
const OTHER_TEMPLATES: [&str; 7] = [
    "agentgateway",
    "agentgateway-waypoint",
    "gateway",
    "grpc-agent",
    "grpc-simple",
    "kube-gateway",
    "waypoint",
];

/// Whether the chosen templates create no sidecar.
fn creates_no_sidecar(templates: &str) -> bool {
    let chosen = || templates.split(',').map(str::trim);
    chosen().any(|template| OTHER_TEMPLATES.contains(&template)) && !chosen().any(|template| template == "sidecar")
}

/// Whether the injection status lists the init container.
fn has_istio_init(status: &str) -> bool {
    injected(status).iter().any(|name| name == INIT_CONTAINER)
}

/// Whether the injection status lists containers, but not the proxy, as with a template that adds something else.
fn has_no_proxy(status: &str) -> bool {
    let names = injected(status);
    !names.is_empty() && names.iter().all(|name| name != PROXY)
}

/// All containers of the injection status.
fn injected(status: &str) -> Vec<Value> {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let lists = ["initContainers", "containers"].map(|list| status.get(list).and_then(Value::as_array));
    lists.into_iter().flatten().flatten().cloned().collect()
}
