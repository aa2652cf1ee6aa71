//! Existing rules: of an earlier run, of an interrupted run, of another program.

use sidetrack::types::Family;

use super::{EVERYTHING, INJECTED, Programs, assert_same, everything, iptables, istio_iptables, run};
use crate::SIDETRACK;
use crate::common::{Caller, Netns, Owner, Pod, Server, To, Transport, call, output_of};
use crate::program::{BACKENDS, Run, feed, state};

const IPTABLES: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// What a fresh pod holds after one run.
fn after_one_run(backend: &str, arguments: &[&str]) -> String {
    let pod = Pod::new();
    run(&pod.netns, backend, arguments);
    everything(&pod.netns, backend)
}

/// Possible changes to the rules: texts for `nft -f`, or for `iptables-restore --noflush` of both families.
fn drifts(backend: &str) -> &'static [&'static str] {
    match backend {
        "nftables" => &[
            "flush chain inet sidetrack outbound",
            "flush table inet sidetrack",
            "delete table inet sidetrack; add table inet sidetrack",
            "delete chain inet sidetrack output",
            "insert rule inet sidetrack outbound return",
        ],
        _ => &[
            "*nat\n-F SIDETRACK_OUTBOUND\nCOMMIT\n",
            "*nat\n-D OUTPUT -j SIDETRACK_OUTPUT\nCOMMIT\n",
            "*nat\n-F OUTPUT\n-F PREROUTING\n-F SIDETRACK_OUTBOUND\n-F SIDETRACK_PREROUTING\nCOMMIT\n",
            "*nat\n-I SIDETRACK_OUTBOUND 1 -j RETURN\nCOMMIT\n",
            "*mangle\n:SIDETRACK_LEFT_OVER - [0:0]\n-A PREROUTING -j SIDETRACK_LEFT_OVER\nCOMMIT\n",
        ],
    }
}

fn drift(netns: &Netns, backend: &str, text: &str) {
    if backend == "nftables" {
        return feed(netns, "nft", &["-f", "-"], text);
    }
    for restore in iptables(backend, "-restore") {
        feed(netns, &restore, &["--noflush"], text);
    }
}

#[test]
fn istio_40169_restarted_init_container_succeeds_on_any_leftovers() {
    let dual: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
    for backend in BACKENDS {
        let pod = Pod::new();
        let netns = &pod.netns;
        for arguments in [&dual, EVERYTHING] {
            let wanted = after_one_run(backend, arguments);
            run(netns, backend, arguments);
            assert_same(
                &everything(netns, backend),
                &wanted,
                &format!("{backend}: other flags before"),
            );
            for text in ["", "again"] {
                run(netns, backend, arguments);
                assert_same(
                    &everything(netns, backend),
                    &wanted,
                    &format!("{backend}: the same {text}"),
                );
            }
            for text in drifts(backend) {
                drift(netns, backend, text);
                assert_ne!(everything(netns, backend), wanted, "{backend}: {text}");
                run(netns, backend, arguments);
                assert_same(&everything(netns, backend), &wanted, &format!("{backend}: {text}"));
            }
        }
    }
}

/// Takes the first rule of a chain to its end.
fn reorder(netns: &Netns, backend: &str) {
    if backend == "nftables" {
        let chain = "inet sidetrack outbound";
        let arguments = [&["-a", "list", "chain"][..], &chain.split(' ').collect::<Vec<_>>()].concat();
        let listing = output_of(netns.command("nft").args(arguments));
        let (rule, handle) = listing
            .lines()
            .skip(2)
            .find_map(|line| line.split_once(" # handle "))
            .expect("a rule");
        let rule = rule.trim();
        return feed(
            netns,
            "nft",
            &["-f", "-"],
            &format!("delete rule {chain} handle {handle}; add rule {chain} {rule}"),
        );
    }
    for (save, restore) in iptables(backend, "-save").iter().zip(iptables(backend, "-restore")) {
        let saved = output_of(netns.command(save).args(["-t", "nat"]));
        let start = "-A SIDETRACK_OUTBOUND ";
        let rule = saved.lines().find_map(|line| line.strip_prefix(start)).expect("a rule");
        let text = format!("*nat\n-D SIDETRACK_OUTBOUND {rule}\n{start}{rule}\nCOMMIT\n");
        feed(netns, &restore, &["--noflush"], &text);
    }
}

#[test]
fn istio_verification_the_same_rules_in_another_order_are_drift() {
    for backend in BACKENDS {
        let arguments: Vec<&str> = [INJECTED, &["--dual-stack", "-o", "3306"]].concat();
        let pod = Pod::new();
        run(&pod.netns, backend, &arguments);
        let wanted = everything(&pod.netns, backend);
        reorder(&pod.netns, backend);
        let reordered = everything(&pod.netns, backend);
        assert_ne!(reordered, wanted, "{backend}");
        assert_eq!(sorted(&reordered), sorted(&wanted), "{backend}: the same rules");
        let log = run(&pod.netns, backend, &arguments).stderr;
        assert!(log.contains("replaced"), "{backend}: {log}");
        assert_same(&everything(&pod.netns, backend), &wanted, backend);
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// With foreign iptables rules, before or after sidetrack's, that exempt everything from redirection.
#[test]
fn istio_verification_foreign_rules_in_builtin_chains_stay_behind_ours() {
    let rules = "*nat\n-I OUTPUT 1 -p tcp -j ACCEPT\n-I PREROUTING 1 -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n";
    let arguments: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
    let pod = Pod::new();
    let _servers = [
        Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]),
        Server::start(&pod.peer, "peer", Owner::ROOT, &[9090]),
    ];
    for backend in IPTABLES {
        drift(&pod.netns, backend, rules);
        run(&pod.netns, "nftables", &arguments);
        drift(&pod.netns, backend, rules);
        for (family, (caller, to, port)) in Family::BOTH.iter().flat_map(|family| {
            [
                (Caller::App, To::Peer(9090), 15001),
                (Caller::Peer, To::Pod(8080), 15006),
            ]
            .map(|call| (*family, call))
        }) {
            let made = call(&pod, Transport::Tcp, caller, to, family).expect("a connection");
            let arrival = made.arrival.expect("an answer");
            assert_eq!(
                (arrival.server.as_str(), arrival.port),
                ("proxy", port),
                "{backend}: {family}"
            );
        }
    }
}

#[test]
fn istio_56587_rules_of_one_family_are_not_taken_for_both() {
    let arguments: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
    for backend in IPTABLES {
        let pod = Pod::new();
        run(&pod.netns, backend, &arguments);
        let wanted = everything(&pod.netns, backend);
        for program in iptables(backend, "") {
            for flag in ["-F", "-X"] {
                output_of(pod.netns.command(&program).args(["-t", "nat", flag]));
            }
            assert_ne!(everything(&pod.netns, backend), wanted, "{program}");
            let log = run(&pod.netns, backend, &arguments).stderr;
            assert!(log.contains("replaced"), "{program}: {log}");
            assert_same(&everything(&pod.netns, backend), &wanted, &program);
        }
    }
}

/// Leftovers of an earlier run or of another program under our names.
#[test]
fn linkerd_7767_existing_chains_are_replaced() {
    let chains = "*nat\n:SIDETRACK_OUTPUT - [0:0]\n:SIDETRACK_OUTBOUND - [0:0]\n:SIDETRACK_OLD - [0:0]\n\
                  -A SIDETRACK_OUTPUT -p tcp -j RETURN\n-A PREROUTING -j SIDETRACK_OLD\nCOMMIT\n";
    let table = "table inet sidetrack { chain outbound { accept; }; chain old { type nat hook output priority 7; }; }";
    let arguments: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
    for backend in BACKENDS {
        let pod = Pod::new();
        match backend {
            "nftables" => feed(&pod.netns, "nft", &["-f", "-"], table),
            // One family alone, as a run leaves it that did not get to the other.
            _ => feed(&pod.netns, &iptables(backend, "-restore")[0], &["--noflush"], chains),
        }
        run(&pod.netns, backend, &arguments);
        assert_same(
            &everything(&pod.netns, backend),
            &after_one_run(backend, &arguments),
            backend,
        );
    }
}

#[test]
fn istio_53147_failure_in_one_family_rolls_back_the_other() {
    let arguments: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
    for backend in IPTABLES {
        let [_, restore] = iptables(backend, "-restore");
        let broken = Programs::new(&format!("broken-{backend}"));
        broken.put(&restore, "echo no such table >&2; exit 3");
        let pod = Pod::new();
        let before = everything(&pod.netns, backend);
        for _ in 0..2 {
            let mut command = istio_iptables(&pod.netns, backend, &arguments);
            Run::of(command.env("PATH", broken.before_others())).failed(1, &["no such table"]);
            assert_same(&everything(&pod.netns, backend), &before, backend);
        }
        run(&pod.netns, backend, &arguments);
        assert_same(
            &everything(&pod.netns, backend),
            &after_one_run(backend, &arguments),
            backend,
        );
    }
}

#[test]
fn istio_53147_rerun_completes_a_run_killed_between_families() {
    let arguments: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
    for backend in IPTABLES {
        let [_, restore] = iptables(backend, "-restore");
        let killer = Programs::new(&format!("killer-{backend}"));
        killer.put(&restore, "kill -9 $PPID");
        for next in [&arguments[..], &["--cleanup-only"]] {
            let pod = Pod::new();
            let untouched = everything(&pod.netns, backend);
            let mut command = istio_iptables(&pod.netns, backend, &arguments);
            assert_eq!(
                Run::of(command.env("PATH", killer.before_others())).code,
                None,
                "it was killed"
            );
            let [v4, v6] = iptables(backend, "-save").map(|save| output_of(&mut pod.netns.command(save)));
            assert!(
                v4.contains("SIDETRACK_") && !v6.contains("SIDETRACK_"),
                "{backend}: {v4}{v6}"
            );
            run(&pod.netns, backend, next);
            let expected = match next {
                ["--cleanup-only"] => untouched,
                _ => after_one_run(backend, &arguments),
            };
            assert_same(&everything(&pod.netns, backend), &expected, backend);
        }
    }
}

#[test]
fn istio_detection_new_legacy_tables_do_not_install_the_rules_twice() {
    let wake = |netns: &Netns| {
        for program in ["iptables-legacy", "ip6tables-legacy"] {
            // What Istio's probe does.
            for flag in ["-A", "-D"] {
                output_of(
                    netns
                        .command(program)
                        .args(["-t", "nat", flag, "INPUT", "-p", "255", "-j", "RETURN"]),
                );
            }
            output_of(netns.command(program).args(["-t", "mangle", "-L", "-n"]));
        }
    };
    let pod = Pod::new();
    let wanted = after_one_run("nftables", INJECTED);
    // No flag says which backend to take.
    let default = || {
        let mut command = pod.netns.command(SIDETRACK);
        Run::of(command.arg("istio-iptables").args(INJECTED)).succeeded().stderr
    };
    let log = default();
    assert!(log.contains("redirected now backend=nftables"), "{log}");
    for _ in 0..2 {
        wake(&pod.netns);
        let log = default();
        assert!(log.contains("already redirected this way backend=nftables"), "{log}");
        assert_same(&everything(&pod.netns, "nftables"), &wanted, "default");
    }
    run(&pod.netns, "nftables", &["--cleanup-only"]);
    let log = default();
    assert!(log.contains("redirected now backend=nftables"), "{log}");
    assert_same(&everything(&pod.netns, "nftables"), &wanted, "default");
}

#[test]
fn istio_52835_cleanup_removes_rules_of_other_flags() {
    for backend in BACKENDS {
        for arguments in [
            &["--cleanup-only"][..],
            &["--cleanup-only", "-m", "REDIRECT", "-b", "80", "-k", "tap1"],
        ] {
            let pod = Pod::new();
            let untouched = everything(&pod.netns, backend);
            let mut command = istio_iptables(&pod.netns, backend, EVERYTHING);
            command.env("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "2000");
            Run::of(&mut command).succeeded();
            let applied = everything(&pod.netns, backend);
            assert!(
                applied.contains("tap0") && applied.contains("fwmark 0x539"),
                "{applied}"
            );
            run(&pod.netns, backend, arguments);
            assert_same(&everything(&pod.netns, backend), &untouched, backend);
        }
    }
}

#[test]
fn istio_cleanup_adds_nothing() {
    for backend in BACKENDS {
        let pod = Pod::new();
        let untouched = everything(&pod.netns, backend);
        run(&pod.netns, backend, &[EVERYTHING, &["--cleanup-only"]].concat());
        assert_same(&everything(&pod.netns, backend), &untouched, backend);
    }
}

#[test]
fn istio_54610_custom_tables_are_unchanged_and_no_drift() {
    let nft = "table ip custom { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { ip saddr @s drop; }; }
               table inet istio { chain output { type filter hook output priority 0; }; }
               table ip6 nat6 { chain c { }; }";
    let filter = "*filter\n:CUSTOM - [0:0]\n-A OUTPUT -j CUSTOM\nCOMMIT\n*security\n:CUSTOM - [0:0]\nCOMMIT\n";
    let arguments: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
    for backend in BACKENDS {
        let pod = Pod::new();
        feed(&pod.netns, "nft", &["-f", "-"], nft);
        for restore in IPTABLES.map(|backend| iptables(backend, "-restore")).as_flattened() {
            feed(&pod.netns, restore, &["--noflush"], filter);
        }
        let custom = || {
            let tables = ["ip custom", "inet istio", "ip6 nat6"];
            let list = |table: &str| output_of(pod.netns.command("nft").args(["list", "table"]).args(table.split(' ')));
            tables.map(list).concat()
        };
        let (untouched, untouched_custom) = (everything(&pod.netns, backend), custom());
        assert!(untouched.contains("CUSTOM"));
        run(&pod.netns, backend, &arguments);
        let applied = everything(&pod.netns, backend);
        let log = run(&pod.netns, backend, &arguments).stderr;
        assert!(log.contains("already") && !log.contains("WARN"), "{backend}: {log}");
        assert_same(&everything(&pod.netns, backend), &applied, backend);
        run(&pod.netns, backend, &["--cleanup-only"]);
        assert_same(&everything(&pod.netns, backend), &untouched, backend);
        assert_eq!(custom(), untouched_custom, "{backend}");
    }
}

/// Istio's own applies the rules where `--native-nftables` is given.
#[test]
fn istio_dry_run_leaves_routing_as_it_is() {
    for backend in BACKENDS {
        let pod = Pod::new();
        let untouched = everything(&pod.netns, backend);
        let printed = run(&pod.netns, backend, &[EVERYTHING, &["--dry-run"]].concat()).stdout;
        assert!(printed.contains("tap0") && printed.contains("fwmark"), "{printed}");
        assert_same(&everything(&pod.netns, backend), &untouched, backend);
    }
}

#[test]
fn istio_verification_rule_before_ours_in_a_builtin_chain_is_moved_behind() {
    let rule = "-p tcp -m tcp --dport 9090 -j ACCEPT";
    for backend in IPTABLES {
        let pod = Pod::new();
        let _servers = [
            Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001]),
            Server::start(&pod.peer, "peer", Owner::ROOT, &[9090]),
        ];
        let server = |family| {
            let made = call(&pod, Transport::Tcp, Caller::App, To::Peer(9090), family).expect("a connection");
            made.arrival.expect("an answer").server
        };
        let arguments: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
        run(&pod.netns, backend, &arguments);
        for restore in iptables(backend, "-restore") {
            feed(
                &pod.netns,
                &restore,
                &["--noflush"],
                &format!("*nat\n-I OUTPUT 1 {rule}\nCOMMIT\n"),
            );
        }
        assert_eq!(
            Family::BOTH.map(server),
            ["peer", "peer"],
            "{backend}: it bypasses the proxy"
        );
        run(&pod.netns, backend, &arguments);
        assert_eq!(Family::BOTH.map(server), ["proxy", "proxy"], "{backend}");
        let kept = state(&pod.netns, backend).matches(rule).count();
        assert_eq!(kept, 2, "{backend}: it is not ours to remove");
        let log = run(&pod.netns, backend, &arguments).stderr;
        assert!(log.contains("already"), "{backend}: {log}");
    }
}

#[test]
fn istio_verification_a_dormant_table_is_drift() {
    for other in [INJECTED, &[INJECTED, &["-o", "3306"]].concat()] {
        let pod = Pod::new();
        let arguments: Vec<&str> = [INJECTED, &["--dual-stack"]].concat();
        run(&pod.netns, "nftables", other);
        let sleep = "add table inet sidetrack { flags dormant; }";
        feed(&pod.netns, "nft", &["-f", "-"], sleep);
        let log = run(&pod.netns, "nftables", &arguments).stderr;
        assert!(log.contains("replaced"), "{log}");
        let listing = crate::common::output_of(pod.netns.command("nft").args(["list", "table", "inet", "sidetrack"]));
        assert!(!listing.contains("dormant"), "{listing}");
    }
}
