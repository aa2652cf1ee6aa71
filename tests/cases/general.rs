//! The proxy's ports, interfaces, loopback and families.

use sidetrack::types::{Families, Family};

use super::{Case, DEFAULT, row};
use crate::cases::Landing::{Inbound, Outbound, Untouched};
use crate::common::Caller::{App, Far, Peer, PeerSecond, Proxy, Root};
use crate::common::To::{self, Loopback2, Peer as ToPeer, PeerSecond as ToPeerSecond, Pod, PodSecond};

/// Rows that hold unless an option changes them.
const USUAL: &[super::Expect] = &[
    row("a neighbour calls the app", Peer, Pod(8080), Inbound),
    row("a host far away calls the app", Far, Pod(443), Inbound),
    row(
        "a neighbour calls over the second interface",
        PeerSecond,
        PodSecond(8080),
        Inbound,
    ),
    row("a neighbour dials the proxy's outbound port", Peer, Pod(15001), Inbound),
    row("a neighbour calls the tunnel port", Peer, Pod(15008), Untouched),
    row("a neighbour asks for merged metrics", Peer, Pod(15020), Untouched),
    row("a neighbour asks for the proxy's health", Peer, Pod(15021), Untouched),
    row("a neighbour asks for the proxy's metrics", Peer, Pod(15090), Untouched),
    row("the app calls a neighbour", App, ToPeer(9090), Outbound),
    row(
        "the app calls over the second interface",
        App,
        ToPeerSecond(9090),
        Outbound,
    ),
    row("the app calls a host far away", App, To::Far(443), Outbound),
    row("the app calls a mesh port elsewhere", App, ToPeer(15021), Outbound),
    row("root calls a neighbour", Root, ToPeer(53), Outbound),
    row("the proxy calls a mesh port of the pod", Proxy, Pod(15021), Untouched),
    row(
        "the proxy calls the pod's second address",
        Proxy,
        PodSecond(8080),
        Inbound,
    ),
    row(
        "the proxy calls another loopback address",
        Proxy,
        Loopback2(8080),
        Inbound,
    ),
    row(
        "the app calls another loopback address",
        App,
        Loopback2(8080),
        Untouched,
    ),
    row(
        "the app calls the pod's second address",
        App,
        PodSecond(8080),
        Untouched,
    ),
];

pub const CASES: &[Case] = &[
    Case {
        expect: USUAL,
        ..DEFAULT
    },
    Case {
        name: "both families",
        args: &["--ip-family", "dual"],
        expect: USUAL,
        ..DEFAULT
    },
    Case {
        name: "IPv4 alone",
        args: &["--ip-family", "ipv4"],
        expect: USUAL,
        families: Families::Only(Family::V4),
        ..DEFAULT
    },
    Case {
        name: "IPv6 alone",
        args: &["--ip-family", "ipv6"],
        expect: USUAL,
        families: Families::Only(Family::V6),
        ..DEFAULT
    },
    Case {
        name: "other ports of the proxy",
        args: &["--proxy-inbound-port", "16006", "--proxy-outbound-port", "16001"],
        expect: &[
            row("inbound", Peer, Pod(8080), Inbound),
            row("inbound to the usual port", Peer, Pod(15006), Inbound),
            row("outbound", App, ToPeer(9090), Outbound),
            row("outbound to the usual port", App, ToPeer(15001), Outbound),
        ],
        inbound_port: 16006,
        outbound_port: 16001,
        ..DEFAULT
    },
    Case {
        name: "counters",
        args: &[
            "--counters",
            "--exclude-outbound-ports",
            "3306",
            "--exclude-inbound-ports",
            "22",
        ],
        expect: &[
            row("inbound", Peer, Pod(8080), Inbound),
            row("inbound to an excluded port", Peer, Pod(22), Untouched),
            row("outbound", App, ToPeer(9090), Outbound),
            row("outbound to an excluded port", App, ToPeer(3306), Untouched),
            row("the proxy calls an excluded port of the pod", Proxy, Pod(22), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "an excluded interface",
        args: &["--exclude-interfaces", "eth1"],
        expect: &[
            row("inbound on it", PeerSecond, PodSecond(8080), Untouched),
            row("outbound on it", App, ToPeerSecond(9090), Untouched),
            row("inbound on the other", Peer, Pod(8080), Inbound),
            row("outbound on the other", App, ToPeer(9090), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "several excluded interfaces, one of which does not exist",
        args: &["--exclude-interfaces", "eth0,net1,eth1"],
        expect: &[
            row("inbound on the first", Peer, Pod(8080), Untouched),
            row("inbound on the last", PeerSecond, PodSecond(8080), Untouched),
            row("outbound on the first", App, ToPeer(9090), Untouched),
            row("outbound on the last", App, ToPeerSecond(9090), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "loopback as an excluded interface",
        args: &["--exclude-interfaces", "lo"],
        expect: &[
            row("inbound", Peer, Pod(8080), Inbound),
            row("outbound", App, ToPeer(9090), Outbound),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "a wider loopback network",
        args: &["--loopback-cidr", "127.0.0.0/8"],
        expect: &[
            row(
                "the proxy calls another loopback address",
                Proxy,
                Loopback2(8080),
                Untouched,
            ),
            row("inbound", Peer, Pod(8080), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "loopback is not redirected even if included",
        args: &[
            "--loopback-cidr",
            "127.0.0.0/8",
            "--include-outbound-cidrs",
            "127.0.0.2,10.99.0.1,fd99::1",
        ],
        expect: &[
            row("the included loopback address", App, Loopback2(8080), Untouched),
            row("the included neighbour", App, ToPeer(9090), Outbound),
            row("anything else", App, To::Far(9090), Untouched),
        ],
        ..DEFAULT
    },
];
