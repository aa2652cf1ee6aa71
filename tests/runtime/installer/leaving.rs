//! Uninstalling while pods run that were attached with the plugin: libcni itself takes them down, as CRI-O has it do.

use std::process::Command;

use super::choice::libcni;
use super::fixture::{FLANNEL, Machine, names};
use crate::cni::has_rules;
use crate::common::{Pod, write_program};
use crate::program::Run;

/// A plugin that does nothing.
const PLUGIN: &str = "#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.3.1\",\"1.0.0\"]}' ;;
ADD) echo '{\"cniVersion\":\"0.3.1\",\"interfaces\":[],\"ips\":[]}' ;;
esac
";

/// A node with a network, whose runtime is libcni.
fn machine() -> Machine {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    for name in ["flannel", "portmap"] {
        write_program(&machine.bin().join(name), PLUGIN);
    }
    machine
}

fn add(machine: &Machine, id: &str, pod: &Pod) -> Run {
    let mut command = Command::new(libcni());
    command
        .arg("add")
        .args([machine.bin(), machine.root().join("cache"), machine.conf()]);
    Run::of(command.args([id, &pod.netns.path().to_string_lossy()]))
}

fn del(machine: &Machine, id: &str) -> Run {
    let mut command = Command::new(libcni());
    command.arg("del").args([machine.bin(), machine.root().join("cache")]);
    Run::of(command.arg(id))
}

fn uninstall(machine: &Machine, options: &[&str]) -> Run {
    let mut command = machine.command(&[&["uninstall"], options].concat());
    Run::of(command.env("SIDETRACK_NODE_CNI_CACHE_DIR", machine.root().join("cache/results")))
}

#[test]
fn attached_pods_are_deleted_after_uninstall() {
    let (machine, pods) = (machine(), [(); 2].map(|()| Pod::new()));
    add(&machine, "before", &pods[0]).succeeded();
    machine.install_once();
    add(&machine, "id", &pods[1]).succeeded();
    assert!(!has_rules(&pods[0].netns) && has_rules(&pods[1].netns));

    let said = ["1 pods were attached with it", "CRI-O", "Run this again", "--force"];
    uninstall(&machine, &[]).failed(1, &said);
    assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
    assert!(machine.has_binary());
    // What starts now does not need it.
    del(&machine, "before").succeeded();
    uninstall(&machine, &[]).failed(1, &said);
    del(&machine, "id").succeeded();
    uninstall(&machine, &[]).succeeded();
    assert_eq!(names(&machine.bin()), ["flannel", "portmap"]);
}

#[test]
fn libcni_cannot_delete_a_cached_pod_without_the_binary() {
    let (machine, pod) = (machine(), Pod::new());
    machine.install_once();
    add(&machine, "id", &pod).succeeded();
    uninstall(&machine, &["--force"]).succeeded();
    assert_eq!(names(&machine.bin()), ["flannel", "portmap"]);
    del(&machine, "id").failed(1, &["failed to find plugin \"sidetrack\""]);
}
