//! The CNI plugin as a runtime runs it: variables, a NetConf on standard input, the program itself, real namespaces.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::SIDETRACK;
use crate::common::Netns;
use crate::program::{Run, state};

pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// The request of a runtime.
pub struct Request {
    pub variables: Vec<(&'static str, String)>,
    pub netconf: Value,
}

/// A request about a pod of the mesh, as containerd makes it.
pub fn request(verb: &str, netns: &Path) -> Request {
    let args =
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=0f1e;K8S_POD_UID=1";
    Request {
        variables: vec![
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", "0f1e".to_owned()),
            ("CNI_NETNS", netns.to_str().expect("text").to_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_ARGS", args.to_owned()),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
        ],
        netconf: json!({
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "sidetrack",
            "capabilities": { ANNOTATIONS: true },
            "runtimeConfig": { ANNOTATIONS: { "sidecar.istio.io/status": "{}" } },
            "prevResult": { "cniVersion": "1.1.0", "ips": [{ "address": "10.99.0.2/24" }] },
        }),
    }
}

impl Request {
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.netconf[key] = value;
        self
    }

    pub fn annotated(mut self, name: &str, text: &str) -> Self {
        self.netconf["runtimeConfig"][ANNOTATIONS][name] = text.into();
        self
    }

    pub fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(variable, _)| *variable != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    pub fn command(&self) -> Command {
        self.command_of(SIDETRACK)
    }

    pub fn command_of(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let given = self.variables.iter().filter(|(_, value)| !value.is_empty());
        command.envs(given.map(|(name, value)| (*name, value.as_str())));
        command
    }

    pub fn run(&self) -> Run {
        self.run_by(SIDETRACK)
    }

    /// Runs a copy of the program.
    pub fn run_by(&self, program: impl AsRef<OsStr>) -> Run {
        plugin(&mut self.command_of(program), self.netconf.to_string().as_bytes())
    }

    #[track_caller]
    pub fn succeeds(&self) -> Run {
        self.run().succeeded()
    }

    /// The run must fail with this code; returns the error.
    #[track_caller]
    pub fn fails(&self, code: u32) -> Value {
        error(&self.run(), code)
    }
}

/// Runs the plugin with this on standard input.
pub fn plugin(command: &mut Command, stdin: &[u8]) -> Run {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    // It may exit without reading all input.
    let _unread = child.stdin.take().expect("a pipe").write_all(stdin);
    Run::from(child.wait_with_output().expect("its end"))
}

#[track_caller]
pub fn error(run: &Run, code: u32) -> Value {
    assert_eq!(run.code, Some(1), "{run:?}");
    let error: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    assert_eq!(error["code"], code, "{run:?}");
    assert!(error["cniVersion"].is_string() && error["msg"].is_string(), "{run:?}");
    error
}

pub fn has_rules(netns: &Netns) -> bool {
    state(netns, "nftables").contains("\"table\": \"sidetrack\"")
}
