//! The name servers whose lookups are captured: none if no file lists any, with a warning; in another network
//! namespace those of that namespace, not those of the calling process.

use std::path::Path;
use std::process::{Child, Command};

use sidetrack::types::Family;

use super::{ALWAYS, Lab, NOT_CAPTURED, OTHERS};
use crate::SIDETRACK;
use crate::common::{Address, Netns, with_file};
use crate::program::{BACKENDS, Run};
use crate::sandbox::hide;

/// Lines that resolvers ignore.
const UNUSABLE: &[&str] = &["", "search a.b\n", "nameserver 10.99.0.1;\nnameserver localhost\n"];

fn with_resolv_conf(netns: &Netns, arguments: &[&str], text: &str) -> Run {
    let mut command = netns.command(SIDETRACK);
    with_file(command.args(arguments), "/etc/resolv.conf", text);
    Run::of(&mut command)
}

#[test]
fn dns_capture_without_servers_is_reported_and_not_probed() {
    let lab = Lab::new();
    let netns = &lab.pod.netns;
    const SAID: &str = "--redirect-dns has no effect: /etc/resolv.conf names no server";
    for text in UNUSABLE {
        for command in ["apply", "check"] {
            let run = with_resolv_conf(netns, &[command, "--redirect-dns"], text).succeeded();
            assert!(run.stderr.contains(SAID), "{command}, {text:?}: {}", run.stderr);
        }
        let run = with_resolv_conf(netns, &["probe", "--redirect-dns"], text);
        assert_eq!(run.code, Some(1), "{text:?}: {run:?}");
        assert!(run.stdout.contains("not made  IPv4 UDP lookup"), "{}", run.stdout);
        lab.look_all_up(&Family::BOTH, NOT_CAPTURED);
    }
    let unusable = with_resolv_conf(netns, &["apply", "--redirect-dns"], "nameserver 10.99.0.1;\n").stderr;
    assert!(unusable.contains("\"10.99.0.1;\" is not an IP address"), "{unusable}");

    // As where a link leads nowhere.
    let mut without_file = netns.command(SIDETRACK);
    hide(without_file.args(["apply", "--redirect-dns"]), &["/etc"]);
    let run = Run::of(&mut without_file).succeeded();
    assert!(run.stderr.contains(SAID), "{}", run.stderr);

    let named = with_resolv_conf(netns, &["apply", "--redirect-dns"], "nameserver 10.99.0.1\n");
    assert!(!named.stderr.contains("has no effect"), "{}", named.stderr);
}

#[test]
fn options_without_effect_are_warned_of() {
    let lab = Lab::new();
    let said = |options: &[&str]| {
        let arguments = [&["apply"], options].concat();
        Run::of(lab.pod.netns.command(SIDETRACK).args(arguments))
            .succeeded()
            .stderr
    };
    let log = said(&["--exclude-interfaces", "eth1,tap0", "--reroute-interfaces", "k6t-eth0"]);
    assert!(log.contains("--exclude-interfaces tap0 has no effect yet"), "{log}");
    assert!(log.contains("--reroute-interfaces k6t-eth0 has no effect yet"), "{log}");
    assert!(!log.contains("eth1 has no effect"), "{log}");
    let log = said(&["--ip-family", "ipv4", "--include-outbound-cidrs", "fd00::/8"]);
    assert!(log.contains("--include-outbound-cidrs has no effect"), "{log}");
    let log = said(&["--include-inbound-ports", ",", "--include-outbound-cidrs", ","]);
    assert!(log.contains("nothing is redirected"), "{log}");
}

/// The program run from another network namespace with another name server.
fn from_elsewhere(arguments: &str, netns: &Path, namespace_s_own: &str) -> Run {
    let script = format!(
        "mount -t tmpfs tmpfs /etc; mount -t tmpfs tmpfs /run; mkdir -p /etc/netns/pod /run/netns; \
         echo nameserver {} >/etc/resolv.conf; {namespace_s_own}; \
         touch /run/netns/pod; mount --bind {} /run/netns/pod; {SIDETRACK} {arguments}",
        Address::FAR.of(Family::V4),
        netns.display(),
    );
    let elsewhere = Netns::new();
    let mut command = elsewhere.command("unshare");
    command
        .args(["--mount", "sh", "-euc", &script])
        .env("XTABLES_LOCKFILE", "/run/xtables.lock");
    Run::of(&mut command).succeeded()
}

/// The way of lookups where those of the neighbour's IPv4 address are captured.
#[track_caller]
fn the_neighbour_s_lookups_are_captured(lab: &Lab) {
    lab.look_all_up(&[Family::V4], ALWAYS);
    lab.look_all_up(&[Family::V4], OTHERS);
}

fn a_namespace_with_a_name_has_the_servers_of_its_own_file(backend: &str) {
    let lab = Lab::new();
    let file = "echo nameserver 10.99.0.1 >/etc/netns/pod/resolv.conf";
    let run = from_elsewhere(
        &format!("apply --netns pod --redirect-dns --backend {backend}"),
        &lab.pod.netns.path(),
        file,
    );
    assert!(run.stderr.contains("/etc/netns/pod/resolv.conf"), "{}", run.stderr);
    the_neighbour_s_lookups_are_captured(&lab);
    let check = format!("check --netns {{}} --redirect-dns --backend {backend}");
    // By any path to the namespace.
    for netns in ["pod", "/run/netns/pod", &lab.pod.netns.path().display().to_string()] {
        from_elsewhere(&check.replace("{}", netns), &lab.pod.netns.path(), file);
    }
}

#[test]
fn named_namespace_uses_its_own_resolv_conf_on_each_backend() {
    for backend in BACKENDS {
        a_namespace_with_a_name_has_the_servers_of_its_own_file(backend);
    }
}

/// A process of a container. It ends with the value.
struct Container(Child);

impl Container {
    fn with_resolv_conf(netns: &Netns, text: &str) -> Self {
        let mut command: Command = netns.command("sleep");
        with_file(command.arg("infinity"), "/etc/resolv.conf", text);
        Self(command.spawn().expect("sleep"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn unnamed_namespace_uses_the_resolv_conf_of_its_processes() {
    let lab = Lab::new();
    let container = Container::with_resolv_conf(&lab.pod.netns, "nameserver 10.99.0.1\n");
    let netns = format!("/proc/{}/ns/net", container.0.id());
    let run = from_elsewhere(
        &format!("apply --netns {netns} --redirect-dns"),
        &lab.pod.netns.path(),
        "true",
    );
    let file = format!("/proc/{}/root/etc/resolv.conf", container.0.id());
    assert!(run.stderr.contains(&file), "{}", run.stderr);
    the_neighbour_s_lookups_are_captured(&lab);
}

/// `nsenter --net` enters the network namespace alone: `/etc/resolv.conf` is the node's. So it is by `ip netns exec`, which
/// has mounts of its own, where `/etc/netns` has no file for the pod.
#[test]
fn name_servers_of_the_pod_count_for_a_program_that_entered_its_network_namespace_alone() {
    let lab = Lab::new();
    let script = format!(
        "exec 9<{}; mount -t proc proc /proc; mount -t tmpfs tmpfs /etc; echo nameserver {} >/etc/resolv.conf; \
         inside='nsenter --net=/proc/self/fd/9'; \
         $inside unshare --mount sh -euc 'mount -t tmpfs tmpfs /etc; echo nameserver 10.99.0.1 >/etc/resolv.conf; \
         exec sleep infinity' & \
         until grep -qs 10.99.0.1 /proc/$!/root/etc/resolv.conf; do :; done; \
         $inside {SIDETRACK} apply --redirect-dns; $inside {SIDETRACK} check --redirect-dns; \
         $inside unshare --mount {SIDETRACK} check --redirect-dns",
        lab.pod.netns.path().display(),
        Address::FAR.of(Family::V4),
    );
    let node = Netns::new();
    let mut command = node.command("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", &script]);
    let run = Run::of(&mut command).succeeded();
    assert_eq!(run.stdout.matches("in-sync").count(), 2, "{run:?}");
    assert!(run.stderr.contains("root/etc/resolv.conf"), "{run:?}");
    the_neighbour_s_lookups_are_captured(&lab);
}

/// A shell on the node that has entered the pod's network namespace has the node's file.
#[test]
fn name_servers_of_a_host_process_in_the_namespace_do_not_count() {
    let pod = Netns::new();
    let container = Container::with_resolv_conf(&pod, "nameserver 10.99.0.1\n");
    let netns = format!("/proc/{}/ns/net", container.0.id());
    let script = format!(
        "mount -t tmpfs tmpfs /etc; echo nameserver 10.99.0.77 >/etc/resolv.conf; \
         nsenter --net={netns} sleep 600 & \
         until [ \"$(readlink /proc/$!/ns/net)\" = \"$(readlink {netns})\" ]; do :; done; \
         code=0; {SIDETRACK} apply --netns {netns} --redirect-dns || code=$?; kill $!; exit $code"
    );
    let elsewhere = Netns::new();
    let mut command = elsewhere.command("unshare");
    let run = Run::of(command.args(["--mount", "sh", "-euc", &script])).succeeded();
    assert!(run.stderr.contains("dns_servers=\"10.99.0.1\""), "{}", run.stderr);
}

/// As from the node: it has another resolv.conf, and sees no process of the pod.
#[test]
fn recorded_name_servers_count_where_those_of_the_pod_are_not_to_be_seen() {
    for backend in BACKENDS {
        let lab = Lab::new();
        let netns = &lab.pod.netns;
        let apply = ["apply", "--redirect-dns", "--backend", backend];
        with_resolv_conf(netns, &apply, "nameserver 10.99.0.1\n").succeeded();
        for options in ["", "--redirect-dns", "--redirect-dns --log-level debug"] {
            let backend = if options.is_empty() {
                String::new()
            } else {
                format!("--backend {backend}")
            };
            let check = from_elsewhere(&format!("check --netns pod {options} {backend}"), &netns.path(), "true");
            assert!(check.stdout.starts_with("in-sync: "), "{options}: {check:?}");
        }
        let probe = from_elsewhere("probe --netns pod || true", &netns.path(), "true");
        assert!(
            probe
                .stdout
                .contains("UDP lookup: user 1000, group 1000 to 10.99.0.1:53"),
            "{probe:?}"
        );
        // Name servers that are given count before those recorded.
        let script = "check --netns pod --redirect-dns --dns-servers 10.99.0.2 --json || true";
        let check = from_elsewhere(script, &netns.path(), "true");
        assert!(check.stdout.contains("\"drifted\""), "{check:?}");
    }
}

#[test]
fn record_of_rules_that_capture_no_lookups_names_no_servers() {
    let netns = Netns::new();
    with_resolv_conf(&netns, &["apply", "--redirect-dns"], "").succeeded();
    let run = with_resolv_conf(&netns, &["check"], "nameserver 10.99.0.1\n").succeeded();
    let recorded = "Compared with the options recorded with the rules: --redirect-dns no-name-servers\n";
    assert!(run.stdout.ends_with(recorded), "{run:?}");
    // Given options refer to the file as it is now.
    let run = with_resolv_conf(&netns, &["check", "--redirect-dns"], "nameserver 10.99.0.1\n");
    assert_eq!(run.code, Some(3), "{run:?}");
}

#[test]
fn unknown_name_servers_capture_all_lookups() {
    let netns = Netns::new();
    let run = from_elsewhere("apply --netns pod --redirect-dns", &netns.path(), "true");
    assert!(
        run.stderr.contains("lookups to any server are captured"),
        "{}",
        run.stderr
    );
    let explain = [
        "explain",
        "outbound",
        "udp",
        "192.0.2.1:53",
        "--from-kernel",
        "--pod-ip",
        "10.0.0.2",
    ];
    let text = Run::of(netns.command(SIDETRACK).args(explain)).succeeded().stdout;
    assert!(text.contains("redirected to port 15053"), "{text}");
    from_elsewhere("check --netns pod --redirect-dns", &netns.path(), "true");
}
