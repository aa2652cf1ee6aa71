//! A node with pods that started before the plugin: files of the runtime about them, and their processes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::fixture::{FLANNEL, Machine};
use crate::common::Address;
use crate::program::Run;

/// The UID of the pods, which is that of the one in `tests/kubernetes`.
pub const UID: &str = "d00c432f-6d6e-45f2-badc-4b1742a43bba";
/// A chain with the plugin, as the cache has it: {"name":"a","plugins":[{"type":"x"},{"type":"sidetrack"}]}
pub const WITH_PLUGIN: &str = "eyJuYW1lIjoiYSIsInBsdWdpbnMiOlt7InR5cGUiOiJ4In0seyJ0eXBlIjoic2lkZXRyYWNrIn1dfQ==";
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A node whose runtime has attached pods to the network of [`FLANNEL`] before the plugin was installed.
pub struct Attached {
    pub machine: Machine,
    count: Cell<usize>,
}

impl Attached {
    pub fn new() -> Self {
        let attached = Self {
            machine: Machine::with(&[("10-flannel.conflist", FLANNEL)]),
            count: Cell::default(),
        };
        for directory in ["cache", "netns"] {
            fs::create_dir(attached.machine.root().join(directory)).expect("a directory");
        }
        attached
    }

    fn next(&self) -> String {
        self.count.set(self.count.get() + 1);
        format!("cni-{}", self.count.get())
    }

    /// Gives a network namespace a file, as the runtime does. Returns where that is on the node.
    pub fn file(&self, netns: &Path) -> String {
        let name = self.next();
        symlink(netns, self.machine.root().join("netns").join(&name)).expect("a link");
        format!("/var/run/netns/{name}")
    }

    /// Writes what libcni would have in its cache of a pod, with this changed.
    pub fn attach(&self, name: &str, netns: &str, changes: &[(&str, Value)]) {
        let mut written = json!({
            "kind": "cniCacheV1",
            "containerId": format!("id-{name}"),
            "config": "e30=",
            "ifName": "eth0",
            "networkName": "cbr0",
            "netns": netns,
            "cniArgs": [["K8S_POD_UID", UID], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", name]],
            "capabilityArgs": { ANNOTATIONS: { "sidecar.istio.io/status": "{}" } },
            "result": {
                "cniVersion": "1.0.0",
                "ips": Address::POD.both().map(|address| json!({ "address": format!("{address}/24") })),
            },
        });
        for (pointer, value) in changes {
            *written.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value.clone();
        }
        let file = self.machine.root().join("cache").join(format!("cbr0-id-{name}-eth0"));
        fs::write(file, written.to_string()).expect("a file");
    }

    pub fn variables(&self, command: &mut Command) {
        for (name, directory) in [("CNI_CACHE_DIR", "cache"), ("NETNS_DIR", "netns")] {
            let path = self.machine.root().join(directory);
            command.env(format!("SIDETRACK_NODE_{name}"), path);
        }
        command.env("SIDETRACK_NODE_PROC_DIR", "/proc");
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.machine.command(arguments);
        self.variables(&mut command);
        command
    }

    pub fn repair(&self, options: &[&str]) -> Run {
        Run::of(&mut self.command(&[&["repair"], options].concat()))
    }

    /// The states of all pods, by name, and the reasons.
    pub fn states(&self) -> BTreeMap<String, (String, String)> {
        states(&self.repair(&["--dry-run"]))
    }
}

pub fn states(run: &Run) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let lines = run.stdout.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        let pod = text(&line["pod"]);
        let name = pod.rsplit('/').next().expect("a name").to_owned();
        (name, (text(&line["state"]), text(&line["reason"])))
    });
    lines.collect()
}

/// A process that is in a network namespace.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("a process"))
    }

    pub fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill().and_then(|()| self.0.wait());
    }
}
