//! Repeated apply, apply of another plan, cleanup; and rules that other programs install meanwhile.

use crate::cases;
use crate::common::{Netns, output_of};
use crate::program::{BACKENDS, apply, feed, sidetrack, state};

/// Each case is applied twice, then the next one takes its place.
fn each_case_gives_way_to_the_next(backend: &str) {
    let netns = Netns::new();
    let untouched = state(&Netns::new(), backend);
    for (name, options) in cases::all_options() {
        let fresh = Netns::new();
        let log = apply(&fresh, backend, options);
        assert!(log.contains("is redirected now"), "{}: {log}", name);
        apply(&netns, backend, options);
        assert_eq!(state(&netns, backend), state(&fresh, backend), "{}", name);

        let before = state(&netns, backend);
        let log = apply(&netns, backend, options);
        assert!(log.contains("already redirected this way"), "{}: {log}", name);
        assert_eq!(state(&netns, backend), before, "{}", name);
    }
    let log = sidetrack(&netns, &["cleanup"]).succeeded().stderr;
    assert!(log.contains("the rules were removed"), "{log}");
    let leftover = state(&netns, backend);
    assert!(!leftover.to_lowercase().contains("sidetrack"), "{leftover}");
    assert!(!leftover.contains("::6"), "{leftover}");
    if backend == "nftables" {
        assert_eq!(leftover, untouched);
    }
    let log = sidetrack(&netns, &["cleanup"]).succeeded().stderr;
    assert!(log.contains("nothing of sidetrack to remove"), "{log}");
}

#[test]
fn repeated_and_changed_applies_succeed_with_nftables() {
    each_case_gives_way_to_the_next("nftables");
}

#[test]
fn repeated_and_changed_applies_succeed_with_iptables_nft() {
    each_case_gives_way_to_the_next("iptables-nft");
}

#[test]
fn repeated_and_changed_applies_succeed_with_iptables_legacy() {
    each_case_gives_way_to_the_next("iptables-legacy");
}

#[test]
fn changed_backend_removes_rules_of_the_old_one() {
    let netns = Netns::new();
    for (one, other) in BACKENDS.iter().zip(BACKENDS.iter().cycle().skip(1)) {
        apply(&netns, one, &[]);
        apply(&netns, other, &[]);
        let before = state(&netns, one);
        let ours = match *one {
            "nftables" => before.contains("\"table\": \"sidetrack\""),
            _ => before.contains("SIDETRACK_"),
        };
        assert!(!ours, "{one} then {other}: {before}");
        assert!(state(&netns, other).to_lowercase().contains("sidetrack"));
    }
}

#[test]
fn cleanup_keeps_a_foreign_address() {
    let netns = Netns::new();
    netns.ip("address add ::6/128 dev lo");
    apply(&netns, "nftables", &[]);
    sidetrack(&netns, &["cleanup"]).succeeded();
    let addresses = output_of(netns.command("ip").args(["-6", "address", "show", "lo"]));
    assert!(addresses.contains("::6/128"), "{addresses}");
}

#[test]
fn cleanup_removes_the_address_that_apply_added() {
    let netns = Netns::new();
    apply(&netns, "iptables-nft", &[]);
    let addresses = || output_of(netns.command("ip").args(["-6", "address", "show", "lo"]));
    assert!(addresses().contains("::6/128"), "{}", addresses());
    sidetrack(&netns, &["cleanup"]).succeeded();
    assert!(!addresses().contains("::6/128"), "{}", addresses());
}

/// Rules of a busy host: other tables, chains of similar names, rules in the same built-in chains.
const FOREIGN_NFT: &str = "
table inet sidetracked {
    set mesh_ports { type inet_service; elements = { 1, 2 }; }
    chain output {
        type nat hook output priority -100;
        tcp dport @mesh_ports accept
    }
}
table ip kube {
    map verdicts { type ipv4_addr : verdict; elements = { 10.0.0.1 : accept }; }
    chain prerouting {
        type filter hook prerouting priority -150;
        ip daddr vmap @verdicts
    }
}
";
const FOREIGN_IPTABLES: &str = "
*filter
:FORWARD DROP [0:0]
:MINE_SIDETRACK_ - [0:0]
-A FORWARD -j MINE_SIDETRACK_
-A MINE_SIDETRACK_ -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
*nat
:SIDETRACKER - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -p tcp -m tcp --dport 1 -j SIDETRACKER
-A OUTPUT -p tcp -m tcp --dport 1 -m comment --comment \"not SIDETRACK_OUTPUT\" -j SIDETRACKER
-A DOCKER -p tcp -m tcp --dport 7 -j REDIRECT --to-ports 9
-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE
COMMIT
*mangle
-A PREROUTING -p udp -j MARK --set-xmark 0x1/0xffffffff
COMMIT
*raw
-A OUTPUT -p udp -m udp --dport 53 -j CT --notrack
COMMIT
";

#[test]
fn foreign_rules_are_byte_identical_before_and_after() {
    let netns = Netns::new();
    feed(&netns, "nft", &["-f", "-"], FOREIGN_NFT);
    for variant in ["nft", "legacy"] {
        let text = FOREIGN_IPTABLES.replace("-m addrtype --dst-type LOCAL ", "");
        feed(&netns, &format!("iptables-{variant}-restore"), &["--noflush"], &text);
        let text = text.replace("172.17.0.0/16", "fd00:17::/64");
        feed(&netns, &format!("ip6tables-{variant}-restore"), &["--noflush"], &text);
    }
    let all = || BACKENDS.map(|backend| state(&netns, backend));
    let before = all();
    for backend in BACKENDS {
        apply(&netns, backend, &[]);
        let foreign = |states: [String; 3]| states.map(|state| without_ours(&state));
        if backend != "nftables" {
            assert_eq!(foreign(all())[1..], foreign(before.clone())[1..], "{backend}");
        }
        apply(&netns, backend, &["--exclude-outbound-ports", "1,2,3"]);
        sidetrack(&netns, &["cleanup"]).succeeded();
        assert_eq!(all(), before, "{backend}");
    }
}

/// The foreign lines of a state that `iptables-save` printed.
fn without_ours(state: &str) -> String {
    let ours = |line: &&str| {
        line.starts_with(":SIDETRACK_")
            || line.starts_with("-A SIDETRACK_")
            || line.contains("-j SIDETRACK_")
            || line.contains("::6/128")
    };
    state
        .lines()
        .filter(|line| !ours(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn foreign_nftables_tables_are_unchanged() {
    let netns = Netns::new();
    feed(&netns, "nft", &["-f", "-"], FOREIGN_NFT);
    let foreign = || {
        ["inet sidetracked", "ip kube"].map(|table| {
            let arguments = [&["list", "table"], table.split(' ').collect::<Vec<_>>().as_slice()].concat();
            output_of(netns.command("nft").args(arguments))
        })
    };
    let before = foreign();
    apply(&netns, "nftables", &[]);
    assert_eq!(foreign(), before);
    apply(&netns, "nftables", &["--exclude-uids", "5-9"]);
    assert_eq!(foreign(), before);
}

#[test]
fn other_redirectors_are_warned_of() {
    let istio = "*nat\n:ISTIO_OUTPUT - [0:0]\nCOMMIT\n";
    let linkerd = "*nat\n:PROXY_INIT_OUTPUT - [0:0]\nCOMMIT\n";
    let kuma = "table ip nat { chain KUMA_MESH_OUTBOUND { }; }";
    let cases: [(&str, &[&str], &str, &str); 4] = [
        ("iptables-nft-restore", &["--noflush"], istio, "Istio"),
        ("iptables-legacy-restore", &["--noflush"], istio, "Istio"),
        ("ip6tables-legacy-restore", &["--noflush"], linkerd, "Linkerd"),
        ("nft", &["-f", "-"], kuma, "Kuma"),
    ];
    for (program, arguments, rules, tool) in cases {
        let netns = Netns::new();
        feed(&netns, program, arguments, rules);
        let log = apply(&netns, "nftables", &[]);
        assert!(log.contains("WARN") && log.contains(tool), "{program}: {log}");
    }
    assert!(!apply(&Netns::new(), "nftables", &[]).contains("WARN"));
}

/// Reading must not make legacy iptables create tables: those would mislead other tools.
#[test]
fn nftables_backend_creates_no_legacy_tables() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    sidetrack(&netns, &["cleanup"]).succeeded();
    for names in ["ip_tables_names", "ip6_tables_names"] {
        let tables = netns
            .run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{names}")))
            .expect("names");
        assert_eq!(tables, "", "{names}");
    }
}

#[test]
fn drift_of_every_kind_is_repaired() {
    let drifts = [
        "flush chain inet sidetrack outbound",
        "add rule inet sidetrack inbound accept",
        "insert rule inet sidetrack outbound return",
        "add element inet sidetrack mesh_ports { 443 }",
        "delete element inet sidetrack mesh_ports { 15090 }",
        "add chain inet sidetrack extra",
        "add set inet sidetrack extra { type ipv4_addr; }",
        "flush table inet sidetrack",
        "flush chain inet sidetrack prerouting; delete chain inet sidetrack prerouting",
        "flush chain inet sidetrack output; delete chain inet sidetrack output; \
         add chain inet sidetrack output { type nat hook output priority 7; }",
    ];
    for drift in drifts {
        let netns = Netns::new();
        apply(&netns, "nftables", &[]);
        let wanted = state(&netns, "nftables");
        feed(&netns, "nft", &["-f", "-"], drift);
        assert_ne!(state(&netns, "nftables"), wanted, "{drift}");
        let log = apply(&netns, "nftables", &[]);
        assert!(log.contains("replaced"), "{drift}: {log}");
        assert_eq!(state(&netns, "nftables"), wanted, "{drift}");
    }
}

#[test]
fn cleanup_of_iptables_nft_leaves_no_empty_tables_behind() {
    let options = ["--inbound-mode", "tproxy", "--redirect-dns", "--dns-servers", "all"];
    for (theirs, expected) in [
        ("", ""),
        // A rule, a chain, a policy or a set keeps its table.
        (
            "table ip nat {
                chain OUTPUT { type nat hook output priority -100; tcp dport 9 accept; }
            }
            table ip6 raw {
                chain mine { }
            }
            table ip mangle {
                chain OUTPUT { type route hook output priority -150; policy drop; }
            }
            table ip6 nat {
                set mine { type inet_service; }
            }
            table ip filter {
                chain INPUT { type filter hook input priority 0; }
            }",
            "table ip filter\ntable ip mangle\ntable ip nat\ntable ip6 nat\ntable ip6 raw\n",
        ),
    ] {
        let netns = Netns::new();
        feed(&netns, "nft", &["-f", "-"], theirs);
        let tables = || {
            let listed = output_of(netns.command("nft").args(["list", "tables"]));
            let mut lines: Vec<&str> = listed.lines().collect();
            lines.sort_unstable();
            lines.iter().map(|line| format!("{line}\n")).collect::<String>()
        };
        apply(&netns, "iptables-nft", &options);
        assert!(tables().lines().count() >= 6, "{}", tables());
        sidetrack(&netns, &["cleanup"]).succeeded();
        assert_eq!(tables(), expected);
    }
}
