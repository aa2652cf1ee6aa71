//! The table of annotations and the equivalent flags.

type Pairs = &'static [(&'static str, &'static str)];

/// Annotations and the equivalent flags: every annotation of the table, and every member of a document.
pub(super) const CASES: &[(Pairs, Pairs)] = &[
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
    // Istio reads a value that Go's `strconv.ParseBool` rejects as false.
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
