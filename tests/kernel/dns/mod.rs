//! Captured name lookups: a name server outside, a forwarder in the pod, a real Envoy beside it.

mod servers;
mod shared_ports;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::common::Caller::{App, Process, Proxy, Root};
use crate::common::Transport::{Tcp, Udp};
use crate::common::dns::{FORWARDER, Message, Reply, Resolver, look_up, receive_from, reply};
use crate::common::files::with_file;
use crate::common::{Address, Caller, Envoy, Netns, Owner, Pod, Transport, output_of};
use crate::program::{BACKENDS, apply, feed};

/// The way that a lookup takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the forwarder.
    Forwarder,
    /// Through Envoy, as any connection would.
    Envoy,
    /// Straight to the name server.
    Direct,
}
use Way::{Direct, Envoy as ThroughEnvoy, Forwarder};

/// A lookup, and the way that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    what: &'static str,
    transport: Transport,
    caller: Caller,
    server: Address,
    way: Way,
}

/// A lookup in few words.
pub const fn lookup(what: &'static str, transport: Transport, caller: Caller, server: Address, way: Way) -> Lookup {
    Lookup {
        what,
        transport,
        caller,
        server,
        way,
    }
}

/// A pod with a proxy: Envoy and a forwarder, which asks the neighbour. The name servers are all the neighbour's.
///
/// The pod's firewall takes no answer that does not belong to a question: what is translated or sorted into zones on
/// one way only is lost.
pub struct Lab {
    pub pod: Pod,
    _envoy: Envoy,
    _resolvers: [Resolver; 2],
}

const FIREWALL: &str = "table inet firewall {
    chain input {
        type filter hook input priority 0
        udp sport { 53, 15053 } ct state != { established, related } drop
    }
}";

impl Lab {
    pub fn new() -> Self {
        Self::asking(Address::PEER, FORWARDER)
    }

    fn asking(upstream: Address, forwarder: [SocketAddr; 2]) -> Self {
        Self::of(Owner::PROXY, upstream, forwarder)
    }

    /// With a proxy that runs as this owner.
    pub fn with_proxy(owner: Owner) -> Self {
        Self::of(owner, Address::PEER, FORWARDER)
    }

    fn of(owner: Owner, upstream: Address, forwarder: [SocketAddr; 2]) -> Self {
        let pod = Pod::new();
        let addresses = [Address::PEER, Address::PEER_SECOND, Address::FAR];
        let addresses = Family::BOTH.map(|family| addresses.map(|address| address.of(family)));
        feed(&pod.netns, "nft", &["-f", "-"], FIREWALL);
        // As container runtimes have it.
        set(&pod.netns, "ip_unprivileged_port_start", "0");
        Self {
            _envoy: Envoy::start(&pod.netns, owner, sidetrack::types::InboundMode::Redirect),
            _resolvers: [
                Resolver::name_server(&pod.peer, Owner::ROOT, addresses.as_flattened()),
                Resolver::forwarder(&pod.netns, owner, &forwarder, upstream),
            ],
            pod,
        }
    }

    fn apply(&self, backend: &str, options: &[&str]) -> String {
        apply(&self.pod.netns, backend, &[&["--redirect-dns"], options].concat())
    }

    fn look_up(&self, lookup: &Lookup, family: Family) -> io::Result<Reply> {
        let name = format!("{}.example", lookup.what.replace(' ', "-"));
        let server = lookup.server.of(family);
        lookup
            .caller
            .run(&self.pod, || look_up(lookup.transport, None, server, &name))
    }

    /// Every lookup takes its way, in these families.
    #[track_caller]
    pub fn look_all_up(&self, families: &[Family], lookups: &[Lookup]) {
        let mut strays = Vec::new();
        for (family, lookup) in families
            .iter()
            .flat_map(|family| lookups.iter().map(move |lookup| (*family, lookup)))
        {
            let way = self.look_up(lookup, family).map(|reply| way(&reply));
            if way.as_ref().ok() != Some(&lookup.way) {
                strays.push(format!("{family}: {lookup:?}: {way:?}"));
            }
        }
        assert!(strays.is_empty(), "{}", strays.join("\n"));
    }
}

/// The way that a lookup took. The forwarder must have seen who asked, if not always from which port: the kernel changes
/// it where one port asks several servers, all of which are the forwarder.
pub fn way(reply: &Reply) -> Way {
    match reply.forwarded_for {
        Some(client) if client.ip() == reply.local.ip() => Forwarder,
        Some(_) => panic!("the forwarder saw another client: {reply:?}"),
        None if reply.client == reply.local => Direct,
        None => ThroughEnvoy,
    }
}

/// The addresses of a host in both families, as an option names them.
pub fn both(address: Address) -> String {
    Family::BOTH.map(|family| address.of(family).to_string()).join(",")
}

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

/// Changes a setting of the namespace's IP, both versions.
pub fn set(netns: &Netns, name: &str, value: &str) {
    let written = netns.run(|| fs::write(format!("/proc/sys/net/ipv4/{name}"), value));
    written.unwrap_or_else(|error| panic!("{name}: {error}"));
}
