//! Policies of proxy-only in the NetConf and in annotations.

use sidetrack::types::Family;

use super::{has_rules, request};
use crate::common::{Caller, Owner, Pod, Server, To, Transport, call};

/// Whether UDP of the application reaches the neighbour.
fn udp_leaves(pod: &Pod) -> bool {
    let _server = Server::start(&pod.peer, "peer", Owner::ROOT, &[9090]);
    let mut calls = Family::BOTH.map(|family| call(pod, Transport::Udp, Caller::App, To::Peer(9090), family).is_ok());
    calls.sort_unstable();
    assert_eq!(calls[0], calls[1], "both families");
    calls[0]
}

#[test]
fn annotation_locks_a_pod_where_the_node_does_not() {
    let pod = Pod::new();
    request("ADD", &pod.netns.path()).succeeds();
    assert!(udp_leaves(&pod));
    let pod = Pod::new();
    request("ADD", &pod.netns.path())
        .annotated("traffic.sidetrack.dev/outbound-policy", "proxy-only")
        .succeeds();
    assert!(!udp_leaves(&pod));
}

#[test]
fn pod_cannot_make_the_policy_of_the_node_laxer() {
    for (name, value) in [
        ("traffic.sidetrack.dev/outbound-policy", "allow"),
        ("traffic.sidetrack.dev/allow-dns", "true"),
        ("traffic.sidetrack.dev/exclude-outbound-cidrs", "0.0.0.0/0"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "443"),
    ] {
        let pod = Pod::new();
        let mut add = request("ADD", &pod.netns.path()).annotated(name, value);
        add.netconf["redirect"]["outbound-policy"] = "proxy-only".into();
        let error = add.fails(100);
        assert!(
            error["msg"].to_string().contains("laxer") || error["details"].to_string().contains("laxer"),
            "{error}"
        );
        assert!(!has_rules(&pod.netns), "{name}");
    }
    let pod = Pod::new();
    let mut add = request("ADD", &pod.netns.path());
    add.netconf["redirect"]["outbound-policy"] = "proxy-only".into();
    add.succeeds();
    assert!(!udp_leaves(&pod));
}

#[test]
fn pod_cannot_opt_out_of_a_policy_for_all_pods() {
    let pod = Pod::new();
    let mut add = request("ADD", &pod.netns.path())
        .with("select", "always".into())
        .annotated("traffic.sidetrack.dev/redirect", "false");
    add.succeeds();
    add.netconf["redirect"]["outbound-policy"] = "proxy-only".into();
    let error = add.fails(100);
    assert!(error.to_string().contains("proxy-only for all pods"), "{error}");
}

/// The rules of Istio's program have no policy, so its init container would undo that of the node.
#[test]
fn pod_of_an_init_container_is_refused_under_a_policy_of_the_node() {
    let pod = Pod::new();
    let status = r#"{"initContainers":["istio-init"],"containers":["istio-proxy"]}"#;
    let mut add = request("ADD", &pod.netns.path()).annotated("sidecar.istio.io/status", status);
    add.succeeds();
    assert!(!has_rules(&pod.netns));
    add.netconf["redirect"]["outbound-policy"] = "proxy-only".into();
    let error = add.fails(100);
    assert!(error.to_string().contains("let the plugin redirect the pod"), "{error}");
}
