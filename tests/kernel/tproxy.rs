//! Connections to the pod by TPROXY, with a real Envoy; and what TPROXY and REDIRECT have in common.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use sidetrack::types::{Family, InboundMode};

use crate::common::conversation::{Conversation, Echo};
use crate::common::segment::{Segment, sequence_numbers};
use crate::common::sidecar::journey;
use crate::common::{
    Address, Caller, JOURNEYS, Journey, Netns, Owner, Pod, Route, Server, Sidecar, To, Transport, call, output_of,
};
use crate::program::{BACKENDS, apply, sidetrack, state};

/// The ways that Envoy may be run: as itself, and as Istio has it for TPROXY.
const OWNERS: [Owner; 2] = [Owner::PROXY, Owner::PROXY_AS_ROOT];

/// Further expectations.
const MORE_JOURNEYS: &[Journey] = {
    use Caller::{App, Peer, PeerSecond, Process, Proxy};
    use Route::{Direct, Inbound};
    use Transport::Tcp;
    const PROXY_AS_ROOT: Caller = Process(Owner::PROXY_AS_ROOT.uid, Owner::PROXY_AS_ROOT.gid);
    &[
        journey(
            "a neighbour on another link",
            Tcp,
            PeerSecond,
            To::PodSecond(8080),
            Inbound,
        ),
        journey("a port of the mesh: tunnel", Tcp, Peer, To::Pod(15008), Direct),
        journey("a port of the mesh: metrics", Tcp, Peer, To::Pod(15020), Direct),
        journey("a port of the mesh: health", Tcp, Peer, To::Pod(15021), Direct),
        journey("a port of the mesh: statistics", Tcp, Peer, To::Pod(15090), Direct),
        journey("the proxy calls a port of the mesh", Tcp, Proxy, To::Pod(15021), Direct),
        journey(
            "the app calls the pod's second address",
            Tcp,
            App,
            To::PodSecond(8080),
            Direct,
        ),
        journey(
            "the proxy as root calls the pod",
            Tcp,
            PROXY_AS_ROOT,
            To::Pod(8080),
            Inbound,
        ),
        journey(
            "the proxy as root calls loopback",
            Tcp,
            PROXY_AS_ROOT,
            To::Loopback(8080),
            Direct,
        ),
        journey(
            "the proxy as root calls a neighbour",
            Tcp,
            PROXY_AS_ROOT,
            To::Peer(9090),
            Direct,
        ),
    ]
};

fn apply_mode(netns: &Netns, backend: &str, mode: InboundMode, options: &[&str]) {
    let mode = mode.to_string();
    apply(netns, backend, &[&["--inbound-mode", &mode], options].concat());
}

/// A pod with a proxy that inbound connections reach by TPROXY.
fn sidecar(backend: &str, owner: Owner, options: &[&str]) -> Sidecar {
    let pod = Pod::new();
    apply_mode(&pod.netns, backend, InboundMode::Tproxy, options);
    Sidecar::start_as(owner, InboundMode::Tproxy, pod)
}

fn tproxy_traffic_passes_envoy(backend: &str) {
    for owner in OWNERS {
        let sidecar = sidecar(backend, owner, &[]);
        sidecar.travel_all(JOURNEYS);
        sidecar.travel_all(MORE_JOURNEYS);
    }
}

#[test]
fn tproxy_traffic_passes_envoy_with_nftables() {
    tproxy_traffic_passes_envoy("nftables");
}

#[test]
fn tproxy_traffic_passes_envoy_with_iptables_nft() {
    tproxy_traffic_passes_envoy("iptables-nft");
}

#[test]
fn tproxy_traffic_passes_envoy_with_iptables_legacy() {
    tproxy_traffic_passes_envoy("iptables-legacy");
}

/// Excluded ports, sources and a link, and the captured traffic beside them.
const EXCLUSIONS: &[&str] = &[
    "--exclude-inbound-ports",
    "8081",
    "--exclude-inbound-cidrs",
    "198.51.100.0/24,2001:db8::/32",
    "--exclude-interfaces",
    "eth1",
];
const BESIDE_EXCLUSIONS: &[Journey] = {
    use Caller::{App, Far, Peer, PeerSecond, Proxy};
    use Route::{Direct, Inbound, Outbound};
    use Transport::{Tcp, Udp};
    &[
        journey("a captured port", Tcp, Peer, To::Pod(8080), Inbound),
        journey("an excluded port", Tcp, Peer, To::Pod(8081), Direct),
        journey("an excluded source", Tcp, Far, To::Pod(8080), Direct),
        journey("in by an excluded link", Tcp, PeerSecond, To::PodSecond(8080), Direct),
        journey(
            "in by an excluded link, UDP",
            Udp,
            PeerSecond,
            To::PodSecond(8080),
            Direct,
        ),
        journey("out by an excluded link", Tcp, App, To::PeerSecond(9090), Direct),
        journey(
            "the proxy out by an excluded link",
            Tcp,
            Proxy,
            To::PeerSecond(9090),
            Direct,
        ),
        journey("the proxy calls an excluded port", Tcp, Proxy, To::Pod(8081), Direct),
        journey("the proxy calls a captured port", Tcp, Proxy, To::Pod(8080), Inbound),
        journey("outbound", Tcp, App, To::Peer(9090), Outbound),
        journey("outbound to an excluded source", Tcp, App, To::Far(9090), Outbound),
    ]
};

const INCLUSIONS: &[&str] = &["--include-inbound-ports", "8080"];
const BESIDE_INCLUSIONS: &[Journey] = {
    use Caller::{App, Peer, Proxy};
    use Route::{Direct, Inbound, Outbound};
    use Transport::Tcp;
    &[
        journey("an included port", Tcp, Peer, To::Pod(8080), Inbound),
        journey("another port", Tcp, Peer, To::Pod(8081), Direct),
        journey("the proxy calls an included port", Tcp, Proxy, To::Pod(8080), Inbound),
        journey("the proxy calls another port", Tcp, Proxy, To::Pod(8081), Direct),
        journey("outbound", Tcp, App, To::Peer(9090), Outbound),
    ]
};

/// In both modes.
fn excluded_traffic_is_not_redirected(backend: &str) {
    for mode in [InboundMode::Redirect, InboundMode::Tproxy] {
        for (options, journeys) in [(EXCLUSIONS, BESIDE_EXCLUSIONS), (INCLUSIONS, BESIDE_INCLUSIONS)] {
            let pod = Pod::new();
            apply_mode(&pod.netns, backend, mode, options);
            Sidecar::start_as(Owner::PROXY, mode, pod).travel_all(journeys);
        }
    }
}

#[test]
fn excluded_traffic_is_not_redirected_with_nftables() {
    excluded_traffic_is_not_redirected("nftables");
}

#[test]
fn excluded_traffic_is_not_redirected_with_iptables_nft() {
    excluded_traffic_is_not_redirected("iptables-nft");
}

#[test]
fn excluded_traffic_is_not_redirected_with_iptables_legacy() {
    excluded_traffic_is_not_redirected("iptables-legacy");
}

/// A connection lasts, through Envoy, while the rules are replaced.
fn established_connections_survive_replace(backend: &str) {
    let sidecar = sidecar(backend, Owner::PROXY, &[]);
    let pod = &sidecar.pod;
    let _echo = Echo::start(&pod.netns, Owner::APP, 8443);
    let begin = |(caller, to), family| Conversation::begin(pod, caller, to, family).expect("a connection");
    let calls = [
        (Caller::Peer, To::Pod(8443)),
        (Caller::Far, To::Pod(8443)),
        (Caller::Proxy, To::Pod(8443)),
        (Caller::App, To::Pod(8443)),
    ];
    let before = sidecar.envoy.accepted();
    let mut conversations: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| calls.map(|call| begin(call, family)))
        .collect();
    let mut all_go_on = || {
        for conversation in &mut conversations {
            conversation.go_on(300).expect("an answer");
        }
    };
    all_go_on();
    apply_mode(
        &pod.netns,
        backend,
        InboundMode::Tproxy,
        &["--exclude-inbound-ports", "8081"],
    );
    all_go_on();
    let through_envoy = sidecar.envoy.accepted().since(before);
    assert_eq!((through_envoy.inbound, through_envoy.outbound), (6, 0));
}

#[test]
fn established_connections_survive_replace_with_nftables() {
    established_connections_survive_replace("nftables");
}

#[test]
fn established_connections_survive_replace_with_iptables_nft() {
    established_connections_survive_replace("iptables-nft");
}

#[test]
fn established_connections_survive_replace_with_iptables_legacy() {
    established_connections_survive_replace("iptables-legacy");
}

/// How long a connection is waited for that must not come about. One that does takes less than a millisecond.
const MOMENT: Duration = Duration::from_millis(500);

/// While the proxy does not run, connections wait for it; they do not get to the app.
fn connections_wait_while_the_proxy_is_down(backend: &str) {
    let pod = Pod::new();
    apply_mode(&pod.netns, backend, InboundMode::Tproxy, &[]);
    let _app = Server::start(&pod.netns, "app", Owner::APP, &[8080, 15021]);
    for family in Family::BOTH {
        let to = To::Pod(8080).address(family).expect("an address");
        let connected = pod.peer.run(|| TcpStream::connect_timeout(&to, MOMENT));
        let error = connected.expect_err("no connection").kind();
        assert_eq!(error, ErrorKind::TimedOut, "{family}");
        for (caller, to) in [(Caller::Peer, To::Pod(15021)), (Caller::App, To::Pod(8080))] {
            call(&pod, Transport::Tcp, caller, to, family).unwrap_or_else(|error| panic!("{to:?}: {error}"));
        }
    }
}

#[test]
fn connections_wait_while_the_proxy_is_down_with_nftables() {
    connections_wait_while_the_proxy_is_down("nftables");
}

#[test]
fn connections_wait_while_the_proxy_is_down_with_iptables_nft() {
    connections_wait_while_the_proxy_is_down("iptables-nft");
}

#[test]
fn connections_wait_while_the_proxy_is_down_with_iptables_legacy() {
    connections_wait_while_the_proxy_is_down("iptables-legacy");
}

/// The rules and routes of policy routing.
fn policy_routing(netns: &Netns) -> String {
    let print = |arguments: &[&str]| output_of(netns.command("ip").args(arguments));
    let rules = ["-4", "-6"].map(|family| print(&[family, "rule", "show"]));
    let routes = ["-4", "-6"].map(|family| print(&[family, "route", "show", "table", "all"]));
    let routes = routes.iter().flat_map(|routes| routes.lines());
    let routes: Vec<_> = routes.filter(|route| route.contains("table 133")).collect();
    format!("{}{}", rules.concat(), routes.join("\n"))
}

/// The rules; what iptables has counted meanwhile is left out.
fn rules(netns: &Netns, backend: &str) -> String {
    let uncounted = |line: &str| line.split(" [").next().map(|line| format!("{line}\n"));
    state(netns, backend).lines().filter_map(uncounted).collect()
}

/// Each mode replaces the other completely; in the end nothing is left.
fn redirect_and_tproxy_replace_each_other(backend: &str) {
    let mut pod = Pod::new();
    let untouched = policy_routing(&pod.netns);
    for mode in [
        InboundMode::Tproxy,
        InboundMode::Redirect,
        InboundMode::Tproxy,
        InboundMode::Tproxy,
        InboundMode::Redirect,
    ] {
        apply_mode(&pod.netns, backend, mode, &[]);
        let fresh = Netns::new();
        apply_mode(&fresh, backend, mode, &[]);
        assert_eq!(rules(&pod.netns, backend), rules(&fresh, backend), "{mode}");
        let routing = policy_routing(&pod.netns);
        assert_eq!(routing, policy_routing(&fresh), "{mode}");
        assert_eq!(routing == untouched, mode == InboundMode::Redirect, "{mode}: {routing}");

        let sidecar = Sidecar::start_as(Owner::PROXY, mode, pod);
        sidecar.travel_all(JOURNEYS);
        pod = sidecar.stop();
    }
}

#[test]
fn redirect_and_tproxy_replace_each_other_with_nftables() {
    redirect_and_tproxy_replace_each_other("nftables");
}

#[test]
fn redirect_and_tproxy_replace_each_other_with_iptables_nft() {
    redirect_and_tproxy_replace_each_other("iptables-nft");
}

#[test]
fn redirect_and_tproxy_replace_each_other_with_iptables_legacy() {
    redirect_and_tproxy_replace_each_other("iptables-legacy");
}

/// After the cleanup, connections work as if there had never been a proxy.
fn cleanup_leaves_nothing(backend: &str) {
    let pod = Pod::new();
    let untouched = (state(&pod.netns, backend), policy_routing(&pod.netns));
    apply_mode(
        &pod.netns,
        backend,
        InboundMode::Tproxy,
        &["--drop-invalid", "--redirect-dns", "--dns-servers", "all"],
    );
    sidetrack(&pod.netns, &["cleanup"]).succeeded();
    assert_eq!((state(&pod.netns, backend), policy_routing(&pod.netns)), untouched);

    let _app = Server::start(&pod.netns, "app", Owner::APP, &[8080]);
    for family in Family::BOTH {
        let made = call(&pod, Transport::Tcp, Caller::Peer, To::Pod(8080), family).expect("a connection");
        let client = made.arrival.expect("an answer").client;
        assert_eq!(client.ip(), Address::PEER.of(family));
    }
}

#[test]
fn cleanup_removes_all_rules_of_nftables() {
    cleanup_leaves_nothing("nftables");
}

#[test]
fn cleanup_removes_all_rules_of_iptables_nft() {
    cleanup_leaves_nothing("iptables-nft");
}

#[test]
fn cleanup_removes_all_rules_of_iptables_legacy() {
    cleanup_leaves_nothing("iptables-legacy");
}

/// The number of connections that the namespace has refused or reset.
fn resets_sent(netns: &Netns) -> u64 {
    let counters = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let counters = counters.expect("the counters of the namespace");
    let mut tcp = counters.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().expect("names"), tcp.next().expect("values"));
    let resets = names
        .split(' ')
        .zip(values.split(' '))
        .find(|(name, _)| *name == "OutRsts");
    resets.and_then(|(_, value)| value.parse().ok()).expect("OutRsts")
}

/// The outcome of a connection to the proxy's inbound port among segments of no connection, and how
/// often the pod replied to them with a reset.
fn interrupted(pod: &Pod, port: u16, family: Family) -> (std::io::Result<()>, u64) {
    let mut conversation = Conversation::begin(pod, Caller::Peer, To::Pod(port), family).expect("a connection");
    conversation.go_on(10).expect("an answer");
    let resets = resets_sent(&pod.netns);
    let (sent, received) = sequence_numbers(&conversation.stream).expect("the sequence numbers");
    let out_of_window = Segment {
        from: conversation.stream.local_addr().expect("an address"),
        to: conversation.stream.peer_addr().expect("an address"),
        flags: Segment::ACK,
        sequence: sent.wrapping_add(1 << 30),
        acknowledgement: received,
    };
    let mut unasked = out_of_window;
    unasked.from.set_port(9);
    unasked.flags |= Segment::SYN;
    for segment in [unasked, out_of_window] {
        pod.peer.run(|| segment.send()).expect("a segment that leaves");
    }
    let outcome = conversation.go_on(10);
    (outcome, resets_sent(&pod.netns) - resets)
}

fn invalid_packets_are_dropped(backend: &str) {
    for family in Family::BOTH {
        let pod = Pod::new();
        let _proxy = Echo::start(&pod.netns, Owner::PROXY, 15006);
        // Without the option they are answered, and the connection that the second one claims to belong to breaks.
        apply_mode(&pod.netns, backend, InboundMode::Redirect, &[]);
        let (outcome, resets) = interrupted(&pod, 8080, family);
        assert_eq!(
            (outcome.map_err(|error| error.kind()), resets),
            (Err(ErrorKind::ConnectionReset), 2)
        );

        apply_mode(&pod.netns, backend, InboundMode::Redirect, &["--drop-invalid"]);
        let (outcome, resets) = interrupted(&pod, 8080, family);
        outcome.expect("the connection goes on");
        assert_eq!(resets, 0, "{family}");
    }
}

#[test]
fn invalid_packets_are_dropped_with_nftables() {
    invalid_packets_are_dropped("nftables");
}

#[test]
fn invalid_packets_are_dropped_with_iptables_nft() {
    invalid_packets_are_dropped("iptables-nft");
}

#[test]
fn invalid_packets_are_dropped_with_iptables_legacy() {
    invalid_packets_are_dropped("iptables-legacy");
}

/// With TPROXY, through Envoy.
#[test]
fn invalid_packets_are_dropped_in_tproxy_mode() {
    for backend in BACKENDS {
        let sidecar = sidecar(backend, Owner::PROXY, &["--drop-invalid"]);
        sidecar.travel_all(JOURNEYS);
        let _echo = Echo::start(&sidecar.pod.netns, Owner::APP, 8443);
        for family in Family::BOTH {
            let (outcome, resets) = interrupted(&sidecar.pod, 8443, family);
            outcome.unwrap_or_else(|error| panic!("{backend}, {family}: {error}"));
            assert_eq!(resets, 0, "{backend}, {family}");
        }
    }
}
