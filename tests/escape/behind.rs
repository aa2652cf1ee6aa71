//! Containers behind rerouted interfaces: what they send is forwarded, and passes another hook than what the pod sends.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sidetrack::types::Family;

use crate::attacks::{plain, raw};
use crate::column::LOCK;
use crate::common::call::call_from;
use crate::common::{Address, Call, Netns, Owner, Pod, Server, Transport, socket};
use crate::lab::{Lab, MARKER, PORT, Stage};
use crate::packet::{packet, udp_datagram};
use crate::program::apply;
use crate::sys::send_frame;
use crate::wire::{index, set_sysctl};

/// An address of a container, and the pod's on the same link.
#[derive(Clone, Copy)]
struct Link {
    container: Address,
    pod: Address,
}

const LINKS: [Link; 2] = [link(2), link(3)];

const fn link(number: u8) -> Link {
    const fn address(number: u8, host: u8) -> Address {
        Address::new(
            Ipv4Addr::new(10, 99, number, host),
            Ipv6Addr::new(0xfd99, number as u16, 0, 0, 0, 0, 0, host as u16),
        )
    }
    Link {
        container: address(number, 2),
        pod: address(number, 1),
    }
}

const REROUTED: &[&str] = &["--reroute-interfaces", "br0,tap0"];
const BACKENDS: [&str; 4] = ["nftables", "nftables-per-family", "iptables-nft", "iptables-legacy"];
/// A port on which containers answer.
const SERVED: u16 = 8080;

/// A pod with two containers, one behind a bridge, each of which may send whatever it likes.
///
/// ```text
///   container 0  eth0 10.99.2.2 fd99:2::2 ──── 10.99.2.1 fd99:2::1 br0   pod  eth0 ──── peer
///   container 1  eth0 10.99.3.2 fd99:3::2 ──── 10.99.3.1 fd99:3::1 tap0
/// ```
struct Host {
    lab: Lab,
    containers: [Netns; 2],
    _servers: [Server; 2],
}

impl Host {
    fn new() -> Self {
        let lab = Lab::new();
        let containers = [Netns::new(), Netns::new()];
        let pod = &lab.pod.netns;
        // Whoever checks no reverse path takes packets from any source.
        for interface in ["all", "default", "eth0", "eth1"] {
            set_sysctl(pod, &format!("ipv4/conf/{interface}/rp_filter"), "0");
        }
        pod.ip(&format!(
            "link add br0 type bridge\nlink set br0 up\n\
             link add port0 type veth peer name eth0 netns {}\nlink set port0 master br0 up\n\
             link add tap0 type veth peer name eth0 netns {}\nlink set tap0 up\n",
            containers[0].path().display(),
            containers[1].path().display(),
        ));
        for (interface, (link, container)) in ["br0", "tap0"].into_iter().zip(LINKS.iter().zip(&containers)) {
            let [here4, here6] = link.pod.both();
            pod.ip(&format!(
                "addr add {here4}/24 dev {interface}\naddr add {here6}/64 dev {interface} nodad\n"
            ));
            let [there4, there6] = link.container.both();
            container.ip(&format!(
                "link set eth0 up\naddr add {there4}/24 dev eth0\naddr add {there6}/64 dev eth0 nodad\n\
                 route add default via {here4}\nroute add ::/0 via {here6}\n"
            ));
            set_sysctl(container, "ipv4/ping_group_range", "0 2147483647");
            let [pod4, pod6] = Address::POD.both();
            lab.pod.peer.ip(&format!(
                "route add {there4}/32 via {pod4}\nroute add {there6}/128 via {pod6}\n"
            ));
        }
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            set_sysctl(pod, setting, "1");
        }
        let server = |number: usize, name| Server::start(&containers[number], name, Owner::ROOT, &[SERVED]);
        Self {
            _servers: [server(0, "first"), server(1, "second")],
            lab,
            containers,
        }
    }

    fn locked(backend: &str, options: &[&str]) -> Self {
        let host = Self::new();
        apply(&host.lab.pod.netns, backend, &[LOCK, REROUTED, options].concat());
        host
    }

    /// The frames of an attack that leave the pod.
    fn attack(&mut self, number: usize, family: Family, attack: fn(&Stage) -> io::Result<()>) -> Vec<String> {
        let container = self.containers[number].clone();
        let outcome = self.lab.run_in(&container, family, || Ok(()), attack, |_: &Pod| {});
        // A packet that waits to be forwarded comes after the frames that end the count, so those are sent again.
        [outcome.escaped, self.lab.wire.escaped()].concat()
    }

    /// A call of a container.
    fn call(&self, number: usize, transport: Transport, to: IpAddr, port: u16) -> io::Result<Call> {
        let to = SocketAddr::from((to, port));
        self.containers[number].run(|| call_from(transport, None, to))
    }
}

type Attack = (&'static str, fn(&Stage) -> io::Result<()>);

/// What root with every capability sends in a container: the first one over IPv4, the second over IPv6.
const ATTACKS: &[Attack] = &[
    ("UDP", plain::udp),
    ("UDP in fragments", plain::fragments),
    ("TCP", plain::tcp),
    ("ICMP echo by a raw socket", raw::icmp_tunnel),
    ("UDP and TCP with marks", raw::marked),
    ("extension headers, routing header 0", raw::extension_headers),
    ("IP in IP", raw::ip_in_ip),
    ("GRE", raw::gre),
    ("SCTP", raw::raw_sctp),
    ("UDP from a foreign address", raw::foreign_source),
    ("TCP from a foreign address", raw::tcp_from_foreign_source),
    (
        "the pod's own port from a foreign address",
        raw::own_port_from_foreign_source,
    ),
    (
        "ICMP echo to the pod from a foreign address",
        raw::echo_from_foreign_source,
    ),
    ("UDP from the pod's address", raw::own_header),
    ("TCP from the pod's address", raw::tcp_syn),
    ("fragments from the pod's address", raw::own_fragments),
    ("an answer in the name of the pod", raw::answer_of_the_pod),
];

/// Every attack, and what of it leaves the pod, over either family.
fn escaped(host: &mut Host) -> Vec<(&'static str, Vec<String>)> {
    let mut both = |attack| {
        let families = Family::BOTH.into_iter().enumerate();
        families
            .flat_map(|(number, family)| host.attack(number, family, attack))
            .collect()
    };
    ATTACKS.iter().map(|(name, attack)| (*name, both(*attack))).collect()
}

#[test]
fn attacks_of_containers_leave_the_pod_without_rules() {
    let mut held = escaped(&mut Host::new());
    held.retain(|(_, frames)| frames.is_empty());
    assert_eq!(held, []);
}

#[test]
fn nothing_that_containers_send_leaves_the_lock() {
    for backend in BACKENDS {
        let mut escaped = escaped(&mut Host::locked(backend, &[]));
        escaped.retain(|(_, frames)| !frames.is_empty());
        assert_eq!(escaped, [], "{backend}");
    }
}

/// Whoever may not send learns it at once, and whoever may reaches its destination.
#[test]
fn containers_notice_refusals_and_keep_their_other_traffic() {
    use Transport::{Tcp, Udp};
    const EXCLUDED: &[&str] = &[
        "--exclude-outbound-cidrs",
        "10.99.0.0/24,fd99::/64",
        "--include-outbound-ports",
        "443",
        "--exclude-inbound-ports",
        "8080",
    ];
    for backend in BACKENDS {
        let host = Host::locked(backend, EXCLUDED);
        for family in Family::BOTH {
            let [near, far] = [Address::PEER, Address::FAR].map(|address| address.of(family));
            let [first, second] = LINKS.map(|link| link.container.of(family));
            let rows = [
                ("captured TCP", 0, Tcp, far, 443, Ok("proxy")),
                ("captured TCP", 1, Tcp, far, 443, Ok("proxy")),
                ("other TCP", 0, Tcp, far, PORT, Err(ErrorKind::ConnectionRefused)),
                ("QUIC", 0, Udp, far, 443, Err(refusal(family))),
                ("UDP", 1, Udp, far, PORT, Err(refusal(family))),
                ("an excluded destination", 0, Udp, near, PORT, Ok("server")),
                ("an excluded destination", 1, Tcp, near, PORT, Ok("server")),
                ("between them", 0, Udp, second, SERVED, Ok("second")),
                ("between them", 1, Tcp, first, SERVED, Ok("first")),
            ];
            for (what, number, transport, to, port, expected) in rows {
                let made = host.call(number, transport, to, port);
                let found = made
                    .map(|call| call.arrival.expect("an answer").server)
                    .map_err(|error| error.kind());
                assert_eq!(
                    found.as_deref().map_err(|kind| *kind),
                    expected,
                    "{backend}, {family}: {what}"
                );
            }
            for (to, name, transport) in [(first, "first", Tcp), (first, "first", Udp), (second, "second", Udp)] {
                let to = SocketAddr::from((to, SERVED));
                let made = host.lab.pod.peer.run(|| call_from(transport, None, to));
                let arrival = made
                    .unwrap_or_else(|error| panic!("{backend}, {family}: {to}: {error}"))
                    .arrival;
                assert_eq!(arrival.expect("an answer").server, name);
            }
        }
    }
}

/// A UDP packet from outside must not get an answer that leaves, so it does not arrive.
#[test]
fn packets_from_outside_do_not_reach_containers_under_the_inbound_policy() {
    use Transport::{Tcp, Udp};
    const OPTIONS: &[&str] = &[
        "--inbound-policy",
        "proxy-only",
        "--exclude-inbound-ports",
        "8080",
        "--exclude-outbound-cidrs",
        "10.99.0.0/24,fd99::/64",
    ];
    for backend in BACKENDS {
        let host = Host::locked(backend, OPTIONS);
        for family in Family::BOTH {
            let case = format!("{backend}, {family}");
            let to = SocketAddr::from((LINKS[0].container.of(family), SERVED));
            let from_outside = |transport| host.lab.pod.peer.run(|| call_from(transport, None, to));
            let refused = from_outside(Udp).expect_err("the policy").kind();
            assert_eq!(refused, refusal(family), "{case}");
            let excluded = from_outside(Tcp).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(excluded.arrival.expect("an answer").server, "first", "{case}");
            // Answers to what containers send are no inbound packets, nor is what they send each other.
            for (to, port, server) in [(Address::PEER, PORT, "server"), (LINKS[1].container, SERVED, "second")] {
                let made = host.call(0, Udp, to.of(family), port);
                let made = made.unwrap_or_else(|error| panic!("{case}: {server}: {error}"));
                assert_eq!(made.arrival.expect("an answer").server, server, "{case}");
            }
        }
    }
}

/// A container that asks for an address has none yet.
#[test]
fn broadcasts_without_a_source_address_reach_the_pod() {
    const DHCP: u16 = 67;
    for backend in BACKENDS {
        let host = Host::locked(backend, &[]);
        let pod = &host.lab.pod.netns;
        let receiver = pod
            .run(|| socket::receiver(socket::any(Family::V4, DHCP)))
            .expect("a socket");
        receiver.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a timeout");
        let [from, to] = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST].map(IpAddr::from);
        let datagram = udp_datagram((from, 68).into(), (to, DHCP).into(), MARKER);
        let packet = packet(from, to, libc::IPPROTO_UDP as u8, &datagram);
        // A bridge drops frames from a group.
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 0], &packet].concat();
        for container in &host.containers {
            container.run(|| send_frame(index("eth0"), &frame)).expect("a frame");
            let mut received = [0; 64];
            let (length, _) = receiver
                .recv_from(&mut received)
                .unwrap_or_else(|error| panic!("{backend}: {error}"));
            assert_eq!(&received[..length], MARKER, "{backend}");
        }
    }
}

/// Far more than a packet takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How an ICMP error that says "administratively prohibited" ends a call.
fn refusal(family: Family) -> ErrorKind {
    match family {
        Family::V4 => ErrorKind::HostUnreachable,
        Family::V6 => ErrorKind::PermissionDenied,
    }
}
