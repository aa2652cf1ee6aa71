//! Rules that another mesh's own program wrote, compared by their effect: those that tests/oracle recorded.

use serde_json::Value;

use super::{check, run};
use crate::common::{Netns, output_of};
use crate::program::{Run, apply, feed};

/// A recorded case, its front end and its flags.
struct Recorded {
    rules: &'static str,
    flags: &'static [&'static str],
}

macro_rules! recorded {
    ($file:literal, $($flag:literal),*) => {
        Recorded {
            rules: include_str!(concat!("../../oracle/", $file)),
            flags: &[$($flag),*],
        }
    };
}

const SIDECAR: Recorded = recorded!(
    "rules/sidecar-default.rules",
    "istio-iptables",
    "-p",
    "15001",
    "-z",
    "15006",
    "-u",
    "1337",
    "-m",
    "REDIRECT",
    "-i",
    "*",
    "-b",
    "*",
    "-d",
    "15090,15021,15020"
);

const RECORDED: [Recorded; 6] = [
    SIDECAR,
    recorded!(
        "rules/inbound-ports-tproxy.rules",
        "istio-iptables",
        "-m",
        "TPROXY",
        "-b",
        "32000,31000"
    ),
    recorded!(
        "rules/capture-all-dns.rules",
        "istio-iptables",
        "-i",
        "*",
        "--redirect-dns",
        "--capture-all-dns",
        "--dual-stack"
    ),
    recorded!(
        "rules/outbound-ports-exclude.rules",
        "istio-iptables",
        "-i",
        "*",
        "-o",
        "3306,8080"
    ),
    recorded!(
        "kuma/rules/dns-all.rules",
        "kuma-init",
        "--kuma-dp-user",
        "1500",
        "--redirect-all-dns-traffic"
    ),
    recorded!(
        "linkerd/rules/gid.rules",
        "linkerd-proxy-init",
        "-p",
        "15006",
        "-o",
        "15001",
        "-u",
        "1500",
        "-g",
        "202"
    ),
];

/// A pod with addresses of both families, IPv4 first, and these rules.
fn pod(recorded: &Recorded, variant: &str) -> Netns {
    let netns = Netns::new();
    netns.ip(
        "link set lo up\nlink add eth0 type veth peer name other\naddress add 10.99.0.2/24 dev eth0\n\
              address add fd99::2/64 dev eth0 nodad\nlink set eth0 up",
    );
    for command in recorded.rules.lines().filter_map(|line| line.strip_prefix("#ip ")) {
        output_of(netns.command("ip").args(command.split(' ')));
    }
    let (_, rules) = recorded.rules.split_once("# ipv4\n").expect("rules of IPv4");
    let (ipv4, ipv6) = rules.split_once("# ipv6\n").expect("rules of IPv6");
    feed(&netns, &format!("iptables-{variant}-restore"), &["--noflush"], ipv4);
    feed(&netns, &format!("ip6tables-{variant}-restore"), &["--noflush"], ipv6);
    netns
}

#[track_caller]
fn effects(run: &Run) -> Vec<&str> {
    assert!(run.stdout.starts_with("drifted: by effect: "), "{run:?}");
    assert_eq!(run.code, Some(3), "{run:?}");
    run.stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  effect: "))
        .collect()
}

#[test]
fn rules_of_another_program_with_the_planned_effect_are_in_sync() {
    for recorded in RECORDED {
        for variant in ["nft", "legacy"] {
            let run = check(&pod(&recorded, variant), recorded.flags).succeeded();
            assert!(
                run.stdout.starts_with("in-sync: by effect: all "),
                "{:?}: {run:?}",
                recorded.flags
            );
            assert!(!run.stdout.contains("repair it"), "{run:?}");
            assert!(run.stdout.contains("Do not run `sidetrack apply`"), "{run:?}");
        }
    }
}

#[test]
fn a_rule_removed_from_another_program_s_is_an_effect_that_names_the_packet() {
    let removed = [
        (
            "nat -D ISTIO_INBOUND -p tcp --dport 15021 -j RETURN",
            "inbound tcp 10.99.0.2:15021 --interface eth0",
            "expected not redirected, found redirected to port 15006 by rule 1 of chain ISTIO_IN_REDIRECT",
        ),
        (
            "nat -R ISTIO_REDIRECT 1 -p tcp -j REDIRECT --to-ports 15009",
            "outbound tcp ",
            "expected redirected to port 15001, found redirected to port 15009 by rule 1 of chain ISTIO_REDIRECT",
        ),
        (
            "nat -D ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
            "--uid 1337 --gid 1000",
            "expected not redirected, found redirected to port 15001 by rule 1 of chain ISTIO_REDIRECT",
        ),
        (
            "nat -I ISTIO_OUTPUT 1 -p tcp --dport 3306 -j RETURN",
            "outbound tcp 198.51.100.1:3306",
            "expected redirected to port 15001, found not redirected by rule 1 of chain ISTIO_OUTPUT",
        ),
        (
            "filter -I INPUT 1 -p tcp --dport 15006 -j DROP",
            "inbound tcp 10.99.0.2:53",
            "found dropped by rule 1 of chain INPUT",
        ),
    ];
    for (variant, (command, packet, effect)) in ["nft", "legacy"]
        .into_iter()
        .flat_map(|variant| removed.map(|removed| (variant, removed)))
    {
        let netns = pod(&SIDECAR, variant);
        run(&netns, &format!("iptables-{variant}"), "iptables", command);
        let run = check(&netns, SIDECAR.flags);
        let found = effects(&run);
        let is_named = found
            .iter()
            .any(|found| found.contains(packet) && found.contains(effect));
        assert!(is_named, "{command}: {run:?}");
        let json = check(&netns, &[&["--json"], SIDECAR.flags].concat());
        let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!(
            (&json["comparedBy"], &json["state"]),
            (&"effect".into(), &"drifted".into())
        );
        // The packet is one of those that explain answers about in the same words.
        let words = json["effects"].as_array().expect("effects").iter();
        let words: Vec<&str> = words
            .map(|effect| effect["packet"].as_str().expect("a packet"))
            .collect();
        let explained = words.iter().map(|words| {
            let explain = [
                &["explain", "--from-kernel"],
                words.split(' ').collect::<Vec<_>>().as_slice(),
            ]
            .concat();
            crate::program::sidetrack(&netns, &explain).succeeded().stdout
        });
        assert_eq!(explained.count(), found.len(), "{run:?}");
    }
}

#[test]
fn what_cannot_be_read_of_another_program_s_rules_is_in_the_answer() {
    for variant in ["nft", "legacy"] {
        let netns = pod(&SIDECAR, variant);
        let unreadable = "nat -I OUTPUT 1 -m statistic --mode nth --every 2 --packet 0 -j RETURN";
        run(&netns, &format!("iptables-{variant}"), "iptables", unreadable);
        let run = check(&netns, SIDECAR.flags);
        let found = effects(&run);
        assert!(
            found
                .iter()
                .any(|found| found.contains("; not certain, it also depends on ")),
            "{run:?}"
        );
    }
}

#[test]
fn effects_of_foreign_rules_beside_an_applied_plan_say_where_they_are() {
    let netns = Netns::new();
    netns.ip(
        "link set lo up\nlink add eth0 type veth peer name other\naddress add 10.99.0.2/24 dev eth0\nlink set eth0 up",
    );
    apply(&netns, "nftables", &["--exclude-outbound-ports", "5432"]);
    let rules = "table inet theirs {
        chain front { type filter hook output priority -300; ip daddr 10.0.0.7 drop; }
        chain behind { type nat hook output priority -100; tcp dport 5432 redirect to :9; tcp dport 443 redirect to :9; }
        chain last { type filter hook output priority 0; tcp dport 15001 meta skuid 1001 reject; }
    }";
    feed(&netns, "nft", &["-f", "-"], rules);
    let run = check(&netns, &["--exclude-outbound-ports", "5432"]);
    let effects: Vec<&str> = run
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  effect: "))
        .collect();
    for (part, place) in [
        (
            "found dropped by rule 1 of chain front in inet theirs",
            "in front of sidetrack's rules",
        ),
        (
            "expected not redirected, found redirected to port 9 by rule 1 of chain behind in inet theirs",
            "behind sidetrack's rules, which had decided",
        ),
        (
            "found rejected by rule 1 of chain last in inet theirs",
            "behind sidetrack's rules, which had decided",
        ),
    ] {
        let found = effects.iter().find(|effect| effect.contains(part));
        assert!(found.is_some_and(|effect| effect.ends_with(place)), "{part}: {run:?}");
    }
}
