//! Sockets bound to an interface (SO_BINDTODEVICE): redirected packets are delivered over the loopback interface and do
//! not match such a socket, unless a route assigns the loopback address to its interface.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::json;
use sidetrack::types::Family;

use crate::cni::request;
use crate::common::{Arrival, Caller, Owner, Pod, Server, To, http, output_of};
use crate::program::{BACKENDS, apply, sidetrack};

const SERVER: u16 = 9090;

/// A call of the application with a socket bound to an interface.
fn call(pod: &Pod, interface: &'static str, to: To, family: Family) -> io::Result<Arrival> {
    let to: SocketAddr = to.address(family).expect("an address");
    Caller::App.run(pod, || {
        let domain = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let socket = socket(domain, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // A lost connection is one for good; this waits until a first repetition is lost, too.
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(2))?;
        // Needs no privilege since Linux 5.7.
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(interface))?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        http::get(stream, "/")?.parse()
    })
}

/// A pod with a stand-in for the proxy, and a server beside it.
fn pod(backend: &str, options: &[&str]) -> (Pod, [Server; 2]) {
    let pod = Pod::new();
    apply(&pod.netns, backend, options);
    let proxy = Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001]);
    let server = Server::start(&pod.peer, "server", Owner::ROOT, &[SERVER]);
    (pod, [proxy, server])
}

/// The routes of the local table that sidetrack has added.
fn routes(pod: &Pod) -> String {
    let list = |family| {
        let mut ip = pod.netns.command("ip");
        output_of(ip.args([family, "route", "show", "table", "local", "proto", "137"]))
    };
    list("-4") + &list("-6")
}

fn explained(pod: &Pod, family: Family) -> String {
    let to = To::Peer(SERVER).address(family).expect("an address").to_string();
    let explain = ["explain", "outbound", "tcp", &to, "--from-kernel"];
    assert_eq!(sidetrack(&pod.netns, &explain).succeeded().stderr, "");
    let of_bound = [&explain[..], &["--bound-to", "eth0"]].concat();
    sidetrack(&pod.netns, &of_bound).succeeded().stderr
}

fn a_socket_bound_to_an_interface_reaches_the_proxy_by_its_route(backend: &str) {
    let (pod, _servers) = pod(backend, &[]);
    for family in Family::BOTH {
        call(&pod, "eth0", To::Peer(SERVER), family).expect_err("lost");
        let warning = explained(&pod, family);
        assert!(
            warning.contains("connection is lost") && warning.contains("--bound-interfaces eth0"),
            "{warning}"
        );
    }
    for interfaces in ["eth0", "eth0,eth1"] {
        let options = ["--bound-interfaces", interfaces];
        apply(&pod.netns, backend, &options);
        let options = [&["check", "--backend", backend][..], &options].concat();
        sidetrack(&pod.netns, &options).succeeded();
        for (interface, to) in [("eth0", To::Peer(SERVER)), ("eth1", To::PeerSecond(SERVER))] {
            for family in Family::BOTH {
                let arrival = call(&pod, interface, to, family);
                if !interfaces.contains(interface) {
                    arrival.expect_err("lost: each interface has a route of its own");
                    continue;
                }
                let arrival = arrival.expect("an answer");
                assert_eq!(arrival.server, "proxy", "{backend}, {family}, {interface}");
                assert_eq!(arrival.original, to.address(family), "{backend}, {family}, {interface}");
            }
        }
        for family in Family::BOTH {
            assert_eq!(explained(&pod, family), "");
        }
    }
    let run = sidetrack(
        &pod.netns,
        &["check", "--backend", backend, "--bound-interfaces", "eth1"],
    );
    let extra = "extra: the IPv6 route `local ::1 dev eth0 table local`";
    assert!(run.code == Some(3) && run.stdout.contains(extra), "{run:?}");
    apply(&pod.netns, backend, &["--bound-interfaces", "eth1"]);
    assert!(!routes(&pod).contains("eth0") && routes(&pod).contains("eth1"));
    apply(&pod.netns, backend, &[]);
    assert_eq!(routes(&pod), "", "{backend}: without the option the routes are removed");
}

#[test]
fn a_socket_bound_to_an_interface_reaches_the_proxy_by_its_route_on_every_backend() {
    for backend in BACKENDS {
        a_socket_bound_to_an_interface_reaches_the_proxy_by_its_route(backend);
    }
}

#[test]
fn cleanup_removes_the_routes_of_bound_interfaces_and_leaves_foreign_ones() {
    let pod = Pod::new();
    let foreign = "-4 route add local 127.0.0.1 dev eth0 table local metric 7";
    output_of(pod.netns.command("ip").args(foreign.split(' ')));
    let untouched = local_tables(&pod);
    let options = ["--bound-interfaces", "eth0,eth1"];
    apply(&pod.netns, "nftables", &options);
    assert_eq!(routes(&pod).lines().count(), 4, "{}", routes(&pod));
    // Without its rules, too: an apply that was killed leaves that.
    output_of(pod.netns.command("nft").args(["delete", "table", "inet", "sidetrack"]));
    sidetrack(&pod.netns, &["cleanup"]).succeeded();
    assert_eq!(local_tables(&pod), untouched);
}

#[test]
fn the_plugin_adds_and_checks_the_routes_of_its_configuration_and_of_an_annotation() {
    const ANNOTATION: &str = "traffic.sidetrack.dev/bound-interfaces";
    let pod = Pod::new();
    let of = |verb| request(verb, &pod.netns.path()).with("redirect", json!({ "bound-interfaces": "eth0" }));
    of("ADD").succeeds();
    assert!(routes(&pod).contains("eth0") && !routes(&pod).contains("eth1"));
    of("CHECK").succeeds();
    of("CHECK").annotated(ANNOTATION, "eth1").fails(105);
    of("ADD").annotated(ANNOTATION, "eth1").succeeds();
    assert!(!routes(&pod).contains("eth0") && routes(&pod).contains("eth1"));
    of("CHECK").annotated(ANNOTATION, "eth1").succeeds();
    output_of(pod.netns.command("ip").args(["link", "set", "eth1", "down"]));
    let error = of("CHECK").annotated(ANNOTATION, "eth1").fails(105);
    assert!(error.to_string().contains("dev eth1 table local"), "{error}");
}

fn local_tables(pod: &Pod) -> String {
    let list = |family| {
        output_of(
            pod.netns
                .command("ip")
                .args([family, "route", "show", "table", "local"]),
        )
    };
    let text = list("-4") + &list("-6");
    // The kernel adds its own routes of IPv6 addresses after a moment.
    let others = text.lines().filter(|line| !line.contains("proto kernel"));
    others.collect::<Vec<_>>().join("\n")
}

#[test]
fn apply_warns_of_an_interface_without_its_route_and_installs_the_rules() {
    let pod = Pod::new();
    output_of(pod.netns.command("ip").args(["link", "set", "eth1", "down"]));
    let options = ["--bound-interfaces", "eth1,net1"];
    let run = sidetrack(&pod.netns, &[&["apply"][..], &options].concat()).succeeded();
    for warning in [
        "bound to eth1 cannot reach the proxy over IPv6 yet: the interface is down",
        "bound to net1 cannot reach the proxy over IPv4 yet: there is no such interface",
    ] {
        assert!(run.stderr.contains(warning), "{}", run.stderr);
    }
    let check = [&["check"][..], &options].concat();
    let run = sidetrack(&pod.netns, &check);
    assert!(
        run.stdout.contains("`local 127.0.0.1 dev net1 table local`"),
        "{}",
        run.stdout
    );
    output_of(pod.netns.command("ip").args(["link", "set", "eth1", "up"]));
    apply(&pod.netns, "nftables", &options);
    assert_eq!(routes(&pod).lines().count(), 2, "{}", routes(&pod));
}

#[test]
fn socket_bound_to_excluded_interface_bypasses_the_proxy() {
    let (pod, _servers) = pod("nftables", &["--exclude-interfaces", "eth0"]);
    for family in Family::BOTH {
        let arrival = call(&pod, "eth0", To::Peer(SERVER), family).expect("an answer");
        assert_eq!(arrival.server, "server", "{family}");
        let to = To::Peer(SERVER).address(family).expect("an address").to_string();
        let explain = ["explain", "outbound", "tcp", &to, "--from-kernel", "--bound-to", "eth0"];
        let run = sidetrack(&pod.netns, &explain).succeeded();
        assert_eq!(run.stderr, "");
        assert!(
            run.stdout.contains("not redirected: excluded interface"),
            "{}",
            run.stdout
        );
    }
}
