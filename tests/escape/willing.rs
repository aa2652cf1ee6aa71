//! What a willing application notices of the lock: refusals at once, and everything else as before.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sidetrack::types::Family;

use crate::column::LOCK;
use crate::common::{Address, Caller, Owner, Server, To, Transport, call, output_of, segment, socket};
use crate::lab::{Lab, PORT, Step};
use crate::packet::{packet, tcp_segment, too_big};
use crate::program::{BACKENDS, apply};
use crate::sys::{internet, send_to};

/// The port of the application.
const APP: u16 = 8080;
/// Far more than a refusal takes, which comes without a packet.
const PATIENCE: Duration = Duration::from_secs(60);

fn locked(backend: &str, options: &[&str]) -> (Lab, Server) {
    let lab = Lab::new();
    apply(&lab.pod.netns, backend, &[LOCK, options].concat());
    let app = Server::start(&lab.pod.netns, "app", Owner::APP, &[APP]);
    (lab, app)
}

/// A client of QUIC learns that there is none, and takes TCP.
#[test]
fn udp_is_refused_at_once_on_every_backend() {
    for backend in BACKENDS {
        let (lab, _app) = locked(backend, &[]);
        for family in Family::BOTH {
            let refused = Caller::App.run(&lab.pod, || {
                let any = SocketAddr::from((unspecified(family), 0));
                let socket = UdpSocket::bind(any)?;
                socket.connect((Address::FAR.of(family), 443))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Ok([socket.send(b"?").map(drop), socket.recv(&mut [0]).map(drop)])
            });
            let codes = refused
                .expect("a socket")
                .map(|result| result.expect_err("refused").raw_os_error());
            let by_icmp = match family {
                Family::V4 => libc::EHOSTUNREACH,
                Family::V6 => libc::EACCES,
            };
            assert_eq!(codes, [Some(libc::EPERM), Some(by_icmp)], "{backend}, {family}");
        }
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => [0; 4].into(),
        Family::V6 => [0u16; 8].into(),
    }
}

/// TCP that is not redirected: another network than the included one.
#[test]
fn tcp_is_reset_at_once_on_every_backend() {
    for backend in BACKENDS {
        let (lab, _app) = locked(backend, &["--include-outbound-cidrs", "192.0.2.0/24,2001:db8:2::/64"]);
        for family in Family::BOTH {
            let to = SocketAddr::from((Address::FAR.of(family), PORT));
            let refused = Caller::App.run(&lab.pod, || TcpStream::connect_timeout(&to, PATIENCE).map(drop));
            assert_eq!(
                refused.expect_err("refused").kind(),
                ErrorKind::ConnectionRefused,
                "{backend}, {family}"
            );
        }
    }
}

#[test]
fn inbound_connections_loopback_and_the_proxy_work_as_before_on_every_backend() {
    let calls = [
        (Transport::Tcp, Caller::Peer, To::Pod(APP), "app"),
        (Transport::Udp, Caller::Peer, To::Pod(APP), "app"),
        (Transport::Tcp, Caller::Peer, To::Pod(9), "proxy"),
        (Transport::Tcp, Caller::App, To::Loopback(APP), "app"),
        (Transport::Udp, Caller::App, To::Loopback(APP), "app"),
        (Transport::Tcp, Caller::App, To::Pod(APP), "app"),
        (Transport::Udp, Caller::App, To::Pod(APP), "app"),
        (Transport::Tcp, Caller::App, To::Far(PORT), "proxy"),
        (Transport::Tcp, Caller::Proxy, To::Far(PORT), "server"),
        (Transport::Udp, Caller::Proxy, To::Peer(PORT), "server"),
    ];
    for backend in BACKENDS {
        let (lab, _app) = locked(backend, &["--exclude-inbound-ports", "8080"]);
        for family in Family::BOTH {
            for (transport, caller, to, server) in calls {
                let call = call(&lab.pod, transport, caller, to, family);
                let what = format!("{backend}, {family}: {caller:?} calls {to:?} over {transport:?}");
                let arrival = call.unwrap_or_else(|error| panic!("{what}: {error}")).arrival;
                assert_eq!(arrival.expect("an answer").server, server, "{what}");
            }
        }
    }
}

/// A router says that packets of the proxy's connection are too big.
#[test]
fn path_mtu_of_the_proxy_is_learnt_under_both_policies() {
    const INBOUND: &[&str] = &["--inbound-policy", "proxy-only", "--inbound-mode", "tproxy"];
    let policies = [&[], &INBOUND[..2], INBOUND];
    for (options, family) in policies
        .into_iter()
        .flat_map(|options| Family::BOTH.map(|family| (options, family)))
    {
        let (mut lab, _app) = locked("nftables", options);
        let pod = SocketAddr::from((Address::POD.of(family), 40_001));
        let server = SocketAddr::from((Address::FAR.of(family), PORT));
        lab.run(
            family,
            || Ok(()),
            |stage| {
                let pod = SocketAddr::from((Address::POD.of(stage.family), 40_001));
                stage.after(Step::ProxyConnects(pod)).map(drop)
            },
            |_| {},
        )
        .result
        .expect("a connection of the proxy");
        let about = packet(
            pod.ip(),
            server.ip(),
            libc::IPPROTO_TCP as u8,
            &tcp_segment(pod, server, 0x10, lab.numbers(), &[]),
        );
        assert_learns(&lab, &about, server.ip(), &format!("{family}, {options:?}"));
    }
}

/// The error is about an answer: it goes in the direction of the connection itself.
#[test]
fn path_mtu_of_inbound_connections_is_learnt_under_the_inbound_policy() {
    const OPTIONS: &[&str] = &["--inbound-policy", "proxy-only", "--exclude-inbound-ports", "8080"];
    for (backend, family) in BACKENDS
        .into_iter()
        .flat_map(|backend| Family::BOTH.map(|family| (backend, family)))
    {
        let (lab, _app) = locked(backend, OPTIONS);
        let pod = SocketAddr::from((Address::POD.of(family), APP));
        let (client, numbers) = lab.pod.peer.run(|| {
            let from = SocketAddr::from((Address::FAR.of(family), 0));
            let stream = socket::stream(Some(from), pod).expect("a connection");
            let numbers = segment::sequence_numbers(&stream).expect("sequence numbers");
            (stream, numbers)
        });
        let far = client.local_addr().expect("an address");
        let answer = tcp_segment(pod, far, 0x10, (numbers.1, numbers.0), &[]);
        let about = packet(pod.ip(), far.ip(), libc::IPPROTO_TCP as u8, &answer);
        assert_learns(&lab, &about, far.ip(), &format!("{family}, {backend}"));
    }
}

/// A router says that a packet of the pod is too big, and the pod takes smaller ones to that host.
#[track_caller]
fn assert_learns(lab: &Lab, about: &[u8], host: IpAddr, case: &str) {
    let family = Family::of(host);
    let [router, pod] = [Address::PEER, Address::POD].map(|address| address.of(family));
    let (protocol, message) = too_big(router, pod, MTU, about);
    let told = lab.pod.peer.run(|| tell(family, protocol, &message, pod));
    told.expect("a message");
    let mut route = lab.pod.netns.command("ip");
    let route = output_of(route.args(["route", "get", &host.to_string()]));
    assert!(route.contains(&format!("mtu {MTU}")), "{case}: {route}");
}

/// What the router's link takes.
const MTU: u16 = 1300;

fn tell(family: Family, protocol: u8, message: &[u8], to: IpAddr) -> io::Result<()> {
    let socket = internet(family, libc::SOCK_RAW, protocol.into())?;
    send_to(&socket, message, (to, 0).into())
}
