//! Captured name lookups: a name server outside, a forwarder in the pod, a real Envoy beside it.

mod lab;
mod servers;
mod shared_ports;

use std::net::{Ipv4Addr, Ipv6Addr};

use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::common::Caller::{App, Process, Proxy, Root};
use crate::common::Transport::{Tcp, Udp};
use crate::common::dns::{FORWARDER, Message, Reply, Resolver, look_up, receive_from, reply};
use crate::common::files::with_file;
use crate::common::{Address, Caller, Netns, Owner, Pod, output_of};
use crate::program::BACKENDS;

pub use self::lab::{Lab, Lookup, Way, both, lookup, set, way};
use Way::{Direct, Envoy as ThroughEnvoy, Forwarder};

/// What holds whenever the neighbour's lookups are captured.
const ALWAYS: &[Lookup] = &[
    lookup("the app, UDP", Udp, App, Address::PEER, Forwarder),
    lookup("the app, TCP", Tcp, App, Address::PEER, Forwarder),
    lookup("root, UDP", Udp, Root, Address::PEER, Forwarder),
    lookup("root, TCP", Tcp, Root, Address::PEER, Forwarder),
    lookup("the proxy, UDP", Udp, Proxy, Address::PEER, Direct),
    lookup("the proxy, TCP", Tcp, Proxy, Address::PEER, Direct),
    lookup("the proxy's user, UDP", Udp, Process(1337, 1000), Address::PEER, Direct),
    lookup("the proxy's user, TCP", Tcp, Process(1337, 1000), Address::PEER, Direct),
    lookup(
        "the proxy's group, UDP",
        Udp,
        Process(1000, 1337),
        Address::PEER,
        Direct,
    ),
    lookup(
        "the proxy's group, TCP",
        Tcp,
        Process(1000, 1337),
        Address::PEER,
        Direct,
    ),
    lookup("the proxy, another server, UDP", Udp, Proxy, Address::FAR, Direct),
    lookup("the proxy, another server, TCP", Tcp, Proxy, Address::FAR, Direct),
];

/// What holds besides where only the neighbour's are.
const OTHERS: &[Lookup] = &[
    lookup("another server, UDP", Udp, App, Address::PEER_SECOND, Direct),
    lookup("another server, TCP", Tcp, App, Address::PEER_SECOND, ThroughEnvoy),
    lookup("a server far away, UDP", Udp, App, Address::FAR, Direct),
    lookup("a server far away, TCP", Tcp, App, Address::FAR, ThroughEnvoy),
];

/// What holds besides where all are.
const ALL: &[Lookup] = &[
    lookup("another server, UDP", Udp, App, Address::PEER_SECOND, Forwarder),
    lookup("another server, TCP", Tcp, App, Address::PEER_SECOND, Forwarder),
    lookup("a server far away, UDP", Udp, App, Address::FAR, Forwarder),
    lookup("a server far away, TCP", Tcp, App, Address::FAR, Forwarder),
];

fn lookups_to_configured_servers_pass_the_forwarder(backend: &str) {
    let lab = Lab::new();
    lab.apply(backend, &["--dns-servers", &both(Address::PEER)]);
    lab.look_all_up(&Family::BOTH, ALWAYS);
    lab.look_all_up(&Family::BOTH, OTHERS);
}

#[test]
fn lookups_to_configured_servers_pass_the_forwarder_with_nftables() {
    lookups_to_configured_servers_pass_the_forwarder("nftables");
}

#[test]
fn lookups_to_configured_servers_pass_the_forwarder_with_iptables_nft() {
    lookups_to_configured_servers_pass_the_forwarder("iptables-nft");
}

#[test]
fn lookups_to_configured_servers_pass_the_forwarder_with_iptables_legacy() {
    lookups_to_configured_servers_pass_the_forwarder("iptables-legacy");
}

/// Also beside TPROXY, which marks packets too.
/// On iptables, two lists: each server leads to a chain of the groups.
fn lookups_of_configured_groups_and_servers_pass_the_forwarder(backend: &str) {
    let lab = Lab::new();
    let servers = [both(Address::PEER), both(Address::PEER_SECOND)].join(",");
    lab.apply(backend, &["--dns-servers", &servers, "--include-gids", "1600,1602"]);
    let [one, other] = [Process(1000, 1600), Process(1000, 1602)];
    lab.look_all_up(
        &Family::BOTH,
        &[
            lookup("a group, UDP", Udp, one, Address::PEER, Forwarder),
            lookup(
                "a group, another server, UDP",
                Udp,
                one,
                Address::PEER_SECOND,
                Forwarder,
            ),
            lookup("another group, UDP", Udp, other, Address::PEER, Forwarder),
            lookup("another group, TCP", Tcp, other, Address::PEER_SECOND, Forwarder),
            lookup(
                "a group between them, UDP",
                Udp,
                Process(1000, 1601),
                Address::PEER,
                Direct,
            ),
            lookup("a server far away, UDP", Udp, other, Address::FAR, Direct),
            lookup("the proxy, UDP", Udp, Proxy, Address::PEER, Direct),
        ],
    );
}

#[test]
fn lookups_of_configured_groups_and_servers_pass_the_forwarder_with_nftables() {
    lookups_of_configured_groups_and_servers_pass_the_forwarder("nftables");
}

#[test]
fn lookups_of_configured_groups_and_servers_pass_the_forwarder_with_iptables_nft() {
    lookups_of_configured_groups_and_servers_pass_the_forwarder("iptables-nft");
}

#[test]
fn lookups_of_configured_groups_and_servers_pass_the_forwarder_with_iptables_legacy() {
    lookups_of_configured_groups_and_servers_pass_the_forwarder("iptables-legacy");
}

fn all_lookups_pass_the_forwarder(backend: &str) {
    let lab = Lab::new();
    for mode in ["redirect", "tproxy"] {
        lab.apply(backend, &["--dns-servers", "all", "--inbound-mode", mode]);
        lab.look_all_up(&Family::BOTH, ALWAYS);
        lab.look_all_up(&Family::BOTH, ALL);
    }
}

#[test]
fn all_lookups_pass_the_forwarder_with_nftables() {
    all_lookups_pass_the_forwarder("nftables");
}

#[test]
fn all_lookups_pass_the_forwarder_with_iptables_nft() {
    all_lookups_pass_the_forwarder("iptables-nft");
}

#[test]
fn all_lookups_pass_the_forwarder_with_iptables_legacy() {
    all_lookups_pass_the_forwarder("iptables-legacy");
}

/// Lookups that are not captured are answered by the name server itself.
fn excluded_lookups_bypass_the_forwarder(backend: &str) {
    let lab = Lab::new();
    for servers in [both(Address::PEER).as_str(), "all"] {
        let by_owner = [
            "--dns-servers",
            servers,
            "--exclude-uids",
            "1500",
            "--exclude-gids",
            "1600",
            "--exclude-outbound-ports-for-uids",
            "udp:53:1700;tcp:53:1800",
        ];
        lab.apply(backend, &by_owner);
        lab.look_all_up(&Family::BOTH, ALWAYS);
        lab.look_all_up(
            &Family::BOTH,
            &[
                lookup("a user, UDP", Udp, Process(1500, 1000), Address::PEER, Direct),
                lookup("a user, TCP", Tcp, Process(1500, 1000), Address::PEER, Direct),
                lookup("a group, UDP", Udp, Process(1000, 1600), Address::PEER, Direct),
                lookup("a group, TCP", Tcp, Process(1000, 1600), Address::PEER, Direct),
                lookup(
                    "a user, UDP alone, UDP",
                    Udp,
                    Process(1700, 1000),
                    Address::PEER,
                    Direct,
                ),
                lookup(
                    "a user, UDP alone, TCP",
                    Tcp,
                    Process(1700, 1000),
                    Address::PEER,
                    Forwarder,
                ),
                lookup(
                    "a user, TCP alone, UDP",
                    Udp,
                    Process(1800, 1000),
                    Address::PEER,
                    Forwarder,
                ),
                lookup(
                    "a user, TCP alone, TCP",
                    Tcp,
                    Process(1800, 1000),
                    Address::PEER,
                    Direct,
                ),
            ],
        );

        lab.apply(backend, &["--dns-servers", servers, "--exclude-outbound-ports", "53"]);
        lab.look_all_up(
            &Family::BOTH,
            &[
                lookup("an excluded port, UDP", Udp, App, Address::PEER, Direct),
                lookup("an excluded port, TCP", Tcp, App, Address::PEER, Direct),
                lookup("an excluded port, the proxy", Udp, Proxy, Address::PEER, Direct),
            ],
        );
    }
    let server = both(Address::PEER_SECOND);
    lab.apply(backend, &["--dns-servers", &server, "--exclude-interfaces", "eth1"]);
    lab.look_all_up(
        &Family::BOTH,
        &[
            lookup("an excluded link, UDP", Udp, App, Address::PEER_SECOND, Direct),
            lookup("an excluded link, TCP", Tcp, App, Address::PEER_SECOND, Direct),
            lookup(
                "an excluded link, the proxy, UDP",
                Udp,
                Proxy,
                Address::PEER_SECOND,
                Direct,
            ),
        ],
    );
    // What is excluded by its address is TCP that is not DNS.
    let server = both(Address::PEER);
    lab.apply(
        backend,
        &["--dns-servers", &server, "--exclude-outbound-cidrs", &server],
    );
    lab.look_all_up(&Family::BOTH, ALWAYS);
}

#[test]
fn excluded_lookups_bypass_the_forwarder_with_nftables() {
    excluded_lookups_bypass_the_forwarder("nftables");
}

#[test]
fn excluded_lookups_bypass_the_forwarder_with_iptables_nft() {
    excluded_lookups_bypass_the_forwarder("iptables-nft");
}

#[test]
fn excluded_lookups_bypass_the_forwarder_with_iptables_legacy() {
    excluded_lookups_bypass_the_forwarder("iptables-legacy");
}

/// The way of the app where lookups of its family's server are not captured.
const NOT_CAPTURED: &[Lookup] = &[
    lookup("the app, UDP", Udp, App, Address::PEER, Direct),
    lookup("the app, TCP", Tcp, App, Address::PEER, ThroughEnvoy),
    lookup("the proxy, UDP", Udp, Proxy, Address::PEER, Direct),
    lookup("the proxy, TCP", Tcp, Proxy, Address::PEER, Direct),
];

/// The servers of resolv.conf by default; a family without any is not captured.
fn lookups_to_servers_of_resolv_conf_pass_the_forwarder(backend: &str) {
    let lab = Lab::new();
    let cases = [
        ("nameserver 10.99.0.1\n", &[Family::V4][..]),
        ("nameserver fd99::1\n", &[Family::V6][..]),
        (
            "search a.b\n# nameserver 1.1.1.1\nnameserver 10.99.0.1\nnameserver fd99::1\noptions ndots:5\n",
            &Family::BOTH,
        ),
        ("nameserver 192.0.2.1\nnameserver 10.99.0.1\n", &[Family::V4][..]),
        ("search a.b\n", &[]),
    ];
    for (text, captured) in cases {
        let mut command = lab.pod.netns.command(SIDETRACK);
        command.args(["apply", "--backend", backend, "--redirect-dns"]);
        with_file(&mut command, "/etc/resolv.conf", text);
        output_of(&mut command);
        let others: Vec<_> = Family::BOTH
            .into_iter()
            .filter(|family| !captured.contains(family))
            .collect();
        lab.look_all_up(captured, ALWAYS);
        lab.look_all_up(&others, NOT_CAPTURED);
    }
}

#[test]
fn lookups_to_servers_of_resolv_conf_pass_the_forwarder_with_nftables() {
    lookups_to_servers_of_resolv_conf_pass_the_forwarder("nftables");
}

#[test]
fn lookups_to_servers_of_resolv_conf_pass_the_forwarder_with_iptables_nft() {
    lookups_to_servers_of_resolv_conf_pass_the_forwarder("iptables-nft");
}

#[test]
fn lookups_to_servers_of_resolv_conf_pass_the_forwarder_with_iptables_legacy() {
    lookups_to_servers_of_resolv_conf_pass_the_forwarder("iptables-legacy");
}

/// Lookups of a family that is not redirected are not captured.
#[test]
fn lookups_of_a_family_that_is_not_redirected_are_not_captured() {
    let lab = Lab::new();
    for backend in BACKENDS {
        for (option, captured, other) in [("ipv4", Family::V4, Family::V6), ("ipv6", Family::V6, Family::V4)] {
            lab.apply(backend, &["--dns-servers", "all", "--ip-family", option]);
            lab.look_all_up(&[captured], ALWAYS);
            lab.look_all_up(
                &[other],
                &[
                    lookup("the app, UDP", Udp, App, Address::PEER, Direct),
                    lookup("the app, TCP", Tcp, App, Address::PEER, Direct),
                ],
            );
        }
    }
}

#[test]
fn forwarder_may_listen_on_another_port() {
    let forwarder = FORWARDER.map(|on| (on.ip(), 5353).into());
    let lab = Lab::asking(Address::PEER, forwarder);
    for backend in BACKENDS {
        lab.apply(backend, &["--dns-servers", &both(Address::PEER), "--dns-port", "5353"]);
        lab.look_all_up(&Family::BOTH, ALWAYS);
        lab.look_all_up(&Family::BOTH, OTHERS);
    }
}

/// A resolver in the pod, as systemd has one. It asks others itself.
#[test]
fn lookups_of_a_resolver_on_loopback_are_captured() {
    const STUB: Address = Address::new(Ipv4Addr::new(127, 0, 0, 53), Ipv6Addr::LOCALHOST);
    const RESOLVE: Owner = Owner::new(101, 101);
    let lab = Lab::asking(STUB, FORWARDER);
    let stub = Family::BOTH.map(|family| STUB.of(family));
    let _stub = Resolver::name_server(&lab.pod.netns, RESOLVE, &stub);
    for backend in BACKENDS {
        lab.apply(backend, &["--dns-servers", &both(STUB)]);
        lab.look_all_up(
            &Family::BOTH,
            &[
                lookup("the app, UDP", Udp, App, STUB, Forwarder),
                lookup("the app, TCP", Tcp, App, STUB, Forwarder),
                lookup("the proxy, UDP", Udp, Proxy, STUB, Direct),
                lookup("the proxy, TCP", Tcp, Proxy, STUB, Direct),
                lookup(
                    "the resolver itself, UDP",
                    Udp,
                    Process(RESOLVE.uid, RESOLVE.gid),
                    Address::PEER,
                    Direct,
                ),
                lookup(
                    "the resolver itself, TCP",
                    Tcp,
                    Process(RESOLVE.uid, RESOLVE.gid),
                    Address::PEER,
                    ThroughEnvoy,
                ),
            ],
        );
    }
}
