//! A pod with several networks, each of which has the plugin in its chain.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::containerd::Containerd;
use super::node::Node;
use super::pods::injected;
use super::{KUBERNETES, conflist, landing};
use crate::common::{Netns, Owner, Server, Transport};
use crate::program::{apply, nft_state};

/// containerd attaches a pod to its networks at the same time.
#[test]
fn pod_with_two_networks_has_one_set_of_rules() {
    let node = Node::start(&[KUBERNETES]);
    let first: Value = serde_json::from_str(&conflist(KUBERNETES)).expect("JSON");
    let ours = &first["plugins"][2];
    assert_eq!(ours["type"], "sidetrack");
    let second = json!({
        "cniVersion": "1.0.0",
        "name": "second",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": "10.89.0.0/24" }], [{ "subnet": "fd89::/64" }]],
                    "routes": [{ "dst": "203.0.113.0/24" }, { "dst": "2001:db8:1::/64" }],
                },
            },
            ours,
        ],
    });
    node.add_network("20-second.conflist", &second.to_string());
    let containerd = Containerd::start(node);
    let sandbox = containerd.run(injected("web-0")).expect("a sandbox");
    let netns = containerd.netns(&sandbox);

    let alone = Netns::new();
    apply(&alone, "nftables", &[]);
    assert_eq!(nft_state(&netns), nft_state(&alone));

    let _proxy = Server::start(&netns, "proxy", Owner::PROXY, &[15001, 15006]);
    let first = containerd.addresses(&sandbox);
    let second: [IpAddr; 2] = ["10.89.0.2", "fd89::2"].map(|address| address.parse().expect("an address"));
    for pod in first.into_iter().chain(second) {
        let to = SocketAddr::from((pod, 8080));
        assert_eq!(
            landing(&containerd.node.outside, Transport::Tcp, to),
            "proxy 15006",
            "{to}"
        );
    }
    let by_first = Node::OUTSIDE.both();
    let by_second: [IpAddr; 2] = ["203.0.113.9", "2001:db8:1::9"].map(|address| address.parse().expect("an address"));
    for outside in by_first.into_iter().chain(by_second) {
        let to = SocketAddr::from((outside, 9090));
        assert_eq!(landing(&netns, Transport::Tcp, to), "proxy 15001", "{to}");
    }
    containerd.remove(&[sandbox]);
    assert_eq!(containerd.node.leftovers(), [""; 0]);
}
