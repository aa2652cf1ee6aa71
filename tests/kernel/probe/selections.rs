//! What options include and exclude: addresses, users' ports, interfaces, half-closed connections and invalid packets.

use std::fs;

use super::{both, probe, probe_with_losses};
use crate::common::{Netns, Pod, output_of};
use crate::program::{BACKENDS, apply, feed};

use super::faults::delete_rules;

/// Included and excluded addresses. The pod has routes of its own to some of them.
const ADDRESSES: &[&str] = &[
    "--include-outbound-cidrs",
    "10.0.0.0/8,172.16.0.9,fd09::9,fd10::/64",
    "--exclude-outbound-cidrs",
    "10.9.0.0/16,fd10::/96",
    "--exclude-inbound-cidrs",
    "10.77.0.0/16,fd77::/64",
    "--exclude-outbound-ports-for-uids",
    "tcp:4444:900-901",
];

/// Interfaces, and packets that belong to no connection.
const INTERFACES: &[&str] = &[
    "--exclude-interfaces",
    "eth1",
    "--bound-interfaces",
    "eth0",
    "--drop-invalid",
    "--redirect-dns",
    "--dns-servers",
    "10.96.0.10,fd96::10",
];

/// The names of the probes that the options add to those of the defaults.
const BY_ADDRESSES: [&str; 4] = [
    "tcp excluded-outbound-address",
    "tcp not-included-outbound-address",
    "tcp excluded-inbound-address",
    "tcp excluded-port-for-user",
];
const BY_INTERFACES: [&str; 6] = [
    "tcp excluded-interface",
    "tcp excluded-inbound-interface",
    "tcp bound-interface",
    "tcp invalid-packet",
    "tcp lookup",
    "udp lookup",
];

fn pod(backend: &str, options: &[&str]) -> Pod {
    let pod = Pod::new();
    pod.netns
        .ip("route add 172.16.0.9/32 via 10.99.0.1\nroute add fd09::9/128 via fd99::1\n");
    apply(&pod.netns, backend, options);
    pod
}

#[track_caller]
fn fails(pod: &Pod, options: &[&str], names: &[&str]) {
    let names = both(names);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    probe_with_losses(&pod.netns, options).failed(&names);
}

/// Deletes the rules with this comment from both families of iptables.
fn delete_iptables_rules(netns: &Netns, backend: &str, comment: &str) {
    for program in [backend.to_owned(), backend.replace("iptables", "ip6tables")] {
        let saved = output_of(&mut netns.command(format!("{program}-save")));
        let is_kept = |line: &&str| !line.contains(&format!("--comment \"{comment}\""));
        let kept: Vec<&str> = saved.lines().filter(is_kept).collect();
        assert!(kept.len() < saved.lines().count(), "no rule has {comment:?}: {saved}");
        feed(netns, &format!("{program}-restore"), &[], &(kept.join("\n") + "\n"));
    }
}

pub fn delete(pod: &Pod, backend: &str, comment: &str) {
    match backend {
        "nftables" => delete_rules(&pod.netns, &[comment]),
        _ => delete_iptables_rules(&pod.netns, backend, comment),
    }
}

#[test]
fn selections_pass_on_every_backend_and_in_every_mode() {
    for backend in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            for (options, names) in [(ADDRESSES, &BY_ADDRESSES[..]), (INTERFACES, &BY_INTERFACES)] {
                let options = [options, &["--inbound-mode", mode]].concat();
                let pod = pod(backend, &options);
                let probed = probe(&pod.netns, &options);
                probed.passed();
                let passed = probed.with_result("passed");
                for name in both(names) {
                    assert!(passed.contains(&name), "{backend} {mode}: no {name} in {passed:?}");
                }
            }
        }
    }
}

#[test]
fn each_missing_selection_fails_its_own_probes() {
    let table: &[(&[&str], &str, &[&str])] = &[
        (
            ADDRESSES,
            "included outbound destinations, to the proxy",
            &["tcp outbound"],
        ),
        (
            ADDRESSES,
            "excluded outbound destinations",
            &["tcp excluded-outbound-address"],
        ),
        (ADDRESSES, "excluded inbound sources", &["tcp excluded-inbound-address"]),
        (
            ADDRESSES,
            "ports excluded for these users",
            &["tcp excluded-port-for-user"],
        ),
        (
            INTERFACES,
            "excluded interface",
            &["tcp excluded-interface", "tcp excluded-inbound-interface"],
        ),
        (INTERFACES, "invalid conntrack state", &["tcp invalid-packet"]),
    ];
    for backend in ["nftables", "iptables-nft"] {
        for (options, comment, names) in table {
            let pod = pod(backend, options);
            delete(&pod, backend, comment);
            fails(&pod, options, names);
        }
    }
}

#[test]
fn capture_of_addresses_that_are_not_included_fails() {
    let pod = pod("nftables", ADDRESSES);
    let rule = "add rule inet sidetrack outbound tcp dport 15002 redirect to :15001";
    feed(&pod.netns, "nft", &["-f", "-"], rule);
    fails(&pod, ADDRESSES, &["tcp not-included-outbound-address"]);
    let pod = self::pod("iptables-nft", ADDRESSES);
    for program in ["iptables-nft", "ip6tables-nft"] {
        let rule = "-t nat -A SIDETRACK_OUTBOUND -p tcp --dport 15002 -j REDIRECT --to-ports 15001";
        output_of(pod.netns.command(program).args(rule.split(' ')));
    }
    fails(&pod, ADDRESSES, &["tcp not-included-outbound-address"]);
}

#[test]
fn a_missing_route_of_a_bound_interface_fails() {
    for backend in ["nftables", "iptables-legacy"] {
        let pod = pod(backend, INTERFACES);
        for (family, address) in [("-4", "127.0.0.1"), ("-6", "::1")] {
            let delete = ["route", "delete", "local", address, "dev", "eth0", "table", "local"];
            output_of(pod.netns.command("ip").arg(family).args(delete));
        }
        let probed = probe_with_losses(&pod.netns, INTERFACES);
        probed.failed(&["ipv4 tcp bound-interface", "ipv6 tcp bound-interface"]);
        let advice = probed.texts("ipv6 tcp bound-interface", "advice").concat();
        assert!(advice.contains("local ::1 dev"), "{advice}");
    }
}

/// The kernel gave connections and queries other ports, so that they were not recognised where they arrived, or sent queries
/// where earlier ones from their ports went.
#[test]
fn recent_connections_with_the_same_ports_change_nothing() {
    let pod = Pod::new();
    let few = || fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40039");
    pod.netns.run(few).expect("a setting");
    for (port, servers) in [("15002", "10.99.0.53,fd99::53"), ("15003", "10.99.0.54,fd99::54")]
        .into_iter()
        .cycle()
        .take(12)
    {
        let options = [
            "--exclude-outbound-ports",
            port,
            "--redirect-dns",
            "--dns-servers",
            servers,
        ];
        apply(&pod.netns, "nftables", &options);
        probe(&pod.netns, &options).passed();
    }
}

#[test]
fn short_timeouts_of_half_closed_connections_fail() {
    const CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
    for mode in ["redirect", "tproxy"] {
        let options = ["--inbound-mode", mode];
        let pod = pod("nftables", &options);
        delete_rules(&pod.netns, &["timeouts of half-closed connections"]);
        let probed = probe_with_losses(&pod.netns, &options);
        let names = both(&["tcp half-closed-outbound", "tcp half-closed-inbound"]);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        probed.failed(&names);
        probed.says("ipv4 tcp half-closed-inbound", "half-closed is remembered for");
        // iptables has no rule for it: the namespace's own setting is raised.
        let pod = self::pod("iptables-legacy", &options);
        pod.netns.run(|| fs::write(CLOSE_WAIT, "60")).expect("a setting");
        probe_with_losses(&pod.netns, &options).failed(&names);
    }
}

/// The pod's own traffic to the addresses that the host outside stands in for keeps its routes.
#[test]
fn routes_for_probes_leave_other_traffic_alone() {
    let pod = pod("nftables", ADDRESSES);
    // Its packets are lost, so that the probe takes as long as it may.
    let firewall = "table inet firewall { chain output { type filter hook output priority -400;
        meta skuid 1000 tcp dport 15002 drop; }; }";
    feed(&pod.netns, "nft", &["-f", "-"], firewall);
    let routes = "while [ ! -e /proc/sys/net/ipv4/conf/sidetrack-probe ] ||
            ! ip route show | grep -q '10.255.255.254 tos'; do kill -0 $!; done
        ip route get 10.255.255.254 uid 0; ip -6 route get fd09::9; kill $!";
    let script = format!(
        "set -e; \"$0\" probe --timeout 1m {} >/dev/null 2>&1 & {routes}",
        ADDRESSES.join(" ")
    );
    let routes = output_of(pod.netns.command("sh").args(["-c", &script, crate::SIDETRACK]));
    let by_eth0 = routes.lines().filter(|line| line.contains("dev eth0")).count();
    assert!(by_eth0 == 2 && !routes.contains("sidetrack-probe"), "{routes}");
}
