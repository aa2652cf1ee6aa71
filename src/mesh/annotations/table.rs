//! The table of annotations: one definition gives what is read and what is documented.
//!
//! Where several say something about the same option, the one that stands first here counts.

use std::fmt;

/// An annotation, and what it says in our terms.
pub struct Annotation {
    /// Its name.
    pub name: &'static str,
    /// What its value means.
    pub meaning: Meaning,
    /// What its presence says where neither an annotation nor the NetConf says otherwise.
    pub implies: &'static Said,
}

/// Options, each with its text as a flag would have it.
pub type Said = [(&'static str, &'static str)];

/// What the value of an annotation means.
pub enum Meaning {
    /// The texts of this option.
    Option(&'static str),
    /// Yes or no.
    Switch {
        /// What yes says.
        on: &'static Said,
        /// What no says.
        off: &'static Said,
    },
    /// One of these words, and what each says.
    Word(&'static [(&'static str, &'static Said)]),
    /// A port that is left alone inbound besides all others; 0 for none.
    AlsoExcludedInbound,
    /// YAML or JSON: members by their paths, and what each means.
    Document(&'static [(&'static str, Meaning)]),
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &'static str| if text.is_empty() { "\"\"" } else { text };
        let said = |said: &'static Said| {
            let texts: Vec<String> = said
                .iter()
                .map(|(option, of)| format!("`{option}: {}`", text(of)))
                .collect();
            if texts.is_empty() {
                "nothing".to_owned()
            } else {
                texts.join(" and ")
            }
        };
        match self {
            Self::Option(option) => write!(f, "`{option}`"),
            Self::Switch { on, off } => write!(f, "true: {}; false: {}", said(on), said(off)),
            Self::Word(words) => {
                let words: Vec<String> = words
                    .iter()
                    .map(|(word, says)| format!("`{word}`: {}", said(says)))
                    .collect();
                f.write_str(&words.join("; "))
            }
            Self::AlsoExcludedInbound => f.write_str("added to `exclude-inbound-ports`; 0 is none"),
            Self::Document(members) => {
                let members: Vec<String> = members
                    .iter()
                    .map(|(path, meaning)| format!("{path} = {meaning}"))
                    .collect();
                f.write_str(&members.join("<br>"))
            }
        }
    }
}

const NOTHING: &Said = &[];

const fn annotation(name: &'static str, meaning: Meaning) -> Annotation {
    Annotation {
        name,
        meaning,
        implies: NOTHING,
    }
}

const fn option(name: &'static str, option: &'static str) -> Annotation {
    annotation(name, Meaning::Option(option))
}

const DROP_INVALID: Meaning = Meaning::Switch {
    on: &[("drop-invalid", "true")],
    off: &[("drop-invalid", "false")],
};

/// With [`IP_FAMILY_OF_KUMA`]: `auto` redirects IPv6 wherever a pod could use it, and not where there is none.
const DUAL_STACK_OF_ISTIO: Meaning = Meaning::Switch {
    on: &[("ip-family", "auto")],
    off: NOTHING,
};

const IP_FAMILY_OF_KUMA: Meaning = Meaning::Word(&[
    ("dualstack", &[("ip-family", "auto")]),
    ("ipv4", &[("ip-family", "ipv4")]),
    ("ipv6", &[("ip-family", "ipv6")]),
]);

const REDIRECT_DNS: Meaning = Meaning::Switch {
    on: &[("redirect-dns", "true")],
    off: &[("redirect-dns", "false")],
};

const ALL_DNS_SERVERS: Meaning = Meaning::Switch {
    on: &[("dns-servers", "all")],
    off: NOTHING,
};

const NO_INBOUND: &Said = &[("include-inbound-ports", "")];

/// Variables that Istio's injector gives to its init container, and that decide about its rules.
const PROXY_METADATA: &[(&str, Meaning)] = &[
    ("proxyMetadata.ISTIO_META_DNS_CAPTURE", REDIRECT_DNS),
    ("proxyMetadata.REDIRECT_DNS", REDIRECT_DNS),
    ("proxyMetadata.CAPTURE_ALL_DNS", ALL_DNS_SERVERS),
    ("proxyMetadata.ISTIO_DUAL_STACK", DUAL_STACK_OF_ISTIO),
    ("proxyMetadata.DUAL_STACK", DUAL_STACK_OF_ISTIO),
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

/// Kuma's whole configuration of transparent proxying.
const KUMA_CONFIG: &[(&str, Meaning)] = &[
    ("kumaDPUser", Meaning::Option("proxy-uid")),
    ("ipFamilyMode", IP_FAMILY_OF_KUMA),
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

/// What Consul's injector writes for its own plugin. Its name server must be one in the pod: redirection cannot send a
/// query to another host.
const CONSUL_CONFIG: &[(&str, Meaning)] = &[
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

/// Every annotation of a mesh that says something about redirection.
pub const TABLE: &[Annotation] = &[
    // Istio.
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
    annotation("proxy.istio.io/config", Meaning::Document(PROXY_METADATA)),
    // Linkerd.
    option("config.linkerd.io/skip-inbound-ports", "exclude-inbound-ports"),
    option("config.linkerd.io/skip-outbound-ports", "exclude-outbound-ports"),
    option("config.linkerd.io/skip-subnets", "exclude-inbound-cidrs"),
    option("config.linkerd.io/proxy-uid", "proxy-uid"),
    option("config.linkerd.io/proxy-gid", "proxy-gid"),
    option("config.linkerd.io/inbound-port", "proxy-inbound-port"),
    option("config.linkerd.io/outbound-port", "proxy-outbound-port"),
    annotation("config.linkerd.io/control-port", Meaning::AlsoExcludedInbound),
    annotation("config.linkerd.io/admin-port", Meaning::AlsoExcludedInbound),
    // Kuma.
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
    annotation("kuma.io/transparent-proxying-ip-family-mode", IP_FAMILY_OF_KUMA),
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
    annotation(
        "traffic.kuma.io/transparent-proxy-config",
        Meaning::Document(KUMA_CONFIG),
    ),
    // Consul.
    annotation(
        "consul.hashicorp.com/redirect-traffic-config",
        Meaning::Document(CONSUL_CONFIG),
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
