//! Systems that are slow, odd, old, or busy with something else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::{EVERYTHING, INJECTED, Programs, assert_same, everything, istio_iptables, run};
use crate::SIDETRACK;
use crate::common::{Netns, Owner, Pod, output_of};
use crate::program::{BACKENDS, Run, feed, nft_state, sidetrack, state};
use crate::sandbox::with_capabilities;

/// Whether a process waits for a lock on this file (proc_locks(5)).
fn is_waited_for(file: &fs::File) -> bool {
    let inode = format!(":{} ", file.metadata().expect("a file").ino());
    let locks = fs::read_to_string("/proc/locks").expect("the kernel's locks");
    locks
        .lines()
        .any(|line| line.contains("-> FLOCK") && line.contains(&inode))
}

#[test]
fn kuma_7141_apply_waits_for_the_xtables_lock() {
    let directory = Programs::new("lock");
    let path = directory.path().join("xtables.lock");
    let file = fs::File::create(&path).expect("a file");
    let observer = file.try_clone().expect("a handle");
    let lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .expect("a lock");
    let netns = Netns::new();
    let mut command = netns.command(SIDETRACK);
    command
        .args(["apply", "--backend", "iptables-legacy"])
        .env("XTABLES_LOCKFILE", &path);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sidetrack");
    let begun = Instant::now();
    while !is_waited_for(&observer) {
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "no process waits for the lock"
        );
        thread::yield_now();
    }
    // A backend without the lock does not wait.
    let other = Netns::new();
    let mut command = other.command(SIDETRACK);
    Run::of(command.arg("apply").env("XTABLES_LOCKFILE", &path)).succeeded();
    assert!(is_waited_for(&observer));
    drop(lock);
    Run::from(child.wait_with_output().expect("the end of sidetrack")).succeeded();
    assert!(state(&netns, "iptables-legacy").contains("SIDETRACK_OUTBOUND"));
}

/// The system calls of these names that a run makes, of its children too.
fn calls(netns: &Netns, names: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = netns.command("strace");
    command
        .args(["-f", "-qq", "-e", &format!("trace={names}"), SIDETRACK])
        .args(arguments);
    let run = Run::of(&mut command).succeeded();
    let is_call = |line: &&str| names.split(',').any(|name| line.contains(&format!("{name}(")));
    run.stderr.lines().filter(is_call).map(str::to_owned).collect()
}

/// Services that nsswitch.conf names can hang in a half-built namespace, for a minute.
#[test]
fn istio_48416_kuma_11038_names_are_resolved_from_files_alone() {
    let netns = Netns::new();
    let arguments = ["apply", "--proxy-uid", "root,1337", "--exclude-gids", "root,7"];
    let calls = calls(&netns, "openat,connect", &arguments);
    let opened = |path: &str| calls.iter().any(|call| call.contains(&format!("\"{path}\"")));
    assert!(opened("/etc/passwd") && opened("/etc/group"), "{calls:#?}");
    let services = ["nsswitch.conf", "nscd", "libnss", "connect("];
    let asks = |call: &&String| services.iter().any(|service| call.contains(service));
    assert_eq!(calls.iter().find(asks), None);
}

/// Mount namespaces may be denied, and are not needed.
#[test]
fn istio_56569_nothing_is_mounted_or_unshared() {
    for backend in BACKENDS {
        let netns = Netns::new();
        let calls = calls(
            &netns,
            "mount,umount2,unshare,setns,chroot,pivot_root",
            &["apply", "--backend", backend],
        );
        assert_eq!(calls, Vec::<String>::new(), "{backend}");
    }
}

/// Before 1.8. Its other programs take the question for their version for an error.
#[test]
fn istio_49850_old_iptables_without_variant_is_legacy() {
    let old = Programs::new("old");
    let path = std::env::var("PATH").expect("PATH");
    for program in ["iptables", "ip6tables"] {
        for suffix in ["", "-save", "-restore"] {
            let asked = if suffix.is_empty() {
                "echo iptables v1.6.1; exit 0"
            } else {
                "exit 1"
            };
            let script =
                format!("case \"$*\" in *version*) {asked};; esac\nPATH={path} exec {program}-legacy{suffix} \"$@\"");
            old.put(&format!("{program}{suffix}"), &script);
        }
    }
    let netns = Netns::new();
    let run = |backend: &str| {
        let mut command = netns.command(SIDETRACK);
        Run::of(command.args(["apply", "--backend", backend]).env("PATH", old.path()))
    };
    run("iptables-legacy").succeeded();
    assert!(state(&netns, "iptables-legacy").contains("SIDETRACK_OUTBOUND"));
    run("iptables-nft").failed(1, &["no iptables (nf_tables)"]);
}

/// Rules in iptables tables that iptables cannot read.
const BY_NFT_ALONE: &str =
    "table ip nat { chain other { ip saddr { 192.0.2.1, 192.0.2.2 } tcp option maxseg size 5 accept; }; }";

#[test]
fn iptables_tables_with_nft_rules_are_not_empty() {
    for backend in BACKENDS {
        let pod = Pod::new();
        feed(&pod.netns, "nft", &["-f", "-"], BY_NFT_ALONE);
        let before = state(&pod.netns, "nftables");
        let mut command = istio_iptables(&pod.netns, backend, &[INJECTED, &["--dual-stack"]].concat());
        let attempt = Run::of(&mut command);
        if backend == "iptables-nft" {
            attempt.failed(1, &["cannot read the IPv4 table nat", "use the nftables backend"]);
        } else {
            attempt.succeeded();
            run(&pod.netns, backend, &["--cleanup-only"]);
        }
        assert_eq!(state(&pod.netns, "nftables"), before, "{backend}");
    }
}

/// An nft that did not write them reads them, and writes them again.
#[test]
fn istio_58492_host_nft_reads_and_rewrites_the_rules() {
    for arguments in [INJECTED, EVERYTHING] {
        let (pod, copy) = (Pod::new(), Netns::new());
        run(&pod.netns, "nftables", arguments);
        let listing = output_of(pod.netns.command("nft").args(["list", "ruleset"]));
        feed(&copy, "nft", &["-f", "-"], &listing);
        assert_eq!(nft_state(&copy), nft_state(&pod.netns));
    }
}

/// Neither iptables nor nft, for any step.
#[test]
fn istio_57978_no_program_of_the_image_is_needed() {
    let pod = Pod::new();
    let untouched = everything(&pod.netns, "nftables");
    for arguments in [EVERYTHING, EVERYTHING, INJECTED, &["--cleanup-only"]] {
        let mut command = pod.netns.command(SIDETRACK);
        Run::of(
            command
                .arg("istio-iptables")
                .args(arguments)
                .env("PATH", "/nonexistent"),
        )
        .succeeded();
    }
    assert_eq!(everything(&pod.netns, "nftables"), untouched);
}

/// Addresses, routing rules and tables change during the observation.
#[test]
fn istio_55707_a_changing_namespace_can_be_observed() {
    /// Enough that the kernel needs several messages for a list, and can be interrupted between them.
    const OBJECTS: u32 = 2000;
    let netns = Netns::new();
    let addresses: String = (0..OBJECTS)
        .map(|number| format!("addr add 10.7.{}.{}/32 dev lo\n", number / 250, number % 250))
        .collect();
    let rules: String = (0..OBJECTS)
        .map(|number| format!("rule add fwmark {} lookup 200\n", 1 + number))
        .collect();
    netns.ip(&[addresses, rules].concat());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let moving = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let change = "addr del 10.7.0.0/32 dev lo\naddr add 10.7.0.0/32 dev lo\nrule del fwmark 1 lookup 200\n\
                              rule add fwmark 1 lookup 200\n";
                netns.ip(&change.repeat(20));
                feed(
                    &netns,
                    "nft",
                    &["-f", "-"],
                    "add table ip moving; delete table ip moving",
                );
                rounds += 1;
            }
            rounds
        });
        // The changing thread ends even if the others panic.
        let outcome: Vec<Run> = (0..30)
            .map(|number| {
                let mode = ["redirect", "tproxy"][number % 2];
                sidetrack(&netns, &["apply", "--inbound-mode", mode])
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        let rounds = moving.join().expect("the end of the motion");
        assert!(rounds > 1, "{rounds}");
        for run in outcome {
            run.succeeded();
        }
    });
}

#[test]
fn istio_validation_under_loopback_8_finds_redirected_traffic() {
    let pod = Pod::new();
    let loopback = ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.0/8");
    for backend in BACKENDS {
        let mut command = istio_iptables(&pod.netns, backend, INJECTED);
        Run::of(command.env(loopback.0, loopback.1)).succeeded();
        let mut command = pod.netns.command_of(Owner::PROXY, SIDETRACK);
        command
            .arg("istio-iptables")
            .args(INJECTED)
            .args(["--run-validation", "--skip-rule-apply"]);
        command.args(["--probe-timeout", "1m"]).env(loopback.0, loopback.1);
        Run::of(&mut command).succeeded();
    }
}

#[test]
fn kuma_8412_capability_only_in_the_bounding_set_is_reported_on_every_backend() {
    let netns = Netns::new();
    for backend in BACKENDS {
        let untouched = everything(&netns, backend);
        let mut command = netns.command(SIDETRACK);
        command.args(["apply", "--ip-family", "ipv4", "--backend", backend]);
        with_capabilities(&mut command, Owner::APP, &[], &[caps::Capability::CAP_NET_ADMIN]);
        Run::of(&mut command).failed(1, &["bounding set alone", "Run as user 0"]);
        assert_same(&everything(&netns, backend), &untouched, backend);
    }
}
