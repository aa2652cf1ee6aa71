//! A node whose plugin the node installer puts in place, while containerd runs.

use std::cell::Cell;

use serde_json::{Value, json};

use super::containerd::{Containerd, Sandbox};
use super::node::Node;
use super::pods::{check_proxied, injected, pod};
use super::proxied::{APP, HOST_PORT, app, proxy};
use super::{KUBERNETES, conflist};
use crate::cni::has_rules;
use crate::installer::fixture::{Installer, eventually, program};
use crate::program::{Run, nft_state};

/// The network of `cni-conf` without our plugin: as the cluster's network plugin writes it.
pub fn without_us() -> String {
    let mut list: Value = serde_json::from_str(&conflist(KUBERNETES)).expect("JSON");
    let plugins = list["plugins"].as_array_mut().expect("a list");
    plugins.pop();
    format!("{list:#}\n")
}

const DIRECTORIES: [&str; 4] = ["--cni-bin-dir", "/usr/lib/cni", "--cni-conf-dir", "/etc/cni/net.d"];

/// Where containerd and its plugins leave what the installer needs to find pods.
const PLACES: [&str; 6] = [
    "--cni-cache-dir",
    "/var/lib/cni/results",
    "--netns-dir",
    "/run/netns",
    "--proc-dir",
    "/proc",
];

fn install(node: &Node, options: &[&str]) -> Installer {
    // It is to end with nsenter, which is its parent.
    let mut command = node.command("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program());
    command.args(["node", "install", "--health-address", "127.0.0.1:0"]);
    command.args(DIRECTORIES).args(options);
    let installer = Installer::start(command);
    installer.eventually_logs("in place");
    installer
}

/// The installer ends some time after the program that it was started by.
fn eventually_uninstalls(node: &Node) {
    eventually("an uninstallation, once the installer has ended", || {
        let mut command = node.command(program());
        let run = Run::of(command.args(["node", "uninstall"]).args(DIRECTORIES));
        if run.code == Some(0) { Ok(()) } else { Err(run) }
    });
}

#[test]
fn containerd_runs_installed_plugin_and_installer_logs_it() {
    let node = Node::start(&[]);
    node.add_network(KUBERNETES, &without_us());
    let containerd = Containerd::start(node);
    let count = Cell::new(0);
    let run = || -> Sandbox {
        count.set(count.get() + 1);
        containerd
            .run(injected(&format!("web-{}", count.get())))
            .expect("a sandbox")
    };
    // containerd takes a conflist soon after it was changed.
    let eventually_redirects = |redirects: bool| {
        eventually("pods", || {
            let sandbox = run();
            let is_so = has_rules(&containerd.netns(&sandbox)) == redirects;
            containerd.remove(&[sandbox]);
            if is_so { Ok(()) } else { Err(count.get()) }
        });
    };
    eventually_redirects(false);

    let installer = install(&containerd.node, &[]);
    eventually_redirects(true);
    let pod = format!("pod=\"shop/web-{}\"", count.get());
    installer.eventually_logs(&pod);
    assert!(
        installer.log().contains("outcome=\"redirected\""),
        "{}",
        installer.log()
    );

    // The cluster's network plugin writes its file again: no pod stays without us for long.
    containerd.node.add_network(KUBERNETES, &without_us());
    installer.eventually_logs("reasons=\"entry-missing\"\n INFO in place");
    eventually_redirects(true);

    // Without a running installer, the installed plugin still works.
    drop(installer);
    for _ in 0..3 {
        let sandbox = run();
        assert!(has_rules(&containerd.netns(&sandbox)));
        containerd.remove(&[sandbox]);
    }

    eventually_uninstalls(&containerd.node);
    eventually_redirects(false);
    assert_eq!(containerd.node.leftovers(), [""; 0]);
}

/// With a conflist of its own, the installer has pods fail while there is no network to join, so that none of them starts
/// without the plugin once the network plugin writes its file, however often it does.
#[test]
fn pods_fail_until_own_conflist_is_ready_and_none_starts_without_rules() {
    const OWN: &str = "00-sidetrack.conflist";
    let node = Node::start(&[]);
    let mut command = node.command("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program());
    command.args([
        "node",
        "install",
        "--health-address",
        "127.0.0.1:0",
        "--own-conflist",
        OWN,
    ]);
    command.args(DIRECTORIES);
    let installer = Installer::start(command);
    installer.eventually_logs("waiting for a network configuration");
    let containerd = Containerd::start(node);
    let refused = containerd.run(injected("early")).err().expect("no network");
    assert!(refused.contains("no network configuration to join yet"), "{refused}");

    // Network plugins fail, too, where other tests change iptables' rules at the same time.
    let (mut tried, mut started) = (0, 0);
    eventually("five pods start", || {
        tried += 1;
        containerd.node.add_network(KUBERNETES, &without_us());
        let sandbox = containerd.run(injected(&format!("web-{tried}")))?;
        assert!(
            has_rules(&containerd.netns(&sandbox)),
            "a pod started without the plugin"
        );
        started += 1;
        if started == 5 {
            Ok(())
        } else {
            Err(format!("{started} started"))
        }
    });
    drop(installer);
    eventually_uninstalls(&containerd.node);
    assert!(!containerd.node.path("/etc/cni/net.d").join(OWN).exists());
}

/// Pods that started before the plugin was there: the one with a sidecar passes it from then on, the other is left
/// alone.
/// Installed rules without the record of their options, which says that a repair wrote them.
fn without_record(rules: &str) -> Vec<Value> {
    let listed: Value = serde_json::from_str(rules).expect("JSON");
    let objects = listed["nftables"].as_array().expect("objects").iter();
    let is_record = |object: &&Value| object["rule"]["chain"] == "options";
    objects.filter(|object| !is_record(object)).cloned().collect()
}

#[test]
fn pod_older_than_the_plugin_is_repaired_and_passes_envoy() {
    let node = Node::start(&[]);
    node.add_network(KUBERNETES, &without_us());
    let containerd = Containerd::start(node);
    let mut config = injected("web-0");
    config["portMappings"] = json!([{ "containerPort": APP, "hostPort": HOST_PORT }]);
    let sandbox = containerd.run(config).expect("a sandbox");
    let plain = containerd.run(pod("shop", "plain", json!({}))).expect("a sandbox");
    let (app, proxy) = (app(), proxy());
    let containers = [&app, &proxy].map(|program| containerd.start_container(&sandbox, program));
    let netns = containerd.netns(&sandbox);
    assert!(!has_rules(&netns));

    // What containerd's cache says of the chain, where nothing may be entered.
    let from_cache = || -> Vec<(String, String)> {
        let mut status = containerd.node.command(program());
        status.args(["node", "status", "--json"]).args(DIRECTORIES);
        status.args(["--cni-cache-dir", "/var/lib/cni/results", "--netns-dir", "/nonexistent"]);
        let status: Value = serde_json::from_str(&Run::of(&mut status).stdout).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let pods = status["pods"].as_array().expect("pods").iter();
        let mut pods: Vec<_> = pods.map(|pod| (text(&pod["pod"]), text(&pod["state"]))).collect();
        pods.sort();
        pods
    };
    let state = |pod: &str, state: &str| (pod.to_owned(), state.to_owned());
    let plain_one = state("shop/plain", "skipped");
    assert_eq!(from_cache(), [plain_one.clone(), state("shop/web-0", "missed")]);

    let installer = install(&containerd.node, &[&["--repair", "in-place"], &PLACES[..]].concat());
    installer.eventually_logs("INFO repaired pod=\"shop/web-0\"");
    let rules = without_record(&nft_state(&netns));
    check_proxied(&containerd, &sandbox, &containers, &proxy);
    assert!(!has_rules(&containerd.netns(&plain)));

    // As the plugin does it for the next pod of the same kind.
    let next = containerd.run(injected("web-1")).expect("a sandbox");
    eventually("the same rules", || {
        let found = without_record(&nft_state(&containerd.netns(&next)));
        if found == rules {
            Ok(())
        } else {
            Err(format!("{found:#?}"))
        }
    });
    assert_eq!(
        from_cache(),
        [
            plain_one,
            state("shop/web-0", "missed"),
            state("shop/web-1", "redirected")
        ]
    );
    // On the node itself, a pod is found by its name alone, and so are its options.
    let on_node = |arguments: &[&str]| Run::of(containerd.node.command(program()).args(arguments));
    let listed = on_node(&["node", "pods", "--json"]).succeeded().stdout;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let pods = listed["pods"].as_array().expect("pods").iter();
    let mut pods: Vec<_> = pods
        .map(|pod| [&pod["name"], &pod["state"]].map(Value::to_string))
        .collect();
    pods.sort();
    let quoted = |name: &str, state: &str| [name, state].map(|text| format!("{text:?}"));
    let states = [("plain", "skipped"), ("web-0", "in-sync"), ("web-1", "in-sync")];
    assert_eq!(pods, states.map(|(name, state)| quoted(name, state)), "{listed:#}");
    for pod in ["shop/web-0", "shop/web-1"] {
        let check = on_node(&["check", "--pod", pod]).succeeded();
        assert!(check.stdout.starts_with("in-sync"), "{check:?}");
        let explain = [
            "explain",
            "outbound",
            "tcp",
            "192.0.2.1:80",
            "--from-kernel",
            "--pod",
            pod,
        ];
        assert!(on_node(&explain).succeeded().stdout.contains("port 15001"), "{pod}");
    }
    containerd.remove(&[sandbox, plain, next]);
    let mut repair = containerd.node.command(program());
    let run = Run::of(repair.args(["node", "repair"]).args(&DIRECTORIES[2..]).args(PLACES)).succeeded();
    assert_eq!(run.stdout, "", "no pod is left");
    assert_eq!(containerd.node.leftovers(), [""; 0]);
}
