//! The node installer as a container of containerd, with the rights and the mounts that the manifests give it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use sidetrack::types::Family;

use super::containerd::{Containerd, Program};
use super::installed::without_us;
use super::node::Node;
use super::pods::{injected, pod};
use super::proxied::of_family;
use super::{IMAGE, KUBERNETES, landing};
use crate::cni::has_rules;
use crate::common::conversation::{Conversation, Echo};
use crate::common::{Owner, Server, Transport};
use crate::installer::fixture::eventually;
use crate::manifests::manifest;
use crate::program::static_program;

/// The container that the kubelet would make of the base with the component for repair.
fn container(directory: &Path) -> Value {
    let [base, repair] = ["base", "repair"].map(|part| {
        let daemonset = manifest(&format!("kubernetes/{part}/daemonset.yaml"));
        daemonset["spec"]["template"]["spec"].clone()
    });
    let of = |pod: &Value, pointer: &str| {
        pod.pointer(pointer)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let both = |pointer: &str| [of(&base, pointer), of(&repair, pointer)].concat();
    let volumes = both("/volumes");
    let mounts = both("/containers/0/volumeMounts").into_iter().map(|mount| {
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
        let host = volume.expect("a volume")["hostPath"]["path"]
            .as_str()
            .expect("a path")
            .to_owned();
        // Where Debian's containerd looks for plugins.
        let host = if host == "/opt/cni/bin" {
            "/usr/lib/cni".to_owned()
        } else {
            host
        };
        json!({
            "hostPath": host,
            "containerPath": mount["mountPath"],
            "readonly": mount["readOnly"] == true,
            "propagation": match mount["mountPropagation"].as_str() {
                Some("HostToContainer") => "PROPAGATION_HOST_TO_CONTAINER",
                _ => "PROPAGATION_PRIVATE",
            },
        })
    });
    let program = json!({
        "hostPath": directory.join("static"), "containerPath": "/program", "readonly": true,
    });
    let env = both("/containers/0/env").into_iter().filter_map(|variable| {
        let value = match variable["name"].as_str()? {
            "NODE_IP" => return None,
            "SIDETRACK_NODE_HEALTH_ADDRESS" => json!("127.0.0.1:15014"),
            "SIDETRACK_NODE_POD_NAMESPACE" => json!("sidetrack-system"),
            "SIDETRACK_NODE_POD_NAME" => json!("sidetrack-node-x7k2p"),
            _ => variable["value"].clone(),
        };
        Some(json!({ "key": variable["name"], "value": value }))
    });
    let rights = &base["containers"][0]["securityContext"];
    assert_eq!(rights["allowPrivilegeEscalation"], false);
    assert_eq!(rights["seccompProfile"]["type"], "RuntimeDefault");
    json!({
        "metadata": { "name": "install" },
        "image": { "image": IMAGE },
        "command": ["/program/sidetrack"],
        "args": base["containers"][0]["args"],
        "envs": env.collect::<Vec<_>>(),
        "mounts": mounts.chain([program]).collect::<Vec<_>>(),
        "logPath": "install.log",
        "linux": { "securityContext": {
            "runAsUser": { "value": rights["runAsUser"] },
            "runAsGroup": { "value": rights["runAsGroup"] },
            "readonlyRootfs": rights["readOnlyRootFilesystem"],
            "noNewPrivs": true,
            "seccomp": { "profileType": "RuntimeDefault" },
            "namespaceOptions": { "network": "NODE" },
            "capabilities": {
                "addCapabilities": repair["containers"][0]["securityContext"]["capabilities"]["add"],
                "dropCapabilities": rights["capabilities"]["drop"],
            },
        } },
    })
}

#[test]
fn manifests_suffice_to_repair_a_pod_and_keep_its_connections() {
    let node = Node::start(&[]);
    node.add_network(KUBERNETES, &without_us());
    let directory = node.directory().to_owned();
    std::fs::create_dir(directory.join("static")).expect("a directory");
    std::fs::copy(static_program(), directory.join("static/sidetrack")).expect("a copy");
    let containerd = Containerd::start(node);
    let sandbox = containerd.run(injected("web-0")).expect("a sandbox");
    let netns = containerd.netns(&sandbox);
    let _servers = [
        Server::start(&netns, "proxy", Owner::PROXY, &[15001, 15006]),
        Server::start(&containerd.node.outside, "outside", Owner::ROOT, &[9090]),
    ];
    let mut agent = pod("sidetrack-system", "sidetrack-node-x7k2p", json!({}));
    agent["linux"]["securityContext"]["namespaceOptions"]["network"] = "NODE".into();
    agent["hostname"] = "".into(); // that of the node
    let agent = containerd.run(agent).expect("a sandbox");
    let _echo = Echo::start(&netns, Owner::APP, 7001);
    let mut open: Vec<Conversation> = Vec::new();
    for address in containerd.addresses(&sandbox) {
        let begin = || Conversation::begin_from(None, SocketAddr::from((address, 7001)));
        open.push(containerd.node.outside.run(begin).expect("a connection"));
    }
    containerd.start_configured(&agent, container(&directory));
    let said = || {
        containerd.log(&Program {
            name: "install",
            owner: Owner::ROOT,
            command: Vec::new(),
            mounts: Vec::new(),
        })
    };
    eventually("a repair", || {
        // The other side closes an idle connection.
        for conversation in &mut open {
            conversation.go_on(1).expect("it goes on");
        }
        let log = said();
        if log.contains("repaired pod=\"shop/web-0\"") {
            Ok(())
        } else {
            Err(log)
        }
    });
    let log = said();
    assert!(
        log.contains("open connections continue without the proxy") && log.contains("2 passed, 0 failed"),
        "{log}"
    );
    assert!(
        !log.contains(" ERROR ") && !log.contains("open connections are interrupted"),
        "{log}"
    );
    assert!(has_rules(&netns));
    for conversation in &mut open {
        conversation.go_on(3).expect("it goes on");
    }
    for family in Family::BOTH {
        let outside = of_family(
            Node::OUTSIDE,
            containerd.addresses(&sandbox)[usize::from(family == Family::V6)],
        );
        assert_eq!(landing(&netns, Transport::Tcp, (outside, 9090).into()), "proxy 15001");
    }
    containerd.remove(&[sandbox, agent]);
    assert_eq!(containerd.node.leftovers(), [""; 0]);
}
