//! The containers of a pod, and what each is there for.

use super::invocation::Invocation;
use super::manifest::Pod;
use super::{MESHES, Mesh, consul};
use crate::types::{Id, Port};
use crate::yaml::Node;

/// A container.
#[derive(Clone, Copy)]
pub struct Container<'n> {
    /// Its description.
    pub node: &'n Node,
    /// Its name; empty where it has none.
    pub name: &'n str,
    /// What it is there for.
    pub role: Role,
}

/// What a container is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To run the application, or a part of it, for as long as the pod lives.
    App,
    /// To run the proxy.
    Proxy,
    /// To redirect the pod's traffic, before the others start.
    Redirector,
    /// To see whether traffic is redirected, before the others start.
    Validator,
    /// To prepare something else, before the others start.
    Init,
}

/// What proxies are called besides, and their images, where somebody writes their container by hand.
const BY_HAND: &str = "envoy";
/// What the program and its image are called.
const OURS: &str = "sidetrack";
/// Its commands that write no rules.
const OTHER_COMMANDS: [&str; 9] = [
    "check",
    "cleanup",
    "completions",
    "explain",
    "graph",
    "help",
    "lint",
    "node",
    "probe",
];
/// Consul's init container, and the variable that tells it to redirect.
const CONSUL_S: (&str, &str) = (consul::INIT_CONTAINER, "CONSUL_REDIRECT_TRAFFIC_CONFIG");
/// The program of Istio, which does the same.
const ISTIO_S: &str = "istio-iptables";

/// The containers of a pod in the order in which they start: init containers first.
pub fn containers<'n>(pod: &Pod<'n>) -> Vec<Container<'n>> {
    let list = |key| pod.spec.get(key).map(Node::items).unwrap_or_default().iter();
    let init = list("initContainers").map(|node| {
        let stays = node.get("restartPolicy").and_then(Node::scalar) == Some("Always");
        container(node, if stays { Role::App } else { Role::Init })
    });
    // Those of Argo's templates have places of their own; those that people add to a running pod do, too.
    let alone = ["container", "script"].into_iter().filter_map(|key| pod.spec.get(key));
    let beside = list("sidecars").chain(list("ephemeralContainers"));
    let apps = list("containers").chain(alone).chain(beside);
    init.chain(apps.map(|node| container(node, Role::App))).collect()
}

fn container(node: &Node, role: Role) -> Container<'_> {
    let name = node.get("name").and_then(Node::scalar).unwrap_or_default();
    let container = Container { node, name, role };
    let role = match role {
        Role::App if container.is_proxy() => Role::Proxy,
        Role::Init if container.redirects() && container.only_looks() || container.validates() => Role::Validator,
        Role::Init if container.redirects() => Role::Redirector,
        role => role,
    };
    Container { role, ..container }
}

impl<'n> Container<'n> {
    /// The image, without registry and version.
    fn image(&self) -> &'n str {
        let image = self.node.get("image").and_then(Node::scalar).unwrap_or_default();
        let name = image.rsplit('/').next().unwrap_or_default();
        name.split([':', '@']).next().unwrap_or_default()
    }

    fn is_proxy(&self) -> bool {
        let of = |mesh: &Mesh| mesh.proxies.contains(&self.name) || mesh.proxy_images.contains(&self.image());
        self.name == BY_HAND || self.image() == BY_HAND || MESHES.iter().any(of)
    }

    fn redirects(&self) -> bool {
        if self.is_ours() {
            return !self.does_something_else();
        }
        let by_name = self.name == OURS || self.mesh().is_some_and(|_| !self.is_consul_s_beside_a_plugin());
        by_name || self.words().contains(&ISTIO_S)
    }

    fn validates(&self) -> bool {
        MESHES.iter().any(|mesh| mesh.validators.contains(&self.name))
    }

    /// Consul's init container has other tasks, too, and bears the same name where a plugin redirects the pod.
    fn is_consul_s_beside_a_plugin(&self) -> bool {
        let (name, variable) = CONSUL_S;
        self.name == name && !self.variables().iter().any(|(known, _)| *known == variable)
    }

    /// Whether it runs sidetrack for something else than writing rules.
    fn does_something_else(&self) -> bool {
        let mut words = self.words().into_iter().skip(usize::from(self.has_command()));
        words
            .find(|word| !word.starts_with('-'))
            .is_some_and(|word| OTHER_COMMANDS.contains(&word))
    }

    /// The mesh that this is an init container of, by its name.
    pub fn mesh(&self) -> Option<&'static Mesh> {
        MESHES.iter().find(|mesh| mesh.init_containers.contains(&self.name))
    }

    /// Beside a CNI plugin, Istio's init container writes no rules.
    fn only_looks(&self) -> bool {
        let flags = ["--skip-rule-apply", "--skip-rule-apply=true"];
        self.words().iter().any(|word| flags.contains(word))
    }

    /// Whether it is the installer of sidetrack's plugin.
    pub fn installs(&self) -> bool {
        let mut words = self.words().into_iter().skip(usize::from(self.has_command()));
        self.is_ours() && words.find(|word| !word.starts_with('-')) == Some("node")
    }

    /// Whether what it runs is sidetrack.
    pub fn is_ours(&self) -> bool {
        let program = self.texts("command").first().and_then(|path| path.rsplit('/').next());
        self.image() == OURS || program.unwrap_or(self.name) == OURS
    }

    /// What it is told, as far as that says how the pod is redirected: what the image says, and what Kubernetes puts in
    /// there, is not known.
    pub fn invocation(&self) -> Option<Invocation<'n>> {
        let words = self.words();
        let says = words.len() > usize::from(self.has_command());
        let known = says && !words.iter().any(|word| word.contains("$("));
        known.then(|| Invocation {
            container: self.name,
            words,
            has_program: self.has_command(),
            variables: self.variables(),
        })
    }

    /// The command and its arguments, as far as the container says. The program itself is part of the image.
    pub fn words(&self) -> Vec<&'n str> {
        [self.texts("command"), self.texts("args")].concat()
    }

    /// Whether it names a program, rather than taking that of the image.
    pub fn has_command(&self) -> bool {
        !self.texts("command").is_empty()
    }

    fn texts(&self, key: &str) -> Vec<&'n str> {
        let items = self.node.get(key).map(Node::items).unwrap_or_default();
        items.iter().map(|item| item.scalar().unwrap_or_default()).collect()
    }

    /// The variables whose values are written down.
    pub fn variables(&self) -> Vec<(&'n str, &'n str)> {
        let entries = self.node.get("env").map(Node::items).unwrap_or_default();
        let variable = |entry: &'n Node| Some((entry.get("name")?.scalar()?, entry.get("value")?.scalar()?));
        entries.iter().filter_map(variable).collect()
    }

    /// A field of the security context.
    pub fn security(&self, key: &str) -> Option<&'n Node> {
        self.node.get("securityContext")?.get(key)
    }

    /// Whether capabilities are added, or dropped, that include this one.
    pub fn capability(&self, change: &str, name: &str) -> Option<&'n Node> {
        let listed = self.security("capabilities")?.get(change)?.items();
        listed.iter().find(|item| {
            let text = item.scalar().unwrap_or_default();
            text.eq_ignore_ascii_case(name) || text.eq_ignore_ascii_case("ALL")
        })
    }

    /// Whether it may do everything.
    pub fn privileged(&self) -> Option<&'n Node> {
        self.security("privileged").filter(|node| is_true(node))
    }

    /// The port that a number, or the name of one of the container's ports, stands for.
    pub fn port(&self, named: &Node) -> Option<Port> {
        let text = named.scalar()?;
        let by_name = || {
            let ports = self.ports();
            let port = ports
                .iter()
                .find(|port| port.get("name").and_then(Node::scalar) == Some(text))?;
            number(port.get("containerPort")?)
        };
        number(named).or_else(|| Port::parse(text).ok()).or_else(by_name)
    }

    /// The ports that it says it listens on.
    pub fn ports(&self) -> &'n [Node] {
        self.node.get("ports").map(Node::items).unwrap_or_default()
    }

    /// What it is called in a message.
    pub fn called(&self) -> String {
        match self.name {
            "" => "a container without a name".to_owned(),
            name => format!("container {name}"),
        }
    }
}

/// Whether a field is `true`.
pub fn is_true(node: &Node) -> bool {
    node.boolean() == Some(true)
}

/// The port that a field is the number of.
pub fn number(node: &Node) -> Option<Port> {
    Port::new(u16::try_from(node.integer()?).ok()?)
}

/// The user or group that a field names.
pub fn id<I: Id>(node: &Node) -> Option<I> {
    I::new(u32::try_from(node.integer()?).ok()?)
}
