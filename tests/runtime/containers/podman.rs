//! podman with its CNI backend: containers that all have a proxy, also with users of their own.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use super::containerd::Program;
use super::node::Node;
use super::proxied::{APP, Caller, HOST_PORT, Proxied, app, proxy};
use super::{ALL_PROXIED, IMAGE, file};
use crate::common::{Netns, Owner, output_of};

/// podman on a node.
pub struct Podman {
    pub node: Node,
}

impl Podman {
    pub fn new(node: Node) -> Self {
        let podman = Self { node };
        let image = podman.node.image();
        podman.run(&["load", "--quiet", "--input", image.to_str().expect("text")]);
        podman
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.node.command("podman");
        command
            .env("CONTAINERS_CONF", file("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", file("storage.conf"))
            .args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        output_of(&mut self.command(arguments))
    }

    pub fn start_container(&self, program: &Program, options: &[&str]) {
        let Owner { uid, gid, .. } = program.owner;
        let user = format!("{uid}:{gid}");
        let parent = format!("/{}", self.node.name());
        let path = format!("path={}", self.log_of(program.name));
        let mut command = self.command(&["run", "--detach", "--name", program.name]);
        command
            .args(["--user", &user, "--cap-drop", "all", "--cgroup-parent", &parent])
            .args(["--log-driver", "k8s-file", "--log-opt", &path]);
        for (host, container) in &program.mounts {
            command.args(["--volume", &format!("{host}:{container}:ro")]);
        }
        output_of(command.args(options).arg(IMAGE).args(&program.command));
    }

    fn log_of(&self, name: &str) -> String {
        format!("{}/{name}.log", self.node.directory().display())
    }

    fn netns_of(&self, container: &str) -> Netns {
        let netns = self.inspect(container, "{{.NetworkSettings.SandboxKey}}");
        Netns::open(&self.node.path(&netns))
    }

    /// Checks the containers `app` and `proxy`, in the network namespace of one that has a network of this name.
    pub fn check_that_envoy_is_passed(&self, container: &str, network: &str) {
        let of_network = format!("{{{{with .NetworkSettings.Networks.{network}}}}}");
        let addresses = format!("{of_network}{{{{.IPAddress}}}} {{{{.GlobalIPv6Address}}}}{{{{end}}}}");
        let addresses = self.inspect(container, &addresses);
        let addresses = addresses.split(' ').map(|text| text.parse().expect("an address"));
        let exec = |caller, command: &[&str]| {
            let name = match caller {
                Caller::App => "app",
                Caller::Proxy => "proxy",
                Caller::Outside => unreachable!("it is no container"),
            };
            Ok(self.run(&[&["exec", name], command].concat()))
        };
        let log = self.log_of("proxy");
        Proxied {
            node: &self.node,
            netns: self.netns_of(container),
            addresses: addresses
                .collect::<Vec<IpAddr>>()
                .try_into()
                .expect("one of each family"),
            exec: &exec,
            log: &|| fs::read_to_string(&log).unwrap_or_default(),
        }
        .check();
    }

    pub fn inspect(&self, container: &str, format: &str) -> String {
        self.run(&["inspect", "--format", format, container]).trim().to_owned()
    }
}

/// Where users are from in a container, and options of podman for that: of one with a network, and of one that joins it.
struct Users<'u> {
    are_the_hosts: bool,
    own: &'u [&'u str],
    joined: &'u [&'u str],
}

fn containers_pass_envoy(users: &Users) {
    let podman = Podman::new(Node::start(&[ALL_PROXIED]));
    let (app, proxy) = (app(), proxy());
    let publish = format!("{HOST_PORT}:{APP}");
    let network = ["--network", "sidetrack", "--publish", &publish];
    podman.start_container(&app, &[&network, users.own].concat());
    podman.start_container(&proxy, &[&["--network", "container:app"], users.joined].concat());

    assert_eq!(is_of_our_user_namespace(&podman.netns_of("app")), users.are_the_hosts);
    podman.check_that_envoy_is_passed("app", "sidetrack");
    assert_ne!(podman.node.leftovers(), [""; 0], "what is left could not be seen");
    for name in ["proxy", "app"] {
        podman.run(&["rm", "--force", "--time", "0", name]);
    }
    assert_eq!(podman.node.leftovers(), [""; 0]);
}

/// Whether a network namespace belongs to the user namespace that the tests run in.
#[expect(unsafe_code, reason = "nix does not know this request")]
fn is_of_our_user_namespace(netns: &Netns) -> bool {
    // ioctl_ns(2); libc has no name for it.
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let file = File::open(netns.path()).expect("a namespace");
    // SAFETY: the request takes no argument. The returned descriptor is new, with no other owner.
    let owner = unsafe {
        let descriptor = libc::ioctl(file.as_raw_fd(), NS_GET_USERNS);
        assert!(descriptor >= 0, "{}", io::Error::last_os_error());
        File::from_raw_fd(descriptor)
    };
    let [owner, ours] = [owner.metadata(), fs::metadata("/proc/self/ns/user")].map(|file| file.expect("a file"));
    (owner.dev(), owner.ino()) == (ours.dev(), ours.ino())
}

#[test]
fn podman_containers_pass_envoy() {
    containers_pass_envoy(&Users {
        are_the_hosts: true,
        own: &[],
        joined: &[],
    });
}

/// As with `hostUsers: false` in Kubernetes, the network namespace belongs to the user namespace of the container.
#[test]
fn podman_containers_in_user_namespaces_pass_envoy() {
    let ids = "0:100000:65536";
    containers_pass_envoy(&Users {
        are_the_hosts: false,
        own: &["--uidmap", ids, "--gidmap", ids],
        joined: &["--userns", "container:app"],
    });
}
