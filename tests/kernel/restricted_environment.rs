//! Restricted environments: hidden file systems, filters and policies that deny system calls, incomplete network
//! namespaces. Each either works, or fails with the cause and advice, and changes nothing.

use std::process::{Command, Stdio};

use sidetrack::linux::lock::Lock;

use crate::SIDETRACK;
use crate::common::{Netns, Owner, Pod, output_of, write_program};
use crate::program::{BACKENDS, Run, apply, nft_state, sidetrack, state};
use crate::sandbox::{Denial, deny, deny_all, hide, like_docker, with_capabilities};
use crate::temporary::Directory;

const TPROXY: &[&str] = &[
    "--inbound-mode",
    "tproxy",
    "--redirect-dns",
    "--dns-servers",
    "10.0.0.10",
];
const OTHER: &[&str] = &["--exclude-uids", "7"];

/// The life cycle of rules: applied, found unchanged, replaced, removed.
fn works(backend: &str, restrict: impl Fn(&mut Command)) {
    let (netns, reference) = (Netns::new(), Netns::new());
    let untouched = state(&netns, backend);
    let run = |arguments: &[&str]| {
        let mut command = netns.command(SIDETRACK);
        command.args(arguments);
        restrict(&mut command);
        Run::of(&mut command).succeeded().stderr
    };
    for (options, said) in [
        (TPROXY, "redirected now"),
        (TPROXY, "already redirected this way"),
        (OTHER, "is replaced"),
    ] {
        let log = run(&[&["apply", "--backend", backend], options].concat());
        assert!(log.contains(said), "{backend}: {log}");
        apply(&reference, backend, options);
        assert_eq!(state(&netns, backend), state(&reference, backend), "{backend}");
    }
    run(&["cleanup"]);
    assert_eq!(state(&netns, backend), untouched, "{backend}");
}

fn every_backend_works(restrict: impl Fn(&mut Command)) {
    BACKENDS.iter().for_each(|backend| works(backend, &restrict));
}

#[test]
fn programs_of_the_working_directory_are_not_run() {
    let directory = Directory::new("working-directory");
    for program in ["iptables", "ip6tables"] {
        for name in ["", "-save", "-restore", "-nft-save", "-nft-restore", "-nft"] {
            let path = directory.path().join(format!("{program}{name}"));
            write_program(&path, "#!/bin/sh\ntouch trap\n");
        }
    }
    let netns = Netns::new();
    let run = |path: Option<&str>| {
        let mut command = netns.command(SIDETRACK);
        command
            .args(["apply", "--backend", "iptables-nft"])
            .current_dir(directory.path());
        match path {
            Some(path) => command.env("PATH", path),
            None => command.env_remove("PATH"),
        };
        Run::of(&mut command)
    };
    run(None).succeeded();
    for path in ["", ":", ".", "./:../"] {
        run(Some(path)).failed(1, &["found no iptables-nft"]);
    }
    assert!(!directory.path().join("trap").exists());
}

#[test]
fn proc_and_sys_are_not_needed() {
    every_backend_works(|command| {
        command.env_remove("XTABLES_LOCKFILE"); // It is in /proc.
        hide(command, &["/proc", "/sys"]);
    });
}

#[test]
fn docker_seccomp_allows_everything_needed() {
    every_backend_works(|command| deny_all(command, &like_docker()));
}

/// Entering another namespace needs a capability that no container has by default.
#[test]
fn docker_seccomp_denies_other_namespaces_and_that_is_reported() {
    let (own, other) = (Netns::new(), Netns::new());
    let mut command = own.command(SIDETRACK);
    command.args(["apply", "--netns", &other.path().display().to_string()]);
    deny_all(&mut command, &like_docker());
    Run::of(&mut command).failed(1, &["not allowed", "CAP_SYS_ADMIN", "without --netns"]);
    for netns in [own, other] {
        assert!(!nft_state(&netns).contains("sidetrack"));
    }
}

/// A pod before its network is set up.
#[test]
fn apply_works_without_addresses_routes_or_links() {
    for backend in BACKENDS {
        let (bare, reference) = (Netns::new(), Netns::new());
        bare.ip("link set lo down");
        let log = apply(&bare, backend, &[]);
        assert!(
            log.contains("WARN") && log.contains("loopback interface is down"),
            "{log}"
        );
        bare.ip("link set lo up");
        let log = apply(&bare, backend, &[]);
        assert!(log.contains("already redirected this way"), "{log}");
        apply(&reference, backend, &[]);
        assert_eq!(state(&bare, backend), state(&reference, backend), "{backend}");
    }
}

#[test]
fn loopback_interface_that_is_down_is_reported_if_routes_need_it() {
    let netns = Netns::new();
    netns.ip("link set lo down");
    let before = BACKENDS.map(|backend| state(&netns, backend));
    for backend in BACKENDS {
        let arguments = [&["apply", "--backend", backend], TPROXY].concat();
        sidetrack(&netns, &arguments).failed(1, &["the loopback interface is down", "ip link set lo up"]);
        assert_eq!(BACKENDS.map(|backend| state(&netns, backend)), before, "{backend}");
    }
}

/// Security policies return EACCES where the kernel itself returns EPERM or succeeds.
#[test]
fn sockets_denied_by_security_policy_are_reported_as_such() {
    let [route, netfilter] = [libc::NETLINK_ROUTE, libc::NETLINK_NETFILTER].map(|protocol| Denial::Socket {
        protocol: protocol as u32,
        errno: libc::EACCES,
    });
    let (send, receive) = (
        Denial::Send { errno: libc::EACCES },
        Denial::Receive { errno: libc::EACCES },
    );
    for denial in [route, netfilter, send, receive] {
        for arguments in [&["apply"][..], &["cleanup"]] {
            let netns = Netns::new();
            apply(&netns, "nftables", TPROXY);
            let before = state(&netns, "nftables");
            let mut command = netns.command(SIDETRACK);
            command.args(arguments);
            deny(&mut command, denial);
            let said = ["Permission denied", "SELinux", "AppArmor", "audit"];
            Run::of(&mut command).failed(1, &said);
            assert_eq!(state(&netns, "nftables"), before, "{denial:?} {arguments:?}");
        }
    }
}

/// A single run does not need the lock.
#[test]
fn apply_works_without_a_denied_lock() {
    let unix_sockets = Denial::With {
        number: libc::SYS_socket,
        argument: libc::AF_UNIX as u32,
        errno: libc::EACCES,
    };
    let names = Denial::Call {
        number: libc::SYS_bind,
        errno: libc::EACCES,
    };
    every_backend_works(|command| deny(command, unix_sockets));
    works("nftables", |command| deny(command, names)); // Programs of iptables bind sockets, too.
}

/// Files that an option requires must be readable; others, such as the list of legacy tables, are optional.
#[test]
fn files_denied_by_security_policy_are_reported_or_skipped() {
    // The dynamic linker opens files.
    let program = crate::program::static_program();
    let run = |netns: &Netns, arguments: &[&str]| {
        let mut command = netns.command(&program);
        // Programs of iptables need files.
        command.args(arguments).env("PATH", "/nonexistent");
        for number in [libc::SYS_open, libc::SYS_openat] {
            let errno = libc::EACCES;
            deny(&mut command, Denial::Call { number, errno });
        }
        Run::of(&mut command)
    };
    let (netns, reference) = (Netns::new(), Netns::new());
    run(&netns, &[&["apply"], TPROXY].concat()).succeeded();
    apply(&reference, "nftables", TPROXY);
    assert_eq!(state(&netns, "nftables"), state(&reference, "nftables"));
    for (arguments, said) in [
        (&["apply", "--redirect-dns"][..], ["/etc/resolv.conf", "--dns-servers"]),
        (&["apply", "--proxy-uid", "envoy"], ["/etc/passwd", "Permission denied"]),
        (
            &["apply", "--config", "/etc/hosts"],
            ["/etc/hosts", "Permission denied"],
        ),
        (
            &["apply", "--netns", "/proc/self/ns/net"],
            ["/proc/self/ns/net", "Permission denied"],
        ),
    ] {
        let run = run(&netns, arguments);
        assert!(run.code == Some(1) || run.code == Some(2), "{run:?}");
        assert!(said.iter().all(|text| run.stderr.contains(text)), "{run:?}");
        assert_eq!(state(&netns, "nftables"), state(&reference, "nftables"));
    }
    run(&netns, &["cleanup"]).succeeded();
    assert!(!state(&netns, "nftables").contains("sidetrack"));
}

/// A user who may write rules but not read root's files, such as the list of legacy tables.
#[test]
fn apply_works_without_the_list_of_legacy_tables() {
    let (netns, reference) = (Netns::new(), Netns::new());
    let mut command = netns.command(SIDETRACK);
    command.arg("apply").args(TPROXY);
    with_capabilities(&mut command, Owner::APP, &[caps::Capability::CAP_NET_ADMIN], &[]);
    Run::of(&mut command).succeeded();
    apply(&reference, "nftables", TPROXY);
    assert_eq!(state(&netns, "nftables"), state(&reference, "nftables"));
}

/// The log has no reader, the disk is full, or standard error is closed.
#[test]
fn unwritable_log_does_not_stop_a_run() {
    let full = || {
        Stdio::from(
            std::fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .expect("/dev/full"),
        )
    };
    let nobody_reads = || Stdio::from(std::io::pipe().expect("a pipe").1);
    for backend in BACKENDS {
        let (netns, reference) = (Netns::new(), Netns::new());
        for options in [TPROXY, OTHER] {
            apply(&reference, backend, options);
            for stderr in [full(), nobody_reads()] {
                let mut command = netns.command(SIDETRACK);
                command
                    .args(["apply", "-v", "--backend", backend])
                    .args(options)
                    .stderr(stderr);
                assert_eq!(command.status().expect("sidetrack").code(), Some(0), "{backend}");
            }
            assert_eq!(state(&netns, backend), state(&reference, backend), "{backend}");
        }
        let mut closed = netns.command("sh");
        closed.args([
            "-c",
            "exec \"$0\" \"$@\" 2>&-",
            SIDETRACK,
            "apply",
            "--backend",
            backend,
        ]);
        assert_eq!(closed.status().expect("sidetrack").code(), Some(0), "{backend}");
    }
}

/// A process in the pod binds the name of the lock.
#[test]
fn held_lock_does_not_prevent_a_repair() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let wanted = state(&pod.netns, "nftables");
    output_of(
        pod.netns
            .command("nft")
            .args(["flush", "chain", "inet", "sidetrack", "output"]),
    );
    let kept = pod.netns.run(|| {
        Owner::APP.assume().expect("another user");
        Lock::wait().expect("the lock")
    });
    let log = apply(&pod.netns, "nftables", &[]);
    assert!(log.contains("WARN") && log.contains("@sidetrack"), "{log}");
    drop(kept);
    assert_eq!(state(&pod.netns, "nftables"), wanted);
}
