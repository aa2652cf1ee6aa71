//! Several options at once.

use sidetrack::types::{Families, Family};

use super::{Case, DEFAULT, row};
use crate::cases::Landing::{Inbound, Outbound, Untouched};
use crate::common::Caller::{App, Far, Peer, PeerSecond, Process, Proxy, Root};
use crate::common::Owner;
use crate::common::To::{self, Peer as ToPeer, PeerSecond as ToPeerSecond, Pod, PodSecond};

pub const CASES: &[Case] = &[
    Case {
        name: "the options that an injector writes",
        args: &[
            "--proxy-outbound-port",
            "15001",
            "--proxy-inbound-port",
            "15006",
            "--proxy-uid",
            "1337",
            "--include-outbound-cidrs",
            "*",
            "--exclude-outbound-cidrs",
            "",
            "--include-inbound-ports",
            "*",
            "--exclude-inbound-ports",
            "15090,15021,15020",
            "--mesh-ports",
            "15008",
        ],
        expect: &[
            row("inbound", Peer, Pod(8080), Inbound),
            row("inbound to the proxy's health", Peer, Pod(15021), Untouched),
            row("inbound to the tunnel port", Peer, Pod(15008), Untouched),
            row("outbound", App, ToPeer(9090), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "every option at once",
        args: &[
            "--proxy-inbound-port",
            "16006",
            "--proxy-outbound-port",
            "16001",
            "--proxy-uid",
            "1500,1600-1610",
            "--proxy-gid",
            "1700",
            "--mesh-ports",
            "15021",
            "--include-inbound-ports",
            "80,8000-8101,15021",
            "--exclude-inbound-ports",
            "8050",
            "--exclude-inbound-cidrs",
            "198.51.100.0/24,2001:db8::/32",
            "--include-outbound-ports",
            "443,3306",
            "--exclude-outbound-ports",
            "3306",
            "--include-outbound-cidrs",
            "10.99.0.0/16,fd99::/16,198.51.100.7",
            "--exclude-outbound-cidrs",
            "198.51.100.0/24,2001:db8::/32",
            "--exclude-uids",
            "0",
            "--exclude-gids",
            "3000",
            "--exclude-outbound-ports-for-uids",
            "tcp:9090:2000",
            "--exclude-interfaces",
            "eth1",
            "--loopback-cidr",
            "127.0.0.0/8",
            "--ip-family",
            "dual",
        ],
        expect: &[
            row("inbound, included", Peer, Pod(80), Inbound),
            row("inbound, included and excluded", Peer, Pod(8050), Untouched),
            row("inbound, not included", Peer, Pod(443), Untouched),
            row("inbound to a mesh port", Peer, Pod(15021), Untouched),
            row("inbound from an excluded source", Far, Pod(80), Untouched),
            row("inbound on an excluded interface", PeerSecond, PodSecond(80), Untouched),
            row("outbound, included destination", App, ToPeer(80), Outbound),
            row(
                "outbound, included port, excluded destination",
                App,
                To::Far(443),
                Untouched,
            ),
            row("outbound, included and excluded port", App, ToPeer(3306), Untouched),
            row("outbound on an excluded interface", App, ToPeerSecond(443), Untouched),
            row("outbound of an excluded user", Root, ToPeer(443), Untouched),
            row(
                "outbound of an excluded group",
                Process(1000, 3000),
                ToPeer(443),
                Untouched,
            ),
            row(
                "outbound, port excluded for the user",
                Process(2000, 1000),
                ToPeer(9090),
                Untouched,
            ),
            row("outbound, port excluded for another user", App, ToPeer(9090), Outbound),
            row("the usual user and group of the proxy", Proxy, ToPeer(9090), Outbound),
        ],
        proxy: &[Owner::new(1500, 1000), Owner::new(1605, 1000), Owner::new(1000, 1700)],
        inbound_port: 16006,
        outbound_port: 16001,
        ..DEFAULT
    },
    Case {
        name: "lists of both families where one is redirected",
        args: &[
            "--ip-family",
            "ipv4",
            "--exclude-outbound-cidrs",
            "198.51.100.0/24,2001:db8::/32",
            "--exclude-inbound-cidrs",
            "198.51.100.0/24,2001:db8::/32",
        ],
        expect: &[
            row("inbound from an excluded source", Far, Pod(8080), Untouched),
            row("inbound from another source", Peer, Pod(8080), Inbound),
            row("outbound to an excluded destination", App, To::Far(9090), Untouched),
            row("outbound to another destination", App, ToPeer(9090), Outbound),
        ],
        families: Families::Only(Family::V4),
        ..DEFAULT
    },
    Case {
        name: "inbound alone",
        args: &["--include-outbound-cidrs", "", "--include-inbound-ports", "8080"],
        expect: &[
            row("inbound", Peer, Pod(8080), Inbound),
            row("inbound to another port", Peer, Pod(80), Untouched),
            row("outbound", App, ToPeer(9090), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "nothing at all",
        args: &["--include-outbound-cidrs", "", "--include-inbound-ports", ""],
        expect: &[
            row("inbound", Peer, Pod(8080), Untouched),
            row("outbound", App, ToPeer(9090), Untouched),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
];
