//! What `explain` and `check` say of a lock, on every backend.

use crate::SIDETRACK;
use crate::common::{Netns, Pod, output_of};
use crate::program::{Run, apply, feed};

const LOCKED: &[&str] = &["--outbound-policy", "proxy-only", "--inbound-policy", "proxy-only"];

/// What is asked, and the answer's first words.
const QUESTIONS: [(&[&str], &str); 4] = [
    (&["outbound", "udp", "198.51.100.7:443"], "rejected"),
    (&["outbound", "udp", "[2001:db8::7]:443"], "rejected"),
    (
        &["outbound", "udp", "198.51.100.7:443", "--uid", "1337"],
        "not redirected",
    ),
    (&["inbound", "udp", ":8080", "--from", "198.51.100.7"], "rejected"),
];

/// Deletes the first rule that rejects anything over IPv6.
fn delete_a_rejection(netns: &Netns, backend: &str) {
    if let Some(variant) = backend.strip_prefix("iptables-") {
        let saved = output_of(&mut netns.command(format!("ip6tables-{variant}-save")));
        let mut table = "";
        for line in saved.lines() {
            if line.starts_with('*') {
                table = line;
            } else if line.contains("-j REJECT") {
                let deletion = line.replacen("-A ", "-D ", 1);
                let restore = format!("ip6tables-{variant}-restore");
                return feed(
                    netns,
                    &restore,
                    &["--noflush"],
                    &format!("{table}\n{deletion}\nCOMMIT\n"),
                );
            }
        }
        panic!("no rule rejects anything: {saved}");
    }
    let family = if backend == "nftables" { "inet" } else { "ip6" };
    let listed = output_of(netns.command("nft").args(["-a", "list", "table", family, "sidetrack"]));
    let mut chain = "";
    for line in listed.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["chain", name, ..] => chain = name,
            [.., "handle", handle] if line.contains("reject with") => {
                let rule = ["delete", "rule", family, "sidetrack", chain, "handle", handle];
                output_of(netns.command("nft").args(rule));
                return;
            }
            _ => {}
        }
    }
    panic!("no rule rejects anything: {listed}");
}

#[test]
fn lock_is_explained_and_checked_on_every_backend() {
    for backend in super::ALL_BACKENDS {
        let Pod { netns, .. } = &Pod::new();
        apply(netns, backend, LOCKED);
        for (question, expected) in QUESTIONS {
            let run = Run::of(
                netns
                    .command(SIDETRACK)
                    .arg("explain")
                    .args(question)
                    .arg("--from-kernel"),
            );
            let said = run.succeeded().stdout;
            let first = said.lines().next().unwrap_or_default();
            assert!(first.contains(expected), "{backend}, {question:?}: {said}");
        }
        let check = || Run::of(netns.command(SIDETRACK).arg("check"));
        let run = check();
        assert_eq!(run.code, Some(0), "{backend}: {run:?}");
        delete_a_rejection(netns, backend);
        let run = check();
        assert_eq!(run.code, Some(3), "{backend}: {run:?}");
        assert!(run.stdout.contains("missing: "), "{backend}: {run:?}");
    }
}
