//! `sidetrack explain --packets`: many packets, each answered as it is alone.

use std::process::Command;

use serde_json::Value;

use crate::SIDETRACK;
use crate::program::Run;
use crate::temporary::Temporary;

const PACKETS: [&str; 4] = [
    "outbound tcp 10.0.0.5:443 --uid 1000",
    "outbound tcp :8080 --uid 1337 --gid 1337",
    "inbound tcp [2001:db8::10]:8080 --from 2001:db8::99",
    "outbound udp 9.9.9.9:53 --mark 7",
];

fn explain(name: &str, packets: &str, more: &[&str]) -> Run {
    let file = Temporary::new(name, packets);
    let mut command = Command::new(SIDETRACK);
    Run::of(command.args(["explain", "--packets", file.path()]).args(more))
}

#[test]
fn packets_of_a_file_are_answered_as_each_is_alone() {
    let file = format!("# a comment\n\n{}\n", PACKETS.join("\n"));
    let lines = explain("alone", &file, &["--json", "--exclude-outbound-ports", "443"])
        .succeeded()
        .stdout;
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), PACKETS.len());
    for (words, found) in PACKETS.iter().zip(lines) {
        let mut command = Command::new(SIDETRACK);
        let alone = command.arg("explain").args(words.split(' '));
        let alone = Run::of(alone.args(["--json", "--exclude-outbound-ports", "443"]))
            .succeeded()
            .stdout;
        let mut alone: Value = serde_json::from_str(&alone).expect("JSON");
        alone
            .as_object_mut()
            .expect("an object")
            .remove("trace")
            .expect("a trace");
        assert_eq!(found, alone, "{words}");
    }
}

#[test]
fn packets_without_json_are_numbered_verdicts() {
    let text = explain("numbered", &PACKETS.join("\n"), &[]).succeeded().stdout;
    let first = Run::of(Command::new(SIDETRACK).arg("explain").args(PACKETS[0].split(' ')));
    let verdict = first.succeeded().stdout.lines().next().expect("a line").to_owned();
    assert_eq!(text.lines().next(), Some(format!("1: {verdict}").as_str()), "{text}");
    assert_eq!(text.lines().count(), PACKETS.len(), "{text}");
}

#[test]
fn mistakes_in_packets_name_their_lines() {
    let refused = explain(
        "mistakes",
        "outbound tcp 10.0.0.5\noutbound tcp 10.0.0.5:1\ninbound icmp :1 --uid x\n--what\n",
        &[],
    );
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    for line in [1, 3, 4] {
        assert!(refused.stderr.contains(&format!("line {line}: ")), "{refused:?}");
    }
    assert!(!refused.stderr.contains("line 2"), "{refused:?}");
}

#[test]
fn a_packet_that_the_pod_cannot_send_leaves_the_others_their_answers() {
    let packets = "outbound tcp [2001:db8::5]:80\noutbound tcp 10.0.0.5:80\n";
    let lines = explain("unsent", packets, &["--pod-ip", "10.1.1.1", "--json"])
        .succeeded()
        .stdout;
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(
        lines[0]["error"]
            .as_str()
            .expect("an error")
            .contains("no source address"),
        "{lines:?}"
    );
    assert_eq!(lines[1]["verdict"]["action"], "redirect", "{lines:?}");
}

#[test]
fn packets_of_other_protocols_are_rejected_by_a_policy_and_else_left_alone() {
    let packets = [
        "outbound icmp 10.0.0.5",
        "outbound icmpv6 2001:db8::5",
        "outbound sctp 10.0.0.5:38412",
        "outbound dccp 10.0.0.5:5001",
        "outbound udplite 10.0.0.5:5001",
        "outbound 47 2001:db8::5",
    ];
    let names = ["ICMP", "ICMPv6", "SCTP", "DCCP", "UDP-Lite", "protocol 47"];
    let of = |more: &[&str]| explain("protocols", &packets.join("\n"), more).succeeded().stdout;
    let left: Vec<String> = (1..)
        .zip(names)
        .map(|(number, name)| {
            format!("{number}: The packet is not redirected: {name} is not TCP, and no rule matches.\n")
        })
        .collect();
    assert_eq!(of(&[]), left.concat());
    let lock = ["--outbound-policy", "proxy-only"];
    let rejected = (1..=packets.len()).map(|number| format!("{number}: The packet is rejected: outbound policy.\n"));
    assert_eq!(of(&lock), rejected.collect::<String>());
    let excluded =
        (1..=packets.len()).map(|number| format!("{number}: The packet is not redirected: excluded users.\n"));
    assert_eq!(
        of(&[&lock[..], &["--exclude-uids", "1000"]].concat()),
        excluded.collect::<String>()
    );
}
