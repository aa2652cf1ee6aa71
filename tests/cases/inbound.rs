//! Connections to the pod: ports and sources.

use super::{Case, DEFAULT, row};
use crate::cases::Landing::{Inbound, Outbound, Untouched};
use crate::common::Caller::{App, Far, Peer, Proxy};
use crate::common::To::{Peer as ToPeer, Pod};

pub const CASES: &[Case] = &[
    Case {
        name: "included inbound port",
        args: &["--include-inbound-ports", "8080"],
        expect: &[
            row("the port", Peer, Pod(8080), Inbound),
            row("the port, from far away", Far, Pod(8080), Inbound),
            row("another port", Peer, Pod(80), Untouched),
            row("the proxy calls another port of the pod", Proxy, Pod(80), Untouched),
            row("outbound is not meant", App, ToPeer(80), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "included inbound ports and ranges",
        args: &["--include-inbound-ports", "80,8000-8100,443"],
        expect: &[
            row("a single port", Peer, Pod(80), Inbound),
            row("another single port", Peer, Pod(443), Inbound),
            row("before the range", Peer, Pod(7999), Untouched),
            row("the start of the range", Peer, Pod(8000), Inbound),
            row("within the range", Peer, Pod(8050), Inbound),
            row("the end of the range", Peer, Pod(8100), Inbound),
            row("after the range", Peer, Pod(8101), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "no inbound ports",
        args: &["--include-inbound-ports", ""],
        expect: &[
            row("inbound", Peer, Pod(8080), Untouched),
            row("inbound, from far away", Far, Pod(443), Untouched),
            row("outbound", App, ToPeer(9090), Outbound),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "an included port without the one that the proxy calls",
        args: &["--include-inbound-ports", "443"],
        expect: &[
            row("the proxy calls the included port of the pod", Proxy, Pod(443), Inbound),
            row("inbound to another port", Peer, Pod(8080), Untouched),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "a mesh port is not captured even if included",
        args: &["--include-inbound-ports", "8080,15021"],
        expect: &[
            row("the mesh port", Peer, Pod(15021), Untouched),
            row("the other port", Peer, Pod(8080), Inbound),
            row("a third port", Peer, Pod(9090), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "excluded inbound ports and ranges",
        args: &["--exclude-inbound-ports", "22,8100-8101"],
        expect: &[
            row("a single port", Peer, Pod(22), Untouched),
            row("the start of the range", Peer, Pod(8100), Untouched),
            row("the end of the range", Peer, Pod(8101), Untouched),
            row("another port", Peer, Pod(8050), Inbound),
            row("the proxy calls an excluded port of the pod", Proxy, Pod(22), Untouched),
            row("outbound is not meant", App, ToPeer(22), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "an excluded inbound port that the proxy calls",
        args: &["--exclude-inbound-ports", "8080"],
        expect: &[
            row("the port", Peer, Pod(8080), Untouched),
            row("another port", Peer, Pod(80), Inbound),
            row("the proxy calls another port of the pod", Proxy, Pod(80), Inbound),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "every inbound port excluded",
        args: &["--exclude-inbound-ports", "*"],
        expect: &[
            row("inbound", Peer, Pod(8080), Untouched),
            row("outbound", App, ToPeer(8080), Outbound),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "inbound exclusion wins over inclusion",
        args: &[
            "--include-inbound-ports",
            "8000-8101",
            "--exclude-inbound-ports",
            "8050,8100",
        ],
        expect: &[
            row("included and excluded", Peer, Pod(8050), Untouched),
            row("the other such port", Peer, Pod(8100), Untouched),
            row("included alone", Peer, Pod(8101), Inbound),
            row("neither", Peer, Pod(443), Untouched),
        ],
        ..DEFAULT
    },
    Case {
        name: "excluded inbound sources",
        args: &["--exclude-inbound-cidrs", "198.51.100.0/24,2001:db8::/32,192.0.2.1"],
        expect: &[
            row("an excluded source", Far, Pod(8080), Untouched),
            row("another source", Peer, Pod(8080), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "an excluded inbound source of one family",
        args: &["--exclude-inbound-cidrs", "10.99.0.1"],
        expect: &[
            row("the source", Peer, Pod(8080), Untouched).v4(),
            row("the same host", Peer, Pod(8080), Inbound).v6(),
            row("another source", Far, Pod(8080), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "the pod's own address as an excluded inbound source",
        args: &["--exclude-inbound-cidrs", "10.99.0.2,fd99::2"],
        expect: &[row("another source", Peer, Pod(8080), Inbound)],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "every inbound source excluded",
        args: &["--exclude-inbound-cidrs", "*"],
        expect: &[
            row("inbound", Peer, Pod(8080), Untouched),
            row("outbound", App, ToPeer(8080), Outbound),
        ],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "other mesh ports",
        args: &["--mesh-ports", "22,8100-8101"],
        expect: &[
            row("a mesh port", Peer, Pod(22), Untouched),
            row("another mesh port", Peer, Pod(8101), Untouched),
            row("a default mesh port", Peer, Pod(15021), Inbound),
            row("the proxy calls a mesh port of the pod", Proxy, Pod(8100), Untouched),
            row("outbound is not meant", App, ToPeer(22), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "no mesh ports",
        args: &["--mesh-ports", ""],
        expect: &[
            row("a default mesh port", Peer, Pod(15021), Inbound),
            row("the tunnel port", Peer, Pod(15008), Inbound),
            row(
                "the proxy calls a default mesh port of the pod",
                Proxy,
                Pod(15090),
                Inbound,
            ),
        ],
        ..DEFAULT
    },
];
