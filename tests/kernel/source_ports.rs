//! Clients that use few source ports, for connections to several ports of a pod: behind the rules, all of those are to one
//! port.

use std::io;
use std::net::SocketAddr;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use sidetrack::types::Family;

use crate::common::{Address, Arrival, Pod, Server, To, http, socket};
use crate::program::{BACKENDS, apply};

const SOURCE_PORTS: [u16; 2] = [20_000, 20_001];
const PORTS: [u16; 4] = [8001, 8002, 8003, 8004];
const ROUNDS: usize = 50;

/// Makes a connection whose source port is free again at once.
fn call(source: SocketAddr, to: SocketAddr) -> io::Result<Arrival> {
    let stream = socket::stream(Some(source), to)?;
    let reset = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &reset)?;
    http::get(stream, "/")?.parse()
}

#[test]
fn connections_from_one_source_port_stay_distinct() {
    for backend in BACKENDS {
        let pod = Pod::new();
        let _proxy = Server::start_transparent(&pod.netns, "proxy", &[15006]);
        apply(&pod.netns, backend, &[]);
        pod.peer.run(|| {
            for family in Family::BOTH {
                for port in (0..ROUNDS).flat_map(|_| PORTS) {
                    let to = To::Pod(port).address(family).expect("an address");
                    for source in SOURCE_PORTS {
                        let source = (Address::PEER.of(family), source).into();
                        let arrival = call(source, to).unwrap_or_else(|error| panic!("{source} to {to}: {error}"));
                        assert_eq!((arrival.server.as_str(), arrival.original), ("proxy", Some(to)));
                        assert_eq!(arrival.client.ip(), source.ip());
                    }
                }
            }
        });
    }
}

#[test]
fn tproxy_keeps_the_clients_source_port_if_the_server_closes_first() {
    let pod = Pod::new();
    let _proxy = Server::start_transparent(&pod.netns, "proxy", &[15006]);
    apply(&pod.netns, "nftables", &["--inbound-mode", "tproxy"]);
    pod.peer.run(|| {
        for family in Family::BOTH {
            for port in PORTS.into_iter().cycle().take(2 * PORTS.len()) {
                let to = To::Pod(port).address(family).expect("an address");
                let source: SocketAddr = (Address::PEER.of(family), SOURCE_PORTS[0]).into();
                let stream = socket::stream(Some(source), to).expect("a connection");
                let arrival: Arrival = http::get(stream, "/").expect("an answer").parse().expect("an arrival");
                assert_eq!((arrival.server.as_str(), arrival.client), ("proxy", source));
            }
        }
    });
}
