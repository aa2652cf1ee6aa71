//! Unsupported systems: a clear message, the right exit code, and no change.

use std::process::Command;

use crate::SIDETRACK;
use crate::common::{Netns, Owner, output_of};
use crate::program::{BACKENDS, Run, apply, sidetrack, state};
use crate::sandbox::{Denial, deny, with_capabilities};

const NETLINK_NETFILTER: u32 = libc::NETLINK_NETFILTER as u32;

fn everything(netns: &Netns) -> [String; 3] {
    BACKENDS.map(|backend| state(netns, backend))
}

fn apply_denied(netns: &Netns, denial: Denial, options: &[&str]) -> Run {
    let mut command = netns.command(SIDETRACK);
    command.arg("apply").args(options);
    deny(&mut command, denial);
    Run::of(&mut command)
}

#[test]
fn without_any_privilege() {
    let netns = Netns::new();
    let before = everything(&netns);
    let mut command = netns.command(SIDETRACK);
    with_capabilities(&mut command, Owner::APP, &[], &[]);
    Run::of(command.arg("apply")).failed(1, &["CAP_NET_ADMIN is missing", "add NET_ADMIN"]);
    let mut command = netns.command(SIDETRACK);
    with_capabilities(&mut command, Owner::APP, &[], &[]);
    Run::of(command.arg("cleanup")).failed(1, &["CAP_NET_ADMIN is missing"]);
    assert_eq!(everything(&netns), before);
}

/// The capability sets that containerd gives a non-root user with NET_ADMIN.
#[test]
fn capability_in_the_bounding_set_alone_is_reported() {
    let netns = Netns::new();
    let before = everything(&netns);
    let mut command = netns.command(SIDETRACK);
    with_capabilities(&mut command, Owner::APP, &[], &[caps::Capability::CAP_NET_ADMIN]);
    Run::of(command.arg("apply")).failed(1, &["bounding set alone", "Run as user 0", "setcap"]);
    assert_eq!(everything(&netns), before);
}

#[test]
fn kernel_without_netfilter_netlink_falls_back_to_legacy_iptables() {
    let netns = Netns::new();
    let denial = Denial::Socket {
        protocol: NETLINK_NETFILTER,
        errno: libc::EPROTONOSUPPORT,
    };
    let run = apply_denied(&netns, denial, &[]).succeeded();
    assert!(
        run.stderr.contains("WARN") && run.stderr.contains("nfnetlink"),
        "{run:?}"
    );
    assert!(run.stderr.contains("iptables-legacy"), "{run:?}");
    assert!(state(&netns, "iptables-legacy").contains("SIDETRACK_OUTBOUND"));
    assert!(!state(&netns, "nftables").contains("sidetrack"));
}

#[test]
fn missing_netfilter_netlink_names_the_kernel_module() {
    let netns = Netns::new();
    let before = everything(&netns);
    let denial = Denial::Socket {
        protocol: NETLINK_NETFILTER,
        errno: libc::EPROTONOSUPPORT,
    };
    apply_denied(&netns, denial, &["--backend", "nftables"]).failed(1, &["nfnetlink", "--backend iptables-legacy"]);
    assert_eq!(everything(&netns), before);
}

#[test]
fn no_usable_backend_reports_both_reasons() {
    let netns = Netns::new();
    let before = everything(&netns);
    let mut command = netns.command(SIDETRACK);
    command.arg("apply").env("PATH", "/nonexistent");
    deny(
        &mut command,
        Denial::Socket {
            protocol: NETLINK_NETFILTER,
            errno: libc::EPROTONOSUPPORT,
        },
    );
    Run::of(&mut command).failed(1, &["nfnetlink", "iptables-legacy", "Install the package iptables"]);
    assert_eq!(everything(&netns), before);
}

#[test]
fn broken_netlink_socket_is_reported_and_changes_nothing() {
    for errno in [libc::EBUSY, libc::ENOBUFS, libc::ECONNREFUSED, libc::EMSGSIZE] {
        for denial in [Denial::Send { errno }, Denial::Receive { errno }] {
            let netns = Netns::new();
            let before = everything(&netns);
            let what = nix::errno::Errno::from_raw(errno).to_string();
            apply_denied(&netns, denial, &[]).failed(1, &[what.as_str()]);
            assert_eq!(everything(&netns), before, "{denial:?}");
        }
    }
}

#[test]
fn missing_iptables_programs_are_reported() {
    let netns = Netns::new();
    let before = everything(&netns);
    for backend in ["iptables-nft", "iptables-legacy"] {
        let mut command = netns.command(SIDETRACK);
        command
            .args(["apply", "--backend", backend])
            .env("PATH", "/nonexistent");
        Run::of(&mut command).failed(1, &["Install the package iptables", "nftables backend"]);
        assert_eq!(everything(&netns), before, "{backend}");
    }
}

fn sysctl(netns: &Netns, key: &str, value: &str) {
    netns
        .run(|| std::fs::write(format!("/proc/sys/net/{key}"), value))
        .unwrap_or_else(|error| panic!("{key}: {error}"));
}

#[test]
fn used_ipv6_that_cannot_be_redirected_is_an_error() {
    let netns = Netns::new();
    netns.ip("link add eth0 type veth peer name eth1\nlink set eth0 up\naddress add fd00::1/64 dev eth0 nodad");
    sysctl(&netns, "ipv6/conf/lo/disable_ipv6", "1");
    for backend in BACKENDS {
        let before = everything(&netns);
        sidetrack(&netns, &["apply", "--backend", backend]).failed(
            1,
            &[
                "IPv6 cannot be redirected",
                "net.ipv6.conf.lo.disable_ipv6",
                "--ip-family ipv4",
            ],
        );
        assert_eq!(everything(&netns), before);
        apply(&netns, backend, &["--ip-family", "ipv4"]);
        sidetrack(&netns, &["cleanup"]).succeeded();
    }
}

#[test]
fn disabled_ipv6_is_redirected_in_advance() {
    let netns = Netns::new();
    sysctl(&netns, "ipv6/conf/all/disable_ipv6", "1");
    sidetrack(&netns, &["apply", "--ip-family", "dual"]).failed(1, &["IPv6 cannot be redirected"]);
    sidetrack(&netns, &["apply", "--ip-family", "ipv6"]).failed(1, &["IPv6 cannot be redirected"]);
    let log = apply(&netns, "nftables", &[]);
    assert!(log.contains("IPv4 and IPv6"), "{log}");
    let addresses = output_of(netns.command("ip").args(["-6", "address", "show"]));
    assert_eq!(addresses, "");
}

#[test]
fn loopback_down_is_warned_of() {
    let netns = Netns::new();
    netns.ip("link set lo down");
    let log = apply(&netns, "nftables", &[]);
    assert!(
        log.contains("WARN") && log.contains("loopback interface is down"),
        "{log}"
    );
}

#[test]
fn failed_apply_removes_its_address() {
    let netns = Netns::new();
    let before = everything(&netns);
    let mut command: Command = netns.command(SIDETRACK);
    command
        .args(["apply", "--backend", "iptables-nft"])
        .env("PATH", "/nonexistent");
    Run::of(&mut command).failed(1, &[]);
    assert_eq!(everything(&netns), before);
}
