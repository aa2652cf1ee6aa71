//! Users and groups: the proxy's, and excluded ones.

use super::{Case, DEFAULT, row};
use crate::cases::Landing::{Inbound, Outbound, Untouched};
use crate::common::Caller::{App, Peer, Process, Proxy, Root, Sender};
use crate::common::Owner;
use crate::common::To::{Far, Peer as ToPeer, Pod};
use sidetrack::types::{Families, Family};

pub const CASES: &[Case] = &[
    Case {
        name: "Linkerd",
        args: &["--mesh", "linkerd", "--ip-family", "auto"],
        expect: &[
            row("a port that Linkerd serves", Peer, Pod(4191), Untouched),
            row("a port that its charts skip", Peer, Pod(4567), Untouched),
            row("the same elsewhere", App, ToPeer(4568), Untouched),
            row("a port that Istio serves", Peer, Pod(15021), Inbound),
            row("the user of Istio's proxy", Proxy, ToPeer(9090), Outbound),
        ],
        proxy: &[Owner::new(2102, 1000), Owner::new(2102, 2102)],
        inbound_port: 4143,
        outbound_port: 4140,
        self_call: Untouched,
        passthrough: false,
        ..DEFAULT
    },
    Case {
        name: "Kuma, with another user",
        args: &["--mesh", "kuma", "--proxy-uid", "5679"],
        expect: &[
            row("a port that Istio serves", Peer, Pod(15021), Inbound),
            row(
                "the user that counts without the option",
                Process(5678, 5678),
                ToPeer(9090),
                Outbound,
            ),
        ],
        proxy: &[Owner::new(5679, 1000)],
        ..DEFAULT
    },
    Case {
        name: "Consul",
        args: &["--mesh", "consul"],
        expect: &[row("a port that Istio serves", Peer, Pod(15021), Inbound)],
        proxy: &[Owner::new(5995, 1000)],
        inbound_port: 20000,
        families: Families::Only(Family::V4),
        self_call: Untouched,
        passthrough: false,
        ..DEFAULT
    },
    Case {
        name: "no mesh",
        args: &["--mesh", "none"],
        expect: &[row("a port that Istio serves", Peer, Pod(15021), Inbound)],
        ..DEFAULT
    },
    Case {
        name: "another proxy user and group",
        args: &["--proxy-uid", "1500", "--proxy-gid", "1600"],
        expect: &[
            row("the usual user and group of the proxy", Proxy, ToPeer(9090), Outbound),
            row("they call the pod's address", Proxy, Pod(8080), Untouched),
        ],
        proxy: &[Owner::new(1500, 1000), Owner::new(1000, 1600)],
        ..DEFAULT
    },
    Case {
        name: "several proxy users and groups",
        args: &["--proxy-uid", "1500,1337", "--proxy-gid", "1600,1700"],
        expect: &[
            row("neither", App, ToPeer(9090), Outbound),
            row(
                "the usual group of the proxy",
                Process(1000, 1337),
                ToPeer(9090),
                Outbound,
            ),
        ],
        proxy: &[
            Owner::new(1500, 1000),
            Owner::new(1337, 1000),
            Owner::new(1000, 1600),
            Owner::new(1000, 1700),
        ],
        ..DEFAULT
    },
    Case {
        name: "ranges of proxy users and groups, up to the largest ID",
        args: &[
            "--proxy-uid",
            "2000-2010,1000680000-1000689999,4294967294",
            "--proxy-gid",
            "4000000000-4000000001",
        ],
        expect: &[
            row("before a range", Process(1999, 1000), ToPeer(9090), Outbound),
            row("after a range", Process(2011, 1000), ToPeer(9090), Outbound),
            row(
                "after a range of large IDs",
                Process(1_000_690_000, 1000),
                ToPeer(9090),
                Outbound,
            ),
            row(
                "after the range of groups",
                Process(1000, 4_000_000_002),
                ToPeer(9090),
                Outbound,
            ),
        ],
        proxy: &[
            Owner::new(2000, 1000),
            Owner::new(2010, 1000),
            Owner::new(1_000_680_000, 1000),
            Owner::new(1_000_689_999, 1000),
            Owner::new(4_294_967_294, 1000),
            Owner::new(1000, 4_000_000_001),
        ],
        ..DEFAULT
    },
    Case {
        name: "a proxy known by its user alone",
        args: &["--proxy-gid", ""],
        expect: &[row("its usual group", Process(1000, 1337), ToPeer(9090), Outbound)],
        proxy: &[Owner::PROXY, Owner::new(1337, 1000)],
        ..DEFAULT
    },
    Case {
        name: "a proxy known by its group alone",
        args: &["--proxy-uid", ""],
        expect: &[row("its usual user", Process(1337, 1000), ToPeer(9090), Outbound)],
        proxy: &[Owner::PROXY, Owner::new(1000, 1337)],
        ..DEFAULT
    },
    Case {
        name: "a proxy known by its mark and one of its owners",
        args: &["--proxy-mark", "0x4d"],
        expect: &[
            row("its user and group without the mark", Proxy, ToPeer(9090), Outbound),
            row("they call the pod's address", Proxy, Pod(8080), Untouched),
            row(
                "its user with another mark",
                Sender(Owner::PROXY.marked(78)),
                ToPeer(9090),
                Outbound,
            ),
            row(
                "its mark on anyone else's socket",
                Sender(Owner::APP.marked(77)),
                ToPeer(9090),
                Outbound,
            ),
            row("inbound is not meant", Peer, Pod(8080), Inbound),
        ],
        proxy: &[
            Owner::PROXY.marked(77),
            Owner::new(1337, 1000).marked(77),
            Owner::new(1000, 1337).marked(77),
        ],
        ..DEFAULT
    },
    Case {
        name: "a proxy known by its mark alone",
        args: &["--proxy-uid", "", "--proxy-gid", "", "--proxy-mark", "4294967295"],
        expect: &[
            row("the usual user and group of the proxy", Proxy, ToPeer(9090), Outbound),
            row("another mark", Sender(Owner::APP.marked(1)), Far(443), Outbound),
        ],
        proxy: &[Owner::APP.marked(u32::MAX), Owner::ROOT.marked(u32::MAX)],
        ..DEFAULT
    },
    Case {
        name: "excluded users",
        args: &["--exclude-uids", "0,2000-2010,1000680000"],
        expect: &[
            row("a single user", Root, ToPeer(9090), Untouched),
            row("the start of the range", Process(2000, 1000), Far(443), Untouched),
            row("the end of the range", Process(2010, 1000), ToPeer(9090), Untouched),
            row("after the range", Process(2011, 1000), ToPeer(9090), Outbound),
            row("a large ID", Process(1_000_680_000, 1000), ToPeer(9090), Untouched),
            row("anyone else", App, ToPeer(9090), Outbound),
            row(
                "a group of the same number",
                Process(1000, 2000),
                ToPeer(9090),
                Outbound,
            ),
            row("inbound is not meant", Peer, Pod(8080), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "excluded groups",
        args: &["--exclude-gids", "3000-3001,4000000000"],
        expect: &[
            row("the end of the range", Process(1000, 3001), ToPeer(9090), Untouched),
            row("after the range", Process(1000, 3002), ToPeer(9090), Outbound),
            row("a large ID", Process(1000, 4_000_000_000), ToPeer(9090), Untouched),
            row("a user of the same number", Process(3000, 1000), ToPeer(9090), Outbound),
            row("anyone else", App, ToPeer(9090), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "the proxy's user as an excluded user",
        args: &["--exclude-uids", "1337", "--proxy-gid", ""],
        expect: &[
            row("anyone else", App, ToPeer(9090), Outbound),
            row("inbound", Peer, Pod(8080), Inbound),
        ],
        proxy: &[Owner::PROXY, Owner::new(1337, 1000)],
        self_call: Untouched,
        ..DEFAULT
    },
    Case {
        name: "ports excluded for some users",
        args: &["--exclude-outbound-ports-for-uids", "tcp:22,8000-8100:2000-2010;443:0"],
        expect: &[
            row("the user, a port", Process(2000, 1000), ToPeer(22), Untouched),
            row(
                "the last user, the last port",
                Process(2010, 1000),
                ToPeer(8100),
                Untouched,
            ),
            row("the user, another port", Process(2000, 1000), ToPeer(8101), Outbound),
            row("another user, the port", Process(2011, 1000), ToPeer(22), Outbound),
            row("the second entry", Root, ToPeer(443), Untouched),
            row(
                "the second entry's port, the first one's user",
                Process(2000, 1000),
                ToPeer(443),
                Outbound,
            ),
            row(
                "the second entry's user, the first one's port",
                Root,
                ToPeer(22),
                Outbound,
            ),
            row("inbound is not meant", Peer, Pod(22), Inbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "every port excluded for a user",
        args: &["--exclude-outbound-ports-for-uids", "*:2000"],
        expect: &[
            row("the user", Process(2000, 2000), ToPeer(9090), Untouched),
            row("anyone else", App, ToPeer(9090), Outbound),
        ],
        ..DEFAULT
    },
    Case {
        name: "UDP ports excluded for a user do not affect TCP",
        args: &["--exclude-outbound-ports-for-uids", "udp:9090:1000;tcp:443:1000"],
        expect: &[
            row("the UDP port over TCP", App, ToPeer(9090), Outbound),
            row("the TCP port", App, ToPeer(443), Untouched),
        ],
        ..DEFAULT
    },
];
