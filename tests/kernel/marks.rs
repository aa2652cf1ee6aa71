//! `src_valid_mark`: where VPN clients have set it on a node, new network namespaces inherit it, and packets that TPROXY
//! marks are dropped.

use sidetrack::types::{Family, InboundMode};

use crate::common::sidecar::PEER_CALLS_APP;
use crate::common::{Caller, JOURNEYS, Netns, Owner, Pod, Sidecar, To, Transport, call, output_of};
use crate::program::{BACKENDS, apply, sidetrack, state};

const TPROXY: &[&str] = &["--inbound-mode", "tproxy"];
const SET: &str = "net.ipv4.conf.all.src_valid_mark";
fn sysctl(netns: &Netns, setting: &str) {
    output_of(netns.command("sysctl").args(["-qw", setting]));
}

#[test]
fn namespace_that_drops_marked_packets_is_refused_for_tproxy_on_each_backend() {
    for backend in BACKENDS {
        // With the neighbour's namespace the interfaces would go.
        let pod = Pod::new();
        let netns = &pod.netns;
        sysctl(netns, &format!("{SET}=1"));
        let untouched = state(netns, backend);
        let run = sidetrack(netns, &[&["apply", "--backend", backend], TPROXY].concat());
        run.failed(1, &[SET, "no inbound IPv4 connection", "--inbound-mode redirect"]);
        assert_eq!(state(netns, backend), untouched);
        // Nothing is marked.
        apply(netns, backend, &[]);
        apply(netns, backend, &[TPROXY, &["--ip-family", "ipv6"]].concat());
    }
}

#[test]
fn check_reports_dropped_marked_packets() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", TPROXY);
    let sidecar = Sidecar::start_as(Owner::PROXY_AS_ROOT, InboundMode::Tproxy, pod);
    let netns = &sidecar.pod.netns;
    let check = || sidetrack(netns, &[&["check"], TPROXY].concat());
    sidecar.travel(&PEER_CALLS_APP, Family::V4).expect("taken by the proxy");
    check().succeeded();
    for setting in ["net.ipv4.conf.all", "net.ipv4.conf.eth0"] {
        sysctl(netns, &format!("{setting}.src_valid_mark=1"));
        call(&sidecar.pod, Transport::Tcp, Caller::Peer, To::Pod(8080), Family::V4).expect_err("dropped");
        let drifted = check();
        assert_eq!(drifted.code, Some(3), "{drifted:?}");
        let said = format!("foreign: {setting}.src_valid_mark is 1");
        assert!(drifted.stdout.contains(&said), "{}", drifted.stdout);
        sysctl(netns, &format!("{setting}.src_valid_mark=0"));
    }
    sidecar
        .travel(&PEER_CALLS_APP, Family::V4)
        .expect("taken by the proxy again");
    check().succeeded();
}

/// The kernel takes them for what came from outside, unless it asks for the interface, too.
#[test]
fn marked_packets_arrive_if_local_sources_are_accepted() {
    let pod = Pod::new();
    for setting in ["all.src_valid_mark=1", "eth0.accept_local=1", "eth1.accept_local=1"] {
        sysctl(&pod.netns, &format!("net.ipv4.conf.{setting}"));
    }
    sysctl(&pod.netns, "net.ipv4.conf.all.rp_filter=1");
    let strict = sidetrack(&pod.netns, &[&["apply"], TPROXY].concat());
    strict.failed(1, &[SET]);
    sysctl(&pod.netns, "net.ipv4.conf.all.rp_filter=2");
    apply(&pod.netns, "nftables", TPROXY);
    let sidecar = Sidecar::start_as(Owner::PROXY_AS_ROOT, InboundMode::Tproxy, pod);
    sidecar.travel_all(JOURNEYS);
}
