//! Consul: <https://www.consul.io>.

use super::annotations::Annotations;
use super::annotations::table::{Annotation, Meaning, Reader, annotation, option};
use super::{Delivery, Injection, Mesh, OptOut, Place, is_false, is_true};
use crate::types::{Invalid, MeshName};

/// The init container that its injector adds.
pub const INIT_CONTAINER: &str = "consul-connect-inject-init";

/// The entry of the mesh in the table.
pub const CONSUL: Mesh = Mesh {
    name: "Consul",
    option: MeshName::Consul,
    delivery: Delivery::ToLoopback,
    dns_over_tcp: true,
    dns_on_loopback: true,
    domain: "consul.hashicorp.com",
    options: &[
        ("proxy-inbound-port", "20000"),
        ("proxy-uid", "5995"),
        ("proxy-gid", ""),
        ("mesh-ports", ""),
        // Its proxy listens on 127.0.0.1 and the pod's first address; see DUAL_STACK.
        ("ip-family", "ipv4"),
        ("dns-port", "8600"),
        // Consul's DNS forwards lookups to the cluster's name server, the pod's second one: capturing them would loop.
        ("dns-servers", "127.0.0.1,::1"),
    ],
    rewrites_probes: false,
    detects_protocols: false,
    mark: &[
        ("consul.hashicorp.com/connect-inject-status", Some("injected")),
        // Only set for a CNI plugin. Without a plugin, the init container redirects.
        (TRAFFIC_CONFIG, None),
    ],
    injection: Injection {
        name: "consul.hashicorp.com/connect-inject",
        place: Place::Annotation,
        yes: is_true,
        no: is_false,
    },
    opt_outs: &[OptOut {
        annotation: "consul.hashicorp.com/transparent-proxy",
        says: is_false,
        reason: "Consul's transparent proxying is disabled",
        init_container: None,
    }],
    annotations: ANNOTATIONS,
    proxies: &["consul-dataplane", "envoy-sidecar"],
    proxy_images: &["consul-dataplane"],
    init_containers: &[INIT_CONTAINER],
    validators: &[],
    chains: &[("CONSUL_", "Consul")],
    tables: &[("inet consul", "Consul")],
    traces: &[],
    policy_routing: None,
    ports: &[
        (8600, "DNS"),
        (15001, "outbound connections"),
        (19000, "Envoy's administration"),
        (20000, "inbound connections"),
        (20100, "merged metrics"),
        (20101, "merged metrics"),
        (20200, "Envoy's metrics"),
        (20600, "graceful shutdown"),
        (21000, "health"),
    ],
};

/// The configuration that the injector writes for its CNI plugin; Nomad passes the same as a CNI argument.
const TRAFFIC_CONFIG: &str = "consul.hashicorp.com/redirect-traffic-config";

/// Set on every pod with transparent proxying, redirected by a plugin or an init container.
const TRANSPARENT: &str = "consul.hashicorp.com/transparent-proxy-status";

/// Whether the init container of a pod redirects it: the injector wrote no configuration for a CNI plugin.
pub fn init_container_redirects(annotations: &Annotations) -> bool {
    annotations.get(TRANSPARENT).is_some_and(|status| !status.is_empty()) && annotations.get(TRAFFIC_CONFIG).is_none()
}

/// The annotations that correspond to an allocation of Nomad, which has none.
pub fn nomad(config: &str) -> Annotations {
    let mark = CONSUL.mark.iter().map(|(name, value)| (*name, value.unwrap_or(config)));
    mark.collect()
}

const ANNOTATIONS: &[Annotation] = &[
    annotation(TRAFFIC_CONFIG, Meaning::Document(CONFIG)),
    annotation("consul.hashicorp.com/dual-stack", DUAL_STACK),
    annotation(
        "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports",
        Meaning::IptablesPorts("exclude-inbound-ports"),
    ),
    annotation(
        "consul.hashicorp.com/transparent-proxy-exclude-outbound-ports",
        Meaning::IptablesPorts("exclude-outbound-ports"),
    ),
    option(
        "consul.hashicorp.com/transparent-proxy-exclude-outbound-cidrs",
        "exclude-outbound-cidrs",
    ),
    option("consul.hashicorp.com/transparent-proxy-exclude-uids", "exclude-uids"),
];

/// Consul's own rules are for IPv4, and with dual stack for both families. Its injector writes `true` or `false`; its
/// plugin reads any value but `true` as false.
const DUAL_STACK: Meaning = Meaning::Read(Reader {
    help: "`true`: `ip-family: auto`; else `ip-family: ipv4`",
    read: |text, _| {
        Ok(vec![(
            "ip-family",
            if text == "true" { "auto" } else { "ipv4" }.to_owned(),
        )])
    },
});

/// The members of the configuration for Consul's plugin.
const CONFIG: &[(&str, Meaning)] = &[
    ("ProxyUserID", Meaning::Option("proxy-uid")),
    ("ProxyInboundPort", Meaning::Option("proxy-inbound-port")),
    ("ProxyOutboundPort", Meaning::Option("proxy-outbound-port")),
    ("ExcludeInboundPorts", Meaning::IptablesPorts("exclude-inbound-ports")),
    ("ExcludeOutboundPorts", Meaning::IptablesPorts("exclude-outbound-ports")),
    ("ExcludeOutboundCIDRs", Meaning::Option("exclude-outbound-cidrs")),
    ("ExcludeUIDs", Meaning::Option("exclude-uids")),
    ("ConsulDNSIP", DNS_ADDRESS),
    ("ConsulDNSPort", Meaning::Option("dns-port")),
];

/// Only lookups at this address are captured. It must be in the pod: a redirection cannot send packets to another host.
const DNS_ADDRESS: Meaning = Meaning::Read(Reader {
    help: "`127.0.0.1` or `::1`: `redirect-dns: true` and `dns-servers` with it",
    read: |text, _| match text.trim() {
        address @ ("127.0.0.1" | "::1") => Ok(vec![
            ("redirect-dns", "true".to_owned()),
            ("dns-servers", address.to_owned()),
        ]),
        other => Err(Invalid::new(
            other,
            "127.0.0.1 or ::1, and redirection reaches no name server on another host (Nomad: set no_dns)",
        )),
    },
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh;
    use crate::options::{Layer, Settings};

    fn settings(layer: Layer) -> Settings {
        let mesh = Some(MeshName::Consul);
        mesh::settings(Layer { mesh, ..layer }).unwrap()
    }

    /// Consul's DNS answers on its own port for the first name server of a pod, and forwards to the second one.
    #[test]
    fn only_lookups_at_the_name_server_in_the_pod_are_captured() {
        let redirect_dns = Some(true);
        let dns = settings(Layer {
            redirect_dns,
            ..Layer::default()
        })
        .config
        .dns;
        assert!(dns.redirect);
        assert_eq!(dns.port.get(), 8600);
        assert_eq!(dns.servers.to_string(), "127.0.0.1,::1");
        assert!(!settings(Layer::default()).config.dns.redirect);
    }

    #[test]
    fn nomads_configuration_counts_as_an_injected_pod() {
        let annotations = nomad(r#"{"ProxyUserID":"101","ProxyInboundPort":9999}"#);
        assert_eq!(
            mesh::injected_by(&annotations).map(|mesh| mesh.option),
            Some(MeshName::Consul)
        );
        assert!(!init_container_redirects(&annotations));
        let layer = mesh::annotations::parse(&annotations).over(Layer::default()).unwrap();
        let proxy = settings(layer).config.proxy;
        assert_eq!(
            (proxy.uids.to_string(), proxy.inbound_port.get()),
            ("101".to_owned(), 9999)
        );
    }
}
