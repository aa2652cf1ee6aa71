//! Questions to `sidetrack explain`.

use serde_json::Value;

use crate::common::Netns;
use crate::program::{Run, sidetrack};

pub fn explain(netns: &Netns, arguments: &[&str]) -> Run {
    sidetrack(netns, &[&["explain"], arguments].concat())
}

pub fn json(netns: &Netns, arguments: &[&str]) -> Value {
    let run = explain(netns, &[&["--json"], arguments].concat()).succeeded();
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Questions whose answers are kept word for word.
pub const REVIEWED: &[(&str, &[&str])] = &[
    (
        "an app calls another host",
        &["outbound", "tcp", "10.0.0.5:443", "--uid", "1000"],
    ),
    (
        "the proxy calls another host",
        &["outbound", "tcp", "[2001:db8::5]:443", "--uid", "1337"],
    ),
    (
        "the proxy calls the pod itself",
        &["outbound", "tcp", ":8080", "--uid", "1337"],
    ),
    ("an app calls loopback", &["outbound", "tcp", "[::1]:8080"]),
    (
        "a neighbour calls the app and tproxy is on",
        &[
            "inbound",
            "tcp",
            ":8080",
            "--from",
            "10.1.2.3",
            "--interface",
            "eth0",
            "--inbound-mode",
            "tproxy",
        ],
    ),
    (
        "a later packet of that connection",
        &[
            "inbound",
            "tcp",
            ":8080",
            "--inbound-mode",
            "tproxy",
            "--connection-state",
            "established",
        ],
    ),
    (
        "a name lookup",
        &[
            "outbound",
            "udp",
            "10.96.0.10:53",
            "--redirect-dns",
            "--dns-servers",
            "10.96.0.10,fd00::a",
        ],
    ),
    (
        "a packet of no known connection",
        &[
            "inbound",
            "tcp",
            ":8080",
            "--connection-state",
            "invalid",
            "--drop-invalid",
        ],
    ),
    (
        "the same where it is not dropped",
        &["inbound", "tcp", ":8080", "--connection-state", "invalid"],
    ),
    (
        "a port of a long list",
        &[
            "outbound",
            "tcp",
            "10.0.0.5:443",
            "--exclude-outbound-ports",
            "1,3,5-9,21-22,443,6379",
        ],
    ),
    (
        "a datagram that the outbound policy rejects",
        &["outbound", "udp", "10.0.0.5:443", "--outbound-policy", "proxy-only"],
    ),
    (
        "what istio-iptables would do",
        &["outbound", "tcp", ":8080", "--uid", "1337", "istio-iptables", "-b", "*"],
    ),
];
