//! The content of lines: verdict, rule, landing and owner.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use sidetrack::types::Family;

use super::{OPTIONS, Trace, servers};
use crate::SIDETRACK;
use crate::common::{Address, Caller, Owner, Pod, Server, To, Transport, call};
use crate::program::{Run, apply, feed, sidetrack};

/// The content of a line, without times, ports of clients and processes.
fn verdict(line: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let packet = &line["packet"];
    format!(
        "{} {} to {}: {} {} {} by {} {}",
        text(&packet["direction"]),
        text(&packet["protocol"]),
        text(&packet["destination"]),
        text(&line["verdict"]["action"]),
        text(&line["end"]["what"]),
        text(&line["end"]["to"]),
        text(&line["rule"]["table"]),
        text(&line["rule"]["comment"]),
    )
}

/// Connections, with the verdict, landing, direction and comment of the rule in their lines.
const SCRIPT: &[(Caller, To, &str, &str, &str)] = &[
    (
        Caller::App,
        To::Peer(80),
        "redirect delivered LOOPBACK:15001",
        "outbound",
        "outbound, to the proxy",
    ),
    (
        Caller::App,
        To::Peer(81),
        "accept sent PEER:81",
        "outbound",
        "excluded outbound ports",
    ),
    (
        Caller::Proxy,
        To::Peer(80),
        "accept sent PEER:80",
        "outbound",
        "the proxy's own traffic",
    ),
    (
        Caller::App,
        To::Loopback(8080),
        "accept delivered LOOPBACK:8080",
        "outbound",
        "loopback",
    ),
    (
        Caller::Peer,
        To::Pod(8080),
        "redirect delivered POD:15006",
        "inbound",
        "inbound, to the proxy",
    ),
    (
        Caller::Peer,
        To::Pod(15020),
        "accept delivered POD:15020",
        "inbound",
        "the mesh's own ports",
    ),
];

fn endpoint(text: &str, family: Family) -> String {
    let (address, port) = text.split_once(':').expect("an address and a port");
    let address = match address {
        "LOOPBACK" => Address::LOOPBACK,
        "PEER" => Address::PEER,
        "POD" => Address::POD,
        other => panic!("{other}"),
    };
    SocketAddr::new(address.of(family), port.parse().expect("a port")).to_string()
}

/// Every connection of [`SCRIPT`] has exactly its line.
fn each_connection_has_its_line(backend: &str) {
    let pod = Pod::new();
    apply(&pod.netns, backend, OPTIONS);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    for family in Family::BOTH {
        for (caller, to, end, direction, comment) in SCRIPT {
            let call = call(&pod, Transport::Tcp, *caller, *to, family).expect("a call");
            let line = trace.next();
            let (what, address) = end.rsplit_once(' ').expect("an address");
            let table = match (backend, family) {
                ("nftables", _) => "inet sidetrack",
                (_, Family::V4) => "ip nat",
                (_, Family::V6) => "ip6 nat",
            };
            let expected = format!(
                "{direction} tcp to {}: {what} {} by {table} {comment}",
                to.address(family).expect("an address"),
                endpoint(address, family),
            );
            assert_eq!(verdict(&line), expected, "{line:#}");
            assert_eq!(line["packet"]["source"], call.local.to_string());
            assert_eq!(line["doubt"], Value::Null, "{line:#}");
        }
    }
    assert_eq!(trace.end(), [Value::Null; 0]);
}

#[test]
fn each_connection_has_its_line_with_nftables() {
    each_connection_has_its_line("nftables");
}

#[test]
fn each_connection_has_its_line_with_iptables_nft() {
    each_connection_has_its_line("iptables-nft");
}

#[test]
fn tproxy_and_dns_have_their_lines() {
    let pod = Pod::new();
    let options = ["--inbound-mode", "tproxy", "--redirect-dns", "--dns-servers", "all"];
    apply(&pod.netns, "nftables", &options);
    let _proxy = Server::start_transparent(&pod.netns, "proxy", &[15006]);
    let _dns = Server::start(&pod.netns, "dns", Owner::PROXY, &[15053]);
    let trace = Trace::start(&pod.netns, &[]);
    call(&pod, Transport::Tcp, Caller::Peer, To::Pod(8080), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(line["verdict"]["action"], "tproxy", "{line:#}");
    assert_eq!(line["verdict"]["port"], 15006);
    assert_eq!(line["end"]["to"], endpoint("POD:8080", Family::V4));
    // Its answer comes from an address that the client does not expect, so this call fails.
    let _failed = call(&pod, Transport::Udp, Caller::App, To::Far(53), Family::V4);
    let line = trace.next();
    assert_eq!(line["packet"]["protocol"], "udp", "{line:#}");
    assert_eq!(line["verdict"]["action"], "redirect");
    assert_eq!(line["verdict"]["port"], 15053);
    assert_eq!(trace.end(), [Value::Null; 0]);
}

/// The rules that Istio's own program writes for `-i '*' -b '*' -d 15090`.
#[test]
fn rules_of_istio_are_named() {
    let pod = Pod::new();
    feed(
        &pod.netns,
        "iptables-nft-restore",
        &["--noflush"],
        "*nat\n-N ISTIO_INBOUND\n-N ISTIO_REDIRECT\n-N ISTIO_IN_REDIRECT\n-N ISTIO_OUTPUT\n\
         -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN\n-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n\
         -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006\n-A PREROUTING -p tcp -j ISTIO_INBOUND\n\
         -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN\n-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n\
         -A OUTPUT -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN\n\
         -A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN\n\
         -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN\n\
         -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN\n-A ISTIO_OUTPUT -j ISTIO_REDIRECT\nCOMMIT\n",
    );
    let _servers = [
        Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]),
        Server::start(&pod.netns, "app", Owner::APP, &[15090]),
        Server::start(&pod.peer, "peer", Owner::ROOT, &[80]),
    ];
    let trace = Trace::start(&pod.netns, &[]);
    for (caller, to, action, chain, number) in [
        (Caller::App, To::Peer(80), "redirect", "ISTIO_REDIRECT", 1),
        (Caller::Proxy, To::Peer(80), "accept", "ISTIO_OUTPUT", 3),
        (Caller::Peer, To::Pod(8080), "redirect", "ISTIO_IN_REDIRECT", 1),
        (Caller::Peer, To::Pod(15090), "accept", "ISTIO_INBOUND", 2),
    ] {
        call(&pod, Transport::Tcp, caller, to, Family::V4).expect("a call");
        let line = trace.next();
        assert_eq!(line["verdict"]["action"], action, "{line:#}");
        assert_eq!(line["rule"]["table"], "ip nat", "{line:#}");
        assert_eq!(line["rule"]["chain"], chain, "{line:#}");
        assert_eq!(line["rule"]["number"], number, "{line:#}");
        assert_eq!(line["doubt"], Value::Null, "{line:#}");
    }
    assert_eq!(trace.end(), [Value::Null; 0]);
}

/// The kernel does not trace these rules. Their effect is seen.
#[test]
fn legacy_iptables_is_reported_as_untraced() {
    let pod = Pod::new();
    apply(&pod.netns, "iptables-legacy", OPTIONS);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(line["verdict"]["action"], "redirect", "{line:#}");
    assert_eq!(line["end"]["to"], "127.0.0.1:15001");
    assert_eq!(line["rule"], Value::Null);
    assert_eq!(line["doubt"], "untraced-rule");
    call(&pod, Transport::Tcp, Caller::App, To::Peer(81), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(
        (&line["verdict"]["action"], &line["rule"]),
        (&"accept".into(), &Value::Null)
    );
    trace.end();
    let mut command = pod.netns.command(SIDETRACK);
    let run = Run::of(command.args(["trace", "--duration", "0"])).succeeded();
    assert!(
        run.stderr.contains("does not trace rules of legacy iptables"),
        "{run:?}"
    );
}

#[test]
fn the_owner_of_an_open_socket_is_found() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    let to = To::Peer(80).address(Family::V4).expect("an address");
    let stream = Caller::Process(4321, 4321)
        .run(&pod, || TcpStream::connect(to))
        .expect("a connection");
    // The socket stays open until the line was read.
    let line = trace.next();
    drop(stream);
    let comm = std::fs::read_to_string("/proc/self/comm").expect("a name");
    assert_eq!(line["owner"]["uid"], 4321, "{line:#}");
    assert_eq!(line["owner"]["pid"], std::process::id(), "{line:#}");
    assert_eq!(line["owner"]["process"], comm.trim_end(), "{line:#}");
    trace.end();
}

#[test]
fn the_filter_selects_in_the_kernel() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _servers = servers(&pod);
    let peer = Address::PEER.of(Family::V4).to_string();
    let port = format!("{peer}/24:80");
    for (filter, expected) in [
        (&["inbound"][..], &["inbound 8080"][..]),
        (&["outbound", "tcp"], &["outbound 80", "outbound 81", "outbound 80"]),
        (&[port.as_str()], &["outbound 80", "outbound 80"]),
        (&[":81"], &["outbound 81"]),
        (&["--uid", "1337"], &["outbound 80"]),
        (&["--source", peer.as_str()], &["inbound 8080"]),
        (&["udp"], &[]),
        (&["fd99::/64"], &[]),
    ] {
        let trace = Trace::start(&pod.netns, filter);
        for (caller, to) in [
            (Caller::App, To::Peer(80)),
            (Caller::App, To::Peer(81)),
            (Caller::Proxy, To::Peer(80)),
            (Caller::Peer, To::Pod(8080)),
        ] {
            call(&pod, Transport::Tcp, caller, to, Family::V4).expect("a call");
        }
        let found = trace.end().into_iter().map(|line| {
            let to: SocketAddr = line["packet"]["destination"]
                .as_str()
                .expect("text")
                .parse()
                .expect("an address");
            format!("{} {}", line["packet"]["direction"].as_str().expect("text"), to.port())
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

#[test]
fn rules_that_change_meanwhile_are_named() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    for (options, action, comment) in [
        (&[][..], "redirect", "outbound, to the proxy"),
        (OPTIONS, "accept", "excluded outbound ports"),
        (&[], "redirect", "outbound, to the proxy"),
    ] {
        apply(&pod.netns, "nftables", options);
        call(&pod, Transport::Tcp, Caller::App, To::Peer(81), Family::V4).expect("a call");
        let line = trace.next();
        assert_eq!(line["verdict"]["action"], action, "{line:#}");
        assert_eq!(line["rule"]["comment"], comment, "{line:#}");
    }
    sidetrack(&pod.netns, &["cleanup"]).succeeded();
    call(&pod, Transport::Tcp, Caller::App, To::Peer(81), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(
        (&line["verdict"]["action"], &line["rule"]),
        (&"accept".into(), &Value::Null)
    );
    trace.end();
}
