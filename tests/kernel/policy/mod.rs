//! Policies of proxy-only: what is neither redirected, the proxy's, an answer nor excluded is rejected at once.

mod bound;
mod connections;
mod mode_change;
mod reports;

use std::io::ErrorKind;

use sidetrack::backend::RuleBackend;
use sidetrack::types::{Backend, Family};

use crate::cases::PORTS;
use crate::common::{Caller, Owner, Pod, Server, To, Transport, call};
use crate::per_family::{ONLY_INET, apply_without_nat};
use crate::program::apply;

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

/// Every backend, and the tables of kernels without NAT in those of the family inet.
const ALL_BACKENDS: [&str; 4] = ["nftables", "nftables-per-family", "iptables-nft", "iptables-legacy"];

/// Makes each call with each backend and in each of these families.
#[track_caller]
fn calls_end_like_this(options: &[&str], families: &[Family], rows: &[&[Row]]) {
    let mut wrong = Vec::new();
    for backend in ALL_BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, options);
        let _pod = Server::start(&pod.netns, "pod", Owner::ROOT, PORTS);
        wrong.extend(differences(&pod, families, rows).map(|text| format!("{backend}, {text}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The calls that end otherwise.
fn differences(pod: &Pod, families: &[Family], rows: &[&[Row]]) -> impl Iterator<Item = String> + use<> {
    let _peer = Server::start(&pod.peer, "peer", Owner::ROOT, PORTS);
    let mut wrong = Vec::new();
    for (family, row) in families
        .iter()
        .flat_map(|family| rows.iter().copied().flatten().map(move |row| (*family, row)))
    {
        let (transport, caller, to, expected) = *row;
        let found = match call(pod, transport, caller, to, family) {
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
                "{family}: {transport:?} {caller:?} {to:?}: {found}, not {wanted}"
            ));
        }
    }
    wrong.into_iter()
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

/// What the proxy gets keeps its destination.
#[test]
fn inbound_policy_rejects_what_tproxy_does_not_capture() {
    use Caller::{App, Far, Peer, PeerSecond, Proxy};
    use Outcome::{Reaches, Rejected};
    use Transport::{Tcp, Udp};
    const OPTIONS: &[&str] = &[
        "--inbound-policy",
        "proxy-only",
        "--inbound-mode",
        "tproxy",
        "--exclude-inbound-ports",
        "22",
        "--include-inbound-ports",
        "443,8080",
    ];
    const CLOSED: u16 = 9;
    let rows: &[Row] = &[
        (Tcp, Peer, To::Pod(8080), Reaches("proxy", 8080)),
        (Tcp, Far, To::Pod(443), Reaches("proxy", 443)),
        (Tcp, PeerSecond, To::PodSecond(8080), Reaches("proxy", 8080)),
        (Udp, Peer, To::Pod(8080), Rejected),
        (Udp, Far, To::Pod(53), Rejected),
        (Tcp, Peer, To::Pod(80), Rejected),
        (Tcp, Peer, To::Pod(15006), Rejected),
        (Tcp, Peer, To::Pod(22), Reaches("pod", 22)),
        (Tcp, Peer, To::Pod(15021), Reaches("pod", 15021)),
        (Tcp, App, To::Loopback(8080), Reaches("pod", 8080)),
        (Udp, App, To::Pod(8080), Reaches("pod", 8080)),
        (Tcp, App, To::Peer(9090), Reaches("proxy", 15001)),
        (Tcp, Proxy, To::Peer(9090), Reaches("peer", 9090)),
        // An answer, and an error about what was sent.
        (Udp, App, To::Peer(9090), Reaches("peer", 9090)),
        (Udp, App, To::Peer(CLOSED), Rejected),
    ];
    let (of_proxy, of_app): (Vec<u16>, Vec<u16>) = PORTS.iter().partition(|port| [15001, 15006].contains(*port));
    let mut wrong = Vec::new();
    for backend in ALL_BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, OPTIONS);
        let _proxy = Server::start_transparent(&pod.netns, "proxy", &of_proxy);
        let _app = Server::start(&pod.netns, "pod", Owner::ROOT, &of_app);
        wrong.extend(differences(&pod, &Family::BOTH, &[rows]).map(|text| format!("{backend}, {text}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A kernel before Linux 5.2: the policy is in the tables that are chosen there, of both families.
#[test]
fn outbound_policy_holds_without_nat_in_tables_of_both_families() {
    use Caller::{App, Proxy, Root};
    use Outcome::{Reaches, Rejected};
    use Transport::{Tcp, Udp};
    const OPTIONS: &[&str] = &["--outbound-policy", "proxy-only", "--ip-family", "ipv4"];
    let pod = Pod::new();
    let chosen = apply_without_nat(&pod.netns, ONLY_INET, Backend::Auto, OPTIONS).expect("rules");
    assert_eq!(chosen.backend, RuleBackend::NftablesPerFamily);
    let _pod = Server::start(&pod.netns, "pod", Owner::ROOT, PORTS);
    let both: &[Row] = &[
        (Udp, App, To::Peer(443), Rejected),
        (Udp, Root, To::Far(53), Rejected),
        (Udp, App, To::Pod(8080), Reaches("pod", 8080)),
        (Tcp, App, To::Loopback(8080), Reaches("pod", 8080)),
        (Udp, Proxy, To::Peer(443), Reaches("peer", 443)),
    ];
    let of_v4: &[Row] = &[(Tcp, App, To::Peer(9090), PROXY)];
    let of_v6: &[Row] = &[(Tcp, App, To::Peer(9090), Rejected)];
    let v4 = differences(&pod, &[Family::V4], &[both, of_v4]);
    let v6 = differences(&pod, &[Family::V6], &[both, of_v6]);
    let wrong: Vec<String> = v4.chain(v6).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
