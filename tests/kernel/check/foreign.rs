//! Foreign rules, before sidetrack's and elsewhere.

use super::{TPROXY_AND_DNS, check, in_sync, reported};
use crate::common::Netns;
use crate::program::{apply, feed};

/// Foreign rules, and the differences that check reports.
struct ForeignRules {
    backend: &'static str,
    options: &'static [&'static str],
    program: &'static str,
    rules: &'static str,
    reported: &'static [&'static str],
}

const FOREIGN_RULES: &[ForeignRules] = &[
    ForeignRules {
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
        reported: &[
            "foreign: chain in in inet theirs, at hook prerouting with priority -110, comes before sidetrack's rules: \
             its rule 1 redirects",
            "foreign: chain out in inet theirs, at hook output with priority -150, comes before sidetrack's rules: \
             rule 3 of its chain more rejects, and 2 more",
        ],
    },
    ForeignRules {
        // Behind sidetrack's, for other protocols, or without effect on them.
        backend: "nftables",
        options: &[],
        program: "nft",
        rules: "table ip theirs {
            chain in { type nat hook prerouting priority -100; tcp dport 80 redirect to :9; }
            chain before { type filter hook prerouting priority -300; udp dport 53 drop; ip protocol icmp drop;
                           meta mark set 7; tcp dport 80 accept; }
            chain unused { tcp dport 80 drop; }
        }",
        reported: &[],
    },
    ForeignRules {
        backend: "nftables",
        options: TPROXY_AND_DNS,
        program: "nft",
        rules: "table ip theirs {
            chain before { type filter hook prerouting priority -151; udp dport 53 drop; }
            chain same { type filter hook prerouting priority -150; tcp dport 80 tproxy to :9; }
            chain later { type nat hook prerouting priority -101; tcp dport 80 dnat to 10.0.0.1; }
        }",
        reported: &[
            "foreign: chain before in ip theirs, at hook prerouting with priority -151, comes before sidetrack's \
             rules: its rule 1 drops",
            "foreign: chain same in ip theirs, at hook prerouting with priority -150, comes before sidetrack's rules: \
             its rule 1 hands to a transparent proxy; among chains of equal priority, the one registered last comes \
             first",
        ],
    },
    ForeignRules {
        backend: "nftables",
        options: &[],
        program: "iptables-nft-restore",
        rules: "*raw\n-A OUTPUT -p tcp -j CT --notrack\nCOMMIT\n\
                *mangle\n:THEIRS - [0:0]\n-A PREROUTING -j THEIRS\n-A THEIRS -p udp -j DROP\n\
                -A THEIRS ! -p udp -j DROP\nCOMMIT\n\
                *nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n",
        reported: &[
            "foreign: chain OUTPUT in ip raw, at hook output with priority -300, comes before sidetrack's rules: its \
             rule 1 takes out of connection tracking",
            "foreign: chain PREROUTING in ip mangle, at hook prerouting with priority -150, comes before sidetrack's \
             rules: rule 2 of its chain THEIRS drops",
        ],
    },
    ForeignRules {
        backend: "nftables",
        options: &[],
        program: "iptables-legacy-restore",
        rules: "*raw\n-A OUTPUT -p tcp -j CT --notrack\nCOMMIT\n\
                *mangle\n:PREROUTING DROP [0:0]\n:THEIRS - [0:0]\n-A PREROUTING -j THEIRS\n-A THEIRS -p udp -j DROP\n\
                -A THEIRS ! -p udp -j DROP\n-A THEIRS -p tcp -j TPROXY --on-port 9\nCOMMIT\n\
                *nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n",
        reported: &[
            "foreign: chain PREROUTING in mangle (legacy iptables), at hook prerouting with priority -150, comes \
             before sidetrack's rules: rule 2 of its chain THEIRS drops, and 2 more",
            "foreign: chain OUTPUT in raw (legacy iptables), at hook output with priority -300, comes before \
             sidetrack's rules: its rule 1 takes out of connection tracking",
        ],
    },
    ForeignRules {
        backend: "nftables",
        options: &["--ip-family", "ipv4"],
        program: "ip6tables-legacy-restore",
        rules: "*mangle\n-A PREROUTING -p tcp -j DROP\nCOMMIT\n",
        reported: &[],
    },
    ForeignRules {
        backend: "iptables-legacy",
        options: &[],
        program: "nft",
        rules: "table ip theirs { chain out { type nat hook output priority -101; ip daddr 10.0.0.1 dnat to 10.0.0.2; }; }",
        reported: &[
            "foreign: chain out in ip theirs, at hook output with priority -101, comes before sidetrack's rules: its \
             rule 1 translates destinations",
        ],
    },
    ForeignRules {
        backend: "iptables-nft",
        options: &[],
        program: "ip6tables-legacy-restore",
        rules: "*mangle\n-A OUTPUT -p tcp -j DROP\nCOMMIT\n*nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n",
        reported: &[
            "foreign: chain OUTPUT in nat (legacy ip6tables), at hook output with priority -100, comes before \
             sidetrack's rules: its rule 1 redirects; among chains of equal priority, the one registered last comes \
             first",
            "foreign: chain OUTPUT in mangle (legacy ip6tables), at hook output with priority -150, comes before \
             sidetrack's rules: its rule 1 drops",
        ],
    },
    ForeignRules {
        // In any table.
        backend: "nftables",
        options: &[],
        program: "iptables-nft-restore",
        rules: "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -p tcp -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -p tcp -j REDIRECT \
                --to-ports 9\nCOMMIT\n",
        reported: &[
            "foreign: chain ISTIO_OUTPUT in ip nat belongs to Istio (istio-init or istio-cni), which also redirects \
             traffic",
        ],
    },
];

#[test]
fn foreign_rules_before_ours_are_reported_and_unchanged() {
    for case in FOREIGN_RULES {
        let netns = Netns::new();
        apply(&netns, case.backend, case.options);
        let arguments: &[&str] = if case.program == "nft" {
            &["-f", "-"]
        } else {
            &["--noflush"]
        };
        feed(&netns, case.program, arguments, case.rules);
        for _ in ["before", "after"] {
            if case.reported.is_empty() {
                in_sync(&netns, case.backend, case.options);
            } else {
                assert_eq!(reported(&netns, case.backend, case.options), case.reported);
            }
            apply(&netns, case.backend, case.options);
        }
    }
}

#[test]
fn foreign_differences_are_distinguished_from_repairable_ones() {
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

/// Applying a plan beside another mesh's rules would redirect connections twice: check must not advise it.
#[test]
fn rules_of_another_mesh_alone_are_not_to_be_repaired_by_apply() {
    let meshes = [
        ("istio", "ISTIO_OUTPUT", "Istio", "from-istio-init"),
        ("linkerd", "PROXY_INIT_OUTPUT", "Linkerd", "from-linkerd-init"),
        ("kuma", "KUMA_MESH_OUTBOUND", "Kuma", "from-kuma-init"),
        ("consul", "CONSUL_PROXY_OUTPUT", "Consul", "from-consul"),
    ];
    for ((mesh, chain, tool, section), restore) in meshes
        .into_iter()
        .zip(["iptables-legacy-restore", "iptables-nft-restore"].into_iter().cycle())
    {
        let netns = Netns::new();
        feed(
            &netns,
            restore,
            &["--noflush"],
            &format!("*nat\n:{chain} - [0:0]\nCOMMIT\n"),
        );
        let run = check(&netns, &[]);
        assert_eq!(run.code, Some(3), "{run:?}");
        assert!(run.stdout.starts_with("foreign: "), "{run:?}");
        for part in [chain, "belongs to", "Do not run `sidetrack apply` here", section] {
            assert!(run.stdout.contains(part), "{part}: {run:?}");
        }
        assert!(!run.stdout.contains("to repair it"), "{run:?}");
        let json = check(&netns, &["--json"]);
        let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!((&json["version"], &json["state"]), (&1.into(), &"foreign".into()));
        let found = &json["redirectors"][0];
        assert_eq!(found["mesh"], mesh, "{found}");
        assert!(found["tool"].as_str().expect("text").starts_with(tool), "{found}");
        assert_eq!(found["migration"], format!("docs/migration.md#{section}"), "{found}");
        assert_eq!(
            found["remove"],
            format!("sidetrack cleanup --foreign {mesh}"),
            "{found}"
        );
    }
}

#[test]
fn rules_of_another_mesh_beside_an_applied_plan_are_a_difference() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    feed(
        &netns,
        "iptables-legacy-restore",
        &["--noflush"],
        "*nat\n:ISTIO_OUTPUT - [0:0]\nCOMMIT\n",
    );
    let run = check(&netns, &[]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stdout.starts_with("drifted: "), "{run:?}");
    let tool = "chain ISTIO_OUTPUT in nat (legacy iptables) belongs to Istio";
    assert!(run.stdout.contains(tool), "{run:?}");
}
