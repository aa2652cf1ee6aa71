//! `kuma-init` in place of `kumactl`: the injector's flags are applied, validated and cleaned up.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::SIDETRACK;
use crate::common::{Netns, Owner};
use crate::program::{Run, state};
use crate::temporary::Directory;

/// The proxy's user.
const PROXY: Owner = Owner::new(5678, 5678);

/// A namespace with an address, like a pod's, and the program by the name `kumactl`.
fn pod(name: &str) -> (Netns, Directory, PathBuf) {
    let netns = Netns::new();
    netns.ip("link add eth0 type veth peer name host0\nlink set eth0 up\nlink set host0 up\naddress add 10.0.0.2/24 dev eth0\n");
    let directory = Directory::new(name);
    let kumactl = directory.path().join("kumactl");
    symlink(SIDETRACK, &kumactl).expect("a link");
    (netns, directory, kumactl)
}

#[test]
fn rules_are_applied_and_removed_in_place_of_kumactl() {
    let (pod, _directory, kumactl) = pod("kuma-again");
    let before = state(&pod, "nftables");
    let install = [
        "install",
        "transparent-proxy",
        "--kuma-dp-user=5678",
        "--redirect-all-dns-traffic",
    ];
    for _ in 0..2 {
        let log = Run::of(pod.command(&kumactl).args(install)).succeeded().stderr;
        assert!(log.contains(r#"mesh=kuma rules_as="kumactl""#), "{log}");
        assert!(state(&pod, "nftables").contains("sidetrack"));
    }
    let check = |flags: &[&str]| {
        Run::of(
            pod.command(SIDETRACK)
                .args(["check", "kuma-init", "--kuma-dp-user=5678"])
                .args(flags),
        )
    };
    check(&["--redirect-all-dns-traffic"]).succeeded();
    let other = check(&[]);
    assert!(other.stdout.starts_with("drifted"), "{other:?}");
    Run::of(
        pod.command(&kumactl)
            .args(["uninstall", "transparent-proxy", "--dry-run"]),
    )
    .succeeded();
    assert!(state(&pod, "nftables").contains("sidetrack"));
    Run::of(pod.command(&kumactl).args(["uninstall", "transparent-proxy"])).succeeded();
    assert_eq!(state(&pod, "nftables"), before);
}

#[test]
fn validator_distinguishes_redirected_traffic() {
    let (pod, directory, kumactl) = pod("kuma-validator");
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, "redirect: {inbound: {port: 16006}}\nkumaDPUser: \"5678\"\n").expect("a file");
    let validator = |owner: Owner, arguments: &[&str]| {
        let mut command = pod.command_of(owner, &kumactl);
        command.args(["install", "transparent-proxy-validator"]).args(arguments);
        Run::of(&mut command)
    };
    let of_config = format!("--transparent-proxy-config={}", config.display());
    Run::of(
        pod.command(&kumactl)
            .args(["install", "transparent-proxy"])
            .arg(format!("--config={}", config.display())),
    )
    .succeeded();
    validator(PROXY, &["--config-file=/tmp/.kumactl", &of_config]).succeeded();
    validator(
        PROXY,
        &["--validation-server-port", "16006", "--ip-family-mode", "ipv4"],
    )
    .succeeded();
    let missed = validator(PROXY, &["--validation-server-port", "15006"]);
    missed.failed(1, &["validation failed: traffic is not redirected"]);
}
