//! An allocation of Nomad: the plugin in place of Consul's, called as Nomad's client does.

use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};

use super::{Request, has_rules, request};
use crate::SIDETRACK;
use crate::common::{Caller, Netns, Owner, Pod, Server, To, Transport, call};
use crate::program::Run;
use crate::temporary::Directory;
use sidetrack::types::Family;

/// What Nomad passes, with the order and names of its own tests, and the proxy of our tests.
const CONFIG: &str = r#"{"ConsulDNSIP":"","ConsulDNSPort":0,"ProxyUserID":"1337","ProxyInboundPort":9999,"ProxyOutboundPort":15001,"ExcludeInboundPorts":["9002"],"ExcludeOutboundPorts":null,"ExcludeOutboundCIDRs":null,"ExcludeUIDs":null,"NetNS":"/var/run/docker/netns/x","IptablesProvider":null}"#;

fn allocation(verb: &str, netns: &Netns, config: &str) -> Request {
    let args = format!(
        "IgnoreUnknown=true;NOMAD_ALLOC_ID=5f1e;NOMAD_GROUP_NAME=web;NOMAD_JOB_ID=shop;CONSUL_IPTABLES_CONFIG={config}"
    );
    let mut request = request(verb, &netns.path()).variable("CNI_ARGS", &args);
    request.netconf = json!({
        "cniVersion": "0.4.0", "name": "nomad", "type": "consul-cni", "log_level": "debug",
        "prevResult": { "cniVersion": "0.4.0", "ips": [{ "version": "4", "address": "10.99.0.2/24" }] },
    });
    request
}

#[test]
fn nomad_allocation_is_redirected_and_checked() {
    let pod = Pod::new();
    let _servers = [
        Server::start(&pod.netns, "pod", Owner::ROOT, &[8080, 9002, 9999, 15001]),
        Server::start(&pod.peer, "peer", Owner::ROOT, &[9090]),
    ];
    allocation("ADD", &pod.netns, CONFIG).succeeds();
    allocation("CHECK", &pod.netns, CONFIG).succeeds();
    let calls = [
        (Caller::App, To::Peer(9090), Family::V4, ("pod", 15001)),
        (Caller::Proxy, To::Peer(9090), Family::V4, ("peer", 9090)),
        (Caller::Peer, To::Pod(8080), Family::V4, ("pod", 9999)),
        (Caller::Peer, To::Pod(9002), Family::V4, ("pod", 9002)),
        // As Consul's rules there, for IPv4 alone.
        (Caller::App, To::Peer(9090), Family::V6, ("peer", 9090)),
        (Caller::Peer, To::Pod(8080), Family::V6, ("pod", 8080)),
    ];
    for (caller, to, family, landing) in calls {
        let call = call(&pod, Transport::Tcp, caller, to, family).expect("a connection");
        let arrival = call.arrival.expect("an answer");
        assert_eq!(
            (arrival.server.as_str(), arrival.port),
            landing,
            "{family}: {caller:?} to {to:?}"
        );
    }
    let other = CONFIG.replace("9002", "9003");
    allocation("CHECK", &pod.netns, &other).fails(105);
}

#[test]
fn allocation_with_host_name_server_is_refused_with_advice() {
    let netns = Netns::new();
    let config = CONFIG.replace(
        r#""ConsulDNSIP":"","ConsulDNSPort":0"#,
        r#""ConsulDNSIP":"192.168.1.117","ConsulDNSPort":8600"#,
    );
    let error: Value = allocation("ADD", &netns, &config).fails(100);
    let message = error["msg"].as_str().expect("a text");
    let details = error["details"].as_str().unwrap_or_default();
    assert!(format!("{message} {details}").contains("no_dns"), "{error}");
    assert!(!has_rules(&netns));
}

#[test]
fn consul_cni_without_arguments_prints_a_version_for_nomad() {
    let directory = Directory::new("nomad");
    let program = directory.path().join("consul-cni");
    symlink(SIDETRACK, &program).expect("a link");
    let run = Run::of(&mut Command::new(&program)).succeeded();
    let words = run.stdout.split_whitespace();
    assert_eq!(
        words.clone().find(|word| word.starts_with('v')),
        Some("v1.4.2"),
        "{run:?}"
    );
    let mut version = Command::new(&program);
    version.env("CNI_COMMAND", "VERSION");
    let run = super::plugin(&mut version, br#"{"cniVersion": "0.4.0"}"#).succeeded();
    assert!(run.stdout.contains("supportedVersions"), "{run:?}");
    // Anything else is our own command line.
    let run = Run::of(Command::new(&program).arg("--version")).succeeded();
    assert!(run.stdout.starts_with("sidetrack"), "{run:?}");
}
