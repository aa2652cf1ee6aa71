//! A node: a host for a container runtime, with a host outside.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use super::{conflist, file};
use crate::SIDETRACK;
use crate::common::{Address, Netns, inside, output_of, write_program};

/// Network, mount and PID namespaces, and a directory. They end when this is dropped, or with the tests, and with them
/// everything that runs there.
///
/// ```text
///   pods ── bridge ── node  198.51.100.1 2001:db8::1 ──── 198.51.100.2 2001:db8::2 eth0  outside
/// ```
pub struct Node {
    keeper: Child,
    /// Programs that run on it.
    daemons: RefCell<Vec<Child>>,
    directory: PathBuf,
    /// The ID of a process in its namespaces.
    id: String,
    /// Its network namespace, where the runtime runs.
    pub netns: Netns,
    /// A host outside. It sends what is for pods to the node.
    pub outside: Netns,
}

impl Node {
    /// The node's address towards the host outside.
    pub const ADDRESS: Address = address(1);
    /// That of the host outside.
    pub const OUTSIDE: Address = address(2);

    /// Starts one that has these networks of `cni-conf`.
    pub fn start(conflists: &[&str]) -> Self {
        let mut keeper = Command::new(file("node.sh"))
            .arg(SIDETRACK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node.sh");
        let mut line = String::new();
        let mut said = BufReader::new(keeper.stdout.take().expect("a pipe"));
        said.read_line(&mut line).expect("a line");
        let (directory, id) = line.trim().split_once(' ').expect("node.sh says why it failed");
        let process = PathBuf::from(format!("/proc/{id}"));
        let node = Self {
            keeper,
            daemons: RefCell::default(),
            directory: directory.into(),
            id: id.to_owned(),
            netns: Netns::open(&process.join("ns/net")),
            outside: Netns::new(),
        };
        node.connect();
        // Made there so that its maker, too, ends with the node.
        output_of(node.command(file("busybox.sh")).arg(&node.directory));
        for name in conflists {
            node.add_network(name, &conflist(name));
        }
        node
    }

    fn connect(&self) {
        let outside = self.outside.path();
        self.netns.ip(&[
            format!(
                "link add outside type veth peer name eth0 netns {}\n",
                outside.display()
            ),
            up("outside", Self::ADDRESS),
        ]
        .concat());
        let default = Self::ADDRESS
            .both()
            .map(|node| format!("route add default via {node}\n"));
        self.outside.ip(&[up("eth0", Self::OUTSIDE), default.concat()].concat());
    }

    /// Puts a conflist where runtimes look for them.
    pub fn add_network(&self, name: &str, conflist: &str) {
        fs::write(self.directory.join("net.d").join(name), conflist).expect("a place for conflists");
    }

    /// Makes runtimes run this shell script when they want our plugin, which is `$sidetrack` in it.
    pub fn stand_in(&self, script: &str) {
        let bin = self.directory.join("bin");
        let path = bin.join("stand-in");
        let text = format!("#!/bin/sh\nsidetrack={}/sidetrack\n{script}", bin.display());
        write_program(&path, &text);
        self.link_plugin("stand-in");
    }

    /// Takes back [`Node::stand_in`].
    pub fn stand_in_no_more(&self) {
        self.link_plugin("sidetrack");
    }

    fn link_plugin(&self, program: &str) {
        let (new, plugin) = (self.directory.join("new"), self.directory.join("plugins/sidetrack"));
        std::os::unix::fs::symlink(self.directory.join("bin").join(program), &new).expect("a link");
        fs::rename(new, plugin).expect("another link");
    }

    /// A directory that the node and the tests see at the same place. It is removed in the end.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What identifies it among others; runtimes put control groups below one of this name.
    pub fn name(&self) -> &str {
        let name = self.directory.file_name().and_then(|name| name.to_str());
        name.expect("a name that is text")
    }

    /// Where a file of the node is for the tests.
    pub fn path(&self, inside: &str) -> PathBuf {
        format!("/proc/{}/root{inside}", self.id).into()
    }

    /// A command that runs on the node.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let namespaces = [("mount", "mnt"), ("net", "net"), ("pid", "pid_for_children")];
        inside(&self.id, &namespaces, program)
    }

    /// Starts a program that ends with the node. Returns its standard input and output, where they are pipes.
    pub fn start_daemon(&self, command: &mut Command) -> (Option<ChildStdin>, Option<ChildStdout>) {
        let mut daemon = command.spawn().expect("nsenter (util-linux)");
        let pipes = (daemon.stdin.take(), daemon.stdout.take());
        self.daemons.borrow_mut().push(daemon);
        pipes
    }

    /// The image of [`IMAGE`](super::IMAGE), as an archive.
    pub fn image(&self) -> PathBuf {
        self.directory.join("busybox.tar")
    }

    /// What pods have left behind: namespaces, addresses, interfaces, rules.
    pub fn leftovers(&self) -> Vec<String> {
        let listed = |directory: &str| {
            let entries = fs::read_dir(self.path(directory)).into_iter().flatten();
            let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
            names.collect::<Vec<_>>()
        };
        let namespaces = listed("/run/netns");
        let networks = listed("/var/lib/cni/networks");
        let addresses = networks
            .iter()
            .flat_map(|network| listed(&format!("/var/lib/cni/networks/{network}")))
            .filter(|name| name.parse::<std::net::IpAddr>().is_ok());
        let links = output_of(
            self.netns
                .command("ip")
                .args(["-oneline", "link", "show", "type", "veth"]),
        );
        let interfaces = links.lines().filter(|line| !line.contains(" outside@"));
        let ruleset = output_of(self.netns.command("nft").args(["list", "ruleset"]));
        // Chains of portmap are called like this where they are those of a pod.
        let rules = ruleset.lines().filter(|line| line.contains("chain CNI-DN-"));
        let lines = interfaces.chain(rules).map(str::to_owned);
        namespaces.into_iter().chain(addresses).chain(lines).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let status = self.keeper.wait();
        for daemon in self.daemons.get_mut() {
            let _ended = daemon.wait();
        }
        if !thread::panicking() {
            assert!(
                status.is_ok_and(|status| status.success()),
                "the node left something behind"
            );
        }
    }
}

const fn address(host: u16) -> Address {
    use std::net::{Ipv4Addr, Ipv6Addr};
    Address::new(
        Ipv4Addr::new(198, 51, 100, host as u8),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host),
    )
}

fn up(interface: &str, address: Address) -> String {
    let [v4, v6] = address.both();
    format!("link set {interface} up\naddr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n")
}
