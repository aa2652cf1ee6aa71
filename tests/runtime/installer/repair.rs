//! Pods that started before the plugin: detection of missing rules, and repair.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use caps::Capability::{CAP_NET_ADMIN, CAP_SYS_ADMIN};
use serde_json::{Value, json};
use sidetrack::types::Family;

use super::attached::{ANNOTATIONS, Attached, Process, states};
use super::fixture::{FLANNEL, eventually};
use crate::cni::has_rules;
use crate::common::conversation::{Conversation, Echo};
use crate::common::{Address, Netns, Owner, Pod, Server, Transport, call_from, copy_program};
use crate::program::{Run, apply, closed_pipe, nft_state};
use crate::sandbox::with_capabilities;

/// Where a new connection of the application to the neighbour arrives.
fn lands(pod: &Pod, family: Family) -> String {
    let to = SocketAddr::new(Address::PEER.of(family), 9090);
    let call = pod.netns.run(|| {
        Owner::APP.assume()?;
        call_from(Transport::Tcp, None, to)
    });
    let arrival = call.expect("a call").arrival.expect("an answer");
    format!("{} {}", arrival.server, arrival.port)
}

#[test]
fn repair_continues_when_its_output_is_closed() {
    let attached = Attached::new();
    let pods = [Pod::new(), Pod::new()];
    for (pod, name) in pods.iter().zip(["web-0", "web-1"]) {
        attached.attach(name, &attached.file(&pod.netns.path()), &[]);
    }
    // The verdict does not depend on who reads it: pods lack their rules.
    let status = Run::of(attached.command(&["status"]).stdout(closed_pipe()));
    assert_eq!((status.code, status.stderr.as_str()), (Some(3), ""));
    Run::of(attached.command(&["repair"]).stdout(closed_pipe())).succeeded();
    assert!(pods.iter().all(|pod| has_rules(&pod.netns)));
}

#[test]
fn repair_keeps_open_connections() {
    let attached = Attached::new();
    let pod = Pod::new();
    attached.attach("web-0", &attached.file(&pod.netns.path()), &[]);
    let _outside = [
        Echo::start(&pod.peer, Owner::ROOT, 7000),
        Echo::start(&pod.netns, Owner::APP, 7001),
    ];
    let _servers = [
        Server::start(&pod.peer, "outside", Owner::ROOT, &[9090]),
        Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]),
    ];
    let mut open: Vec<Conversation> = Vec::new();
    for family in Family::BOTH {
        let to = |address: Address, port| SocketAddr::new(address.of(family), port);
        let outbound = || Conversation::begin_from(None, to(Address::PEER, 7000));
        let inbound = || Conversation::begin_from(None, to(Address::POD, 7001));
        open.push(pod.netns.run(outbound).expect("a connection"));
        open.push(pod.peer.run(inbound).expect("a connection"));
        assert_eq!(lands(&pod, family), "outside 9090");
    }
    let go_on = |open: &mut [Conversation]| {
        for (number, conversation) in open.iter_mut().enumerate() {
            conversation
                .go_on(3)
                .unwrap_or_else(|error| panic!("connection {number}: {error}"));
        }
    };
    go_on(&mut open);

    let dry = attached.repair(&["--dry-run"]);
    assert_eq!(dry.code, Some(3), "{dry:?}");
    assert_eq!(states(&dry)["web-0"].0, "lacking");
    assert!(!has_rules(&pod.netns));

    // The other side closes an idle connection.
    go_on(&mut open);
    let run = attached.repair(&[]).succeeded();
    go_on(&mut open);
    // The output is the state after the repair, as is the exit code.
    let (state, reason) = &states(&run)["web-0"];
    assert!(
        state == "in-sync" && reason.starts_with("repaired"),
        "{state}: {reason}"
    );
    // The ends in the pod: those of its own connections, and those of the others.
    for said in [
        "repaired",
        "pod=\"shop/web-0\"",
        "open_connections=4",
        "2 passed, 0 failed",
        "open connections continue without the proxy",
    ] {
        assert!(run.stderr.contains(said), "{said}: {run:?}");
    }
    let alone = Netns::new();
    apply(&alone, "nftables", &[]);
    let rules = |netns| {
        let listing = nft_state(netns);
        let lines = listing.lines().filter(|line| !line.contains("\"sidetrack 1 "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rules(&pod.netns), rules(&alone), "as ADD would have done it");
    for family in Family::BOTH {
        assert_eq!(lands(&pod, family), "proxy 15001");
    }
    assert_eq!(attached.states()["web-0"].0, "in-sync");
    attached.repair(&[]).succeeded();
}

/// Each of these pods is unchanged, and the reason is reported.
#[test]
fn unrepairable_pods_are_unchanged_and_reported() {
    let attached = Attached::new();
    let pods: Vec<Pod> = (0..9).map(|_| Pod::new()).collect();
    let file = |index: usize| attached.file(&pods[index].netns.path());
    let names = |namespace: &str, name: &str| {
        let pairs = json!([["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", name]]);
        vec![("/cniArgs", pairs)]
    };
    let annotations = |value: Value| vec![("/capabilityArgs", json!({ ANNOTATIONS: value }))];
    attached.attach("excluded", &file(0), &names("kube-system", "excluded"));
    let installer = "sidetrack-node-x7k2p";
    attached.attach(installer, &file(1), &names("sidetrack-system", installer));
    attached.attach("plain", &file(2), &annotations(json!({})));
    attached.attach("unknown", &file(3), &[("/capabilityArgs", json!({}))]);
    attached.attach(
        "mistaken",
        &file(4),
        &annotations(json!({ "traffic.sidetrack.dev/redirect": "maybe" })),
    );
    apply(&pods[5].netns, "nftables", &[]);
    attached.attach("as-planned", &file(5), &[]);
    let mesh = "add table ip nat; add chain ip nat ISTIO_OUTPUT";
    assert!(pods[6].netns.command("nft").arg(mesh).status().expect("nft").success());
    attached.attach("other-mesh", &file(6), &[]);
    // Another pod has the number or the file by now.
    let elsewhere = json!([{ "address": "10.99.0.77/24" }]);
    attached.attach("reused", &file(7), &[("/result/ips", elsewhere)]);
    attached.attach("gone", "/var/run/netns/gone", &[]);
    // As a pod with hostNetwork would have it.
    let own = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
    attached.attach("host", &attached.file(&own), &[]);
    attached.attach("other-network", &file(8), &[("/networkName", "podman".into())]);
    let cache = attached.machine.root().join("cache");
    fs::write(cache.join("half"), "{\"containerId\": \"").expect("a file");
    let before: Vec<String> = pods.iter().map(|pod| nft_state(&pod.netns)).collect();

    let run = attached.repair(&[]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(
        run.stderr.contains("skipped cache files") && run.stderr.contains("files=1"),
        "{run:?}"
    );
    let found = states(&run);
    let expected = [
        ("excluded", "skipped", "excludeNamespaces"),
        (installer, "skipped", "installer"),
        ("plain", "skipped", "no annotation of an injected sidecar"),
        ("unknown", "undecided", "no annotations"),
        ("mistaken", "undecided", "maybe"),
        (
            "as-planned",
            "in-sync",
            "match the options recorded with them, in nftables",
        ),
        ("other-mesh", "foreign", "Istio"),
        ("reused", "gone", "none of its addresses"),
        ("gone", "gone", "is gone"),
        ("host", "undecided", "not a pod's"),
    ];
    for (name, state, said) in expected {
        let (found, reason) = found.get(name).unwrap_or_else(|| panic!("{name}: {run:?}"));
        assert!(found == state && reason.contains(said), "{name}: {found}: {reason}");
    }
    assert_eq!(found.len(), expected.len(), "{found:?}");
    let after: Vec<String> = pods.iter().map(|pod| nft_state(&pod.netns)).collect();
    assert_eq!(after, before);
}

#[test]
fn running_proxy_without_annotations_is_reported_and_not_repaired() {
    let attached = Attached::new();
    let pod = Pod::new();
    attached.attach(
        "web-0",
        &attached.file(&pod.netns.path()),
        &[("/capabilityArgs", json!({}))],
    );
    let _app = Process::start(pod.netns.command_of(Owner::APP, "sleep").arg("600"));
    assert_eq!(attached.states()["web-0"].0, "undecided");
    let _proxy = Process::start(pod.netns.command_of(Owner::PROXY, "sleep").arg("600"));
    let run = attached.repair(&[]);
    assert_eq!(run.code, Some(3), "{run:?}");
    let (state, reason) = &states(&run)["web-0"];
    assert!(state == "suspected" && reason.contains("1337"), "{state}: {reason}");
    assert!(!has_rules(&pod.netns));
}

/// On OpenShift, a proxy runs as a user of its namespace's range, which no annotation names.
#[test]
fn proxy_that_the_rules_do_not_exempt_is_found_by_its_process() {
    let attached = Attached::new();
    let pod = Pod::new();
    attached.attach("web-0", &attached.file(&pod.netns.path()), &[]);
    let is_warned_of = |expected: bool| {
        let run = attached.repair(&["--dry-run"]);
        let warned = run.stderr.contains("redirected to itself") && run.stderr.contains("envoy runs as user");
        if warned == expected { Ok(()) } else { Err(run) }
    };
    let program = attached.machine.root().join("envoy");
    copy_program(Path::new("/bin/sleep"), &program);
    let program = program.to_str().expect("text");
    is_warned_of(false).expect("nothing runs there");
    let _others = Process::start(pod.netns.command_of(Owner::APP, program).arg("600"));
    // A process has the name of its program once that runs.
    eventually("the proxy of another user is found", || is_warned_of(true));
    let _proxy = Process::start(pod.netns.command_of(Owner::PROXY, program).arg("600"));
    eventually(
        "where the proxy runs as it should, the other is the application's",
        || is_warned_of(false),
    );
}

/// Runtimes with an older libcni: the file of the namespace is in the plugins' answer, or nowhere.
#[test]
fn pod_without_namespace_in_the_cache_is_found_by_address() {
    let attached = Attached::new();
    let [pod, other, third] = [(); 3].map(|()| Pod::new());
    for (netns, address) in [(&other.netns, "10.99.0.3/24"), (&third.netns, "10.99.0.4/24")] {
        netns.ip(&format!("addr flush dev eth0\naddr add {address} dev eth0\n"));
    }
    let of_third = json!([{ "address": "10.99.0.4/24" }]);
    let files = [&pod, &other, &third].map(|pod| attached.file(&pod.netns.path()));
    let nowhere = ("/netns", json!(""));
    attached.attach("by-address", "", std::slice::from_ref(&nowhere));
    attached.attach(
        "unheard-of",
        "",
        &[nowhere.clone(), ("/result/ips", json!([{ "address": "10.1.1.1/24" }]))],
    );
    attached.attach("nothing", "", &[nowhere.clone(), ("/result/ips", json!([]))]);
    let interfaces = json!({ "ips": of_third, "interfaces": [{ "name": "eth0", "sandbox": files[2] }] });
    attached.attach("by-answer", "", &[nowhere, ("/result", interfaces)]);
    // Other tests have pods with the same addresses.
    let run = attached.repair(&["--proc-dir", "/nonexistent"]);
    let states = states(&run);
    let found = |name: &str| states[name].0.as_str();
    assert_eq!(found("by-address"), "in-sync", "{run:?}");
    assert_eq!(found("by-answer"), "in-sync", "{run:?}");
    assert_eq!(found("unheard-of"), "gone");
    assert_eq!(found("nothing"), "undecided");
    let rules = [&pod, &other, &third].map(|pod| has_rules(&pod.netns));
    assert_eq!(rules, [true, false, true]);
}

/// A pod that was killed without DEL leaves its file in the cache, and its addresses are used again.
#[test]
fn two_pods_in_one_namespace_are_undecided() {
    let attached = Attached::new();
    let pod = Pod::new();
    let file = attached.file(&pod.netns.path());
    attached.attach("one", &file, &[]);
    attached.attach("two", &file, &[]);
    let run = attached.repair(&[]);
    assert_eq!(run.code, Some(3), "{run:?}");
    for name in ["one", "two"] {
        let (state, reason) = &states(&run)[name];
        assert!(
            state == "undecided" && reason.contains("another pod"),
            "{state}: {reason}"
        );
    }
    assert!(!has_rules(&pod.netns));
}

/// As with `hostUsers: false`; by an agent that has no right besides those that its manifest gives it.
#[test]
fn pod_in_user_namespace_is_repaired_with_two_capabilities() {
    let attached = Attached::new();
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
    let setup = "ip link set lo up; ip link add eth0 type veth peer name far; ip addr add 10.99.0.2/24 dev eth0; \
                 ip link set far up; ip link set eth0 up; exec sleep 600";
    let pod = Process::start(unshare.arg(setup));
    let is_up = || {
        Netns::open(&pod.netns())
            .command("ip")
            .args(["-oneline", "addr"])
            .output()
    };
    super::fixture::eventually("an address", || {
        let addresses = String::from_utf8(is_up().expect("ip").stdout).expect("text");
        if addresses.contains("10.99.0.2") {
            Ok(())
        } else {
            Err(addresses)
        }
    });
    attached.attach("web-0", &attached.file(&pod.netns()), &[]);
    let mut command = attached.command(&["repair"]);
    with_capabilities(&mut command, Owner::ROOT, &[CAP_SYS_ADMIN, CAP_NET_ADMIN], &[]);
    let run = Run::of(&mut command).succeeded();
    assert!(run.stderr.contains("repaired"), "{run:?}");
    assert!(has_rules(&Netns::open(&pod.netns())));
}

#[test]
fn missing_privileges_are_reported_and_nothing_is_changed() {
    let attached = Attached::new();
    let pod = Pod::new();
    // A process without rights, so that no right is needed to inspect it.
    let mut sleep = pod.netns.command("sleep");
    with_capabilities(sleep.arg("600"), Owner::ROOT, &[], &[]);
    let process = Process::start(&mut sleep);
    attached.attach("web-0", &attached.file(&process.netns()), &[]);
    for (capability, said) in [
        (CAP_SYS_ADMIN, "Operation not permitted"),
        (CAP_NET_ADMIN, "CAP_SYS_ADMIN"),
    ] {
        let mut command = attached.command(&["repair"]);
        with_capabilities(&mut command, Owner::ROOT, &[capability], &[]);
        let run = Run::of(&mut command);
        assert_eq!(run.code, Some(3), "{run:?}");
        let (state, reason) = &states(&run)["web-0"];
        assert!(
            state == "undecided" && reason.contains(said),
            "{capability}: {state}: {reason}"
        );
    }
    assert!(!has_rules(&pod.netns));
}

#[test]
fn unreadable_directory_is_reported() {
    let attached = Attached::new();
    attached.machine.write("10-flannel.conflist", FLANNEL);
    fs::remove_dir(attached.machine.root().join("netns")).expect("a directory");
    attached.repair(&[]).failed(1, &["netns"]);
    fs::create_dir(attached.machine.root().join("netns")).expect("a directory");
    fs::remove_dir(attached.machine.root().join("cache")).expect("a directory");
    attached.repair(&[]).failed(1, &["cache"]);
    attached
        .repair(&["--standalone", "mesh.conf"])
        .failed(1, &["there is nothing to repair"]);
    let run = Run::of(&mut attached.command(&["install", "--once", "--repair", "everything"]));
    run.failed(2, &["--repair", "everything", "in-place"]);
}

#[test]
fn installer_repairs_and_counts_pods() {
    let attached = Attached::new();
    let [pod, broken] = [(); 2].map(|()| Pod::new());
    attached.attach("web-0", &attached.file(&pod.netns.path()), &[]);
    let sysctl = broken
        .netns
        .command("sysctl")
        .args(["-qw", "net.ipv6.conf.lo.disable_ipv6=1"])
        .status();
    assert!(sysctl.expect("sysctl (procps)").success());
    attached.attach("broken", &attached.file(&broken.netns.path()), &[]);
    let start = |mode: &str| super::fixture::Installer::start(attached.command(&["install", "--repair", mode]));

    let reports = start("report");
    reports.eventually_logs("pod=\"shop/web-0\"");
    assert!(reports.log().contains("pod may bypass its proxy"), "{}", reports.log());
    assert_eq!(reports.metric("sidetrack_node_pods{state=\"lacking\"}"), 2.0);
    assert!(!has_rules(&pod.netns));
    drop(reports);

    let repairs = start("in-place");
    repairs.eventually_logs("pod=\"shop/web-0\" container=\"id-web-0\" probes=");
    repairs.eventually_logs("repair failed pod=\"shop/broken\" container=\"id-broken\" reason=\"plan\"");
    assert!(has_rules(&pod.netns) && !has_rules(&broken.netns));
    super::fixture::eventually("all is counted", || {
        let count = |state: &str| repairs.metric(&format!("sidetrack_node_pods{{state=\"{state}\"}}"));
        let counts = ["in-sync", "lacking"].map(count);
        if counts == [1.0, 1.0] { Ok(()) } else { Err(counts) }
    });
    assert_eq!(
        repairs.metric("sidetrack_node_pod_repairs_total{mode=\"in-place\"}"),
        1.0
    );
    let failed = |reason: &str| format!("sidetrack_node_pod_repair_failures_total{{reason=\"{reason}\"}}");
    // Its next try waits, though checks continue.
    assert_eq!(repairs.metric(&failed("plan")), 1.0);
    assert_eq!(repairs.metric(&failed("rules")), 0.0);
    repairs.eventually_ready();
}
