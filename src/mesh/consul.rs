//! Consul: <https://www.consul.io>.

use super::annotations::table::{Annotation, Meaning, annotation, option};
use super::{Delivery, Mesh, OptOut, is_false};
use crate::types::MeshName;

/// What is known of it.
pub const CONSUL: Mesh = Mesh {
    name: "Consul",
    option: MeshName::Consul,
    delivery: Delivery::ToLoopback,
    dns_over_tcp: true,
    domain: "consul.hashicorp.com",
    options: &[
        ("proxy-inbound-port", "20000"),
        ("proxy-uid", "5995"),
        ("proxy-gid", ""),
        ("mesh-ports", ""),
    ],
    rewrites_probes: false,
    mark: &[
        ("consul.hashicorp.com/connect-inject-status", Some("injected")),
        // Tells pods whose traffic the CNI plugin is to redirect from those that do it otherwise.
        ("consul.hashicorp.com/transparent-proxy-status", None),
    ],
    opt_outs: &[OptOut {
        annotation: "consul.hashicorp.com/transparent-proxy",
        says: is_false,
        reason: "Consul is told to intercept nothing",
    }],
    annotations: ANNOTATIONS,
    proxies: &["consul-dataplane", "envoy-sidecar"],
    proxy_images: &["consul-dataplane"],
    init_containers: &["consul-connect-inject-init"],
    chains: &[("CONSUL_", "Consul")],
    tables: &[("inet consul", "Consul")],
    traces: &[],
    policy_routing: None,
    ports: &[],
};

const ANNOTATIONS: &[Annotation] = &[
    annotation(
        "consul.hashicorp.com/redirect-traffic-config",
        Meaning::Document(CONFIG),
    ),
    option(
        "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports",
        "exclude-inbound-ports",
    ),
    option(
        "consul.hashicorp.com/transparent-proxy-exclude-outbound-ports",
        "exclude-outbound-ports",
    ),
    option(
        "consul.hashicorp.com/transparent-proxy-exclude-outbound-cidrs",
        "exclude-outbound-cidrs",
    ),
    option("consul.hashicorp.com/transparent-proxy-exclude-uids", "exclude-uids"),
];

/// What Consul's injector writes for its own plugin. Its name server must be one in the pod: redirection cannot send a
/// query to another host.
const CONFIG: &[(&str, Meaning)] = &[
    ("ProxyUserID", Meaning::Option("proxy-uid")),
    ("ProxyInboundPort", Meaning::Option("proxy-inbound-port")),
    ("ProxyOutboundPort", Meaning::Option("proxy-outbound-port")),
    ("ExcludeInboundPorts", Meaning::Option("exclude-inbound-ports")),
    ("ExcludeOutboundPorts", Meaning::Option("exclude-outbound-ports")),
    ("ExcludeOutboundCIDRs", Meaning::Option("exclude-outbound-cidrs")),
    ("ExcludeUIDs", Meaning::Option("exclude-uids")),
    (
        "ConsulDNSIP",
        Meaning::Word(&[("127.0.0.1", &[("redirect-dns", "true"), ("dns-servers", "all")])]),
    ),
    ("ConsulDNSPort", Meaning::Option("dns-port")),
];
