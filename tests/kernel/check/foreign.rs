//! Rules of others, in front of ours and elsewhere.

use super::{TPROXY_AND_DNS, check, in_sync, told};
use crate::common::Netns;
use crate::program::{apply, feed};

/// What others have installed, and what is told of it.
struct Others {
    backend: &'static str,
    options: &'static [&'static str],
    program: &'static str,
    rules: &'static str,
    told: &'static [&'static str],
}

const OTHERS: &[Others] = &[
    Others {
        backend: "nftables",
        options: &[],
        program: "nft",
        rules: "table inet theirs {
            chain in { type nat hook prerouting priority -110; tcp dport 80 redirect to :9; }
            chain out { type filter hook output priority -150; policy drop; jump more; }
            chain more { udp dport 5 drop; meta l4proto tcp accept; ip daddr 10.0.0.1 counter reject; jump last; }
            chain last { tcp dport 9 notrack; }
            chain late { type filter hook output priority 0; policy drop; tcp dport 80 drop; }
            chain elsewhere { type filter hook input priority -300; policy drop; }
        }",
        told: &[
            "foreign: chain in in inet theirs, at hook prerouting with priority -110, comes before ours: its rule 1 \
             redirects",
            "foreign: chain out in inet theirs, at hook output with priority -150, comes before ours: rule 3 of its \
             chain more rejects, and 2 more",
        ],
    },
    Others {
        // Behind ours, about other protocols, or with no effect on us.
        backend: "nftables",
        options: &[],
        program: "nft",
        rules: "table ip theirs {
            chain in { type nat hook prerouting priority -100; tcp dport 80 redirect to :9; }
            chain before { type filter hook prerouting priority -300; udp dport 53 drop; ip protocol icmp drop;
                           meta mark set 7; tcp dport 80 accept; }
            chain unused { tcp dport 80 drop; }
        }",
        told: &[],
    },
    Others {
        backend: "nftables",
        options: TPROXY_AND_DNS,
        program: "nft",
        rules: "table ip theirs {
            chain before { type filter hook prerouting priority -151; udp dport 53 drop; }
            chain same { type filter hook prerouting priority -150; tcp dport 80 tproxy to :9; }
            chain later { type nat hook prerouting priority -101; tcp dport 80 dnat to 10.0.0.1; }
        }",
        told: &[
            "foreign: chain before in ip theirs, at hook prerouting with priority -151, comes before ours: its rule 1 drops",
            "foreign: chain same in ip theirs, at hook prerouting with priority -150, comes before ours: its rule 1 \
             hands to a transparent proxy; of chains with one priority, the one that was registered last comes first",
        ],
    },
    Others {
        backend: "nftables",
        options: &[],
        program: "iptables-nft-restore",
        rules: "*raw\n-A OUTPUT -p tcp -j CT --notrack\nCOMMIT\n\
                *mangle\n:THEIRS - [0:0]\n-A PREROUTING -j THEIRS\n-A THEIRS -p udp -j DROP\n\
                -A THEIRS ! -p udp -j DROP\nCOMMIT\n\
                *nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n",
        told: &[
            "foreign: chain OUTPUT in ip raw, at hook output with priority -300, comes before ours: its rule 1 takes out \
             of connection tracking",
            "foreign: chain PREROUTING in ip mangle, at hook prerouting with priority -150, comes before ours: rule 2 of \
             its chain THEIRS drops",
        ],
    },
    Others {
        backend: "nftables",
        options: &[],
        program: "iptables-legacy-restore",
        rules: "*raw\n-A OUTPUT -p tcp -j CT --notrack\nCOMMIT\n\
                *mangle\n:PREROUTING DROP [0:0]\n:THEIRS - [0:0]\n-A PREROUTING -j THEIRS\n-A THEIRS -p udp -j DROP\n\
                -A THEIRS ! -p udp -j DROP\n-A THEIRS -p tcp -j TPROXY --on-port 9\nCOMMIT\n\
                *nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n",
        told: &[
            "foreign: chain PREROUTING in mangle (legacy iptables), at hook prerouting with priority -150, comes before \
             ours: rule 2 of its chain THEIRS drops, and 2 more",
            "foreign: chain OUTPUT in raw (legacy iptables), at hook output with priority -300, comes before ours: its \
             rule 1 takes out of connection tracking",
        ],
    },
    Others {
        backend: "nftables",
        options: &["--ip-family", "ipv4"],
        program: "ip6tables-legacy-restore",
        rules: "*mangle\n-A PREROUTING -p tcp -j DROP\nCOMMIT\n",
        told: &[],
    },
    Others {
        backend: "iptables-legacy",
        options: &[],
        program: "nft",
        rules: "table ip theirs { chain out { type nat hook output priority -101; ip daddr 10.0.0.1 dnat to 10.0.0.2; }; }",
        told: &[
            "foreign: chain out in ip theirs, at hook output with priority -101, comes before ours: its rule 1 \
             translates destinations",
        ],
    },
    Others {
        backend: "iptables-nft",
        options: &[],
        program: "ip6tables-legacy-restore",
        rules: "*mangle\n-A OUTPUT -p tcp -j DROP\nCOMMIT\n*nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n",
        told: &[
            "foreign: chain OUTPUT in nat (legacy ip6tables), at hook output with priority -100, comes before ours: its \
             rule 1 redirects; of chains with one priority, the one that was registered last comes first",
            "foreign: chain OUTPUT in mangle (legacy ip6tables), at hook output with priority -150, comes before ours: \
             its rule 1 drops",
        ],
    },
    Others {
        // Wherever its rules are.
        backend: "nftables",
        options: &[],
        program: "iptables-nft-restore",
        rules: "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -p tcp -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -p tcp -j REDIRECT \
                --to-ports 9\nCOMMIT\n",
        told: &[
            "foreign: chain ISTIO_OUTPUT in ip nat is of Istio (istio-init or istio-cni), which redirects traffic too",
        ],
    },
];

#[test]
fn rules_of_others_that_come_first_are_told_and_left_alone() {
    for others in OTHERS {
        let netns = Netns::new();
        apply(&netns, others.backend, others.options);
        let arguments: &[&str] = if others.program == "nft" {
            &["-f", "-"]
        } else {
            &["--noflush"]
        };
        feed(&netns, others.program, arguments, others.rules);
        for _ in ["before", "after"] {
            if others.told.is_empty() {
                in_sync(&netns, others.backend, others.options);
            } else {
                assert_eq!(told(&netns, others.backend, others.options), others.told);
            }
            apply(&netns, others.backend, others.options);
        }
    }
}

#[test]
fn what_is_foreign_is_told_apart_from_what_applying_repairs() {
    const REPAIR: &str = "Run `sidetrack apply` with the same options to repair it.";
    const LEAVE: &str = "sidetrack does not change foreign rules";
    let netns = Netns::new();
    let nothing = check(&netns, &[]);
    assert!(
        nothing.stdout.contains(REPAIR) && !nothing.stdout.contains(LEAVE),
        "{nothing:?}"
    );
    apply(&netns, "nftables", &[]);
    let theirs = "table ip theirs { chain out { type filter hook output priority -200; policy drop; }; }";
    feed(&netns, "nft", &["-f", "-"], theirs);
    let foreign = check(&netns, &[]);
    assert!(
        !foreign.stdout.contains(REPAIR) && foreign.stdout.contains(LEAVE),
        "{foreign:?}"
    );
    netns.ip("address delete ::6/128 dev lo");
    let both = check(&netns, &[]);
    assert!(both.stdout.contains(REPAIR) && both.stdout.contains(LEAVE), "{both:?}");
    feed(&netns, "nft", &["-f", "-"], "delete table ip theirs");
    apply(&netns, "nftables", &[]);
    in_sync(&netns, "nftables", &[]);
}

/// Looking at another redirector where nothing of ours is.
#[test]
fn another_redirector_is_told_where_ours_is_absent() {
    let netns = Netns::new();
    let istio = "*nat\n:ISTIO_OUTPUT - [0:0]\nCOMMIT\n";
    feed(&netns, "iptables-legacy-restore", &["--noflush"], istio);
    let run = check(&netns, &[]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stdout.starts_with("absent: "), "{run:?}");
    assert!(
        run.stdout
            .contains("chain ISTIO_OUTPUT in nat (legacy iptables) is of Istio"),
        "{run:?}"
    );
}
