//! Pods of Kubernetes: sandboxes of containerd, and what the plugin learns of each from it.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use sidetrack::types::Family;

use super::containerd::{Container, Containerd, Program, Sandbox};
use super::node::Node;
use super::proxied::{APP, Caller, HOST_PORT, Proxied, app, of_family, proxy};
use super::{KUBERNETES, conflist, landing};
use crate::cni::{ANNOTATIONS, has_rules};
use crate::common::dns::{FORWARDER, Resolver, look_up};
use crate::common::{Owner, Server, Transport, output_of};

const STATUS: &str = "sidecar.istio.io/status";
/// A name server that the runtime passes to pods.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// What a pod is for containerd, as the kubelet says it.
pub fn pod(namespace: &str, name: &str, annotations: Value) -> Value {
    json!({
        "metadata": { "namespace": namespace, "name": name, "uid": format!("uid-{name}") },
        "hostname": name,
        "annotations": annotations,
        "dnsConfig": { "servers": [NAME_SERVER.to_string()] },
        "labels": { "io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.name": name },
    })
}

/// A pod of the mesh.
pub fn injected(name: &str) -> Value {
    pod("shop", name, json!({ STATUS: "{}" }))
}

/// Checks the connections of a pod whose containers are an app and a real Envoy.
pub fn check_proxied(containerd: &Containerd, sandbox: &Sandbox, containers: &[Container; 2], proxy: &Program) {
    let exec = |caller, command: &[&str]| match caller {
        Caller::App => containerd.exec(&containers[0], command),
        Caller::Proxy => containerd.exec(&containers[1], command),
        Caller::Outside => unreachable!("it is no container"),
    };
    Proxied {
        node: &containerd.node,
        netns: containerd.netns(sandbox),
        addresses: containerd.addresses(sandbox),
        exec: &exec,
        log: &|| containerd.log(proxy),
    }
    .check();
}

#[test]
fn injected_pod_passes_envoy_and_is_removed_completely() {
    let containerd = Containerd::start(Node::start(&[KUBERNETES]));
    let mut config = injected("web-0");
    config["portMappings"] = json!([{ "containerPort": APP, "hostPort": HOST_PORT }]);
    let sandbox = containerd.run(config).expect("a sandbox");
    let (app, proxy) = (app(), proxy());
    let containers = [&app, &proxy].map(|program| containerd.start_container(&sandbox, program));
    check_proxied(&containerd, &sandbox, &containers, &proxy);
    assert_ne!(containerd.node.leftovers(), [""; 0], "what is left could not be seen");
    containerd.remove(&[sandbox]);
    assert_eq!(containerd.node.leftovers(), [""; 0]);
}

#[test]
fn annotations_from_containerd_decide_the_redirection() {
    let containerd = Containerd::start(Node::start(&[KUBERNETES]));
    let annotated = |name: &str, value: &str| {
        let mut annotations = json!({ STATUS: "{}", "traffic.sidecar.istio.io/excludeOutboundPorts": "3306" });
        annotations[name] = value.into();
        annotations
    };
    let wanted = |redirect| annotated("traffic.sidetrack.dev/redirect", redirect);
    let pods = [
        (true, pod("shop", "injected", annotated(STATUS, "{}"))),
        (true, pod("shop", "injected-and-wanted", wanted("true"))),
        (false, pod("shop", "injected-and-unwanted", wanted("false"))),
        (false, pod("shop", "plain", json!({}))),
        (false, pod("kube-system", "coredns-0", annotated(STATUS, "{}"))),
        (
            false,
            pod("shop", "none", annotated("sidecar.istio.io/interceptionMode", "NONE")),
        ),
    ];
    let configs = pods.iter().map(|(_, config)| config.clone()).collect();
    let sandboxes: Vec<Sandbox> = containerd
        .run_at_once(configs)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let outside = &containerd.node.outside;
    let _server = Server::start(outside, "outside", Owner::ROOT, &[3306, 9090]);
    for ((captured, config), sandbox) in pods.iter().zip(&sandboxes) {
        let name = &config["metadata"]["name"];
        let netns = containerd.netns(sandbox);
        let ruleset = output_of(netns.command("nft").args(["list", "ruleset"]));
        assert!(*captured || ruleset.is_empty(), "{name}: {ruleset}");
        let _servers = [
            Server::start(&netns, "proxy", Owner::PROXY, &[15001, 15006]),
            Server::start(&netns, "app", Owner::APP, &[APP]),
        ];
        let (out, into) = if *captured {
            ("proxy 15001", "proxy 15006")
        } else {
            ("outside 9090", "app 8080")
        };
        for pod in containerd.addresses(sandbox) {
            let server = of_family(Node::OUTSIDE, pod);
            for (from, to, lands) in [
                (&netns, (server, 9090), out),
                (&netns, (server, 3306), "outside 3306"),
                (outside, (pod, APP), into),
            ] {
                assert_eq!(landing(from, Transport::Tcp, to.into()), lands, "{name}: {to:?}");
            }
        }
    }
    containerd.remove(&sandboxes);
    assert_eq!(containerd.node.leftovers(), [""; 0]);
}

#[test]
fn only_queries_to_name_servers_from_containerd_are_captured() {
    let containerd = Containerd::start(Node::start(&[KUBERNETES]));
    let capture = "proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}";
    let annotations = json!({ STATUS: "{}", "proxy.istio.io/config": capture });
    let sandbox = containerd.run(pod("shop", "web-0", annotations)).expect("a sandbox");
    let netns = containerd.netns(&sandbox);
    let other = Node::OUTSIDE.of(Family::V4);
    let _resolvers = [
        Resolver::name_server(&containerd.node.outside, Owner::ROOT, &[other]),
        Resolver::forwarder(&netns, Owner::PROXY, &FORWARDER, Node::OUTSIDE),
    ];
    let captured = |transport, server| {
        let reply = netns.run(|| {
            Owner::APP.assume()?;
            look_up(transport, None, server, "name.example")
        });
        reply.expect("an answer").forwarded_for.is_some()
    };
    for transport in [Transport::Udp, Transport::Tcp] {
        assert!(captured(transport, NAME_SERVER.into()), "{transport:?}");
    }
    assert!(!captured(Transport::Udp, other));
}

#[test]
fn invalid_annotation_fails_the_sandbox_and_leaves_nothing() {
    let containerd = Containerd::start(Node::start(&[KUBERNETES]));
    let mistake = json!({ STATUS: "{}", "traffic.sidecar.istio.io/excludeInboundPorts": "http" });
    fails(
        &containerd,
        pod("shop", "web-0", mistake),
        &[
            r#"plugin type="sidetrack" failed (add)"#,
            "invalid annotations of the pod",
            "traffic.sidecar.istio.io/excludeInboundPorts",
            r#""http""#,
        ],
    );
    // The kubelet tries again, and the pod has been mended meanwhile.
    let sandbox = containerd.run(injected("web-0")).expect("a sandbox");
    assert!(has_rules(&containerd.netns(&sandbox)));
}

#[test]
fn conflist_without_annotations_capability_fails_the_sandbox_with_advice() {
    let node = Node::start(&[]);
    let mut without: Value = serde_json::from_str(&conflist(KUBERNETES)).expect("JSON");
    let capabilities = without["plugins"][2]["capabilities"].as_object_mut();
    capabilities
        .and_then(|asked| asked.remove(ANNOTATIONS))
        .expect("asked for");
    node.add_network(KUBERNETES, &without.to_string());
    let containerd = Containerd::start(node);
    fails(
        &containerd,
        injected("web-0"),
        &[
            "the runtime passed no annotations of the pod",
            r#"add "capabilities": {"io.kubernetes.cri.pod-annotations": true}"#,
        ],
    );
    let sandbox = containerd
        .run(pod("kube-system", "coredns-0", json!({})))
        .expect("a sandbox");
    assert!(!has_rules(&containerd.netns(&sandbox)));
}

/// A pod whose sandbox fails like this, and of which nothing is left.
#[track_caller]
fn fails(containerd: &Containerd, pod: Value, said: &[&str]) {
    let error = containerd.run(pod).err().expect("an error");
    // gRPC has it in the quotes of the runtime.
    let error = error.replace('\\', "");
    for text in said {
        assert!(error.contains(text), "{text} is not said in {error}");
    }
    assert_eq!(containerd.sandboxes(), [Value::Null; 0]);
    assert_eq!(containerd.node.leftovers(), [""; 0]);
}

#[test]
fn del_is_idempotent_and_works_without_a_namespace() {
    let containerd = Containerd::start(Node::start(&[KUBERNETES]));
    let calls = containerd.node.directory().join("calls");
    containerd.node.stand_in(&format!(
        r#"
        netconf=$(cat)
        printf %s "$netconf" | "$sidetrack"
        code=$?
        echo "$CNI_COMMAND $code ${{CNI_NETNS:-nowhere}}" >>{}
        exit $code
        "#,
        calls.display()
    ));
    let sandbox = containerd.run(injected("web-0")).expect("a sandbox");
    let stop = || containerd.call("StopPodSandbox", json!({ "podSandboxId": sandbox.id }));
    for _ in 0..2 {
        stop().expect("it stops");
    }
    containerd.remove(&[sandbox]);
    assert_eq!(containerd.node.leftovers(), [""; 0]);

    let calls = fs::read_to_string(calls).expect("calls");
    let dels: Vec<&str> = calls.lines().filter(|call| call.starts_with("DEL ")).collect();
    assert!(dels.len() > 1 && dels.contains(&"DEL 0 nowhere"), "{calls}");
    assert!(dels.iter().all(|del| del.starts_with("DEL 0 ")), "{calls}");
}

#[test]
fn concurrent_start_of_ten_pods_gives_each_its_rules() {
    let containerd = Containerd::start(Node::start(&[KUBERNETES]));
    let port = |number: usize| (20000 + number).to_string();
    let pods = (0..10).map(|number| {
        // Every other one is not part of the mesh.
        let annotations = match number % 2 {
            0 => json!({ STATUS: "{}", "traffic.sidecar.istio.io/excludeInboundPorts": port(number) }),
            _ => json!({}),
        };
        pod("shop", &format!("web-{number}"), annotations)
    });
    let sandboxes: Vec<Sandbox> = containerd
        .run_at_once(pods.collect())
        .into_iter()
        .map(|sandbox| sandbox.expect("a sandbox"))
        .collect();
    for (number, sandbox) in sandboxes.iter().enumerate() {
        let ruleset = output_of(containerd.netns(sandbox).command("nft").args(["list", "ruleset"]));
        let found: Vec<usize> = (0..10).filter(|number| ruleset.contains(&port(*number))).collect();
        let expected = if number % 2 == 0 { vec![number] } else { vec![] };
        assert_eq!(found, expected, "{number}: {ruleset}");
        assert_eq!(ruleset.is_empty(), expected.is_empty(), "{number}: {ruleset}");
    }
    containerd.remove(&sandboxes);
    assert_eq!(containerd.node.leftovers(), [""; 0]);
}

/// When the plugin is killed, the pod does not start and nothing of it is left. The kubelet tries again.
#[test]
fn killed_plugin_leaves_nothing_and_the_next_add_succeeds() {
    let containerd = Containerd::start(Node::start(&[KUBERNETES]));
    let deaths = [
        // When it is about to commit the rules; the loopback address has been added by then.
        r#"strace -f -o /dev/null -e trace=sendto -e inject=sendto:signal=KILL:when=5 "$sidetrack""#,
        // When it has committed them and not yet answered.
        r#""$sidetrack" >/dev/null"#,
    ];
    for death in deaths {
        containerd.node.stand_in(&format!(
            r#"
            [ "$CNI_COMMAND" = ADD ] || exec "$sidetrack"
            {death}
            kill -KILL $$
            "#
        ));
        fails(
            &containerd,
            injected("web-0"),
            &[r#"plugin type="sidetrack" failed (add): netplugin failed"#],
        );
    }
    containerd.node.stand_in_no_more();
    let sandbox = containerd.run(injected("web-0")).expect("a sandbox");
    assert!(has_rules(&containerd.netns(&sandbox)));
}
