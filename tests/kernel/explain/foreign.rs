//! Rules of other programs: the simulator and the kernel agree where each packet lands, wherever the simulator is certain.

use std::net::IpAddr;

use proptest::collection::vec;
use sidetrack::backend::Namespace;
use sidetrack::ruleset::netfilter::Netfilter;
use sidetrack::simulate::{self, LocalMark};
use sidetrack::types::{Family, InterfaceName, Port};

use super::against_kernel::{Chance, Edges, explained, setting, shot};
use super::foreign_rules::{ALL, Rules};
use super::packets::{Lab, Landing};
use crate::common::{Address, Netns, Pod, output_of};
use crate::program::feed;
use crate::questions::{explain, json};

/// The number of packets through each rules.
const PACKETS: usize = 250;
/// The ports of the pod that are listened on.
const LISTENING: [u16; 18] = [
    22, 53, 80, 443, 3306, 5432, 8080, 8081, 9090, 15001, 15006, 15008, 15020, 15021, 15053, 15090, 4190, 9050,
];

/// One of the ports that the laboratory sends from, for rules about source ports.
const SOURCE_PORT: Port = Port::new(40000).expect("a port");

/// The values that the rules distinguish.
fn edges() -> Edges {
    let addresses = [
        "10.0.0.5",
        "10.96.0.10",
        "10.127.255.255",
        "10.128.0.1",
        "9.9.9.9",
        "203.0.113.7",
        "169.254.7.127",
        "198.18.0.9",
        "2001:db8::5",
        "2001:db8:8000::1",
        "2001:db9::1",
        "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
    ];
    Edges {
        ports: LISTENING.into(),
        ids: vec![0, 101, 1000, 1001, 1337, 1338],
        addresses: addresses.map(|address| address.parse().expect("an address")).into(),
    }
}

/// Loads rules as their program does.
fn install(netns: &Netns, rules: &Rules, variant: &str) {
    if !rules.nft.is_empty() {
        feed(netns, "nft", &["-f", "-"], rules.nft);
    }
    if !rules.iptables.is_empty() {
        for (program, family) in [("iptables", Family::V4), ("ip6tables", Family::V6)] {
            if family == Family::V4 || rules.ipv6 {
                let program = format!("{program}-{variant}-restore");
                feed(netns, &program, &["--noflush"], &of_family(rules.iptables, family));
            }
        }
    }
    for command in rules.ip.lines() {
        output_of(netns.command("ip").args(command.split(' ')));
    }
}

/// The rules for one family.
fn of_family(text: &str, family: Family) -> String {
    let words = match family {
        Family::V4 => [
            "10.99.1.2",
            "127.0.0.1:8081",
            "127.0.0.1/32",
            "127.0.0.6/32",
            "10.0.0.0/9",
            "169.254.7.127",
        ],
        Family::V6 => [
            "fd99:1::2",
            "[::1]:8081",
            "::1/128",
            "::6/128",
            "2001:db8::/33",
            "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
        ],
    };
    let names = [
        "OTHER",
        "LOOPBACK_ENDPOINT",
        "LOOPBACK",
        "PASSTHROUGH",
        "EXCLUDED",
        "PROBE",
    ];
    let replace = |text: String, (name, word): (&str, &str)| text.replace(name, word);
    names.into_iter().zip(words).fold(text.to_owned(), replace)
}

/// The pod of the laboratory.
fn pod(local_marks: Vec<LocalMark>) -> simulate::Pod {
    let mut addresses: Vec<(InterfaceName, IpAddr)> = Vec::new();
    for (interface, address) in [("eth0", Address::POD), ("eth1", Address::POD_SECOND)] {
        let interface = InterfaceName::parse(interface).expect("a name");
        addresses.extend(Family::BOTH.map(|family| (interface.clone(), address.of(family))));
    }
    simulate::Pod {
        addresses,
        local_marks,
        route_localnet: Vec::new(),
    }
}

fn read(lab: &Lab) -> (Netfilter, Vec<LocalMark>) {
    let read = || {
        let mut namespace = Namespace::default();
        Ok::<_, sidetrack::backend::KernelError>((namespace.netfilter()?, namespace.local_marks()?))
    };
    lab.pod.netns.run(read).expect("rules that can be read")
}

/// Sends packets through rules. Returns how many there were, how many the simulator was certain about, and its errors.
pub fn compare(chance: &mut Chance, rules: &Rules, variant: &str) -> (usize, usize, Vec<String>) {
    let mut lab = Lab::new();
    install(&lab.pod.netns, rules, variant);
    let (installed, local_marks) = read(&lab);
    let pod = pod(local_marks);
    let mut shots = chance.one(vec(shot(&pod, &edges(), &LISTENING), setting("PACKETS", PACKETS)));
    for shot in &mut shots {
        shot.packet.source_port = Some(SOURCE_PORT);
    }
    let outcomes = lab.send(&LISTENING, &shots);
    let (mut certain, mut differing) = (0, Vec::new());
    for (shot, mut seen) in shots.iter().zip(outcomes) {
        let explained = explained(&installed, &pod, shot);
        if !explained.is_certain {
            continue;
        }
        certain += 1;
        if seen != explained.outcome && seen.landing == Landing::Nowhere {
            // A busy machine may take longer than is waited for, and old connections may be in the way.
            let mut fresh = Lab::new();
            install(&fresh.pod.netns, rules, variant);
            seen = fresh.send(&LISTENING, std::slice::from_ref(shot)).remove(0);
        }
        if seen != explained.outcome {
            differing.push(format!(
                "{} ({variant}): {shot:?}: {seen:?}, explained as {:?} {:?}",
                rules.name, explained.outcome, explained.verdict
            ));
        }
    }
    (shots.len(), certain, differing)
}

#[test]
fn simulator_and_kernel_agree_about_rules_of_other_programs() {
    let mut chance = Chance::new(setting("SEED", 1));
    let (mut all, mut certain, mut differing) = (0, 0, Vec::new());
    for rules in ALL.iter().filter(|rules| is_wanted(rules.name)) {
        let variants: &[&str] = if rules.iptables.is_empty() {
            &["nft"]
        } else {
            &["nft", "legacy"]
        };
        for variant in variants {
            let (sent, sure, wrong) = compare(&mut chance, rules, variant);
            println!(
                "{} ({variant}): {sure} of {sent} certain, {} differ",
                rules.name,
                wrong.len()
            );
            (all, certain) = (all + sent, certain + sure);
            differing.extend(wrong);
        }
    }
    let count = differing.len();
    differing.truncate(20);
    assert!(
        differing.is_empty(),
        "{count} of {all} differ:\n{}",
        differing.join("\n")
    );
    assert!(certain * 100 >= all * 95, "only {certain} of {all} are certain");
}

fn is_wanted(name: &str) -> bool {
    std::env::var("RULES").map_or(true, |wanted| name.contains(&wanted))
}

fn named(name: &str) -> &'static Rules {
    ALL.iter().find(|rules| rules.name == name).expect("rules of that name")
}

#[test]
fn istios_own_rules_alone_are_followed() {
    for variant in ["nft", "legacy"] {
        let pod = Pod::new();
        install(&pod.netns, named("istio with DNS capture"), variant);
        for (question, action, port) in [
            (&["outbound", "tcp", "198.51.100.7:80"][..], "redirect", 15001),
            (&["outbound", "tcp", "[2001:db8:9000::7]:80"], "redirect", 15001),
            (&["outbound", "tcp", "198.51.100.7:80", "--uid", "1337"], "accept", 80),
            (&["outbound", "udp", "198.51.100.7:53"], "redirect", 15053),
            (&["inbound", "tcp", ":8080"], "redirect", 15006),
        ] {
            let answer = json(&pod.netns, &[question, &["--from-kernel"]].concat());
            assert_eq!(
                answer["verdict"]["action"], action,
                "{variant} {question:?}: {answer:#}"
            );
            assert_eq!(answer["verdict"]["port"], port, "{variant} {question:?}");
            assert_eq!(answer["certain"], true, "{variant} {question:?}");
        }
    }
}

#[test]
fn explain_reports_a_filter_that_drops_redirected_connections() {
    for (variant, table) in [("nft", "ip filter"), ("legacy", "filter (legacy iptables)")] {
        let pod = Pod::new();
        install(&pod.netns, named("a firewall of iptables"), variant);
        let said = explain(&pod.netns, &["inbound", "tcp", ":8080", "--from-kernel"])
            .succeeded()
            .stdout;
        let verdict = format!(
            "The connection is redirected to port 15006 and then dropped by the policy of chain INPUT of table {table}."
        );
        assert!(said.starts_with(&verdict), "{said}");
    }
}

#[test]
fn a_target_chosen_at_random_makes_the_answer_uncertain_and_says_which_rule_chooses() {
    for (name, chain) in [
        ("kube-proxy", "KUBE-SVC-PAIR"),
        ("kube-proxy's nftables", "service-pair"),
    ] {
        let pod = Pod::new();
        install(&pod.netns, named(name), "nft");
        let question = ["outbound", "tcp", "10.0.0.5:443", "--from-kernel"];
        let answer = json(&pod.netns, &question);
        assert_eq!(answer["certain"], false, "{answer:#}");
        let doubt = answer["doubts"][0].as_str().unwrap_or_default();
        assert!(doubt.contains(chain), "{answer:#}");
        let said = explain(&pod.netns, &question).succeeded().stdout;
        assert!(
            said.contains(&format!("This is not certain. It may depend on:\n  - {doubt}")),
            "{said}"
        );
        // To another destination, it makes no difference.
        let elsewhere = json(&pod.netns, &["outbound", "tcp", "10.0.0.5:444", "--from-kernel"]);
        assert_eq!(elsewhere["certain"], true, "{elsewhere:#}");
    }
}
