//! Sockets bound to an interface (SO_BINDTODEVICE): redirected packets are delivered over the loopback interface and do
//! not match such a socket, unless a route assigns the loopback address to its interface.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use sidetrack::types::Family;

use crate::common::{Address, Arrival, Caller, Owner, Pod, Server, To, http, output_of};
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

/// The routes that troubleshooting.md recommends.
fn add_routes(pod: &Pod, interface: &str) {
    for (option, loopback) in [("-4", "127.0.0.1"), ("-6", "::1")] {
        let route = [
            "route", "add", "local", loopback, "dev", interface, "table", "local", "metric", "15006",
        ];
        output_of(pod.netns.command("ip").arg(option).args(route));
    }
}

fn a_socket_bound_to_an_interface_reaches_the_proxy_by_a_route(backend: &str) {
    let (pod, _servers) = pod(backend, &[]);
    for family in Family::BOTH {
        call(&pod, "eth0", To::Peer(SERVER), family).expect_err("lost");
        let to = To::Peer(SERVER).address(family).expect("an address").to_string();
        let explain = ["explain", "outbound", "tcp", &to, "--from-kernel", "--bound-to", "eth0"];
        let run = sidetrack(&pod.netns, &explain).succeeded();
        assert!(
            run.stderr.contains("bound to eth0") && run.stderr.contains("connection is lost"),
            "{}",
            run.stderr
        );
        assert_eq!(sidetrack(&pod.netns, &explain[..5]).succeeded().stderr, "");
    }
    add_routes(&pod, "eth0");
    for family in Family::BOTH {
        let arrival = call(&pod, "eth0", To::Peer(SERVER), family).expect("an answer");
        assert_eq!(arrival.server, "proxy", "{backend}, {family}");
        assert_eq!(
            arrival.original,
            To::Peer(SERVER).address(family),
            "{backend}, {family}"
        );
        assert_eq!(arrival.client.ip(), Address::POD.of(family));
        // Each interface has a route of its own.
        call(&pod, "eth1", To::PeerSecond(SERVER), family).expect_err("lost");
    }
}

#[test]
fn a_socket_bound_to_an_interface_reaches_the_proxy_by_a_route_on_every_backend() {
    for backend in BACKENDS {
        a_socket_bound_to_an_interface_reaches_the_proxy_by_a_route(backend);
    }
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
