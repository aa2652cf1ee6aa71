//! Interfaces behind which there are processes of the pod: a virtual machine behind a link, whose packets the pod
//! passes on.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sidetrack::types::Family;

use crate::common::Transport::{Tcp, Udp};
use crate::common::call::call_from;
use crate::common::conversation::{Conversation, Echo};
use crate::common::dns::{FORWARDER, Reply, Resolver, look_up};
use crate::common::{Address, Arrival, Call, Caller, Netns, Owner, Pod, Server, To, Transport, call};
use crate::dns::Way::Forwarder;
use crate::dns::{both, way};
use crate::program::{apply, feed};

/// The machine's address, and the pod's on the link to it.
const MACHINE: Address = Address::new(Ipv4Addr::new(10, 99, 2, 2), Ipv6Addr::new(0xfd99, 2, 0, 0, 0, 0, 0, 2));
const GATEWAY: Address = Address::new(Ipv4Addr::new(10, 99, 2, 1), Ipv6Addr::new(0xfd99, 2, 0, 0, 0, 0, 0, 1));

/// A pod with a virtual machine in it.
///
/// ```text
///   machine  eth0 10.99.2.2 fd99:2::2 ──── 10.99.2.1 fd99:2::1 tap0  pod  eth0 ──── peer
/// ```
struct Lab {
    pod: Pod,
    machine: Netns,
    _servers: [Server; 2],
    _resolvers: [Resolver; 2],
}

/// How the machine's packets leave the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// From the machine's own address.
    Routed,
    /// From the pod's.
    Masqueraded,
}

const MASQUERADE: &str = "table inet machine {
    chain postrouting {
        type nat hook postrouting priority 100
        iifname tap0 oifname eth0 masquerade
    }
}";

impl Lab {
    fn new(leaving: Leaving) -> Self {
        Self::with_servers(leaving, &[8080, 15001, 15006])
    }

    /// One whose pod listens on these ports.
    fn with_servers(leaving: Leaving, ports: &[u16]) -> Self {
        let pod = Pod::new();
        let machine = Netns::new();
        let link = machine.path();
        let [v4, v6] = Family::BOTH.map(|family| (MACHINE.of(family), GATEWAY.of(family)));
        pod.netns.ip(&format!(
            "link add tap0 type veth peer name eth0 netns {}\nlink set tap0 up\n\
             addr add {}/24 dev tap0\naddr add {}/64 dev tap0 nodad\n",
            link.display(),
            v4.1,
            v6.1
        ));
        machine.ip(&format!(
            "link set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n\
             route add default via {}\nroute add ::/0 via {}\n",
            v4.0, v6.0, v4.1, v6.1
        ));
        let [pod4, pod6] = Family::BOTH.map(|family| Address::POD.of(family));
        pod.peer.ip(&format!(
            "route add {}/32 via {pod4}\nroute add {}/128 via {pod6}\n",
            v4.0, v6.0
        ));
        pod.netns.run(|| {
            for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{setting}"), "1").expect("a pod that passes packets on");
            }
        });
        if leaving == Leaving::Masqueraded {
            feed(&pod.netns, "nft", &["-f", "-"], MASQUERADE);
        }
        // Queries from the machine go to the address of the interface that they come by.
        let gateway = Family::BOTH.map(|family| SocketAddr::from((GATEWAY.of(family), 15053)));
        let addresses = [Address::PEER, Address::FAR];
        let addresses = Family::BOTH.map(|family| addresses.map(|address| address.of(family)));
        Self {
            _servers: [
                Server::start(&pod.netns, "pod", Owner::PROXY, ports),
                Server::start(&pod.peer, "peer", Owner::ROOT, &[443, 9090]),
            ],
            _resolvers: [
                Resolver::name_server(&pod.peer, Owner::ROOT, addresses.as_flattened()),
                Resolver::forwarder(&pod.netns, Owner::PROXY, &[FORWARDER, gateway].concat(), Address::PEER),
            ],
            pod,
            machine,
        }
    }

    /// Calls from the machine.
    fn call(&self, transport: Transport, to: SocketAddr) -> io::Result<Call> {
        self.machine.run(|| call_from(transport, None, to))
    }

    /// Looks a name up in the machine.
    fn look_up(&self, transport: Transport, server: IpAddr) -> io::Result<Reply> {
        self.machine.run(|| look_up(transport, None, server, "machine.example"))
    }
}

/// Where a call from the machine lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Landing {
    /// At the proxy's outbound port.
    Outbound,
    /// At the server that was meant.
    Peer,
}
use Landing::{Outbound, Peer};

/// Calls from the machine land there, and the server there knows whom the machine wanted to call.
#[track_caller]
fn lands(lab: &Lab, leaving: Leaving, calls: &[(Transport, Address, u16, Landing)]) {
    for family in Family::BOTH {
        for (transport, address, port, landing) in calls {
            let to = SocketAddr::from((address.of(family), *port));
            let case = format!("{leaving:?}, {family}: {transport:?} to {to}");
            let made = lab
                .call(*transport, to)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            let arrival = made.arrival.unwrap_or_else(|| panic!("{case}: no answer"));
            let (server, port) = match landing {
                Outbound => ("pod", 15001),
                Peer => ("peer", *port),
            };
            // The kernel may have to change the port: two of these calls can come from one port, and all go to the proxy.
            let from = match (landing, leaving) {
                (Peer, Leaving::Masqueraded) => Address::POD.of(family),
                _ => made.local.ip(),
            };
            let client = SocketAddr::from((from, arrival.client.port()));
            let original = (*transport == Tcp).then_some(to);
            let server = server.to_owned();
            assert_eq!(
                arrival,
                Arrival {
                    server,
                    port,
                    original,
                    client
                },
                "{case}"
            );
        }
    }
}

/// In both modes of inbound.
const MODES: [&str; 2] = ["redirect", "tproxy"];

fn connections_of_the_machine_are_outbound(backend: &str) {
    for leaving in [Leaving::Routed, Leaving::Masqueraded] {
        let lab = Lab::new(leaving);
        for mode in MODES {
            apply(
                &lab.pod.netns,
                backend,
                &["--reroute-interfaces", "tap0", "--inbound-mode", mode],
            );
            lands(
                &lab,
                leaving,
                &[
                    (Tcp, Address::PEER, 9090, Outbound),
                    (Tcp, Address::FAR, 443, Outbound),
                    (Tcp, Address::POD, 8080, Outbound),
                    (Tcp, GATEWAY, 8080, Outbound),
                    (Tcp, Address::POD, 15008, Outbound),
                    (Udp, Address::PEER, 9090, Peer),
                ],
            );
        }
    }
}

#[test]
fn connections_of_the_machine_are_outbound_with_nftables() {
    connections_of_the_machine_are_outbound("nftables");
}

#[test]
fn connections_of_the_machine_are_outbound_with_iptables_nft() {
    connections_of_the_machine_are_outbound("iptables-nft");
}

#[test]
fn connections_of_the_machine_are_outbound_with_iptables_legacy() {
    connections_of_the_machine_are_outbound("iptables-legacy");
}

fn excluded_connections_of_the_machine_are_forwarded(backend: &str) {
    const EXCLUDED: &[&str] = &[
        "--exclude-outbound-cidrs",
        "198.51.100.0/24,2001:db8::/32",
        "--exclude-outbound-ports",
        "443",
    ];
    const INCLUDED: &[&str] = &["--include-outbound-cidrs", "10.99.0.0/24,fd99::/64"];
    for leaving in [Leaving::Routed, Leaving::Masqueraded] {
        let lab = Lab::new(leaving);
        for mode in MODES {
            let reroute = ["--reroute-interfaces", "tap0", "--inbound-mode", mode];
            apply(&lab.pod.netns, backend, &[reroute.as_slice(), EXCLUDED].concat());
            lands(
                &lab,
                leaving,
                &[
                    (Tcp, Address::PEER, 9090, Outbound),
                    (Tcp, Address::PEER, 443, Peer),
                    (Tcp, Address::FAR, 9090, Peer),
                ],
            );
            apply(&lab.pod.netns, backend, &[reroute.as_slice(), INCLUDED].concat());
            lands(
                &lab,
                leaving,
                &[(Tcp, Address::PEER, 9090, Outbound), (Tcp, Address::FAR, 9090, Peer)],
            );
        }
    }
}

#[test]
fn excluded_connections_of_the_machine_are_forwarded_with_nftables() {
    excluded_connections_of_the_machine_are_forwarded("nftables");
}

#[test]
fn excluded_connections_of_the_machine_are_forwarded_with_iptables_nft() {
    excluded_connections_of_the_machine_are_forwarded("iptables-nft");
}

#[test]
fn excluded_connections_of_the_machine_are_forwarded_with_iptables_legacy() {
    excluded_connections_of_the_machine_are_forwarded("iptables-legacy");
}

/// The forwarder must listen on the interface's address too. Lookups of other servers pass through.
fn lookups_of_the_machine_pass_the_forwarder(backend: &str) {
    for leaving in [Leaving::Routed, Leaving::Masqueraded] {
        let lab = Lab::new(leaving);
        let servers = both(Address::PEER);
        for mode in MODES {
            let options = ["--reroute-interfaces", "tap0", "--redirect-dns", "--inbound-mode", mode];
            apply(
                &lab.pod.netns,
                backend,
                &[options.as_slice(), &["--dns-servers", &servers]].concat(),
            );
            for family in Family::BOTH {
                let case = format!("{leaving:?}, {mode}, {family}");
                for transport in [Udp, Tcp] {
                    let reply = lab
                        .look_up(transport, Address::PEER.of(family))
                        .unwrap_or_else(|e| panic!("{case}: {e}"));
                    assert_eq!(way(&reply), Forwarder, "{case}");
                }
                let other = lab
                    .look_up(Udp, Address::FAR.of(family))
                    .unwrap_or_else(|e| panic!("{case}: {e}"));
                assert_ne!(way(&other), Forwarder, "{case}");
            }
            apply(
                &lab.pod.netns,
                backend,
                &[options.as_slice(), &["--dns-servers", "all"]].concat(),
            );
            for family in Family::BOTH {
                let reply = lab.look_up(Udp, Address::FAR.of(family)).expect("an answer");
                assert_eq!(way(&reply), Forwarder, "{leaving:?}, {mode}, {family}");
            }
        }
    }
}

#[test]
fn lookups_of_the_machine_pass_the_forwarder_with_nftables() {
    lookups_of_the_machine_pass_the_forwarder("nftables");
}

#[test]
fn lookups_of_the_machine_pass_the_forwarder_with_iptables_nft() {
    lookups_of_the_machine_pass_the_forwarder("iptables-nft");
}

#[test]
fn lookups_of_the_machine_pass_the_forwarder_with_iptables_legacy() {
    lookups_of_the_machine_pass_the_forwarder("iptables-legacy");
}

/// From outside, connections to the machine are inbound like any other. With TPROXY that takes policy routing: nothing
/// else leads their packets to the proxy.
fn connections_to_the_machine_are_inbound(backend: &str) {
    let lab = Lab::with_servers(Leaving::Routed, &[]);
    let _proxy = Echo::transparent(&lab.pod.netns, 15006);
    for mode in MODES {
        apply(
            &lab.pod.netns,
            backend,
            &["--reroute-interfaces", "tap0", "--inbound-mode", mode],
        );
        for family in Family::BOTH {
            let to = SocketAddr::from((MACHINE.of(family), 8080));
            let made = lab.pod.peer.run(|| Conversation::begin_from(None, to)?.go_on(100));
            made.unwrap_or_else(|error| panic!("{mode}, {family}: {error}"));
        }
    }
}

#[test]
fn connections_to_the_machine_are_inbound_with_nftables() {
    connections_to_the_machine_are_inbound("nftables");
}

#[test]
fn connections_to_the_machine_are_inbound_with_iptables_nft() {
    connections_to_the_machine_are_inbound("iptables-nft");
}

#[test]
fn connections_to_the_machine_are_inbound_with_iptables_legacy() {
    connections_to_the_machine_are_inbound("iptables-legacy");
}

fn other_traffic_is_unchanged(backend: &str) {
    let lab = Lab::new(Leaving::Routed);
    apply(&lab.pod.netns, backend, &["--reroute-interfaces", "tap0"]);
    for family in Family::BOTH {
        let rows = [
            (Caller::Peer, To::Pod(8080), 15006),
            (Caller::PeerSecond, To::PodSecond(8080), 15006),
            (Caller::App, To::Peer(9090), 15001),
            (Caller::App, To::Pod(8080), 8080),
            (Caller::Proxy, To::Pod(8080), 15006),
        ];
        for (caller, to, port) in rows {
            let made = call(&lab.pod, Tcp, caller, to, family).unwrap_or_else(|error| panic!("{to:?}: {error}"));
            let arrival = made.arrival.expect("an answer");
            assert_eq!(
                (arrival.server.as_str(), arrival.port),
                ("pod", port),
                "{family}: {caller:?} to {to:?}"
            );
            assert_eq!(arrival.original, to.address(family));
        }
    }
}

#[test]
fn other_traffic_is_unchanged_with_nftables() {
    other_traffic_is_unchanged("nftables");
}

#[test]
fn other_traffic_is_unchanged_with_iptables_nft() {
    other_traffic_is_unchanged("iptables-nft");
}

#[test]
fn other_traffic_is_unchanged_with_iptables_legacy() {
    other_traffic_is_unchanged("iptables-legacy");
}
