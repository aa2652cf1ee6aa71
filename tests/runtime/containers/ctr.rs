//! `ctr`: a network for containers whose runtime passes neither names nor annotations.

use super::containerd::Containerd;
use super::node::Node;
use super::{ALL_PROXIED, IMAGE, landing};
use crate::common::{Netns, Owner, Server, Transport, output_of};

#[test]
fn ctr_container_is_redirected_in_both_directions() {
    let containerd = Containerd::start(Node::start(&[ALL_PROXIED]));
    let node = &containerd.node;
    let ctr = |arguments: &[&str]| containerd.ctr(node.name(), arguments);
    ctr(&["image", "import", node.image().to_str().expect("text")]);
    let cgroup = format!("/{}/web", node.name());
    ctr(&[
        "run",
        "--detach",
        "--cni",
        "--snapshotter",
        "native",
        "--cgroup",
        &cgroup,
        IMAGE,
        "web",
    ]);
    let tasks = ctr(&["task", "list"]);
    let process = tasks
        .lines()
        .find_map(|line| line.strip_prefix("web ")?.split_whitespace().next())
        .unwrap_or_else(|| panic!("no task: {tasks}"));
    let netns = Netns::open(&node.path(&format!("/proc/{process}/ns/net")));

    let _proxy = Server::start(&netns, "proxy", Owner::PROXY, &[15001, 15006]);
    let _outside = Server::start(&node.outside, "outside", Owner::ROOT, &[9090]);
    for outside in Node::OUTSIDE.both() {
        assert_eq!(
            landing(&netns, Transport::Tcp, (outside, 9090).into()),
            "proxy 15001",
            "{outside}"
        );
    }
    let addresses = output_of(
        netns
            .command("ip")
            .args(["-brief", "address", "show", "eth0", "scope", "global"]),
    );
    let pod: Vec<&str> = addresses
        .split_whitespace()
        .filter_map(|word| Some(word.split_once('/')?.0))
        .collect();
    assert_eq!(pod.len(), 2, "{addresses}");
    for pod in pod {
        let to = (pod.parse::<std::net::IpAddr>().expect("an address"), 8080).into();
        assert_eq!(landing(&node.outside, Transport::Tcp, to), "proxy 15006", "{to}");
    }
}
