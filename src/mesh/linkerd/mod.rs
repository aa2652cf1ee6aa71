//! Linkerd: <https://linkerd.io>.

pub mod front_end;

use super::annotations::table::{Annotation, Meaning, annotation, option};
use super::{Delivery, Injection, Mesh, Place};
use crate::types::MeshName;

/// The init container that its injector adds.
pub const INIT_CONTAINER: &str = "linkerd-init";

/// The entry of the mesh in the table.
pub const LINKERD: Mesh = Mesh {
    name: "Linkerd",
    option: MeshName::Linkerd,
    delivery: Delivery::ToOriginalDestination,
    dns_over_tcp: true,
    dns_on_loopback: false,
    domain: "linkerd.io",
    options: &[
        ("proxy-inbound-port", "4143"),
        ("proxy-outbound-port", "4140"),
        ("proxy-uid", "2102"),
        ("proxy-gid", ""),
        ("mesh-ports", "4190,4191"),
        // The default exclusions of its init container, which its annotations replace.
        ("exclude-inbound-ports", "4567,4568"),
        ("exclude-outbound-ports", "4567,4568"),
        // Its proxy does not listen on IPv6 unless `disableIPv6` is false, which no annotation of a pod shows.
        ("ip-family", "ipv4"),
    ],
    rewrites_probes: false,
    detects_protocols: true,
    mark: &[("linkerd.io/proxy-version", None)],
    // Any other value disables injection, and the injector reports it in an event.
    injection: Injection {
        name: "linkerd.io/inject",
        place: Place::Annotation,
        yes: |inject| matches!(inject, "enabled" | "ingress"),
        no: |inject| !matches!(inject, "enabled" | "ingress" | ""),
    },
    opt_outs: &[],
    annotations: ANNOTATIONS,
    proxies: &["linkerd-proxy"],
    proxy_images: &[],
    init_containers: &[INIT_CONTAINER],
    validators: &["linkerd-network-validator"],
    chains: &[("PROXY_INIT_", "Linkerd (linkerd-init or linkerd-cni)")],
    tables: &[],
    traces: &[],
    policy_routing: None,
    ports: &[],
};

const fn served(instead_of: u16) -> Meaning {
    Meaning::Served {
        instead_of,
        of: &[4190, 4191],
    }
}

const ANNOTATIONS: &[Annotation] = &[
    option("config.linkerd.io/skip-inbound-ports", "exclude-inbound-ports"),
    option("config.linkerd.io/skip-outbound-ports", "exclude-outbound-ports"),
    option("config.linkerd.io/skip-subnets", "exclude-inbound-cidrs"),
    option("config.linkerd.io/proxy-uid", "proxy-uid"),
    option("config.linkerd.io/proxy-gid", "proxy-gid"),
    option("config.linkerd.io/inbound-port", "proxy-inbound-port"),
    option("config.linkerd.io/outbound-port", "proxy-outbound-port"),
    annotation("config.linkerd.io/control-port", served(4190)),
    annotation("config.linkerd.io/admin-port", served(4191)),
];
