//! Linkerd: a proxy that goes on to the original destination, as its own does, and the flags of its `proxy-init`.

use serde_json::{Value, json};
use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::cni::{ANNOTATIONS, request};
use crate::common::envoy::Accepted;
use crate::common::linkerd::{INBOUND, OUTBOUND};
use crate::common::{Caller, LinkerdProxy, Netns, Owner, Pod, Server, To, Transport, call, output_of};
use crate::program::{BACKENDS, Run, apply, sidetrack, state};

/// The arguments of Linkerd's chart, without the flag for IPv6.
const CHART: &[&str] = &[
    "linkerd-proxy-init",
    "--incoming-proxy-port",
    "4143",
    "--outgoing-proxy-port",
    "4140",
    "--proxy-uid",
    "2102",
    "--inbound-ports-to-ignore",
    "4190,4191,4567,4568",
    "--outbound-ports-to-ignore",
    "4567,4568",
];

const APP: u16 = 8080;
const SERVER: u16 = 9090;

/// A pod with Linkerd's proxy and an application, whose rules are in place, and a server outside.
struct Meshed {
    pod: Pod,
    proxy: LinkerdProxy,
    _servers: [Server; 2],
}

impl Meshed {
    fn start(pod: Pod, families: &'static [Family]) -> Self {
        let app = Server::start(&pod.netns, "app", Owner::APP, &[APP, 4191, 4567]);
        let server = Server::start(&pod.peer, "server", Owner::ROOT, &[SERVER, 4567]);
        Self {
            proxy: LinkerdProxy::start(&pod, families),
            pod,
            _servers: [app, server],
        }
    }

    /// Makes a call that its server must answer, after so many connections at the proxy.
    #[track_caller]
    fn passes(&self, caller: Caller, to: To, family: Family, inbound: u64, outbound: u64) {
        let before = self.proxy.accepted();
        let call = call(&self.pod, Transport::Tcp, caller, to, family);
        let place = format!("{caller:?} to {to:?}, {family}");
        let call = call.unwrap_or_else(|error| panic!("{place}: {error}"));
        let arrival = call
            .arrival
            .unwrap_or_else(|| panic!("{place}: no answer after {}", self.proxy.accepted()));
        assert_eq!(arrival.server, if to.is_pod() { "app" } else { "server" }, "{place}");
        let accepted = self.proxy.accepted().since(before);
        assert_eq!(accepted, Accepted { inbound, outbound }, "{place}");
    }

    /// Inbound and outbound requests pass the proxy once each, and excluded ones bypass it.
    #[track_caller]
    fn carries_requests(&self, families: &[Family]) {
        for family in families {
            let passes = |caller, to, inbound, outbound| self.passes(caller, to, *family, inbound, outbound);
            passes(Caller::Peer, To::Pod(APP), 1, 0);
            passes(Caller::Far, To::Pod(APP), 1, 0);
            passes(Caller::App, To::Peer(SERVER), 0, 1);
            passes(Caller::Root, To::Far(SERVER), 0, 1);
            passes(Caller::App, To::Pod(APP), 0, 0);
            passes(Caller::App, To::Loopback(APP), 0, 0);
            // The proxy's own way to the application, and to others.
            passes(Caller::Process(2102, 0), To::Pod(APP), 0, 0);
            passes(Caller::Process(2102, 0), To::Peer(SERVER), 0, 0);
            // Its metrics, and the ports that Linkerd skips by default.
            passes(Caller::Peer, To::Pod(4191), 0, 0);
            passes(Caller::Peer, To::Pod(4567), 0, 0);
            passes(Caller::App, To::Peer(4567), 0, 0);
        }
    }
}

#[track_caller]
fn run(netns: &Netns, arguments: &[&str]) -> Run {
    sidetrack(netns, &[CHART, arguments].concat())
}

/// A run of `sidetrack probe` with these options.
fn probe(netns: &Netns, options: &[&str]) -> (Option<i32>, Value) {
    let run = sidetrack(netns, &[&["probe", "--json"], options].concat());
    let report = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    (run.code, report)
}

#[test]
fn traffic_passes_linkerds_proxy_on_each_backend() {
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, &["--mesh", "linkerd", "--ip-family", "auto"]);
        let meshed = Meshed::start(pod, &Family::BOTH);
        meshed.carries_requests(&Family::BOTH);
        let (code, report) = probe(&meshed.pod.netns, &["--mesh", "linkerd", "--ip-family", "auto"]);
        assert_eq!(code, Some(0), "{report:#}");
    }
}

/// The plugin recognises Linkerd's pods by their mark. Ports of annotations replace those that its charts skip.
#[test]
fn traffic_passes_linkerds_proxy_with_the_plugin() {
    let add = |pod: &Pod, annotations: Value| {
        let with_mark = request("ADD", &pod.netns.path()).with("runtimeConfig", json!({ ANNOTATIONS: annotations }));
        with_mark
            .annotated("linkerd.io/proxy-version", "edge-26.8.3")
            .succeeds()
    };
    let pod = Pod::new();
    let added = add(&pod, json!({}));
    assert!(
        added.stderr.contains("IPv6 is in use and bypasses the proxy"),
        "{added:?}"
    );
    Meshed::start(pod, &[Family::V4]).carries_requests(&[Family::V4]);
    let added = add(&Pod::new(), json!({ "traffic.sidetrack.dev/ip-family": "ipv4" }));
    assert!(
        !added.stderr.contains("IPv6 is in use and bypasses the proxy"),
        "{added:?}"
    );
    let pod = Pod::new();
    let annotations = json!({
        "config.linkerd.io/skip-inbound-ports": "25",
        // What pods of the control plane need.
        "config.linkerd.io/skip-outbound-ports": "9090",
        "config.linkerd.io/admin-port": "5191",
        "traffic.sidetrack.dev/ip-family": "auto",
    });
    let added = add(&pod, annotations);
    assert!(
        !added.stderr.contains("IPv6 is in use and bypasses the proxy"),
        "{added:?}"
    );
    let meshed = Meshed::start(pod, &Family::BOTH);
    for family in Family::BOTH {
        meshed.passes(Caller::Peer, To::Pod(4567), family, 1, 0);
        meshed.passes(Caller::Peer, To::Pod(4191), family, 1, 0);
        meshed.passes(Caller::App, To::Peer(4567), family, 0, 1);
        meshed.passes(Caller::App, To::Peer(SERVER), family, 0, 0);
    }
}

#[test]
fn traffic_passes_linkerds_proxy_with_the_charts_flags() {
    for mode in [
        &["--iptables-mode", "legacy"][..],
        &["--firewall-bin-path", "iptables-nft"],
        &[],
    ] {
        let pod = Pod::new();
        run(&pod.netns, mode).succeeded();
        Meshed::start(pod, &Family::BOTH).carries_requests(&Family::BOTH);
    }
}

/// If Linkerd's proxy listens on IPv4 alone, captured IPv6 would be refused. A user who requests IPv4 alone needs no
/// warning.
#[test]
fn ipv6_is_not_redirected_if_linkerds_proxy_does_not_listen_on_it() {
    type Case<'c> = (&'c [&'c str], &'c [&'c str], usize);
    let by_flag: Case = (CHART, &["--ipv6=false"], 0);
    let by_mesh: Case = (&["apply", "--mesh", "linkerd"], &[], 1);
    let by_option: Case = (&["apply", "--mesh", "linkerd"], &["--ip-family", "ipv4"], 0);
    for (command, flags, expected) in [by_flag, by_mesh, by_option] {
        let pod = Pod::new();
        let applied = sidetrack(&pod.netns, &[command, flags].concat()).succeeded();
        let warnings = applied
            .stderr
            .lines()
            .filter(|line| line.contains("IPv6 is in use and bypasses the proxy"));
        assert_eq!(warnings.count(), expected, "{applied:?}");
        let meshed = Meshed::start(pod, &[Family::V4]);
        meshed.carries_requests(&[Family::V4]);
        meshed.passes(Caller::Peer, To::Pod(APP), Family::V6, 0, 0);
        meshed.passes(Caller::App, To::Peer(SERVER), Family::V6, 0, 0);
    }
}

/// The proxy connects to the pod's own address as its own user. Rules for a proxy that binds 127.0.0.6 send that back
/// to it, for ever.
#[test]
fn probe_finds_the_loop_of_self_calls_through_linkerds_proxy() {
    let numbers = [
        "--mesh",
        "istio",
        "--proxy-inbound-port",
        "4143",
        "--proxy-outbound-port",
        "4140",
        "--proxy-uid",
        "2102",
        "--proxy-gid",
        "",
        "--mesh-ports",
        "4190,4191",
        "--exclude-inbound-ports",
        "4567,4568",
        "--exclude-outbound-ports",
        "4567,4568",
    ];
    let pods = BACKENDS
        .iter()
        .flat_map(|backend| Family::BOTH.map(|family| (backend, family)));
    for (backend, family) in pods {
        let pod = Pod::new();
        apply(&pod.netns, backend, &numbers);
        let meshed = Meshed::start(pod, &Family::BOTH);
        let answer = call(&meshed.pod, Transport::Tcp, Caller::Peer, To::Pod(APP), family);
        assert!(
            answer.is_err() || answer.is_ok_and(|call| call.arrival.is_none()),
            "{family}"
        );
        let inbound = meshed.proxy.accepted().inbound;
        assert!(inbound > 1, "{family}: {inbound} connections");
        let (code, report) = probe(&meshed.pod.netns, &["--mesh", "linkerd", "--ip-family", "auto"]);
        assert_eq!(code, Some(3), "{report:#}");
        let probes = report["probes"].as_array().expect("probes");
        let failed: Vec<&Value> = probes.iter().filter(|probe| probe["result"] == "failed").collect();
        assert_eq!(failed.len(), 2, "{report:#}");
        for (probe, family) in failed.iter().zip(Family::BOTH) {
            assert_eq!(probe["name"], "passthrough", "{probe:#}");
            let found = probe["found"].to_string();
            assert!(found.contains(&format!(":{INBOUND}")), "{family}: {found}");
        }
    }
}

/// Connections that are not for the pod, or for the proxy alone, go no further.
#[test]
fn linkerds_proxy_drops_connections_to_itself() {
    let pod = Pod::new();
    run(&pod.netns, &[]).succeeded();
    let meshed = Meshed::start(pod, &Family::BOTH);
    for family in Family::BOTH {
        let before = meshed.proxy.accepted();
        let dialled = call(&meshed.pod, Transport::Tcp, Caller::Peer, To::Pod(INBOUND), family);
        assert!(dialled.is_ok_and(|call| call.arrival.is_none()), "{family}");
        let dialled = call(&meshed.pod, Transport::Tcp, Caller::App, To::Loopback(OUTBOUND), family);
        assert!(dialled.is_ok_and(|call| call.arrival.is_none()), "{family}");
        let accepted = meshed.proxy.accepted().since(before);
        assert_eq!((accepted.inbound, accepted.outbound), (1, 1), "{family}");
    }
}

#[test]
fn rerun_changes_nothing_and_cleanup_removes_all() {
    let pod = Pod::new();
    let before = BACKENDS.map(|backend| state(&pod.netns, backend));
    run(&pod.netns, &[]).succeeded();
    let first = state(&pod.netns, "nftables");
    assert!(run(&pod.netns, &[]).succeeded().stderr.contains("already"));
    assert_eq!(state(&pod.netns, "nftables"), first);
    assert!(!first.contains("::6"), "{first}");
    sidetrack(&pod.netns, &["cleanup"]).succeeded();
    assert_eq!(BACKENDS.map(|backend| state(&pod.netns, backend)), before);
}

#[test]
fn invalid_flag_changes_nothing() {
    let pod = Pod::new();
    let before = state(&pod.netns, "nftables");
    for wrong in [
        &["--outgoing-proxy-port", "4143"][..],
        &["--subnets-to-ignore", "10.0.0.1"],
        &["--proxy-uid", "0"],
        &["--netns", "/nowhere/at/all"],
        &["--ports-to-redirect", "80, 443"],
    ] {
        run(&pod.netns, wrong).failed(1, &["error: "]);
    }
    assert_eq!(state(&pod.netns, "nftables"), before);
}

#[test]
fn the_network_namespace_is_entered() {
    let (host, pod) = (Netns::new(), Pod::new());
    let path = pod.netns.path();
    run(&host, &["--netns", path.to_str().expect("text")]).succeeded();
    assert!(state(&pod.netns, "nftables").contains("sidetrack"));
    assert!(!state(&host, "nftables").contains("sidetrack"));
}

/// Linkerd needs a privileged container and a sysctl for that.
#[test]
fn close_wait_timeout_needs_no_privileged_container() {
    let pod = Pod::new();
    let flags = [CHART, &["--timeout-close-wait-secs", "3600"]].concat();
    let nobody = Owner::new(65534, 65534);
    let mut command = pod
        .netns
        .command_with(nobody, caps::Capability::CAP_NET_ADMIN, SIDETRACK);
    Run::of(command.args(flags)).succeeded();
    let rules = output_of(pod.netns.command("nft").args(["list", "ruleset"]));
    assert!(rules.contains("close_wait : 3600"), "{rules}");
    run(&pod.netns, &["--timeout-close-wait-secs", "0"]).succeeded();
    assert!(!state(&pod.netns, "nftables").contains("ct timeout"));
}

/// As the chart runs it: a user with one capability.
#[test]
fn net_admin_alone_suffices() {
    let pod = Pod::new();
    let nobody = Owner::new(65534, 65534);
    let mut command = pod
        .netns
        .command_with(nobody, caps::Capability::CAP_NET_ADMIN, SIDETRACK);
    Run::of(command.args(CHART)).succeeded();
    Meshed::start(pod, &Family::BOTH).carries_requests(&Family::BOTH);
}
