//! What a dry run prints, loaded by hand, is what applying does.

use std::io::Write as _;
use std::process::Stdio;

use crate::cases;
use crate::common::{Netns, output_of};
use crate::program::{BACKENDS, apply, sidetrack, state};

/// Feeds a text to a program inside.
pub fn feed(netns: &Netns, program: &str, arguments: &[&str], text: &str) {
    let mut command = netns.command(program);
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("the program reads");
    let output = child.wait_with_output().expect("the end of the program");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {complaint}in\n{text}");
}

fn dry_run(netns: &Netns, output: &str, options: &[&str]) -> String {
    let arguments = [&["apply", "--dry-run", "--output", output], options].concat();
    sidetrack(netns, &arguments).succeeded().stdout
}

/// Loads a dry run as a person would who read it.
pub fn load(netns: &Netns, backend: &str, options: &[&str]) {
    let nft = dry_run(netns, "nft", options);
    for command in nft
        .lines()
        .filter_map(|line| line.strip_prefix("# Part of the plan too, by hand: ip "))
    {
        output_of(netns.command("ip").args(command.split(' ')));
    }
    let iptables = dry_run(netns, "iptables", options);
    let only = |family| options.windows(2).any(|pair| pair == ["--ip-family", family]);
    match backend {
        "nftables" => {
            feed(netns, "nft", &["-c", "-f", "-"], &nft);
            feed(netns, "nft", &["-f", "-"], &nft);
        }
        backend => {
            let variant = backend.strip_prefix("iptables-").expect("a variant");
            for (program, other) in [("iptables", "ipv6"), ("ip6tables", "ipv4")] {
                if !only(other) {
                    let restore = format!("{program}-{variant}-restore");
                    feed(netns, &restore, &["--noflush", "--test"], &iptables);
                    feed(netns, &restore, &["--noflush"], &iptables);
                }
            }
        }
    }
}

fn a_dry_run_loaded_by_hand_is_what_apply_does(backend: &str) {
    for (name, options) in cases::all_options() {
        let applied = Netns::new();
        apply(&applied, backend, options);
        let loaded = Netns::new();
        load(&loaded, backend, options);
        assert_eq!(state(&applied, backend), state(&loaded, backend), "{}", name);
        let log = apply(&loaded, backend, options);
        assert!(log.contains("like this already"), "{}: {log}", name);
    }
}

#[test]
fn with_nftables() {
    a_dry_run_loaded_by_hand_is_what_apply_does("nftables");
}

#[test]
fn with_iptables_nft() {
    a_dry_run_loaded_by_hand_is_what_apply_does("iptables-nft");
}

#[test]
fn with_iptables_legacy() {
    a_dry_run_loaded_by_hand_is_what_apply_does("iptables-legacy");
}

#[test]
fn a_dry_run_changes_nothing() {
    let netns = Netns::new();
    let before = BACKENDS.map(|backend| state(&netns, backend));
    for output in ["nft", "iptables", "json"] {
        for backend in ["auto", "nftables", "iptables-nft", "iptables-legacy"] {
            dry_run(&netns, output, &["--backend", backend, "--ip-family", "dual"]);
        }
    }
    assert_eq!(BACKENDS.map(|backend| state(&netns, backend)), before);
}
