//! Drift of our table, of addresses and of routes.

use super::{Drift, TPROXY_AND_DNS, in_sync, is_reported_and_repaired, reported, run};
use crate::common::{Netns, output_of};
use crate::program::apply;

const PROXYS_OWN: &str = "meta skuid 1337 return comment \"the proxy's own traffic\"";

const DRIFTS: &[Drift] = &[
    Drift {
        options: &[],
        done: &[("nft", "delete rule inet sidetrack outbound #5")],
        reported: &[
            "missing: rule 5 of chain outbound in inet sidetrack: meta skuid 1337 return comment \"the proxy's own \
             traffic\"",
        ],
    },
    Drift {
        options: &[],
        done: &[("nft", "insert rule inet sidetrack outbound tcp dport 22 accept")],
        reported: &["extra: rule 1 of chain outbound in inet sidetrack: tcp dport 22 accept"],
    },
    Drift {
        options: &[],
        done: &[(
            "nft",
            "add rule inet sidetrack inbound ip saddr 10.0.0.1 counter drop comment \"a ban\"",
        )],
        reported: &[
            "extra: rule 3 of chain inbound in inet sidetrack: ip saddr 10.0.0.1 counter drop comment \"a ban\"",
        ],
    },
    Drift {
        options: &[],
        done: &[
            ("nft", "delete rule inet sidetrack outbound #5"),
            (
                "nft",
                "add rule inet sidetrack outbound meta skuid 1337 return comment \"the proxy's own traffic\"",
            ),
        ],
        reported: &[
            "moved: rule 5 of chain outbound in inet sidetrack, now rule 10: meta skuid 1337 return comment \"the \
             proxy's own traffic\"",
        ],
    },
    Drift {
        options: &[],
        done: &[(
            "nft",
            "replace rule inet sidetrack outbound #10 meta l4proto tcp redirect to :15009 comment \"outbound, to the \
             proxy\"",
        )],
        reported: &[
            "changed: rule 10 of chain outbound in inet sidetrack: expected meta l4proto tcp redirect to :15001 comment \
             \"outbound, to the proxy\", found meta l4proto tcp redirect to :15009 comment \"outbound, to the proxy\"",
        ],
    },
    Drift {
        // Nothing but the comment.
        options: &[],
        done: &[("nft", "replace rule inet sidetrack outbound #9 oif \"lo\" return")],
        reported: &[
            "changed: rule 9 of chain outbound in inet sidetrack: expected oif \"lo\" return comment \"traffic within the pod\", found oif \"lo\" return",
        ],
    },
    Drift {
        options: &[],
        done: &[
            ("nft", "delete element inet sidetrack mesh_ports { 15090 }"),
            ("nft", "add element inet sidetrack mesh_ports { 443, 15022 }"),
        ],
        reported: &[
            "missing: 15090 of set mesh_ports in inet sidetrack",
            "extra: 443, 15022 of set mesh_ports in inet sidetrack",
        ],
    },
    Drift {
        options: &[
            "--exclude-outbound-cidrs",
            "10.0.0.0/8,192.0.2.0/24,fd00::/8,2001:db8::/32",
        ],
        done: &[
            (
                "nft",
                "delete element inet sidetrack exclude_outbound_v4 { 10.0.0.0/8 }",
            ),
            ("nft", "add element inet sidetrack exclude_outbound_v6 { ff00::/8 }"),
        ],
        reported: &[
            "missing: 10.0.0.0/8 of set exclude_outbound_v4 in inet sidetrack",
            "extra: ff00::/8 of set exclude_outbound_v6 in inet sidetrack",
        ],
    },
    Drift {
        options: &["--proxy-uid", "1337,2000-2009"],
        done: &[("nft", "flush set inet sidetrack proxy_uids")],
        reported: &["missing: 1337, 2000-2009 of set proxy_uids in inet sidetrack"],
    },
    Drift {
        options: &[],
        done: &[(
            "nft",
            "add chain inet sidetrack output { type nat hook output priority -101; policy drop; }",
        )],
        reported: &[
            "changed: chain output in inet sidetrack: expected type nat hook output priority -101; policy accept;, found \
             type nat hook output priority -101; policy drop;",
        ],
    },
    Drift {
        options: &[],
        done: &[(
            "nft",
            "flush chain inet sidetrack prerouting; delete chain inet sidetrack prerouting; \
             add chain inet sidetrack prerouting { type nat hook prerouting priority 7; }; \
             add rule inet sidetrack prerouting meta l4proto tcp ct timeout set \"half_closed\" comment \"timeouts of half-closed connections\"; \
             add rule inet sidetrack prerouting meta l4proto tcp jump inbound comment \"inbound TCP\"",
        )],
        reported: &[
            "changed: chain prerouting in inet sidetrack: expected type nat hook prerouting priority -101; policy \
             accept;, found type nat hook prerouting priority 7; policy accept;",
        ],
    },
    Drift {
        options: &[],
        done: &[(
            "nft",
            "flush chain inet sidetrack prerouting; delete chain inet sidetrack prerouting",
        )],
        reported: &[
            "missing: chain prerouting in inet sidetrack: type nat hook prerouting priority -101; policy accept;",
        ],
    },
    Drift {
        options: &[],
        done: &[("nft", "add table inet sidetrack { flags dormant; }")],
        reported: &["changed: table inet sidetrack: expected nothing, found dormant, so that its rules do nothing"],
    },
    Drift {
        options: &[],
        done: &[
            (
                "nft",
                "add chain inet sidetrack early { type filter hook prerouting priority -400; policy drop; }",
            ),
            ("nft", "add set inet sidetrack macs { type ether_addr; }"),
        ],
        reported: &[
            "extra: set macs in inet sidetrack: type number 9, flags 0x0",
            "extra: chain early in inet sidetrack: type filter hook prerouting priority -400; policy drop;",
        ],
    },
    Drift {
        options: &[],
        done: &[("nft", "flush chain inet sidetrack inbound")],
        reported: &[
            "missing: rule 1 of chain inbound in inet sidetrack: tcp dport @mesh_ports return comment \"the mesh's own ports\"",
            "missing: rule 2 of chain inbound in inet sidetrack: meta l4proto tcp redirect to :15006 comment \"inbound, \
             to the proxy\"",
        ],
    },
    Drift {
        options: &[],
        done: &[("ip", "address delete ::6/128 dev lo")],
        reported: &["missing: the address ::6 on the loopback interface"],
    },
    Drift {
        options: TPROXY_AND_DNS,
        done: &[("ip", "-6 rule delete fwmark 1337")],
        reported: &["missing: the IPv6 rule `fwmark 1337 lookup 133`"],
    },
    Drift {
        // Routes are found even without a rule that uses them.
        options: TPROXY_AND_DNS,
        done: &[
            ("ip", "-4 rule delete fwmark 1337"),
            ("ip", "-6 rule delete fwmark 1337"),
        ],
        reported: &[
            "missing: the IPv4 rule `fwmark 1337 lookup 133`",
            "missing: the IPv6 rule `fwmark 1337 lookup 133`",
        ],
    },
    Drift {
        options: TPROXY_AND_DNS,
        done: &[("ip", "-4 route flush table 133")],
        reported: &["missing: the IPv4 route `local default dev lo table 133`"],
    },
    Drift {
        options: TPROXY_AND_DNS,
        done: &[("ip", "rule add fwmark 1338 lookup 134 priority 15006 protocol 137")],
        reported: &["extra: the IPv4 rule `fwmark 1338 lookup 134`"],
    },
    Drift {
        options: &["--ip-family", "ipv4"],
        done: &[("nft", "delete rule inet sidetrack output #1")],
        reported: &[
            "missing: rule 1 of chain output in inet sidetrack: meta nfproto ipv6 return comment \"IPv6 is not \
             redirected\"",
        ],
    },
];

#[test]
fn each_drift_is_reported_and_repaired() {
    for drift in DRIFTS {
        is_reported_and_repaired("nftables", drift);
    }
}

/// The chains of our table with an effect, and how many rules each has.
fn chains(netns: &Netns) -> Vec<(String, usize)> {
    let listing = output_of(netns.command("nft").args(["list", "table", "inet", "sidetrack"]));
    let blocks = listing.split("\tchain ").skip(1);
    let rules = |block: &str| block.lines().filter(|line| line.contains(" comment ")).count();
    let chains = blocks.map(|block| (block.split(' ').next().expect("a name").to_owned(), rules(block)));
    chains.filter(|(name, _)| name != "options").collect()
}

#[test]
fn each_missing_rule_is_reported() {
    let netns = Netns::new();
    apply(&netns, "nftables", TPROXY_AND_DNS);
    let mut missed = 0;
    for (chain, rules) in chains(&netns) {
        for number in 1..=rules {
            run(
                &netns,
                "nftables",
                "nft",
                &format!("delete rule inet sidetrack {chain} #{number}"),
            );
            let reported = reported(&netns, "nftables", TPROXY_AND_DNS);
            let missing = format!("missing: rule {number} of chain {chain} in inet sidetrack: ");
            assert!(
                reported.len() == 1 && reported[0].starts_with(&missing),
                "{missing} {reported:#?}"
            );
            apply(&netns, "nftables", TPROXY_AND_DNS);
            missed += 1;
        }
    }
    assert!(missed > 40, "{missed}");
    in_sync(&netns, "nftables", TPROXY_AND_DNS);
}

#[test]
fn flushed_table_reports_all_rules_missing() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    let rules: usize = chains(&netns).iter().map(|(_, rules)| rules).sum();
    run(&netns, "nftables", "nft", "flush table inet sidetrack");
    let reported = reported(&netns, "nftables", &[]);
    assert!(
        reported.iter().all(|line| line.starts_with("missing: rule ")),
        "{reported:#?}"
    );
    assert_eq!(reported.len(), rules);
    assert!(reported.iter().any(|line| line.ends_with(PROXYS_OWN)), "{reported:#?}");
}

#[test]
fn foreign_route_equal_to_ours_is_in_sync() {
    let netns = Netns::new();
    netns.ip("route add local 0.0.0.0/0 dev lo table 133\naddress add ::6/128 dev lo");
    apply(&netns, "nftables", TPROXY_AND_DNS);
    in_sync(&netns, "nftables", TPROXY_AND_DNS);
}
