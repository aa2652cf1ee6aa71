//! Rules for a running pod: its open connections continue.

use std::fs;
use std::net::IpAddr;

use serde_json::json;
use sidetrack::backend::Namespace;
use sidetrack::backend::running::Holder;
use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::cni::request;
use crate::common::conversation::{Conversation, Echo};
use crate::common::{Caller, Netns, Owner, Pod, To};
use crate::istio::INJECTED;
use crate::program::{BACKENDS, Run, apply};

#[test]
fn empty_namespace_has_no_redirector_and_no_addresses() {
    let seen = Netns::new().run(|| {
        let mut namespace = Namespace::default();
        let observed = namespace.observe().expect("an observation");
        (namespace.holder(&observed), namespace.addresses())
    });
    assert_eq!(seen.0.expect("an answer"), Holder::None);
    assert_eq!(seen.1.expect("an answer"), Vec::<IpAddr>::new());
}

const APP: u16 = 8443;
const SERVER: u16 = 9443;

/// A pod with open connections, in both directions and families.
struct Running {
    pod: Pod,
    conversations: Vec<Conversation>,
    _services: [Echo; 2],
}

impl Running {
    fn start() -> Self {
        let pod = Pod::new();
        let services = [
            Echo::start(&pod.netns, Owner::APP, APP),
            Echo::start(&pod.peer, Owner::ROOT, SERVER),
        ];
        let calls = [(Caller::Peer, To::Pod(APP)), (Caller::App, To::Peer(SERVER))];
        let begin = |(caller, to), family| Conversation::begin(&pod, caller, to, family).expect("a connection");
        let calls = Family::BOTH
            .into_iter()
            .flat_map(|family| calls.map(|call| begin(call, family)));
        let mut running = Self {
            conversations: calls.collect(),
            pod,
            _services: services,
        };
        running.go_on();
        running
    }

    fn go_on(&mut self) {
        for conversation in &mut self.conversations {
            conversation.go_on(50).expect("an answer");
        }
    }
}

fn loose(netns: &Netns) -> String {
    let read = || fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_loose");
    netns.run(read).expect("the setting").trim().to_owned()
}

#[test]
fn apply_keeps_open_connections() {
    for backend in BACKENDS {
        let mut running = Running::start();
        let log = apply(&running.pod.netns, backend, &[]);
        running.go_on();
        assert!(log.contains("open_connections=4"), "{log}");
        assert_eq!(loose(&running.pod.netns), "0");
    }
    for front_end in [
        &[&["istio-iptables"], INJECTED].concat()[..],
        &["linkerd-proxy-init", "-p", "4143", "-o", "4140", "-u", "2102"],
        &["kuma-init", "--kuma-dp-user", "5678"],
    ] {
        let mut running = Running::start();
        Run::of(running.pod.netns.command(SIDETRACK).args(front_end)).succeeded();
        running.go_on();
    }
    for backend in BACKENDS {
        let mut running = Running::start();
        let add = request("ADD", &running.pod.netns.path()).with("redirect", json!({ "backend": backend }));
        add.succeeds();
        running.go_on();
    }
}

#[test]
fn tcp_loose_is_unchanged_without_open_connections_or_with_rules() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    assert_eq!(loose(&pod.netns), "1");
    let _server = Echo::start(&pod.peer, Owner::ROOT, SERVER);
    let mut later = Conversation::begin(&pod, Caller::Proxy, To::Peer(SERVER), Family::V4).expect("a connection");
    apply(&pod.netns, "nftables", &["--exclude-uids", "7"]);
    assert_eq!(loose(&pod.netns), "1");
    later.go_on(50).expect("an answer");
}

#[test]
fn failed_apply_restores_tcp_loose() {
    let mut running = Running::start();
    let mut command = running.pod.netns.command(SIDETRACK);
    let run = Run::of(
        command
            .args(["apply", "--backend", "iptables-nft"])
            .env("PATH", "/nowhere"),
    );
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(loose(&running.pod.netns), "1");
    running.go_on();
}

#[test]
fn drop_invalid_warns_about_open_connections() {
    let running = Running::start();
    let log = apply(&running.pod.netns, "nftables", &["--drop-invalid"]);
    assert!(log.contains("--drop-invalid drops their packets"), "{log}");
}
