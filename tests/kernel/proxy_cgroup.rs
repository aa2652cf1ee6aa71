//! `--proxy-cgroup`: only sockets of processes in a cgroup are the proxy's. With real cgroups and a real Envoy in one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::mount::{MsFlags, mount};

use crate::SIDETRACK;
use crate::common::Transport::Tcp;
use crate::common::sidecar::{APP_CALLS_PEER, PEER_CALLS_APP, journey};
use crate::common::{Caller, Journey, Pod, Route, Sidecar, To, output_of};
use crate::program::{BACKENDS, Run, apply, sidetrack};

/// A cgroup with one below it. Both are removed when dropped; no process may be left in them.
struct Cgroup {
    mount: PathBuf,
    name: String,
}

impl Cgroup {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = Self {
            mount: hierarchy(),
            name: format!("sidetrack-test-{}-{number}", process::id()),
        };
        cgroup.make();
        cgroup
    }

    fn make(&self) {
        fs::create_dir_all(self.directory().join("proxy")).expect("a cgroup: run as root");
    }

    /// The directory of the cgroup; its processes are in `proxy` below.
    fn directory(&self) -> PathBuf {
        self.mount.join(&self.name)
    }

    fn path(&self) -> String {
        format!("{}/proxy", self.name)
    }

    fn enter(&self, pid: u32) {
        let file = self.directory().join("proxy/cgroup.procs");
        fs::write(file, pid.to_string()).expect("a process in the cgroup");
    }

    fn remove(&self) {
        let directory = self.directory();
        for directory in [directory.join("proxy"), directory] {
            // A process that was killed leaves its cgroup some moments later.
            while let Err(error) = fs::remove_dir(&directory) {
                assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Where cgroup v2 is mounted; where it is not, it is mounted now.
fn hierarchy() -> PathBuf {
    let mounted = || {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"));
        mount.map(|fields| PathBuf::from(fields[1]))
    };
    mounted().unwrap_or_else(|| {
        let directory = Path::new("/tmp/sidetrack-cgroup2");
        fs::create_dir_all(directory).expect("a directory");
        mount(Some("none"), directory, Some("cgroup2"), MsFlags::empty(), None::<&str>).expect("cgroup v2");
        directory.to_owned()
    })
}

const JOURNEYS: [Journey; 3] = [
    PEER_CALLS_APP,
    APP_CALLS_PEER,
    journey(
        "the proxy's user outside of its cgroup",
        Tcp,
        Caller::Proxy,
        To::Peer(9090),
        Route::Outbound,
    ),
];

/// With and without its user, and by the cgroup above.
#[test]
fn only_processes_of_its_cgroup_bypass_an_envoy_in_one() {
    for backend in BACKENDS {
        let cgroup = Cgroup::new();
        let pod = Pod::new();
        let path = format!("/{}", cgroup.path());
        let alone = ["--proxy-uid", "", "--proxy-gid", ""];
        apply(&pod.netns, backend, &["--proxy-cgroup", &path]);
        let sidecar = Sidecar::start(pod);
        cgroup.enter(sidecar.envoy.pid());
        sidecar.travel_all(&JOURNEYS);
        apply(
            &sidecar.pod.netns,
            backend,
            &[&["--proxy-cgroup", &path][..], &alone].concat(),
        );
        sidecar.travel_all(&JOURNEYS);
        apply(
            &sidecar.pod.netns,
            backend,
            &[&["--proxy-cgroup", &cgroup.name][..], &alone].concat(),
        );
        sidecar.travel_all(&JOURNEYS);
    }
}

#[test]
fn check_reports_a_cgroup_that_was_made_anew() {
    for backend in BACKENDS {
        let cgroup = Cgroup::new();
        let pod = Pod::new();
        let options = ["--proxy-cgroup", &cgroup.path()];
        apply(&pod.netns, backend, &options);
        let checks = |code| {
            // With a backend the options that are given count, and not those of the record.
            let recorded = (backend == "nftables").then_some(&["check"][..]);
            let given = [&["check", "--backend", backend][..], &options].concat();
            for arguments in recorded.into_iter().chain([given.as_slice()]) {
                let check = sidetrack(&pod.netns, arguments);
                assert_eq!(check.code, Some(code), "{backend}: {check:?}");
            }
        };
        checks(0);
        cgroup.remove();
        checks(3);
        cgroup.make();
        checks(3);
        apply(&pod.netns, backend, &options);
        checks(0);
    }
}

#[test]
fn cgroup_that_cannot_be_matched_is_refused() {
    let cgroup = Cgroup::new();
    let pod = Pod::new();
    let path = cgroup.path();
    for backend in BACKENDS {
        let absent = ["apply", "--backend", backend, "--proxy-cgroup", "no/such.service"];
        sidetrack(&pod.netns, &absent).failed(1, &["no cgroup no/such.service", "0::/"]);
        let arguments = ["apply", "--backend", backend, "--proxy-cgroup", &path];
        let mut contained = pod.netns.command("unshare");
        contained.args(["--cgroup", SIDETRACK]).args(arguments);
        Run::of(&mut contained).failed(1, &["container's cgroup namespace", "--proxy-mark"]);
        let mut unmounted = pod.netns.command("unshare");
        let script = r#"umount -a -t cgroup2; exec "$@""#;
        unmounted
            .args(["--mount", "sh", "-c", script, "sh", SIDETRACK])
            .args(arguments);
        Run::of(&mut unmounted).failed(1, &["no cgroup v2 hierarchy", "mount -t cgroup2"]);
    }
    let at_boot = ["apply", "--persist", "--dry-run", "--proxy-cgroup", &path];
    sidetrack(&pod.netns, &at_boot).failed(2, &["--persist and --proxy-cgroup", "--proxy-mark"]);
    let rules = output_of(pod.netns.command("nft").args(["list", "ruleset"]));
    assert!(!rules.contains("sidetrack"), "{rules}");
}

#[test]
fn nft_lists_the_rules_as_the_dry_run_prints_them_and_explain_follows_them() {
    let cgroup = Cgroup::new();
    let pod = Pod::new();
    let path = cgroup.path();
    let options = ["--proxy-cgroup", &path];
    apply(&pod.netns, "nftables", &options);
    let rules = output_of(pod.netns.command("nft").args(["list", "table", "inet", "sidetrack"]));
    assert!(rules.contains("socket cgroupv2 level 2"), "{rules}");
    let explain = |more: &[&str]| {
        let asked = ["explain", "outbound", "tcp", "192.0.2.1:443", "--uid", "1337"];
        sidetrack(&pod.netns, &[&asked, more].concat()).succeeded().stdout
    };
    assert!(explain(&options).contains("15001"), "outside");
    let inside = explain(&[&options[..], &["--cgroup", &path]].concat());
    assert!(inside.contains("is not redirected"), "{inside}");
    assert!(explain(&["--from-kernel"]).contains("15001"), "outside");
    let probe = sidetrack(&pod.netns, &["probe"]).succeeded();
    assert!(probe.stdout.contains("impostor"), "{}", probe.stdout);
}
