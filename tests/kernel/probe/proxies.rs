//! A listening proxy: connections that it accepts are detected without its help, and without disturbing it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use sidetrack::types::{Family, InboundMode};

use super::{both, probe};
use crate::common::service::{Serve, Service, Sockets};
use crate::common::{Address, JOURNEYS, Netns, Owner, Pod, Server, Sidecar, output_of, socket};
use crate::program::{BACKENDS, apply, feed};

fn sidecar(backend: &str, owner: Owner, mode: InboundMode, options: &[&str]) -> Sidecar {
    let pod = Pod::new();
    apply(&pod.netns, backend, options);
    Sidecar::start_as(owner, mode, pod)
}

#[test]
fn envoy_is_seen_to_take_what_it_should_on_every_backend() {
    for backend in BACKENDS {
        let sidecar = sidecar(backend, Owner::PROXY, InboundMode::Redirect, &[]);
        let probed = probe(&sidecar.pod.netns, &[]);
        probed.passed();
        let listens = probed.report["proxyListens"].to_string();
        for address in [
            "\"127.0.0.1:15001\"",
            "\"127.0.0.1:15006\"",
            "\"[::1]:15001\"",
            "\"[::1]:15006\"",
        ] {
            assert!(listens.contains(address), "{address} is not in {listens}");
        }
        // What is captured: outbound and inbound, each twice, and a self-call, in each family.
        for _ in 0..10 {
            sidecar.envoy.next_access();
        }
        assert_eq!(sidecar.envoy.accepted().total(), 10);
        sidecar.travel_all(JOURNEYS);
    }
}

#[test]
fn envoy_with_tproxy_is_seen_to_take_what_it_should() {
    let options = ["--inbound-mode", "tproxy"];
    for owner in [Owner::PROXY, Owner::PROXY_AS_ROOT] {
        let sidecar = sidecar("nftables", owner, InboundMode::Tproxy, &options);
        let probed = probe(&sidecar.pod.netns, &options);
        probed.passed();
        probed.says("ipv4 tcp inbound", "passed to the proxy");
    }
}

#[test]
fn envoy_does_not_hide_that_rules_are_missing() {
    let without_outbound = ["--include-outbound-cidrs", ""];
    let sidecar_without = sidecar("nftables", Owner::PROXY, InboundMode::Redirect, &without_outbound);
    let probed = probe(&sidecar_without.pod.netns, &[]);
    probed.failed(&["ipv4 tcp outbound", "ipv6 tcp outbound"]);
    probed.says("ipv4 tcp outbound", "left the pod, past the proxy");
    let options = ["--inbound-mode", "tproxy"];
    let without_inbound = [&options[..], &["--exclude-inbound-ports", "15002"]].concat();
    let sidecar_without = sidecar("nftables", Owner::PROXY, InboundMode::Tproxy, &without_inbound);
    let probed = probe(&sidecar_without.pod.netns, &options);
    let failed = both(&["tcp inbound", "tcp self-call"]);
    probed.failed(&failed.iter().map(String::as_str).collect::<Vec<_>>());
    probed.says("ipv4 tcp inbound", "arrived directly, past the proxy");
}

#[test]
fn an_application_on_the_only_captured_port_is_not_taken_for_the_proxy() {
    let options = ["--include-inbound-ports", "8080"];
    // With TPROXY, its connections have the same addresses as those of the proxy.
    let with_tproxy = ["--include-inbound-ports", "8080", "--inbound-mode", "tproxy"];
    for (mode, options) in [
        (InboundMode::Redirect, &options[..]),
        (InboundMode::Tproxy, &with_tproxy),
    ] {
        let sidecar = sidecar("nftables", Owner::PROXY, mode, options);
        probe(&sidecar.pod.netns, options).passed();
        apply(
            &sidecar.pod.netns,
            "nftables",
            &[options, &["--exclude-inbound-ports", "8080"]].concat(),
        );
        let probed = probe(&sidecar.pod.netns, options);
        let failed = both(&["tcp inbound", "tcp self-call"]);
        probed.failed(&failed.iter().map(String::as_str).collect::<Vec<_>>());
        probed.says("ipv4 tcp inbound", "arrived directly, past the proxy");
    }
}

#[test]
fn a_proxy_that_closes_at_once_is_seen_all_the_same() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let ports = &[15001, 15006, 9999];
    let _proxy = Service::start(&pod.netns, Owner::PROXY, Closing { ports });
    let probed = probe(&pod.netns, &[]);
    probed.passed();
    // Its connections are never half-closed.
    assert!(
        probed.texts("ipv4 tcp half-closed-outbound", "result").is_empty(),
        "{probed:#?}"
    );
    assert!(
        probed.report["notes"].to_string().contains("closes them at once"),
        "{probed:#?}"
    );
    // So is another process that closes at once.
    let foreign = "table inet foreign { chain catch { type nat hook output priority -150; meta skuid 1000 meta skgid 1000 tcp dport 15002 redirect to :9999; }; }";
    feed(&pod.netns, "nft", &["-f", "-"], foreign);
    let probed = probe(&pod.netns, &[]);
    probed.failed(&["ipv4 tcp outbound", "ipv6 tcp outbound"]);
    probed.says("ipv4 tcp outbound", "arrived at 127.0.0.1:9999");
}

#[test]
fn servers_on_the_ports_of_the_proxy_are_not_mistaken_for_one_another() {
    let pod = Pod::new();
    apply(
        &pod.netns,
        "nftables",
        &["--proxy-outbound-port", "15006", "--proxy-inbound-port", "15001"],
    );
    let _proxy = Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]);
    let probed = probe(&pod.netns, &[]);
    let failed = both(&["tcp inbound", "tcp outbound", "tcp self-call"]);
    probed.failed(&failed.iter().map(String::as_str).collect::<Vec<_>>());
    probed.says("ipv4 tcp outbound", "arrived at 127.0.0.1:15006");
    probed.says("ipv6 tcp inbound", "arrived at [2001:db8::fffd]:15001");
}

/// Closes each connection before anything is said.
struct Closing {
    ports: &'static [u16],
}

impl Serve for Closing {
    fn bind(&self) -> io::Result<Sockets> {
        let every = Family::BOTH
            .into_iter()
            .flat_map(|family| self.ports.iter().map(move |port| socket::any(family, *port)));
        Ok(Sockets {
            tcp: every.map(socket::listener).collect::<io::Result<_>>()?,
            udp: Vec::new(),
        })
    }

    fn serve_connection(&self, stream: TcpStream, _: SocketAddr) -> io::Result<()> {
        drop(stream);
        Ok(())
    }

    fn serve_datagram(&self, _: &UdpSocket) -> io::Result<()> {
        Ok(())
    }
}

/// Answers every lookup that there is no such name.
struct Denying {
    on: Vec<SocketAddr>,
}

impl Denying {
    fn start(netns: &Netns, owner: Owner, addresses: [IpAddr; 2], port: u16) -> Service {
        let on = addresses.map(|address| (address, port).into()).to_vec();
        Service::start(netns, owner, Self { on })
    }
}

impl Serve for Denying {
    fn bind(&self) -> io::Result<Sockets> {
        Ok(Sockets {
            tcp: self
                .on
                .iter()
                .map(|on| socket::listener(*on))
                .collect::<io::Result<_>>()?,
            udp: self
                .on
                .iter()
                .map(|on| socket::receiver(*on))
                .collect::<io::Result<_>>()?,
        })
    }

    fn serve_connection(&self, stream: TcpStream, _: SocketAddr) -> io::Result<()> {
        drop(stream);
        Ok(())
    }

    fn serve_datagram(&self, receiver: &UdpSocket) -> io::Result<()> {
        let mut message = [0; 512];
        let (length, client) = receiver.recv_from(&mut message)?;
        message[2] |= 0x80;
        message[3] |= 0x83;
        receiver.send_to(&message[..length], client).map(drop)
    }
}

const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
];

fn neighbour() -> [IpAddr; 2] {
    Family::BOTH.map(|family| Address::PEER.of(family))
}

#[test]
fn proxy_answering_lookups_is_distinguished_from_name_server() {
    let servers = neighbour().map(|address| address.to_string()).join(",");
    let options = ["--redirect-dns", "--dns-servers", &servers];
    let pod = Pod::new();
    let _proxy = Denying::start(&pod.netns, Owner::PROXY, LOOPBACK, 15053);
    let _server = Denying::start(&pod.peer, Owner::ROOT, neighbour(), 53);
    apply(&pod.netns, "nftables", &options);
    let probed = probe(&pod.netns, &options);
    probed.passed();
    probed.says("ipv4 udp lookup", "answered from within the pod");
    apply(&pod.netns, "nftables", &[]);
    let probed = probe(&pod.netns, &options);
    let failed = both(&["udp lookup", "tcp lookup"]);
    let failed: Vec<&str> = failed.iter().map(String::as_str).collect();
    // What is not captured as a lookup is captured as any other connection.
    probed.failed(&failed);
    probed.says("ipv6 udp lookup", "answered from outside of the pod");
    probed.says("ipv4 tcp lookup", "arrived at 127.0.0.1:15001");
}

#[test]
fn name_servers_in_the_pod_are_asked_through_the_proxys_place() {
    let pod = Pod::new();
    let options = ["--redirect-dns", "--dns-servers", "127.0.0.1,::1"];
    for backend in BACKENDS {
        apply(&pod.netns, backend, &options);
        probe(&pod.netns, &options).passed();
    }
}

#[test]
fn envoy_keeps_its_connections_while_the_pod_is_probed() {
    use crate::common::conversation::{Conversation, Echo};
    use crate::common::{Caller, To};
    let sidecar = sidecar("nftables", Owner::PROXY, InboundMode::Redirect, &[]);
    let _echo = Echo::start(&sidecar.pod.peer, Owner::ROOT, 7000);
    for family in Family::BOTH {
        let mut conversation =
            Conversation::begin(&sidecar.pod, Caller::App, To::Peer(7000), family).expect("a connection");
        conversation.go_on(3).expect("an echo");
        probe(&sidecar.pod.netns, &[]).passed();
        conversation.go_on(3).expect("the same echo");
    }
    assert!(!output_of(sidecar.pod.netns.command("ip").args(["link"])).contains("sidetrack-probe"));
}
