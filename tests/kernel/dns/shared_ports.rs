//! Lookups that share sockets and ports: each answer reaches the question that it belongs to.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use sidetrack::types::Family;

use super::*;

/// One socket asks all servers at once, as musl's resolver does, and each answer comes from the server that was asked.
fn one_socket_may_query_several_servers(backend: &str) {
    let lab = Lab::new();
    lab.apply(backend, &["--dns-servers", "all"]);
    for (family, caller) in Family::BOTH
        .into_iter()
        .flat_map(|family| [(family, App), (family, Proxy)])
    {
        let socket = caller
            .run(&lab.pod, || UdpSocket::bind((Address::POD.of(family), 0)))
            .expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("patience");
        let servers = [Address::PEER, Address::PEER_SECOND, Address::FAR].map(|server| server.of(family));
        let mut open: Vec<_> = servers
            .map(|server| (server, Message::question("several.example")))
            .into();
        for (server, question) in &open {
            socket
                .send_to(&question.bytes(), (*server, 53))
                .expect("a question that leaves");
        }
        while !open.is_empty() {
            let (from, answer) = receive_from(&socket).expect("an answer to each question");
            let place = open
                .iter()
                .position(|(server, question)| from.ip() == *server && answer.id == question.id);
            open.swap_remove(place.unwrap_or_else(|| panic!("{backend}, {caller:?}: {from} says {answer:?}")));
        }
    }
}

#[test]
fn one_socket_may_query_several_servers_with_nftables() {
    one_socket_may_query_several_servers("nftables");
}

#[test]
fn one_socket_may_query_several_servers_with_iptables_nft() {
    one_socket_may_query_several_servers("iptables-nft");
}

#[test]
fn one_socket_may_query_several_servers_with_iptables_legacy() {
    one_socket_may_query_several_servers("iptables-legacy");
}

/// The number of lookups in tests of concurrent ones.
const MANY: usize = 600;
/// How many of them wait for an answer at a time: no socket's buffer is too small for that.
const AT_A_TIME: usize = 100;

fn socket(pod: &Pod, caller: Caller, server: IpAddr) -> UdpSocket {
    let any = caller.run(pod, || {
        let unspecified: IpAddr = if server.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((unspecified, 0))?;
        socket.connect((server, 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(socket)
    });
    any.expect("a socket")
}

fn ask(socket: &UdpSocket, number: usize) -> Message {
    let question = Message::question(&format!("number-{number}.example"));
    socket.send(&question.bytes()).expect("a question that leaves");
    question
}

/// Each question gets its own answer, in any order.
fn answers(socket: &UdpSocket, questions: Vec<Message>) -> Vec<Reply> {
    let local = socket.local_addr().expect("an address");
    let mut open = questions;
    let mut replies = Vec::new();
    while !open.is_empty() {
        let (_, answer) = receive_from(socket).expect("an answer to each question");
        let place = open.iter().position(|question| question.id == answer.id);
        let question = open.swap_remove(place.unwrap_or_else(|| panic!("unexpected answer {answer:?}")));
        replies.push(reply(local, &question, &answer).expect("the answer to this question"));
    }
    replies
}

fn many_lookups_from_one_port(pod: &Pod, family: Family) {
    let socket = socket(pod, App, Address::PEER.of(family));
    for start in (0..MANY).step_by(AT_A_TIME) {
        let questions = (start..start + AT_A_TIME).map(|number| ask(&socket, number)).collect();
        for reply in answers(&socket, questions) {
            assert_eq!(way(&reply), Forwarder, "{family}: {reply:?}");
        }
    }
}

/// The app and the proxy take turns, with few ports between them: each port serves the one, then the other.
fn many_lookups_from_many_ports(pod: &Pod, family: Family) {
    let server = Address::PEER.of(family);
    for start in (0..MANY).step_by(AT_A_TIME) {
        let caller = |number: usize| {
            if number.is_multiple_of(3) {
                (Proxy, Direct)
            } else {
                (App, Forwarder)
            }
        };
        let asked: Vec<_> = (start..start + AT_A_TIME)
            .map(|number| {
                let (caller, way) = caller(number);
                let socket = socket(pod, caller, server);
                let question = ask(&socket, number);
                (socket, question, way)
            })
            .collect();
        for (socket, question, expected) in asked {
            for reply in answers(&socket, vec![question]) {
                assert_eq!(way(&reply), expected, "{family}: {reply:?}");
            }
        }
    }
}

fn concurrent_lookups_get_their_own_answers(backend: &str) {
    let lab = Lab::new();
    lab.apply(backend, &["--dns-servers", &both(Address::PEER)]);
    set(&lab.pod.netns, "ip_local_port_range", "40000 40299");
    for family in Family::BOTH {
        many_lookups_from_one_port(&lab.pod, family);
        many_lookups_from_many_ports(&lab.pod, family);
    }
}

#[test]
fn concurrent_lookups_get_their_own_answers_with_nftables() {
    concurrent_lookups_get_their_own_answers("nftables");
}

#[test]
fn concurrent_lookups_get_their_own_answers_with_iptables_nft() {
    concurrent_lookups_get_their_own_answers("iptables-nft");
}

#[test]
fn concurrent_lookups_get_their_own_answers_with_iptables_legacy() {
    concurrent_lookups_get_their_own_answers("iptables-legacy");
}

/// The ways of three lookups from one port, one after the other: the app's, the proxy's, the app's.
fn ways_of_one_port(pod: &Pod, family: Family, port: u16) -> [Way; 3] {
    [App, Proxy, App].map(|caller| {
        let source = Some((Address::POD.of(family), port).into());
        let reply = caller.run(pod, || {
            look_up(Udp, source, Address::PEER.of(family), "one.port.example")
        });
        way(&reply.expect("an answer"))
    })
}

/// The kernel remembers connections for longer than sockets live, and the rules keep those of the app and those of
/// the proxy apart.
fn source_port_may_be_reused_by_app_and_proxy(backend: &str) {
    let lab = Lab::new();
    lab.apply(backend, &["--dns-servers", &both(Address::PEER)]);
    for family in Family::BOTH {
        assert_eq!(
            ways_of_one_port(&lab.pod, family, 30000),
            [Forwarder, Direct, Forwarder],
            "{family}"
        );
    }
    // Without that the proxy would ask itself.
    forget_zones(&lab.pod.netns, backend);
    for family in Family::BOTH {
        assert_eq!(ways_of_one_port(&lab.pod, family, 30001), [Forwarder; 3], "{family}");
    }
}

fn forget_zones(netns: &Netns, backend: &str) {
    match backend.strip_prefix("iptables-") {
        Some(variant) => {
            for program in ["iptables", "ip6tables"] {
                let program = format!("{program}-{variant}");
                output_of(netns.command(program).args(["-t", "raw", "-F"]));
            }
        }
        None => {
            let chain = ["flush", "chain", "inet", "sidetrack", "raw_output"];
            output_of(netns.command("nft").args(chain));
        }
    }
}

#[test]
fn source_port_may_be_reused_by_app_and_proxy_with_nftables() {
    source_port_may_be_reused_by_app_and_proxy("nftables");
}

#[test]
fn source_port_may_be_reused_by_app_and_proxy_with_iptables_nft() {
    source_port_may_be_reused_by_app_and_proxy("iptables-nft");
}

#[test]
fn source_port_may_be_reused_by_app_and_proxy_with_iptables_legacy() {
    source_port_may_be_reused_by_app_and_proxy("iptables-legacy");
}
