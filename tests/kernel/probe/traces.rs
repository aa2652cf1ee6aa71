//! A probe leaves nothing behind, however it ends, and does not touch addresses in use.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::{EVERYTHING, probe, probe_with_losses};
use crate::SIDETRACK;
use crate::common::{Netns, Pod, output_of};
use crate::program::{Run, apply, feed, state};

/// Links, addresses, routes and rules, as iproute2 prints them, except those that change by themselves.
fn configuration(netns: &Netns) -> String {
    let links = output_of(netns.command("ip").args(["-brief", "link"]));
    // Without their state: a new link is not up at once on a busy machine.
    let name_and_address = |link: &str| {
        let words: Vec<&str> = link.split_whitespace().collect();
        format!("{} {}\n", words[0], words[2])
    };
    let mut text: String = links.lines().map(name_and_address).collect();
    text += &output_of(netns.command("ip").args(["-oneline", "address"]));
    for family in ["-4", "-6"] {
        text += &netns.routes(family);
        text += &output_of(netns.command("ip").args([family, "rule"]));
    }
    // What IPv6 does by itself on the links of the laboratory, after a moment.
    let by_itself = ["fe80::", "fd99:", "ff00::"];
    let is_lasting = |line: &&str| !by_itself.iter().any(|words| line.contains(words));
    let lasting: Vec<&str> = text.lines().filter(is_lasting).collect();
    format!("{}\n{}", lasting.join("\n"), state(netns, "nftables"))
}

/// Connections and listeners in the pod; those that have ended do not count.
fn sockets(netns: &Netns) -> String {
    output_of(netns.command("ss").args(["-H", "-t", "-u", "-a", "-n"]))
}

#[test]
fn nothing_is_left_whether_probes_pass_or_fail() {
    for options in [&[][..], EVERYTHING, &["--inbound-mode", "tproxy"]] {
        let pod = Pod::new();
        let (before, open) = (configuration(&pod.netns), sockets(&pod.netns));
        assert_eq!(probe_with_losses(&pod.netns, options).code, Some(3));
        assert_eq!(configuration(&pod.netns), before);
        assert_eq!(sockets(&pod.netns), open);
        apply(&pod.netns, "nftables", options);
        let before = configuration(&pod.netns);
        probe(&pod.netns, options).passed();
        assert_eq!(configuration(&pod.netns), before);
        assert_eq!(sockets(&pod.netns), open);
    }
}

#[test]
fn nothing_is_left_when_a_probe_is_killed() {
    let pod = Pod::new();
    let before = configuration(&pod.netns);
    let drop = "table inet firewall { chain output { type filter hook output priority -400; tcp dport 15002 drop; }; }";
    feed(&pod.netns, "nft", &["-f", "-"], drop);
    let mut command = pod.netns.command(SIDETRACK);
    command.args(["probe", "--timeout", "1m"]).stdout(Stdio::null());
    let mut child = command.spawn().expect("sidetrack");
    let is_there = || output_of(pod.netns.command("ip").arg("address")).contains("192.0.2.253");
    wait_until(is_there);
    child.kill().expect("a running process");
    child.wait().expect("its end");
    // The kernel takes the namespace away some time after the last process of it.
    wait_until(|| !output_of(pod.netns.command("ip").arg("link")).contains("sidetrack-probe"));
    output_of(pod.netns.command("nft").args(["delete", "table", "inet", "firewall"]));
    assert_eq!(configuration(&pod.netns), before);
}

#[test]
fn the_link_is_gone_when_a_probe_has_ended() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let script =
        "for i in 1 2 3 4 5 6 7 8; do \"$0\" probe || exit; [ ! -e /sys/class/net/sidetrack-probe ] || exit 9; done";
    // Of /sys, each mount shows one namespace.
    let mount = format!("mount -t sysfs sysfs /sys && {script}");
    let mut command = pod.netns.command("unshare");
    Run::of(command.args(["--mount", "sh", "-c", &mount, SIDETRACK])).succeeded();
}

fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not come");
}

#[test]
fn one_probe_at_a_time() {
    let netns = Netns::new();
    netns.ip("link add sidetrack-probe type veth peer name other\n");
    Run::of(netns.command(SIDETRACK).arg("probe")).failed(1, &["another probe is running"]);
    let links = output_of(netns.command("ip").arg("link"));
    assert!(links.contains("sidetrack-probe"), "it is somebody else's: {links}");
}

#[test]
fn a_probe_waits_for_another_to_end() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let script = "\"$0\" probe > /dev/null & \"$0\" probe > /dev/null && wait $!";
    Run::of(pod.netns.command("sh").args(["-c", script, SIDETRACK])).succeeded();
}

#[test]
fn addresses_that_the_pod_uses_are_left_to_it() {
    let pod = Pod::new();
    pod.netns
        .ip("route add 192.0.2.0/24 via 10.99.0.1\nroute add 2001:db8::/64 via fd99::1\n");
    apply(&pod.netns, "nftables", &[]);
    let probed = probe(&pod.netns, &[]);
    probed.passed();
    let destinations = |name| probed.texts(name, "destination");
    assert_eq!(destinations("ipv4 tcp outbound"), ["198.51.100.254:15002"]);
    assert_eq!(destinations("ipv6 tcp outbound"), ["[3fff:fff::fffe]:15002"]);
    for net in ["198.51.100.0/24", "203.0.113.0/24"] {
        pod.netns.ip(&format!("route add {net} via 10.99.0.1\n"));
    }
    let probed = probe(&pod.netns, &[]);
    assert_eq!(probed.code, Some(1), "{probed:#?}");
    assert!(
        probed
            .texts("ipv4 tcp inbound", "reason")
            .concat()
            .contains("routes to every address"),
        "{probed:#?}"
    );
    assert_eq!(probed.with_result("failed").len(), 0, "{probed:#?}");
}

#[test]
fn routing_to_another_interface_is_reported() {
    let pod = Pod::new();
    pod.netns
        .ip("route add default via 10.99.0.1 table 100\nrule add to 192.0.2.254 lookup 100\n");
    apply(&pod.netns, "nftables", &[]);
    let probed = probe(&pod.netns, &[]);
    assert_eq!(probed.code, Some(1), "{probed:#?}");
    let reason = probed.texts("ipv4 tcp exempt", "reason").concat();
    assert!(reason.contains("`ip rule`"), "{reason}");
    assert!(probed.with_result("passed").contains("ipv6 tcp exempt"), "{probed:#?}");
}

#[test]
fn ipv6_disabled_for_new_interfaces_is_reported() {
    let pod = Pod::new();
    pod.netns
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))
        .expect("a sysctl");
    apply(&pod.netns, "nftables", &[]);
    let probed = probe(&pod.netns, &[]);
    let reason = probed.texts("ipv6 tcp inbound", "reason").concat();
    assert!(reason.contains("net.ipv6.conf.default.disable_ipv6"), "{probed:#?}");
    assert!(probed.with_result("passed").contains("ipv4 tcp inbound"), "{probed:#?}");
}
