//! Connections from the pod: ports and destinations.

use super::{Case, DEFAULT, row};
use crate::cases::Landing::{Inbound, Outbound, Untouched};
use crate::common::Caller::{App, Peer, Proxy, Root};
use crate::common::To::{Far, Loopback2, Peer as ToPeer, PeerSecond, Pod};

pub const CASES: &[Case] = &[
    Case {
        name: "included outbound ports alone",
        args: &["--include-outbound-ports", "443"],
        expect: &[
            row("the port", App, ToPeer(443), Outbound),
            row("the port, far away", Root, Far(443), Outbound),
            row("another port", App, ToPeer(80), Untouched),
            row("inbound is not meant", Peer, Pod(80), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "included outbound ports beside included destinations",
        args: &[
            "--include-outbound-ports",
            "443,8000-8100",
            "--include-outbound-cidrs",
            "198.51.100.0/24,2001:db8::/32",
        ],
        expect: &[
            row("a port, elsewhere", App, ToPeer(443), Outbound),
            row("the start of the range, elsewhere", App, ToPeer(8000), Outbound),
            row("after the range, elsewhere", App, ToPeer(8101), Untouched),
            row("another port, to the destinations", App, Far(80), Outbound),
            row("both", App, Far(443), Outbound),
            row("neither", App, ToPeer(80), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "included outbound ports beside every destination",
        args: &[
            "--include-outbound-ports",
            "443",
            "--include-outbound-cidrs",
            "*",
            "--exclude-outbound-cidrs",
            "10.99.0.0/24,fd99::/64",
        ],
        expect: &[
            row("another port", App, Far(80), Outbound),
            row("the port, to an excluded destination", App, ToPeer(443), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "excluded outbound ports and ranges",
        args: &["--exclude-outbound-ports", "22,3306,8100-8101"],
        expect: &[
            row("a single port", App, ToPeer(22), Untouched),
            row("another single port", Root, Far(3306), Untouched),
            row("the end of the range", App, ToPeer(8101), Untouched),
            row("before the range", App, ToPeer(8080), Outbound),
            row("the proxy calls an excluded port of the pod", Proxy, Pod(22), Untouched),
            row("inbound is not meant", Peer, Pod(22), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "an excluded outbound port that the proxy calls",
        args: &["--exclude-outbound-ports", "8080"],
        expect: &[
            row("the port", App, ToPeer(8080), Untouched),
            row("another port", App, ToPeer(80), Outbound),
            row("inbound is not meant", Peer, Pod(8080), Inbound),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "every outbound port excluded",
        args: &["--exclude-outbound-ports", "*"],
        expect: &[
            row("outbound", App, ToPeer(9090), Untouched),
            row("inbound", Peer, Pod(9090), Inbound),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "outbound exclusion of ports wins over inclusion",
        args: &["--include-outbound-ports", "80,443", "--exclude-outbound-ports", "443"],
        expect: &[
            row("included and excluded", App, ToPeer(443), Untouched),
            row("included alone", App, ToPeer(80), Outbound),
            row("neither", App, ToPeer(9090), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "overlapping and repeated ports",
        args: &["--exclude-outbound-ports", "8000-8080,8050-8100,8100,8100,80"],
        expect: &[
            row("in one range", App, ToPeer(8000), Untouched),
            row("in two ranges", App, ToPeer(8080), Untouched),
            row("in the second range", App, ToPeer(8100), Untouched),
            row("before the ranges", App, ToPeer(7999), Outbound),
            row("after the ranges", App, ToPeer(8101), Outbound),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "more ports than one multiport match of iptables holds",
        args: &[
            "--exclude-outbound-ports",
            "22,53,80,101,103,105,107,109,111,113,115,117,119,121,123,125,127-129,443,3306,8100",
        ],
        expect: &[
            row("the first", App, ToPeer(22), Untouched),
            row("one of the last", App, ToPeer(3306), Untouched),
            row("the last", App, ToPeer(8100), Untouched),
            row("none of them", App, ToPeer(8101), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "included destinations",
        args: &["--include-outbound-cidrs", "198.51.100.0/24,2001:db8::/32"],
        expect: &[
            row("an included destination", App, Far(9090), Outbound),
            row("another destination", App, ToPeer(9090), Untouched),
            row("inbound is not meant", Peer, Pod(8080), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "included destinations of one family",
        args: &["--include-outbound-cidrs", "0.0.0.0/0"],
        expect: &[
            row("any destination", App, ToPeer(9090), Outbound).v4(),
            row("any destination", App, ToPeer(9090), Untouched).v6(),
            row("inbound is not meant", Peer, Pod(8080), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "no destinations",
        args: &["--include-outbound-cidrs", ""],
        expect: &[
            row("outbound", App, ToPeer(9090), Untouched),
            row("outbound, far away", Root, Far(443), Untouched),
            row("inbound", Peer, Pod(8080), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "excluded destinations",
        args: &[
            "--exclude-outbound-cidrs",
            "198.51.100.7,2001:db8::7,10.99.1.0/24,fd99:1::/64",
        ],
        expect: &[
            row("an excluded address", App, Far(9090), Untouched),
            row("an excluded network", App, PeerSecond(9090), Untouched),
            row("another destination", App, ToPeer(9090), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "an excluded network within an included one",
        args: &[
            "--include-outbound-cidrs",
            "10.99.0.0/16,fd99::/16",
            "--exclude-outbound-cidrs",
            "10.99.1.0/24,fd99:1::/64",
        ],
        expect: &[
            row("included", App, ToPeer(9090), Outbound),
            row("included and excluded", App, PeerSecond(9090), Untouched),
            row("neither", App, Far(9090), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "an included network within an excluded one",
        args: &[
            "--include-outbound-cidrs",
            "198.51.100.0/24,2001:db8::/64,10.99.0.1,fd99::1",
            "--exclude-outbound-cidrs",
            "198.51.0.0/16,2001:db8::/32",
        ],
        expect: &[
            row("included and excluded", App, Far(9090), Untouched),
            row("included alone", App, ToPeer(9090), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "every destination excluded",
        args: &["--exclude-outbound-cidrs", "*"],
        expect: &[
            row("outbound", App, ToPeer(9090), Untouched),
            row("inbound", Peer, Pod(8080), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "an included loopback address",
        args: &["--include-outbound-cidrs", "127.0.0.2,198.51.100.0/24,2001:db8::/32"],
        expect: &[
            row("the loopback address", App, Loopback2(8080), Outbound),
            row("the other destinations", App, Far(9090), Outbound),
            row("anything else", App, ToPeer(9090), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "the loopback networks included",
        args: &["--include-outbound-cidrs", "127.0.0.0/8,::1"],
        expect: &[
            row("another loopback address", App, Loopback2(8080), Outbound),
            row("anything else", App, ToPeer(9090), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "an excluded loopback address within the included loopback network",
        args: &[
            "--include-outbound-cidrs",
            "127.0.0.0/8",
            "--exclude-outbound-cidrs",
            "127.0.0.2",
        ],
        expect: &[
            row("the excluded address", App, Loopback2(8080), Untouched),
            row("anything else", App, ToPeer(9090), Untouched),
        ],
        ..DEFAULT
    },
];
