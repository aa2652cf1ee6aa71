//! Unprivileged processes: they run the permitted probes, and report what the others need.

use std::process::Command;

use caps::Capability::{self, CAP_NET_ADMIN, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN};

use super::{Probed, both};
use crate::SIDETRACK;
use crate::common::{Netns, Owner, Pod};
use crate::program::apply;
use crate::sandbox::with_capabilities;

/// Probes the defaults as this owner with these capabilities alone.
fn probe_as(netns: &Netns, owner: Owner, capabilities: &[Capability]) -> Probed {
    let mut command = netns.command(SIDETRACK);
    command.args(["probe", "--json"]);
    with_capabilities(&mut command, owner, capabilities, &[]);
    Probed::of(&mut command)
}

fn redirected() -> Pod {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    pod
}

#[track_caller]
fn only_these_were_made(probed: &Probed, names: &[&str]) {
    assert_eq!(
        probed.with_result("passed"),
        both(names).into_iter().collect(),
        "{probed:#?}"
    );
    assert_eq!(probed.with_result("failed").len(), 0, "{probed:#?}");
    assert_eq!(probed.code, Some(1), "{probed:#?}");
    assert_eq!(probed.report["result"], "incomplete");
    assert!(probed.stderr.contains("some probes could not run"), "{probed:?}");
}

#[test]
fn the_application_itself_can_prove_its_outbound_connections() {
    let probed = probe_as(&redirected().netns, Owner::APP, &[]);
    only_these_were_made(&probed, &["tcp outbound"]);
    let reason = |name: &str| probed.texts(name, "reason").concat();
    assert!(reason("ipv4 tcp inbound").contains("CAP_SYS_ADMIN"), "{probed:#?}");
    assert!(
        reason("ipv6 tcp self-call").contains("CAP_SETUID and CAP_SETGID"),
        "{probed:#?}"
    );
}

#[test]
fn the_proxy_itself_can_prove_what_goes_to_the_pod() {
    let probed = probe_as(&redirected().netns, Owner::PROXY, &[]);
    only_these_were_made(&probed, &["tcp self-call", "tcp passthrough"]);
}

#[test]
fn the_rights_of_an_init_container_are_not_enough_for_a_link() {
    let pod = redirected();
    let probed = probe_as(&pod.netns, Owner::ROOT, &[CAP_NET_ADMIN]);
    only_these_were_made(&probed, &["tcp outbound", "tcp half-closed-outbound"]);
    let probed = probe_as(&pod.netns, Owner::ROOT, &[CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID]);
    let without_link = [
        "tcp outbound",
        "tcp half-closed-outbound",
        "tcp self-call",
        "tcp passthrough",
    ];
    only_these_were_made(&probed, &without_link);
    let probed = probe_as(&pod.netns, Owner::ROOT, &[CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID]);
    only_these_were_made(&probed, &["tcp outbound", "tcp self-call", "tcp passthrough"]);
    assert!(
        probed
            .texts("ipv4 tcp inbound", "reason")
            .concat()
            .contains("CAP_NET_ADMIN"),
        "{probed:#?}"
    );
}

#[test]
fn four_capabilities_are_enough_for_everything() {
    let needed = [CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID];
    probe_as(&redirected().netns, Owner::APP, &needed).passed();
}

#[test]
fn failures_are_found_with_few_rights_too() {
    let pod = Pod::new();
    let probed = probe_as(&pod.netns, Owner::ROOT, &[CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID]);
    assert_eq!(probed.code, Some(3), "{probed:#?}");
    for name in [
        "ipv4 tcp outbound",
        "ipv6 tcp outbound",
        "ipv4 tcp self-call",
        "ipv6 tcp self-call",
    ] {
        assert!(probed.with_result("failed").contains(name), "{name}: {probed:#?}");
    }
}

#[test]
fn without_a_route_there_is_nothing_to_see() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    let probed = probe_as(&netns, Owner::APP, &[]);
    let reason = probed.texts("ipv4 tcp outbound", "reason").concat();
    assert!(reason.contains("no route to 192.0.2.254"), "{probed:#?}");
}

#[test]
fn users_missing_in_the_user_namespace_are_reported() {
    let mut command = Command::new("unshare");
    let script = "ip link set lo up && \"$0\" apply && exec \"$0\" probe --json";
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", script, SIDETRACK]);
    let probed = Probed::of(&mut command);
    only_these_were_made(&probed, &["tcp inbound", "tcp half-closed-inbound", "tcp mesh-port"]);
    let reason = probed.texts("ipv4 tcp outbound", "reason").concat();
    assert!(reason.contains("the user namespace has no such IDs"), "{reason}");
}
