//! Included and excluded groups: their connections and name lookups.

use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::common::Caller::{self, App, Peer, Process, Proxy, Root};
use crate::common::Transport::{Tcp, Udp};
use crate::common::files::with_file;
use crate::common::{Address, Owner, Server, To, call};
use crate::dns::Way::{Direct, Envoy, Forwarder};
use crate::dns::{Lab, Lookup, both, lookup};
use crate::program::{BACKENDS, Run, apply};

const MESH: Caller = Process(1000, 2000);
const LAST_OF_RANGE: Caller = Process(1000, 3001);
const AFTER_RANGE: Caller = Process(1000, 3002);
const USER_OF_THE_NUMBER: Caller = Process(2000, 1000);

/// Connections where only the groups 2000 and 3000 to 3001 are captured, and lookups are not.
const CONNECTIONS: &[Lookup] = &[
    lookup("a group, TCP", Tcp, MESH, Address::PEER, Envoy),
    lookup("a group, UDP", Udp, MESH, Address::PEER, Direct),
    lookup("a range of groups", Tcp, LAST_OF_RANGE, Address::FAR, Envoy),
    lookup("after the range", Tcp, AFTER_RANGE, Address::FAR, Direct),
    lookup("a user of the number", Tcp, USER_OF_THE_NUMBER, Address::PEER, Direct),
    lookup("anybody else", Tcp, App, Address::PEER, Direct),
    lookup("root", Tcp, Root, Address::PEER, Direct),
    lookup("the proxy", Tcp, Proxy, Address::PEER, Direct),
];

/// The same with captured lookups of the neighbour's server.
const LOOKUPS: &[Lookup] = &[
    lookup("a group, TCP", Tcp, MESH, Address::PEER, Forwarder),
    lookup("a group, UDP", Udp, MESH, Address::PEER, Forwarder),
    lookup("a range of groups, UDP", Udp, LAST_OF_RANGE, Address::PEER, Forwarder),
    lookup("after the range, UDP", Udp, AFTER_RANGE, Address::PEER, Direct),
    lookup("after the range, TCP", Tcp, AFTER_RANGE, Address::PEER, Direct),
    lookup(
        "a user of the number, UDP",
        Udp,
        USER_OF_THE_NUMBER,
        Address::PEER,
        Direct,
    ),
    lookup("anybody else, UDP", Udp, App, Address::PEER, Direct),
    lookup("anybody else, TCP", Tcp, App, Address::PEER, Direct),
    lookup("another server, UDP", Udp, MESH, Address::FAR, Direct),
    lookup("another server, TCP", Tcp, MESH, Address::FAR, Envoy),
    lookup("the proxy, UDP", Udp, Proxy, Address::PEER, Direct),
    lookup("the proxy, TCP", Tcp, Proxy, Address::PEER, Direct),
];

fn only_included_groups_are_captured(backend: &str) {
    let lab = Lab::new();
    let groups = ["--include-gids", "2000,3000-3001"];
    apply(&lab.pod.netns, backend, &groups);
    lab.look_all_up(&Family::BOTH, CONNECTIONS);
    let servers = both(Address::PEER);
    let dns = ["--redirect-dns", "--dns-servers", &servers];
    apply(&lab.pod.netns, backend, &[groups.as_slice(), &dns].concat());
    lab.look_all_up(&Family::BOTH, LOOKUPS);
}

#[test]
fn only_included_groups_are_captured_with_nftables() {
    only_included_groups_are_captured("nftables");
}

#[test]
fn only_included_groups_are_captured_with_iptables_nft() {
    only_included_groups_are_captured("iptables-nft");
}

#[test]
fn only_included_groups_are_captured_with_iptables_legacy() {
    only_included_groups_are_captured("iptables-legacy");
}

/// A group that is both is excluded.
fn excluded_groups_are_not_captured(backend: &str) {
    let lab = Lab::new();
    let servers = ["--redirect-dns", "--dns-servers", "all"];
    let excluded = ["--exclude-gids", "3000-3001"];
    let not_captured = [
        lookup("an excluded group, UDP", Udp, LAST_OF_RANGE, Address::PEER, Direct),
        lookup("an excluded group, TCP", Tcp, LAST_OF_RANGE, Address::FAR, Direct),
    ];
    let captured = [
        lookup("another group, UDP", Udp, MESH, Address::PEER, Forwarder),
        lookup("another group, TCP", Tcp, MESH, Address::FAR, Forwarder),
    ];
    apply(&lab.pod.netns, backend, &[servers.as_slice(), &excluded].concat());
    lab.look_all_up(&Family::BOTH, &[not_captured, captured].concat());
    lab.look_all_up(
        &Family::BOTH,
        &[lookup("anybody else", Udp, App, Address::PEER, Forwarder)],
    );

    let included = ["--include-gids", "2000,3000-3001"];
    apply(
        &lab.pod.netns,
        backend,
        &[servers.as_slice(), &excluded, &included].concat(),
    );
    lab.look_all_up(&Family::BOTH, &[not_captured, captured].concat());
    lab.look_all_up(
        &Family::BOTH,
        &[lookup("anybody else", Udp, App, Address::PEER, Direct)],
    );
}

#[test]
fn excluded_groups_are_not_captured_with_nftables() {
    excluded_groups_are_not_captured("nftables");
}

#[test]
fn excluded_groups_are_not_captured_with_iptables_nft() {
    excluded_groups_are_not_captured("iptables-nft");
}

#[test]
fn excluded_groups_are_not_captured_with_iptables_legacy() {
    excluded_groups_are_not_captured("iptables-legacy");
}

#[test]
fn groups_have_names() {
    let lab = Lab::new();
    for backend in BACKENDS {
        let apply = |groups: &[&str], text: &str| {
            let mut command = lab.pod.netns.command(SIDETRACK);
            command.args(["apply", "--backend", backend]).args(groups);
            with_file(&mut command, "/etc/group", text);
            Run::of(&mut command)
        };
        let text = "root:x:0:\nmesh:x:2000:\nlast:x:3001:\nafter:x:3002:mesh\n";
        apply(&["--include-gids", "mesh,last"], text).succeeded();
        lab.look_all_up(&Family::BOTH, CONNECTIONS);
        apply(&["--exclude-gids", "after"], text).succeeded();
        lab.look_all_up(
            &Family::BOTH,
            &[
                lookup(
                    "a named group that is excluded",
                    Tcp,
                    AFTER_RANGE,
                    Address::PEER,
                    Direct,
                ),
                lookup("another", Tcp, MESH, Address::PEER, Envoy),
            ],
        );
        apply(&["--include-gids", "mesh"], "root:x:0:\n").failed(2, &["mesh"]);
    }
}

/// Nothing is captured on the way out, not even lookups; what comes in is.
#[test]
fn empty_list_of_groups_captures_nothing_outbound() {
    let lab = Lab::new();
    let _app = Server::start(&lab.pod.netns, "app", Owner::APP, &[8080]);
    for backend in BACKENDS {
        let servers = ["--redirect-dns", "--dns-servers", "all"];
        apply(
            &lab.pod.netns,
            backend,
            &[servers.as_slice(), &["--include-gids", ""]].concat(),
        );
        lab.look_all_up(
            &Family::BOTH,
            &[
                lookup("the app, UDP", Udp, App, Address::PEER, Direct),
                lookup("the app, TCP", Tcp, App, Address::FAR, Direct),
                lookup("the proxy, UDP", Udp, Proxy, Address::PEER, Direct),
            ],
        );
        for family in Family::BOTH {
            let made = call(&lab.pod, Tcp, Peer, To::Pod(8080), family).expect("a connection");
            let client = made.arrival.expect("an answer").client;
            assert_eq!(client.ip(), Address::PASSTHROUGH.of(family), "{backend}: past Envoy");
        }
    }
}
