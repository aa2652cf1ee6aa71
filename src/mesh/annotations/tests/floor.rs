//! Policies of the node that annotations cannot make laxer.

use super::*;

/// The errors of a pod with an annotation under options of the node.
fn refused(node: &[(&str, &str)], name: &str, value: &str) -> Vec<String> {
    match layer(&[(name, value)], flags(node)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

const OUTBOUND: &[(&str, &str)] = &[
    ("outbound-policy", "proxy-only"),
    ("exclude-outbound-ports", "22,80-90"),
    ("proxy-uid", "1337"),
    ("proxy-mark", "77"),
];
const INBOUND: &[(&str, &str)] = &[("inbound-policy", "proxy-only"), ("exclude-inbound-ports", "9000")];

#[test]
fn annotations_cannot_make_a_policy_of_the_node_laxer() {
    for (node, name, value, option) in [
        (OUTBOUND, "outbound-policy", "allow", "outbound-policy"),
        (OUTBOUND, "allow-dns", "true", "allow-dns"),
        (OUTBOUND, "exclude-outbound-ports", "22,443", "exclude-outbound-ports"),
        (OUTBOUND, "exclude-outbound-ports", "80-91", "exclude-outbound-ports"),
        (
            OUTBOUND,
            "exclude-outbound-cidrs",
            "10.0.0.0/8",
            "exclude-outbound-cidrs",
        ),
        (OUTBOUND, "exclude-uids", "1000", "exclude-uids"),
        (OUTBOUND, "exclude-gids", "1000", "exclude-gids"),
        (
            OUTBOUND,
            "exclude-outbound-ports-for-uids",
            "tcp:22:1000",
            "exclude-outbound-ports-for-uids",
        ),
        (OUTBOUND, "exclude-interfaces", "eth0", "exclude-interfaces"),
        (OUTBOUND, "proxy-uid", "1000", "proxy-uid"),
        (OUTBOUND, "proxy-gid", "1000", "proxy-gid"),
        (OUTBOUND, "proxy-mark", "78", "proxy-mark"),
        (OUTBOUND, "proxy-mark", "", "proxy-mark"),
        (INBOUND, "inbound-policy", "allow", "inbound-policy"),
        (INBOUND, "exclude-inbound-ports", "22", "exclude-inbound-ports"),
        (INBOUND, "exclude-inbound-cidrs", "10.0.0.0/8", "exclude-inbound-cidrs"),
        (INBOUND, "mesh-ports", "22", "mesh-ports"),
        (INBOUND, "exclude-interfaces", "eth0", "exclude-interfaces"),
    ] {
        let problems = refused(node, &format!("{PREFIX}{name}"), value);
        assert_eq!(problems.len(), 1, "{name}: {value}: {problems:?}");
        assert!(problems[0].contains(&format!("{option} would make")), "{problems:?}");
    }
    let istio = "traffic.sidecar.istio.io/excludeOutboundPorts";
    assert_eq!(refused(OUTBOUND, istio, "443").len(), 1);
}

#[test]
fn annotations_may_make_a_policy_of_the_node_stricter() {
    for (node, name, value) in [
        (OUTBOUND, "outbound-policy", "proxy-only"),
        (OUTBOUND, "inbound-policy", "proxy-only"),
        (OUTBOUND, "exclude-outbound-ports", "22,85"),
        (OUTBOUND, "exclude-outbound-ports", ""),
        (OUTBOUND, "include-outbound-ports", "443"),
        (OUTBOUND, "proxy-uid", "1337"),
        (OUTBOUND, "allow-dns", "false"),
        (INBOUND, "exclude-inbound-ports", "9000,15020"),
        (INBOUND, "mesh-ports", "15021"),
        (INBOUND, "outbound-policy", "proxy-only"),
    ] {
        let problems = refused(node, &format!("{PREFIX}{name}"), value);
        assert_eq!(problems, Vec::<String>::new(), "{name}: {value}");
    }
    // What Istio's injector writes for the plugin.
    for (name, value) in [
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", ""),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "15090,15021,15020"),
    ] {
        assert_eq!(refused(OUTBOUND, name, value), Vec::<String>::new(), "{name}");
        assert_eq!(refused(INBOUND, name, value), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn annotations_choose_the_policy_where_the_node_has_none() {
    let read = layer(
        &[
            ("traffic.sidetrack.dev/outbound-policy", "proxy-only"),
            ("traffic.sidetrack.dev/exclude-outbound-ports", "22"),
        ],
        Layer::default(),
    );
    let expected = flags(&[("outbound-policy", "proxy-only"), ("exclude-outbound-ports", "22")]);
    assert_eq!(read.unwrap(), expected);
}
