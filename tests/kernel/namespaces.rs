//! Network namespaces are opened once: the same path, or the PID in it, may lead to another one later.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use sidetrack::cni::error::Error;
use sidetrack::cni::late::{self, Running};
use sidetrack::cni::netconf::NetConf;
use sidetrack::linux::netns;
use sidetrack::mesh::pod::PodName;

use crate::cni::{has_rules, request};
use crate::common::Netns;
use crate::program::nft_state;
use crate::temporary::Directory;

const OWN: &str = "/proc/thread-self/ns/net";

fn lead(link: &Path, to: &Netns) {
    let _old = fs::remove_file(link);
    symlink(to.path(), link).expect("a link");
}

fn open(path: &Path) -> netns::Netns {
    netns::Netns::open(path.to_owned()).expect("a namespace")
}

#[test]
fn handle_keeps_its_namespace_if_the_path_changes() {
    let directory = Directory::new("netns-handle");
    let link = directory.path().join("pod");
    let (one, other) = (Netns::new(), Netns::new());
    lead(&link, &one);
    let opened = open(&link);
    lead(&link, &other);
    let inside = opened.run(|| netns::identity(OWN.as_ref()).expect("this thread's"));
    assert_eq!(inside.expect("entered"), open(&one.path()).identity());
    assert!(opened == open(&one.path()) && opened != open(&link));
}

/// A pod with the address 10.99.0.2.
fn addressed() -> Netns {
    let pod = Netns::new();
    pod.ip("link add eth0 type veth peer name far0");
    pod.ip("address add 10.99.0.2/24 dev eth0");
    pod.ip("link set far0 up");
    pod.ip("link set eth0 up");
    pod
}

/// Whether repair of a pod with these addresses did anything in the namespace.
fn repairs(pod: &Netns, fault: late::Fault, addresses: &[&str]) -> bool {
    let netconf = request("ADD", &pod.path()).netconf;
    let netconf = NetConf::parse(netconf.to_string().as_bytes()).expect("a NetConf");
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    let running = Running {
        pod: &PodName::default(),
        addresses: &addresses,
        netns: &open(&pod.path()),
        is_of_plugin: false,
    };
    let late = late::add(&netconf, &running, fault, &[]).expect("nothing fails");
    late.is_some()
}

#[test]
fn repair_does_nothing_in_a_namespace_without_the_pods_addresses() {
    let pod = addressed();
    let lacking = |addresses| repairs(&pod, late::Fault::Lacking, addresses);
    assert!(!lacking(&["10.99.0.3", "fd00::3"]) && !has_rules(&pod));
    assert!(!lacking(&[]) && !has_rules(&pod));
    assert!(lacking(&["10.99.0.3", "10.99.0.2"]) && has_rules(&pod));
}

#[test]
fn repair_of_drift_changes_only_rules_of_sidetrack_that_differ() {
    let pod = addressed();
    let drifted = |addresses| repairs(&pod, late::Fault::Drifted, addresses);
    assert!(
        !drifted(&["10.99.0.2"]) && !has_rules(&pod),
        "a pod without rules is lacking"
    );
    assert!(repairs(&pod, late::Fault::Lacking, &["10.99.0.2"]));
    let wanted = nft_state(&pod);
    assert!(!drifted(&["10.99.0.2"]), "the rules are as they should be");
    let flush = ["flush", "chain", "inet", "sidetrack", "outbound"];
    assert!(pod.command("nft").args(flush).status().expect("nft").success());
    assert!(
        !drifted(&["10.99.0.3"]) && nft_state(&pod) != wanted,
        "another pod by now"
    );
    assert!(drifted(&["10.99.0.2"]));
    assert_eq!(nft_state(&pod), wanted);
    // Foreign rules are not what ADD repairs.
    let foreign = "add table ip nat; add chain ip nat ISTIO_OUTPUT";
    assert!(pod.command("nft").arg(foreign).status().expect("nft").success());
    let before = nft_state(&pod);
    assert!(!drifted(&["10.99.0.2"]));
    assert_eq!(nft_state(&pod), before);
}

/// The installer has a network namespace of its own, and sees the host's processes elsewhere than in `/proc`.
#[test]
fn repair_skips_a_reused_pid() {
    let proc = Directory::new("netns-proc");
    let host = Netns::new();
    for process in ["1", "77"] {
        let directory = proc.path().join(process).join("ns");
        fs::create_dir_all(&directory).expect("a directory");
        lead(&directory.join("net"), &host);
    }
    let opened = open(&proc.path().join("77/ns/net"));
    let looked = late::observe(&opened, &[proc.path()]);
    assert!(matches!(looked, Err(Error::Environment(_))), "{looked:?}");
    assert!(late::observe(&opened, &[]).is_ok());
}
