//! Drift of our chains in iptables tables, and of the jumps to them.

use super::{Drift, TPROXY_AND_DNS, is_reported_and_repaired};

const DRIFTS: &[Drift] = &[
    Drift {
        options: &[],
        done: &[("iptables", "nat -D SIDETRACK_INBOUND 2")],
        reported: &[
            "missing: rule 2 of chain SIDETRACK_INBOUND in iptables nat: -p tcp -m comment --comment \"inbound, to the \
             proxy\" -j REDIRECT --to-ports 15006",
        ],
    },
    Drift {
        options: &[],
        done: &[(
            "ip6tables",
            "nat -I SIDETRACK_OUTBOUND 1 -p tcp -m tcp --dport 22 -j ACCEPT",
        )],
        reported: &["extra: rule 1 of chain SIDETRACK_OUTBOUND in ip6tables nat: -p tcp -m tcp --dport 22 -j ACCEPT"],
    },
    Drift {
        options: &[],
        done: &[
            ("iptables", "nat -D SIDETRACK_SELF_CALLS 1"),
            (
                "iptables",
                "nat -A SIDETRACK_SELF_CALLS -d 127.0.0.1/32 -m comment --comment loopback -j RETURN",
            ),
        ],
        reported: &[
            "moved: rule 2 of chain SIDETRACK_SELF_CALLS in iptables nat, now rule 1: -p tcp -m comment --comment \
             \"the pod's own address, handled as inbound\" -j SIDETRACK_INBOUND",
        ],
    },
    Drift {
        options: &["--exclude-inbound-cidrs", "192.0.2.0/24,198.51.100.0/24"],
        done: &[(
            "iptables",
            "nat -R SIDETRACK_INBOUND 3 -s 203.0.113.0/24 -m comment --comment \"excluded inbound sources\" -j RETURN",
        )],
        reported: &[
            "changed: rule 3 of chain SIDETRACK_INBOUND in iptables nat: expected -s 198.51.100.0/24 -m comment \
             --comment \"excluded inbound sources\" -j RETURN, found -s 203.0.113.0/24 -m comment --comment \"excluded \
             inbound sources\" -j RETURN",
        ],
    },
    Drift {
        options: &[],
        done: &[(
            "iptables",
            "nat -I OUTPUT 1 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9",
        )],
        reported: &[
            "foreign: rule 1 of chain OUTPUT in iptables nat comes before sidetrack's rules: -p tcp -m tcp --dport 80 \
             -j REDIRECT --to-ports 9",
        ],
    },
    Drift {
        options: &[],
        done: &[("iptables", "nat -D PREROUTING -j SIDETRACK_PREROUTING")],
        reported: &["missing: rule 1 of chain PREROUTING in iptables nat: -j SIDETRACK_PREROUTING"],
    },
    Drift {
        options: &[],
        done: &[
            ("ip6tables", "nat -A OUTPUT -p udp -j ACCEPT"),
            ("ip6tables", "nat -A OUTPUT -j SIDETRACK_OUTPUT"),
        ],
        reported: &["extra: rule 3 of chain OUTPUT in ip6tables nat: -j SIDETRACK_OUTPUT"],
    },
    Drift {
        options: &[],
        done: &[
            ("iptables", "nat :SIDETRACK_MORE - [0:0]"),
            ("iptables", "mangle :SIDETRACK_OTHER - [0:0]"),
            ("iptables", "nat -F SIDETRACK_PREROUTING"),
        ],
        reported: &[
            "extra: chain SIDETRACK_OTHER in iptables mangle",
            "extra: chain SIDETRACK_MORE in iptables nat",
            "missing: rule 1 of chain SIDETRACK_PREROUTING in iptables nat: -p tcp -m comment --comment \"inbound TCP\" -j SIDETRACK_INBOUND",
        ],
    },
    Drift {
        options: TPROXY_AND_DNS,
        done: &[
            ("iptables", "mangle -D SIDETRACK_TPROXY_DIVERT 1"),
            ("ip6tables", "raw -D OUTPUT 1"),
            ("ip", "-6 route flush table 133"),
        ],
        reported: &[
            "missing: rule 1 of chain SIDETRACK_TPROXY_DIVERT in iptables mangle: -m comment --comment \"routed to \
             this host\" -j MARK --set-xmark 0x539/0xffffffff",
            "missing: rule 1 of chain OUTPUT in ip6tables raw: -j SIDETRACK_RAW_OUTPUT",
            "missing: the IPv6 route `local default dev lo table 133`",
        ],
    },
    Drift {
        // Rules of a family that is not redirected.
        options: &["--ip-family", "ipv4"],
        done: &[(
            "ip6tables",
            "nat :SIDETRACK_OUTPUT - [0:0]\n-A OUTPUT -p udp\n-A OUTPUT -j SIDETRACK_OUTPUT",
        )],
        reported: &[
            "extra: chain SIDETRACK_OUTPUT in ip6tables nat",
            "extra: rule 2 of chain OUTPUT in ip6tables nat: -j SIDETRACK_OUTPUT",
        ],
    },
];

fn each_drift_is_reported_and_repaired(backend: &str) {
    for drift in DRIFTS {
        is_reported_and_repaired(backend, drift);
    }
}

#[test]
fn each_drift_is_reported_and_repaired_in_iptables_nft() {
    each_drift_is_reported_and_repaired("iptables-nft");
}

#[test]
fn each_drift_is_reported_and_repaired_in_iptables_legacy() {
    each_drift_is_reported_and_repaired("iptables-legacy");
}
