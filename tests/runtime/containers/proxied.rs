//! A pod of containers: an app, and a real Envoy as its proxy.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use sidetrack::linux::tcp;
use sidetrack::types::InboundMode;

use super::containerd::Program;
use super::node::Node;
use crate::common::envoy::{self, Accepted};
use crate::common::{Address, Netns, Owner, Server, http, socket};
use crate::installer::fixture::eventually;

/// The port of the app.
pub const APP: u16 = 8080;
/// The port of the node that leads to it.
pub const HOST_PORT: u16 = 18080;
/// The port of the server outside.
const SERVER: u16 = 9090;
/// The page on which both say who asks.
const WHO: &str = "/cgi-bin/who";

/// The app: it serves [`WHO`].
pub fn app() -> Program<'static> {
    let command = format!("httpd -f -p {APP} -h /www");
    Program {
        name: "app",
        owner: Owner::APP,
        command: command.split(' ').map(str::to_owned).collect(),
        mounts: Vec::new(),
    }
}

/// Envoy, with the libraries of the host.
pub fn proxy() -> Program<'static> {
    let binary = envoy::binary().canonicalize().expect("run scripts/setup: Envoy");
    let directory = binary.parent().and_then(Path::to_str).expect("a directory").to_owned();
    let libraries = ["/usr", "/lib", "/lib64"].map(|path| (path.to_owned(), path));
    let mut command = vec!["/envoy/envoy".to_owned()];
    command.extend(envoy::arguments(InboundMode::Redirect, 0));
    Program {
        name: "proxy",
        owner: Owner::PROXY,
        command,
        mounts: libraries.into_iter().chain([(directory, "/envoy")]).collect(),
    }
}

/// Who opens a connection.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    /// The host outside.
    Outside,
    /// The container of the app.
    App,
    /// That of the proxy.
    Proxy,
}

/// Runs a command in the container of the app or of the proxy.
pub type Exec<'e> = &'e dyn Fn(Caller, &[&str]) -> Result<String, String>;

/// The pod.
pub struct Proxied<'p> {
    pub node: &'p Node,
    pub netns: Netns,
    pub addresses: [IpAddr; 2],
    pub exec: Exec<'p>,
    /// What the proxy has logged.
    pub log: &'p dyn Fn() -> String,
}

impl Proxied<'_> {
    /// Checks, in both families, that connections of outside and of the app go through Envoy, and which do not.
    pub fn check(&self) {
        self.wait_for_app_and_envoy();
        let _server = Server::start(&self.node.outside, "outside", Owner::ROOT, &[SERVER]);
        let strays = self.addresses.into_iter().flat_map(|pod| {
            let [outside, node, passthrough, loopback] =
                [Node::OUTSIDE, Node::ADDRESS, Address::PASSTHROUGH, Address::LOOPBACK]
                    .map(|address| of_family(address, pod));
            let (none, inbound, outbound) = (accepted(0, 0), accepted(1, 0), accepted(0, 1));
            // Who calls, whom, what Envoy takes, and from where it seems to come: the bridge masquerades.
            let calls = [
                (Caller::Outside, (pod, APP), inbound, passthrough),
                (Caller::Outside, (node, HOST_PORT), inbound, passthrough),
                (Caller::App, (outside, SERVER), outbound, node),
                (Caller::Proxy, (outside, SERVER), none, node),
                (Caller::App, (loopback, APP), none, loopback),
                (Caller::App, (pod, APP), none, pod),
                (Caller::Proxy, (pod, APP), inbound, passthrough),
            ];
            calls.into_iter().filter_map(move |(caller, to, taken, seen)| {
                let error = self.call(caller, to.into(), taken, seen).err()?;
                Some(format!("{caller:?} to {}: {error}", SocketAddr::from(to)))
            })
        });
        let strays: Vec<String> = strays.collect();
        assert!(strays.is_empty(), "{}\n{}", strays.join("\n"), self.end_of_log());
    }

    fn wait_for_app_and_envoy(&self) {
        eventually("both listen", || {
            let listening = self.netns.run(tcp::census).expect("sockets").listening;
            let listens = |port: &u16| listening.iter().any(|address| address.port() == *port);
            match [APP, 15001, 15006].iter().all(listens) {
                true => Ok(()),
                false => Err(format!("{listening:?}\n{}", self.end_of_log())),
            }
        });
        eventually("Envoy serves", || {
            let accepted = Accepted::by(&self.netns);
            accepted
                .map(drop)
                .map_err(|error| format!("{error}\n{}", self.end_of_log()))
        });
    }

    fn end_of_log(&self) -> String {
        let log = (self.log)();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn call(&self, caller: Caller, to: SocketAddr, taken: Accepted, seen: IpAddr) -> Result<(), String> {
        let before = Accepted::by(&self.netns).map_err(text)?;
        let answer = match caller {
            Caller::Outside => {
                let get = || http::get(socket::stream(None, to)?, WHO);
                self.node.outside.run(get).map_err(text)?
            }
            Caller::App | Caller::Proxy => {
                (self.exec)(caller, &["wget", "-q", "-O", "-", &format!("http://{to}{WHO}")])?
            }
        };
        let found = Accepted::by(&self.netns).map_err(text)?.since(before);
        if found != taken {
            return Err(format!("Envoy took {found} instead of {taken}"));
        }
        match client(&answer) {
            Some(client) if client == seen => Ok(()),
            _ => Err(format!("the server did not see {seen}: {answer:?}")),
        }
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn accepted(inbound: u64, outbound: u64) -> Accepted {
    Accepted { inbound, outbound }
}

/// The address of the same family as another one.
pub fn of_family(address: Address, other: IpAddr) -> IpAddr {
    let [v4, v6] = address.both();
    if other.is_ipv4() { v4 } else { v6 }
}

/// The client that a server saw: the last word of a [`Server`], or all that busybox says, in brackets.
fn client(answer: &str) -> Option<IpAddr> {
    let word = answer.split_whitespace().last()?;
    let address = match word.parse::<SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => word.trim_matches(['[', ']']).parse().ok()?,
    };
    Some(address.to_canonical())
}
