//! Mesh programs with their flags as arguments of `check`, `probe` and `explain`, after an apply with the same flags.

use serde_json::Value;

use crate::common::Pod;
use crate::program::sidetrack;

/// A word with its flags, flags that ask for other rules, and the proxy's user and outbound port.
const PROGRAMS: [(&[&str], &[&str], &str, u64); 3] = [
    (
        &["istio-iptables", "-p", "15101", "-u", "1500", "-i", "*", "-b", "*"],
        &["-d", "9090"],
        "1500",
        15101,
    ),
    (
        &["linkerd-proxy-init", "-p", "4143", "-o", "4140", "-u", "2102"],
        &["--inbound-ports-to-ignore", "9090"],
        "2102",
        4140,
    ),
    (
        &[
            "kuma-init",
            "--kuma-dp-user",
            "5678",
            "--redirect-outbound-port",
            "15101",
        ],
        &["--exclude-inbound-ports", "9090"],
        "5678",
        15101,
    ),
];

#[test]
fn check_probe_and_explain_take_the_flags_of_each_front_end() {
    for (program, others, proxy, port) in PROGRAMS {
        let pod = Pod::new();
        sidetrack(&pod.netns, program).succeeded();
        let check = |more: &[&str]| sidetrack(&pod.netns, &[&["check"], program, more].concat());
        check(&[]).succeeded();
        let drifted = check(others);
        assert_eq!(drifted.code, Some(3), "{drifted:?}");
        assert!(drifted.stdout.starts_with("drifted"), "{drifted:?}");
        sidetrack(&pod.netns, &[&["probe", "--timeout", "1m"], program].concat()).succeeded();
        let verdict = |uid: &str| {
            let question = ["explain", "--json", "outbound", "tcp", "9.9.9.9:443", "--uid", uid];
            let answer = sidetrack(&pod.netns, &[&question[..], program].concat()).succeeded();
            let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
            answer["verdict"].clone()
        };
        assert_eq!(verdict("1000")["port"], port, "{program:?}");
        assert_eq!(verdict(proxy)["action"], "accept", "{program:?}");
    }
}

#[test]
fn flags_before_a_front_end_are_refused_with_all_other_errors() {
    let pod = Pod::new();
    for (program, ..) in PROGRAMS {
        let before = format!("--proxy-uid has no effect before {}", program[0]);
        for command in ["check", "probe"] {
            sidetrack(&pod.netns, &[&[command, "--proxy-uid", "5"], program].concat()).failed(2, &[&before]);
        }
        let wrong = [&["explain", "outbound", "tcp", ":80", "--proxy-uid", "5"], program].concat();
        sidetrack(&pod.netns, &wrong).failed(2, &["--proxy-uid and", program[0]]);
    }
    sidetrack(
        &pod.netns,
        &["check", "--proxy-uid", "5", "linkerd-proxy-init", "-p", "0"],
    )
    .failed(
        2,
        &[
            "--proxy-uid",
            "--incoming-proxy-port",
            "--outgoing-proxy-port: it is required",
        ],
    );
    // Kuma's program has no flag for a network namespace, so sidetrack's may stand before it.
    sidetrack(
        &pod.netns,
        &["check", "--netns", "/no/such/netns", "kuma-init", "--kuma-dp-user", "1"],
    )
    .failed(1, &["/no/such/netns"]);
    sidetrack(&pod.netns, &["check", "--netns", "x", "linkerd-proxy-init"])
        .failed(2, &["--netns has no effect before"]);
}
