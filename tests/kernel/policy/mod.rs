//! Policies of proxy-only: what is neither redirected, the proxy's, an answer nor excluded is rejected at once.

mod bound;
mod connections;

use std::io::ErrorKind;

use sidetrack::types::Family;

use crate::cases::PORTS;
use crate::common::{Caller, Owner, Pod, Server, To, Transport, call};
use crate::program::{BACKENDS, apply};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The server of this name answers on this port.
    Reaches(&'static str, u16),
    /// The caller learns at once that it is refused.
    Rejected,
}

/// A call, and its outcome.
type Row = (Transport, Caller, To, Outcome);

const PROXY: Outcome = Outcome::Reaches("pod", 15001);
const INBOUND: Outcome = Outcome::Reaches("pod", 15006);

/// What no policy changes.
const KEPT: &[Row] = {
    use Caller::{App, Peer, Proxy, Root};
    use Outcome::Reaches;
    use Transport::{Tcp, Udp};
    &[
        (Tcp, App, To::Peer(9090), PROXY),
        (Tcp, Root, To::Far(443), PROXY),
        (Tcp, Proxy, To::Peer(9090), Reaches("peer", 9090)),
        (Udp, Proxy, To::Peer(443), Reaches("peer", 443)),
        (Tcp, App, To::Pod(8080), Reaches("pod", 8080)),
        (Tcp, App, To::Loopback(8080), Reaches("pod", 8080)),
        (Udp, App, To::Pod(8080), Reaches("pod", 8080)),
        (Udp, App, To::PodSecond(8080), Reaches("pod", 8080)),
        (Udp, App, To::Loopback(8080), Reaches("pod", 8080)),
        (Tcp, Peer, To::Pod(8080), INBOUND),
        (Tcp, Peer, To::Pod(15021), Reaches("pod", 15021)),
    ]
};

/// Makes each call with each backend and in each of these families.
#[track_caller]
fn calls_end_like_this(options: &[&str], families: &[Family], rows: &[&[Row]]) {
    let mut wrong = Vec::new();
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, options);
        let _pod = Server::start(&pod.netns, "pod", Owner::ROOT, PORTS);
        let _peer = Server::start(&pod.peer, "peer", Owner::ROOT, PORTS);
        for (family, row) in families
            .iter()
            .flat_map(|family| rows.iter().copied().flatten().map(move |row| (*family, row)))
        {
            let (transport, caller, to, expected) = *row;
            let found = match call(&pod, transport, caller, to, family) {
                Ok(call) => call.arrival.map_or_else(
                    || "no answer".to_owned(),
                    |arrival| format!("{} {}", arrival.server, arrival.port),
                ),
                Err(error) => match error.kind() {
                    ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied | ErrorKind::HostUnreachable => {
                        "rejected".to_owned()
                    }
                    _ => error.to_string(),
                },
            };
            let wanted = match expected {
                Outcome::Reaches(server, port) => format!("{server} {port}"),
                Outcome::Rejected => "rejected".to_owned(),
            };
            if found != wanted {
                wrong.push(format!(
                    "{backend}, {family}: {transport:?} {caller:?} {to:?}: {found}, not {wanted}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn outbound_policy_rejects_what_does_not_pass_the_proxy() {
    use Caller::{App, Peer, Root};
    use Outcome::{Reaches, Rejected};
    use Transport::{Tcp, Udp};
    const OPTIONS: &[&str] = &["--outbound-policy", "proxy-only", "--exclude-outbound-ports", "22"];
    let rows: &[Row] = &[
        (Udp, App, To::Peer(9090), Rejected),
        (Udp, Root, To::Far(443), Rejected),
        (Udp, App, To::PeerSecond(53), Rejected),
        (Udp, App, To::Peer(22), Rejected),
        (Tcp, App, To::Peer(22), Reaches("peer", 22)),
        (Udp, Peer, To::Pod(8080), Reaches("pod", 8080)),
    ];
    calls_end_like_this(OPTIONS, &Family::BOTH, &[KEPT, rows]);
}

#[test]
fn outbound_policy_rejects_the_family_that_is_not_redirected() {
    use Caller::{App, Peer, Proxy};
    use Outcome::{Reaches, Rejected};
    use Transport::{Tcp, Udp};
    const OPTIONS: &[&str] = &["--outbound-policy", "proxy-only", "--ip-family", "ipv4"];
    let rows: &[Row] = &[
        (Tcp, App, To::Peer(9090), Rejected),
        (Udp, App, To::Far(443), Rejected),
        (Tcp, App, To::Pod(8080), Reaches("pod", 8080)),
        (Udp, App, To::Loopback(8080), Reaches("pod", 8080)),
        (Tcp, Proxy, To::Far(443), Reaches("peer", 443)),
        (Tcp, Peer, To::Pod(8080), Reaches("pod", 8080)),
    ];
    calls_end_like_this(OPTIONS, &[Family::V6], &[rows]);
    calls_end_like_this(OPTIONS, &[Family::V4], &[KEPT]);
}

#[test]
fn outbound_policy_rejects_connections_that_are_not_included() {
    use Caller::App;
    use Outcome::Rejected;
    use Transport::Tcp;
    const OPTIONS: &[&str] = &["--outbound-policy", "proxy-only", "--include-outbound-ports", "443"];
    let rows: &[Row] = &[(Tcp, App, To::Peer(80), Rejected), (Tcp, App, To::Peer(443), PROXY)];
    calls_end_like_this(OPTIONS, &Family::BOTH, &[rows]);
}

#[test]
fn allowed_queries_reach_the_name_servers_alone() {
    use Caller::App;
    use Outcome::{Reaches, Rejected};
    use Transport::{Tcp, Udp};
    const OPTIONS: &[&str] = &[
        "--outbound-policy",
        "proxy-only",
        "--allow-dns",
        "--dns-servers",
        "10.99.0.1,fd99::1",
    ];
    let rows: &[Row] = &[
        (Udp, App, To::Peer(53), Reaches("peer", 53)),
        (Tcp, App, To::Peer(53), PROXY),
        (Udp, App, To::Peer(443), Rejected),
        (Udp, App, To::Far(53), Rejected),
    ];
    calls_end_like_this(OPTIONS, &Family::BOTH, &[rows]);
}

#[test]
fn inbound_policy_rejects_what_is_not_captured() {
    use Caller::{App, Peer};
    use Outcome::{Reaches, Rejected};
    use Transport::{Tcp, Udp};
    const OPTIONS: &[&str] = &[
        "--inbound-policy",
        "proxy-only",
        "--exclude-inbound-ports",
        "22",
        "--include-inbound-ports",
        "8080",
    ];
    let rows: &[Row] = &[
        (Udp, Peer, To::Pod(8080), Rejected),
        (Tcp, Peer, To::Pod(80), Rejected),
        (Tcp, Peer, To::Pod(15006), Rejected),
        (Tcp, Peer, To::Pod(22), Reaches("pod", 22)),
        (Udp, App, To::Peer(9090), Reaches("peer", 9090)),
    ];
    calls_end_like_this(OPTIONS, &Family::BOTH, &[KEPT, rows]);
}
