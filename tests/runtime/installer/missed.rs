//! Pods that started without the plugin, as the runtime's cache shows: no right is needed but to read it.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::attached::Attached;
use super::fixture::{End, FLANNEL, Installer, Machine, eventually};
use crate::cni::has_rules;
use crate::common::Pod;
use crate::program::Run;

/// [`FLANNEL`] as libcni keeps it.
const WITHOUT_US: &str = "eyJuYW1lIjoiY2JyMCIsInBsdWdpbnMiOlt7InR5cGUiOiJmbGFubmVsIn1dfQ==";
/// The same with our plugin.
const WITH_US: &str = "eyJuYW1lIjoiY2JyMCIsInBsdWdpbnMiOlt7InR5cGUiOiJmbGFubmVsIn0seyJ0eXBlIjoic2lkZXRyYWNrIn1dfQ==";

/// A command of an installer in a container that has no capability, and no network namespaces of pods.
fn unprivileged(attached: &Attached, arguments: &[&str]) -> Command {
    let node = attached.command(arguments);
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(node.get_program())
        .args(node.get_args())
        .envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("SIDETRACK_NODE_NETNS_DIR", "/nonexistent");
    command
}

#[test]
fn pods_that_started_without_the_plugin_are_reported_without_more_rights() {
    let attached = Attached::new();
    let plain = json!({ "io.kubernetes.cri.pod-annotations": {} });
    attached.attach("web-0", "", &[("/config", WITHOUT_US.into())]);
    attached.attach("web-1", "", &[("/config", WITH_US.into())]);
    attached.attach(
        "plain",
        "",
        &[("/config", WITHOUT_US.into()), ("/capabilityArgs", plain)],
    );
    attached.attach("unknown", "", &[]);
    let installer = Installer::start(unprivileged(&attached, &["install"]));
    installer.eventually_logs("pod may bypass its proxy pod=\"shop/web-0\" container=\"id-web-0\" state=\"missed\"");
    installer.eventually_ready();
    let count = |state: &str| installer.metric(&format!("sidetrack_node_pods{{state=\"{state}\"}}"));
    eventually("all are counted", || {
        let counts = ["missed", "redirected", "skipped", "undecided"].map(count);
        if counts == [1.0; 4] { Ok(()) } else { Err(counts) }
    });
    let log = installer.log();
    assert!(!log.contains("shop/web-1") && !log.contains("shop/plain"), "{log}");
    assert_eq!(installer.metric("sidetrack_node_degraded{part=\"pods\"}"), 0.0);

    let status = Run::of(&mut unprivileged(&attached, &["status"])).succeeded().stdout;
    for said in [
        "pods           2 of 4 may bypass their proxy\n",
        "shop/web-0: missed: ",
        "shop/unknown: undecided: the runtime's cache does not say which plugins",
    ] {
        assert!(status.contains(said), "{said}: {status}");
    }
    let json = Run::of(&mut unprivileged(&attached, &["status", "--json"])).stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["pods"].as_array().map(Vec::len), Some(4));

    // One that comes later is seen when it comes.
    attached.attach("web-2", "", &[("/config", WITHOUT_US.into())]);
    installer.eventually_logs("pod=\"shop/web-2\" container=\"id-web-2\" state=\"missed\"");
}

#[test]
fn unmounted_cache_is_reported_and_affects_nothing_else() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let installer = machine.start(&["--cni-cache-dir", "/nonexistent"]);
    installer.eventually_ready();
    installer.eventually_logs("cannot look for pods that lack their rules");
    eventually("a part that is missing", || {
        match installer.metric("sidetrack_node_degraded{part=\"pods\"}") {
            1.0 => Ok(()),
            other => Err(other),
        }
    });
    let run = machine.run(&["status", "--cni-cache-dir", "/nonexistent"]).succeeded();
    assert!(run.stdout.contains("pods           not checked: "), "{run:?}");
    assert!(run.stdout.contains("Mount the node's directory there"), "{run:?}");
}

/// A conflist that another process keeps writing has our entry for some pods and not for others.
#[test]
fn pod_started_while_entry_is_reverted_is_repaired_at_once() {
    let attached = Attached::new();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = End(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                attached.machine.write("10-flannel.conflist", FLANNEL);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let installer = Installer::start(attached.command(&["install", "--repair", "in-place"]));
        installer.eventually_logs("another process keeps reverting our changes");
        // Without an event, the next check would be in a minute.
        let pods = [(); 3].map(|()| Pod::new());
        for (pod, name) in pods.iter().zip(["web-0", "web-1", "web-2"]) {
            let netns = attached.file(&pod.netns.path());
            attached.attach(name, &netns, &[("/config", WITHOUT_US.into())]);
            eventually("rules", || {
                if has_rules(&pod.netns) {
                    Ok(())
                } else {
                    Err(installer.log())
                }
            });
        }
        drop(end);
    });
}
