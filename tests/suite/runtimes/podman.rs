//! podman with its CNI backend: containers that all have a proxy, also with users of their own.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use super::containerd::Program;
use super::node::Node;
use super::proxied::{APP, Caller, HOST_PORT, Proxied, app, proxy};
use super::{ALL_PROXIED, IMAGE, file};
use crate::common::{Netns, Owner, output_of};

/// podman on a node.
struct Podman {
    node: Node,
}

impl Podman {
    fn new(node: Node) -> Self {
        let podman = Self { node };
        podman.run(&[
            "load",
            "--quiet",
            "--input",
            podman.node.image().to_str().expect("text"),
        ]);
        podman
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.node.command("podman");
        command
            .env("CONTAINERS_CONF", file("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", file("storage.conf"))
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        output_of(&mut self.command(arguments))
    }

    fn start_container(&self, program: &Program, options: &[&str]) {
        let Owner { uid, gid } = program.owner;
        let log = self.log_of(program.name);
        let mut command = self.command(&["run", "--detach", "--cap-drop", "all", "--name", program.name]);
        command
            .args([
                "--user",
                &format!("{uid}:{gid}"),
                "--cgroup-parent",
                &format!("/{}", self.node.name()),
            ])
            .args(["--log-driver", "k8s-file", "--log-opt", &format!("path={log}")]);
        for (host, container) in &program.mounts {
            command.args(["--volume", &format!("{host}:{container}:ro")]);
        }
        output_of(command.args(options).arg(IMAGE).args(&program.command));
    }

    fn log_of(&self, name: &str) -> String {
        format!("{}/{name}.log", self.node.directory().display())
    }

    fn inspect(&self, container: &str, format: &str) -> String {
        self.run(&["inspect", "--format", format, container]).trim().to_owned()
    }
}

fn containers_pass_envoy(users: &[&str], users_of_app: &[&str]) {
    let podman = Podman::new(Node::start(&[ALL_PROXIED]));
    let (app, proxy) = (app(), proxy());
    let publish = format!("{HOST_PORT}:{APP}");
    podman.start_container(
        &app,
        &[&["--network", "sidetrack", "--publish", &publish], users].concat(),
    );
    podman.start_container(&proxy, &[&["--network", "container:app"], users_of_app].concat());
    let exec = |caller, command: &[&str]| {
        let name = match caller {
            Caller::App => "app",
            Caller::Proxy => "proxy",
            Caller::Outside => unreachable!("it is no container"),
        };
        Ok(podman.run(&[&["exec", name], command].concat()))
    };
    let netns = podman.inspect("app", "{{.NetworkSettings.SandboxKey}}");
    let addresses = "{{with .NetworkSettings.Networks.sidetrack}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
    let addresses = podman.inspect("app", addresses);
    let addresses: Vec<IpAddr> = addresses
        .split(' ')
        .map(|text| text.parse().expect("an address"))
        .collect();
    let log = podman.log_of("proxy");
    Proxied {
        node: &podman.node,
        netns: Netns::open(&podman.node.path(&netns)),
        addresses: addresses.try_into().expect("one of each family"),
        exec: &exec,
        log: &|| fs::read_to_string(&log).unwrap_or_default(),
    }
    .check();
    assert_ne!(podman.node.leftovers(), [""; 0], "what is left could not be seen");
    for name in ["proxy", "app"] {
        podman.run(&["rm", "--force", "--time", "0", name]);
    }
    assert_eq!(podman.node.leftovers(), [""; 0]);
}

#[test]
fn containers_of_podman_pass_envoy() {
    containers_pass_envoy(&[], &[]);
}

/// What `hostUsers: false` is in Kubernetes: the network namespace belongs to another user namespace than the host's.
#[test]
fn containers_of_podman_with_users_of_their_own_pass_envoy() {
    let ids = "0:100000:65536";
    containers_pass_envoy(&["--uidmap", ids, "--gidmap", ids], &["--userns", "container:app"]);
}
