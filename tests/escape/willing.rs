//! What a willing application notices of the lock: refusals at once, and everything else as before.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sidetrack::types::Family;

use crate::column::LOCK;
use crate::common::{Address, Caller, Owner, Server, To, Transport, call, output_of};
use crate::lab::{Lab, PORT, Step};
use crate::packet::{packet, tcp_segment, too_big};
use crate::program::{BACKENDS, apply};
use crate::sys::{internet, send_to};

/// The port of the application.
const APP: u16 = 8080;
/// Far more than a refusal takes, which comes without a packet.
const PATIENCE: Duration = Duration::from_secs(5);

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
        const MTU: u16 = 1300;
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
        let router = Address::PEER.of(family);
        let (protocol, message) = too_big(router, pod.ip(), MTU, &about);
        lab.pod
            .peer
            .run(|| tell(family, protocol, &message, pod.ip()))
            .expect("a message");
        let route = output_of(
            lab.pod
                .netns
                .command("ip")
                .args(["route", "get", &server.ip().to_string()]),
        );
        assert!(route.contains("mtu 1300"), "{family}, {options:?}: {route}");
    }
}

fn tell(family: Family, protocol: u8, message: &[u8], to: IpAddr) -> io::Result<()> {
    let socket = internet(family, libc::SOCK_RAW, protocol.into())?;
    send_to(&socket, message, (to, 0).into())
}
