//! The output of a dry run, loaded by hand, equals an apply.

use crate::cases;
use crate::common::{Netns, output_of};
use crate::program::{BACKENDS, apply, feed, sidetrack, state};

fn dry_run(netns: &Netns, output: &str, options: &[&str]) -> String {
    let arguments = [&["apply", "--dry-run", "--output", output], options].concat();
    sidetrack(netns, &arguments).succeeded().stdout
}

/// Loads the output of a dry run by hand.
pub fn load(netns: &Netns, backend: &str, options: &[&str]) {
    let nft = match backend {
        "nftables-per-family" => dry_run(netns, "nft", &[&["--backend", backend], options].concat()),
        _ => dry_run(netns, "nft", options),
    };
    for command in nft
        .lines()
        .filter_map(|line| line.strip_prefix("# Part of the plan too, by hand: ip "))
    {
        output_of(netns.command("ip").args(command.split(' ')));
    }
    let iptables = dry_run(netns, "iptables", options);
    let only = |family| iptables.contains(&format!("# The rules are for {family} alone"));
    match backend {
        "nftables" | "nftables-per-family" => {
            feed(netns, "nft", &["-c", "-f", "-"], &nft);
            feed(netns, "nft", &["-f", "-"], &nft);
        }
        backend => {
            let variant = backend.strip_prefix("iptables-").expect("a variant");
            for (program, other) in [("iptables", "IPv6"), ("ip6tables", "IPv4")] {
                if !only(other) {
                    let restore = format!("{program}-{variant}-restore");
                    feed(netns, &restore, &["--noflush", "--test"], &iptables);
                    feed(netns, &restore, &["--noflush"], &iptables);
                }
            }
        }
    }
}

fn dry_run_loaded_by_hand_equals_apply(backend: &str) {
    for (name, options) in cases::all_options() {
        let applied = Netns::with_interfaces();
        apply(&applied, backend, options);
        let loaded = Netns::with_interfaces();
        load(&loaded, backend, options);
        assert_eq!(state(&applied, backend), state(&loaded, backend), "{}", name);
        let log = apply(&loaded, backend, options);
        assert!(log.contains("already redirected this way"), "{}: {log}", name);
    }
}

#[test]
fn dry_run_loaded_by_hand_equals_apply_with_nftables() {
    dry_run_loaded_by_hand_equals_apply("nftables");
}

#[test]
fn dry_run_loaded_by_hand_equals_apply_with_nftables_per_family() {
    dry_run_loaded_by_hand_equals_apply("nftables-per-family");
}

#[test]
fn dry_run_loaded_by_hand_equals_apply_with_iptables_nft() {
    dry_run_loaded_by_hand_equals_apply("iptables-nft");
}

#[test]
fn dry_run_loaded_by_hand_equals_apply_with_iptables_legacy() {
    dry_run_loaded_by_hand_equals_apply("iptables-legacy");
}

#[test]
fn dry_run_changes_nothing() {
    let netns = Netns::new();
    let before = BACKENDS.map(|backend| state(&netns, backend));
    for output in ["nft", "iptables", "json"] {
        for backend in ["auto", "nftables", "iptables-nft", "iptables-legacy"] {
            dry_run(&netns, output, &["--backend", backend, "--ip-family", "dual"]);
        }
    }
    assert_eq!(BACKENDS.map(|backend| state(&netns, backend)), before);
}
