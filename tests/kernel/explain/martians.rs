//! Packets from other hosts that rules translate to a loopback address: the kernel drops them, unless route_localnet is set.

use std::fs;
use std::net::SocketAddr;

use sidetrack::types::Family;

use crate::common::{Address, Owner, Pod, Server, Transport, call_from};
use crate::program::feed;
use crate::questions::{explain, json};

const TO_LOOPBACK: &str = "table ip theirs { chain prerouting { type nat hook prerouting priority -100;
    tcp dport 80 dnat to 127.0.0.1:8080; }; }";

#[test]
fn setting_of_the_interface_says_whether_a_translation_to_loopback_arrives() {
    for (setting, action) in [(None, "drop"), (Some("eth0"), "redirect"), (Some("all"), "redirect")] {
        let pod = Pod::new();
        feed(&pod.netns, "nft", &["-f", "-"], TO_LOOPBACK);
        let _app = Server::start(&pod.netns, "app", Owner::APP, &[8080]);
        if let Some(name) = setting {
            let write = || fs::write(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1");
            pod.netns.run(write).expect("a setting");
        }
        let question = ["inbound", "tcp", ":80", "--interface", "eth0", "--from-kernel"];
        let answer = json(&pod.netns, &question);
        assert_eq!(
            (&answer["verdict"]["action"], &answer["certain"]),
            (&action.into(), &true.into()),
            "{answer:#}"
        );
        let to = SocketAddr::new(Address::POD.of(Family::V4), 80);
        let arrives = pod
            .peer
            .run(|| call_from(Transport::Tcp, None, to))
            .is_ok_and(|call| call.arrival.is_some());
        assert_eq!(arrives, action == "redirect", "{setting:?}");
        let said = explain(&pod.netns, &question).succeeded().stdout;
        let words = "eth0 accepts no packets to loopback addresses from other hosts (sysctl route_localnet)";
        assert_eq!(said.contains(words), action == "drop", "{said}");
    }
}
