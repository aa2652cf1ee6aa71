//! The rules in the kernel before and after each run.

use std::fs;
use std::path::Path;

use super::{add_foreign_rules, dump, foreign, in_namespace, iptables, plan, ruleset, run, tool};
use sidetrack::backend::Change;
use sidetrack::backend::iptables::{Iptables, Variant, script};
use sidetrack::types::{DnsServers, Family, IpFamily, NoAccounts, parse_cidrs, parse_ids, parse_ports};

#[test]
fn rules_are_created_kept_replaced_and_removed() {
    in_namespace(|variant| {
        add_foreign_rules(variant);
        let before = dump(variant);
        let iptables = Iptables::find(variant).unwrap();
        let default = ruleset(|_| {});
        assert_eq!(iptables.apply(&default).unwrap(), Change::Created);
        let applied = dump(variant);
        assert_eq!(iptables.apply(&default).unwrap(), Change::Unchanged);
        assert_eq!(dump(variant), applied);
        assert_eq!(foreign(&applied), before);

        let other = ruleset(|config| {
            config.inbound.include_ports = parse_ports("").unwrap();
            config.outbound.exclude_cidrs = parse_cidrs("10.0.0.0/8,2001:db8::/32").unwrap();
        });
        assert_eq!(iptables.apply(&other).unwrap(), Change::Replaced);
        let replaced = dump(variant);
        assert!(!replaced.contains("SIDETRACK_PREROUTING") && !replaced.contains("SIDETRACK_INBOUND"));
        assert_eq!(foreign(&replaced), before);
        assert_eq!(iptables.apply(&other).unwrap(), Change::Unchanged);

        assert!(iptables.remove().unwrap());
        assert_eq!(dump(variant), before);
        assert!(!iptables.remove().unwrap());
    });
}

#[test]
fn our_jumps_come_first() {
    in_namespace(|variant| {
        iptables(variant, "-t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 9");
        Iptables::find(variant).unwrap().apply(&ruleset(|_| {})).unwrap();
        let dump = dump(variant);
        let first: Vec<&str> = dump.lines().filter(|line| line.starts_with("-A OUTPUT")).collect();
        let own = "-A OUTPUT -j SIDETRACK_OUTPUT";
        let other = "-A OUTPUT -p tcp -j REDIRECT --to-ports 9";
        assert_eq!(first, [own, other, own, other]);
    });
}

#[test]
fn every_kind_of_drift_is_repaired() {
    in_namespace(|variant| {
        let backend = Iptables::find(variant).unwrap();
        let planned = ruleset(|_| {});
        backend.apply(&planned).unwrap();
        let good = dump(variant);
        let drifts: [&[&str]; 7] = [
            &["-t nat -A OUTPUT -j SIDETRACK_OUTPUT"],            // a second jump
            &["-t nat -I OUTPUT -p tcp -j SIDETRACK_SELF_CALLS"], // a jump where none belongs
            &["-t nat -D PREROUTING -j SIDETRACK_PREROUTING"],    // no jump
            &["-t nat -D SIDETRACK_OUTBOUND 2"],                  // a rule missing
            &["-t nat -A SIDETRACK_INBOUND -p udp -j RETURN"],    // a rule too many
            &[
                "-t nat -N SIDETRACK_OLD",
                "-t nat -A SIDETRACK_OLD -j SIDETRACK_INBOUND",
            ], // a chain too many
            // Two rules in the wrong order.
            &[
                "-t nat -D SIDETRACK_OUTBOUND 4",
                "-t nat -I SIDETRACK_OUTBOUND 1 -m owner --uid-owner 1337 \
               -m comment --comment x -j RETURN",
            ],
        ];
        for drift in drifts {
            drift.iter().for_each(|command| iptables(variant, command));
            assert_ne!(dump(variant), good, "{drift:?}");
            assert_eq!(backend.apply(&planned).unwrap(), Change::Replaced, "{drift:?}");
            assert_eq!(dump(variant), good, "{drift:?}");
        }
    });
}

#[test]
fn swapped_rules_are_drift() {
    in_namespace(|variant| {
        let backend = Iptables::find(variant).unwrap();
        let planned = ruleset(|_| {});
        backend.apply(&planned).unwrap();
        let good = dump(variant);
        let rule = "SIDETRACK_SELF_CALLS -p tcp -m comment --comment x -j SIDETRACK_INBOUND";
        iptables(variant, "-t nat -D SIDETRACK_SELF_CALLS 1");
        for (family, loopback) in [(Family::V4, "127.0.0.1/32"), (Family::V6, "::1/128")] {
            let moved = [
                "-t",
                "nat",
                "-A",
                "SIDETRACK_SELF_CALLS",
                "-d",
                loopback,
                "-m",
                "comment",
                "--comment",
            ];
            run(
                &tool(variant, family, ""),
                &[&moved[..], &["loopback", "-j", "RETURN"]].concat(),
                "",
            );
        }
        assert!(!dump(variant).contains(rule));
        assert_eq!(dump(variant).len(), good.len(), "the same rules in another order");
        assert_eq!(backend.apply(&planned).unwrap(), Change::Replaced);
        assert_eq!(dump(variant), good);
    });
}

#[test]
fn family_left_out_of_the_plan_loses_its_rules() {
    in_namespace(|variant| {
        let backend = Iptables::find(variant).unwrap();
        backend.apply(&ruleset(|_| {})).unwrap();
        let v4 = ruleset(|config| config.general.ip_family = IpFamily::Ipv4);
        assert_eq!(backend.apply(&v4).unwrap(), Change::Replaced);
        assert!(backend.read(Family::V6).unwrap().is_empty());
        assert!(!backend.read(Family::V4).unwrap().is_empty());
        assert_eq!(backend.apply(&v4).unwrap(), Change::Unchanged);
    });
}

#[test]
fn own_rules_are_removed_from_every_table() {
    in_namespace(|variant| {
        add_foreign_rules(variant);
        let before = dump(variant);
        let text = "*mangle
:SIDETRACK_DIVERT - [0:0]
:SIDETRACK_TPROXY - [0:0]
-A PREROUTING -p tcp -j SIDETRACK_TPROXY
-A MY_SIDETRACK_X -g SIDETRACK_TPROXY
-A SIDETRACK_TPROXY -j SIDETRACK_DIVERT
COMMIT
*raw
:SIDETRACK_OUTPUT - [0:0]
-A OUTPUT -j SIDETRACK_OUTPUT
COMMIT
*filter
:SIDETRACK_EMPTY - [0:0]
COMMIT
";
        run(&tool(variant, Family::V6, "-restore"), &["--noflush"], text);
        let backend = Iptables::find(variant).unwrap();
        assert!(backend.remove().unwrap());
        assert_eq!(dump(variant), before);
    });
}

#[test]
fn script_loaded_by_hand_equals_apply() {
    in_namespace(|variant| {
        let planned = plan(|config| {
            config.inbound.exclude_cidrs = parse_cidrs("10.0.0.0/8,2001:db8::1:0,::1.2.3.4,0.0.0.0/32").unwrap();
            config.outbound.exclude_uids = parse_ids("5,1000-2000", &NoAccounts).unwrap();
            config.outbound.exclude_gids = parse_ids("0-4294967294", &NoAccounts).unwrap();
            config.outbound.exclude_ports = parse_ports("1-21,80,443,65000-65535").unwrap();
            // Servers of one family alone: the chain of the groups is there in the other one, too, and nothing leads to
            // it.
            config.dns.redirect = true;
            config.dns.servers = DnsServers::parse("10.96.0.10,10.96.0.11").unwrap();
            config.outbound.include_gids = parse_ids("7,9", &NoAccounts).unwrap();
        });
        let text = script(&planned).unwrap();
        for family in Family::BOTH {
            run(&tool(variant, family, "-restore"), &["--noflush", "--test"], &text);
            run(&tool(variant, family, "-restore"), &["--noflush"], &text);
        }
        let by_hand = dump(variant);
        let backend = Iptables::find(variant).unwrap();
        assert_eq!(backend.apply(&planned.ruleset).unwrap(), Change::Unchanged);
        backend.remove().unwrap();
        assert_eq!(backend.apply(&planned.ruleset).unwrap(), Change::Created);
        assert_eq!(dump(variant), by_hand);
    });
}

#[test]
fn script_for_one_family_keeps_the_other() {
    in_namespace(|variant| {
        let planned = plan(|config| config.general.ip_family = IpFamily::Ipv6);
        let restore = tool(variant, Family::V4, "-restore");
        run(&restore, &["--noflush", "--test"], &script(&planned).unwrap());
        run(&restore, &["--noflush"], &script(&planned).unwrap());
        assert!(!dump(variant).contains("-A"));
        run(
            &tool(variant, Family::V6, "-restore"),
            &["--noflush"],
            &script(&planned).unwrap(),
        );
        assert_eq!(
            Iptables::find(variant).unwrap().apply(&planned.ruleset).unwrap(),
            Change::Replaced,
            "the empty chains go"
        );
    });
}

#[test]
fn reading_leaves_no_trace() {
    in_namespace(|variant| {
        let backend = Iptables::find(variant).unwrap();
        assert!(!backend.remove().unwrap());
        assert!(backend.read(Family::V4).unwrap().is_empty());
        for names in ["ip_tables_names", "ip6_tables_names"] {
            let path = Path::new("/proc/thread-self/net").join(names);
            assert_eq!(fs::read_to_string(path).unwrap_or_default(), "");
        }
        let tables = run("nft", &["list", "ruleset"], "");
        assert_eq!(tables, "");
    });
}

/// `count` numbers that never touch.
fn numbers(first: u32, count: u32) -> String {
    let numbers: Vec<String> = (0..count).map(|n| (first + 2 * n).to_string()).collect();
    numbers.join(",")
}

#[test]
fn long_lists_are_applied_and_recognized() {
    in_namespace(|variant| {
        let cidrs: Vec<String> = (0..5000_u32)
            .map(|n| match n % 2 {
                0 => format!("10.{}.{}.1", n / 250, n % 250),
                _ => format!("2001:db8:{:x}::/48", 2 * n),
            })
            .collect();
        let planned = ruleset(|config| {
            config.inbound.exclude_ports = parse_ports(&numbers(1001, 2000)).unwrap();
            config.outbound.exclude_uids = parse_ids(&numbers(50_000, 2000), &NoAccounts).unwrap();
            config.outbound.exclude_cidrs = parse_cidrs(&cidrs.join(",")).unwrap();
        });
        let backend = Iptables::find(variant).unwrap();
        assert_eq!(backend.apply(&planned).unwrap(), Change::Created);
        assert!(dump(variant).lines().count() > 2 * 2000 + 2 * 2000 / 15 + 5000);
        assert_eq!(backend.apply(&planned).unwrap(), Change::Unchanged);
        assert!(backend.remove().unwrap());
    });
}

#[test]
fn unreadable_table_is_an_error() {
    in_namespace(|variant| {
        let backend = Iptables::find(variant).unwrap();
        backend.apply(&ruleset(|_| {})).unwrap();
        let table = "table ip nat { chain SIDETRACKER { ip saddr { 192.0.2.1, 192.0.2.2 } tcp option maxseg size 5 accept; }; }";
        run("nft", &["-f", "-"], table);
        match variant {
            Variant::Nft => {
                for error in [
                    backend.apply(&ruleset(|_| {})).unwrap_err(),
                    backend.remove().unwrap_err(),
                ] {
                    assert!(error.to_string().contains("cannot read the IPv4 table nat"), "{error}");
                }
                assert!(
                    backend.read(Family::V6).unwrap().is_empty(),
                    "the other family was checked nevertheless"
                );
            }
            Variant::Legacy => assert_eq!(backend.apply(&ruleset(|_| {})).unwrap(), Change::Unchanged),
        }
    });
}
