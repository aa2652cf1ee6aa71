//! containerd on a node, and its CRI, called as the kubelet calls it.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::node::Node;
use super::{IMAGE, file};
use crate::common::{Netns, Owner, output_of};

/// How long containerd may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Its log.
const LOG: &str = "containerd.log";

/// containerd, and what stands in for the kubelet.
pub struct Containerd {
    cri: RefCell<Cri>,
    /// Last: what runs on it ends with it.
    pub node: Node,
}

/// A pod's sandbox: what the kubelet asks for first, the network namespace.
pub struct Sandbox {
    pub id: String,
    config: Value,
}

/// A program in a container, and as whom it runs there, without any capability.
pub struct Program<'p> {
    pub name: &'p str,
    pub owner: Owner,
    pub command: Vec<String>,
    /// Directories of the host and where the container has them.
    pub mounts: Vec<(String, &'static str)>,
}

/// A container.
pub struct Container(String);

impl Containerd {
    /// Starts it; it can run pods when this returns.
    pub fn start(node: Node) -> Self {
        let log = File::create(node.directory().join(LOG)).expect("a log");
        let mut daemon = node.command("containerd");
        daemon.arg("--config").arg(file("containerd.toml"));
        let stderr = log.try_clone().expect("the log");
        node.start_daemon(daemon.stdin(Stdio::null()).stdout(log).stderr(stderr));
        let containerd = Self {
            cri: RefCell::new(Cri::start(&node)),
            node,
        };
        containerd.wait_until_ready();
        containerd.ctr(
            "k8s.io",
            &["image", "import", containerd.node.image().to_str().expect("text")],
        );
        containerd
    }

    fn wait_until_ready(&self) {
        let begun = Instant::now();
        loop {
            let status = self.call("Status", json!({}));
            let ready = |status: &Value| {
                let conditions = status["status"]["conditions"].as_array().expect("a list").clone();
                conditions.iter().all(|condition| condition["status"] == true)
            };
            match status {
                Ok(status) if ready(&status) => return,
                // It answers before it has found its networks.
                status => assert!(begun.elapsed() < PATIENCE, "containerd is not ready: {status:?}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `ctr` in a namespace of containerd, and returns what it prints.
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> String {
        let mut ctr = self.node.command("ctr");
        output_of(ctr.args(["--namespace", namespace]).args(arguments))
    }

    /// Makes a call.
    pub fn call(&self, method: &str, request: Value) -> Result<Value, String> {
        let answers = self.cri.borrow_mut().call(&[(method, request)]);
        answers.into_iter().next().expect("an answer to each call")
    }

    /// RunPodSandbox.
    pub fn run(&self, pod: Value) -> Result<Sandbox, String> {
        let sandboxes = self.run_at_once(vec![pod]);
        sandboxes.into_iter().next().expect("an answer to each call")
    }

    /// RunPodSandbox for several pods at once.
    pub fn run_at_once(&self, pods: Vec<Value>) -> Vec<Result<Sandbox, String>> {
        let configs = pods.into_iter().map(|mut config| {
            config["logDirectory"] = self.node.directory().join("logs").to_str().expect("text").into();
            config["linux"]["cgroupParent"] = format!("/{}", self.node.name()).into();
            config
        });
        let configs: Vec<Value> = configs.collect();
        let calls = configs
            .iter()
            .map(|config| ("RunPodSandbox", json!({ "config": config })));
        let answers = self.cri.borrow_mut().call(&calls.collect::<Vec<_>>());
        let sandboxes = answers.into_iter().zip(configs).map(|(answer, config)| {
            let id = answer?["podSandboxId"].as_str().expect("an ID").to_owned();
            Ok(Sandbox { id, config })
        });
        sandboxes.collect()
    }

    /// StopPodSandbox, then RemovePodSandbox, for all at once.
    pub fn remove(&self, sandboxes: &[Sandbox]) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let calls = sandboxes
                .iter()
                .map(|sandbox| (method, json!({ "podSandboxId": sandbox.id })));
            for answer in self.cri.borrow_mut().call(&calls.collect::<Vec<_>>()) {
                answer.unwrap_or_else(|error| panic!("{method}: {error}"));
            }
        }
    }

    /// The IDs of the sandboxes that there are.
    pub fn sandboxes(&self) -> Vec<Value> {
        let listed = self.call("ListPodSandbox", json!({})).expect("a list");
        listed["items"].as_array().cloned().unwrap_or_default()
    }

    /// The sandbox's network namespace.
    pub fn netns(&self, sandbox: &Sandbox) -> Netns {
        let info = self.status(sandbox)["info"]["info"].clone();
        let info: Value = serde_json::from_str(info.as_str().expect("text")).expect("JSON");
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().expect("a list");
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
        let path = network.expect("a network namespace")["path"].as_str().expect("text");
        // /var/run is a link to /run, which as an absolute one would lead to that of the tests.
        Netns::open(&self.node.path(path.trim_start_matches("/var")))
    }

    /// The sandbox's addresses, as the kubelet learns them.
    pub fn addresses(&self, sandbox: &Sandbox) -> [IpAddr; 2] {
        let network = self.status(sandbox)["status"]["network"].clone();
        let parse = |address: &Value| {
            let text = address
                .as_str()
                .unwrap_or_else(|| panic!("not an address of each family: {network}"));
            text.parse().expect("an address")
        };
        [parse(&network["ip"]), parse(&network["additionalIps"][0]["ip"])]
    }

    fn status(&self, sandbox: &Sandbox) -> Value {
        let request = json!({ "podSandboxId": sandbox.id, "verbose": true });
        self.call("PodSandboxStatus", request).expect("a status")
    }

    /// Creates and starts a container.
    pub fn start_container(&self, sandbox: &Sandbox, program: &Program) -> Container {
        self.start_configured(sandbox, Self::config(program))
    }

    fn config(program: &Program) -> Value {
        let Owner { uid, gid, .. } = program.owner;
        let mounts = program
            .mounts
            .iter()
            .map(|(host, container)| json!({ "hostPath": host, "containerPath": container, "readonly": true }));
        json!({
            "metadata": { "name": program.name },
            "image": { "image": IMAGE },
            "command": program.command,
            "mounts": mounts.collect::<Vec<_>>(),
            "logPath": format!("{}.log", program.name),
            "linux": { "securityContext": {
                "runAsUser": { "value": uid },
                "runAsGroup": { "value": gid },
                "capabilities": { "dropCapabilities": ["ALL"] },
            } },
        })
    }

    /// The same, as the kubelet says what it is to be.
    pub fn start_configured(&self, sandbox: &Sandbox, config: Value) -> Container {
        let request = json!({ "podSandboxId": sandbox.id, "config": config, "sandboxConfig": sandbox.config });
        let created = self.call("CreateContainer", request).expect("a container");
        let id = created["containerId"].as_str().expect("an ID").to_owned();
        self.call("StartContainer", json!({ "containerId": id }))
            .expect("it starts");
        Container(id)
    }

    /// Runs a command in a container, and returns what it prints.
    pub fn exec(&self, Container(id): &Container, command: &[&str]) -> Result<String, String> {
        let answer = self.call("ExecSync", json!({ "containerId": id, "cmd": command, "timeout": 30 }))?;
        match answer.get("exitCode") {
            None => Ok(answer["stdout"].as_str().unwrap_or_default().to_owned()),
            Some(_) => Err(answer.to_string()),
        }
    }

    /// What a container has logged.
    pub fn log(&self, program: &Program) -> String {
        let path = self.node.directory().join("logs").join(format!("{}.log", program.name));
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Containerd {
    #[expect(clippy::print_stdout, reason = "it is shown with the test that failed")]
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.node.directory().join(LOG)).unwrap_or_default();
            let of_note = |line: &&str| line.contains("level=error") || !line.starts_with("time=");
            let lines: Vec<&str> = log.lines().filter(of_note).collect();
            println!("containerd and its plugins logged:\n{}", lines.join("\n"));
        }
    }
}

/// A client of CRI. It ends with the node.
struct Cri {
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Cri {
    fn start(node: &Node) -> Self {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python3");
        assert!(python.exists(), "{}: run scripts/setup", python.display());
        let mut client = node.command(python);
        client.arg(file("cri.py")).arg("/run/containerd/containerd.sock");
        let (calls, answers) = node.start_daemon(client.stdin(Stdio::piped()).stdout(Stdio::piped()));
        Self {
            calls: calls.expect("a pipe"),
            answers: BufReader::new(answers.expect("a pipe")),
        }
    }

    /// Makes these calls at once. Returns an answer or an error for each.
    fn call(&mut self, calls: &[(&str, Value)]) -> Vec<Result<Value, String>> {
        writeln!(self.calls, "{}", json!(calls)).expect("cri.py reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("text");
        let answers: Vec<Value> = serde_json::from_str(&line).expect("cri.py says why it failed");
        let answers = answers.into_iter().map(|mut answer| match answer["error"].take() {
            Value::String(error) => Err(error),
            _ => Ok(answer["answer"].take()),
        });
        answers.collect()
    }
}
