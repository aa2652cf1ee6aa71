//! The containers of a pod and their roles.

use super::invocation::Invocation;
use super::manifest::Pod;
use super::{MESHES, Mesh, consul};
use crate::types::{Id, Port};
use crate::yaml::Node;

/// A container.
#[derive(Clone, Copy)]
pub struct Container<'n> {
    /// Its object in the manifest.
    pub node: &'n Node,
    /// Its name; empty if it has none.
    pub name: &'n str,
    /// Its purpose.
    pub role: Role,
}

/// The purpose of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs the application, or a part of it, for the lifetime of the pod.
    App,
    /// Runs the proxy.
    Proxy,
    /// An init container that redirects the pod's traffic.
    Redirector,
    /// An init container that checks the redirection.
    Validator,
    /// Any other init container.
    Init,
}

/// The usual name and image of a proxy container that no injector wrote.
const GENERIC_PROXY: &str = "envoy";
/// The name of this program and of its image.
const PROGRAM: &str = "sidetrack";
/// The commands of this program that write no rules.
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
/// Consul's init container, and the variable that makes it redirect.
const CONSUL_INIT: (&str, &str) = (consul::INIT_CONTAINER, "CONSUL_REDIRECT_TRAFFIC_CONFIG");
/// The program of Istio's init container.
const ISTIO_PROGRAM: &str = "istio-iptables";

/// The containers of a pod in the order in which they start: init containers first.
pub fn containers<'n>(pod: &Pod<'n>) -> Vec<Container<'n>> {
    let list = |key| pod.spec.get(key).map(Node::items).unwrap_or_default().iter();
    let init = list("initContainers").map(|node| {
        let stays = node.get("restartPolicy").and_then(Node::scalar) == Some("Always");
        container(node, if stays { Role::App } else { Role::Init })
    });
    // Argo's templates have fields of their own for containers, and so do containers added to a running pod.
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
        Role::Init if container.redirects() && container.skips_rules() || container.validates() => Role::Validator,
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
        self.name == GENERIC_PROXY || self.image() == GENERIC_PROXY || MESHES.iter().any(of)
    }

    fn redirects(&self) -> bool {
        if self.is_sidetrack() {
            return !self.runs_other_command();
        }
        let by_name = self.name == PROGRAM || self.mesh().is_some_and(|_| !self.is_consul_init_without_redirection());
        by_name || self.words().contains(&ISTIO_PROGRAM)
    }

    fn validates(&self) -> bool {
        MESHES.iter().any(|mesh| mesh.validators.contains(&self.name))
    }

    /// Consul's init container has other tasks as well, and has the same name if a plugin redirects the pod.
    fn is_consul_init_without_redirection(&self) -> bool {
        let (name, variable) = CONSUL_INIT;
        self.name == name && !self.variables().iter().any(|(known, _)| *known == variable)
    }

    /// Whether it runs a command of sidetrack that writes no rules.
    fn runs_other_command(&self) -> bool {
        let mut words = self.words().into_iter().skip(usize::from(self.has_command()));
        words
            .find(|word| !word.starts_with('-'))
            .is_some_and(|word| OTHER_COMMANDS.contains(&word))
    }

    /// The mesh whose injector adds an init container of this name.
    pub fn mesh(&self) -> Option<&'static Mesh> {
        MESHES.iter().find(|mesh| mesh.init_containers.contains(&self.name))
    }

    /// Whether Istio's init container only validates, as it does beside a CNI plugin.
    fn skips_rules(&self) -> bool {
        let flags = ["--skip-rule-apply", "--skip-rule-apply=true"];
        self.words().iter().any(|word| flags.contains(word))
    }

    /// Whether it installs sidetrack's CNI plugin.
    pub fn is_installer(&self) -> bool {
        let mut words = self.words().into_iter().skip(usize::from(self.has_command()));
        self.is_sidetrack() && words.find(|word| !word.starts_with('-')) == Some("node")
    }

    /// Whether it runs sidetrack.
    pub fn is_sidetrack(&self) -> bool {
        let program = self.texts("command").first().and_then(|path| path.rsplit('/').next());
        self.image() == PROGRAM || program.unwrap_or(self.name) == PROGRAM
    }

    /// Its command line; `None` if it comes from the image, or contains variables that Kubernetes expands.
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

    /// `command` and `args`. Without `command`, the program comes from the image.
    pub fn words(&self) -> Vec<&'n str> {
        [self.texts("command"), self.texts("args")].concat()
    }

    /// Whether the container sets `command`.
    pub fn has_command(&self) -> bool {
        !self.texts("command").is_empty()
    }

    fn texts(&self, key: &str) -> Vec<&'n str> {
        let items = self.node.get(key).map(Node::items).unwrap_or_default();
        items.iter().map(|item| item.scalar().unwrap_or_default()).collect()
    }

    /// The environment variables with literal values.
    pub fn variables(&self) -> Vec<(&'n str, &'n str)> {
        let entries = self.node.get("env").map(Node::items).unwrap_or_default();
        let variable = |entry: &'n Node| Some((entry.get("name")?.scalar()?, entry.get("value")?.scalar()?));
        entries.iter().filter_map(variable).collect()
    }

    /// A field of the security context.
    pub fn security(&self, key: &str) -> Option<&'n Node> {
        self.node.get("securityContext")?.get(key)
    }

    /// The item of the capabilities in `change` (`add` or `drop`) that covers capability `name`.
    pub fn capability(&self, change: &str, name: &str) -> Option<&'n Node> {
        let listed = self.security("capabilities")?.get(change)?.items();
        listed.iter().find(|item| {
            let text = item.scalar().unwrap_or_default();
            text.eq_ignore_ascii_case(name) || text.eq_ignore_ascii_case("ALL")
        })
    }

    /// The field that makes it privileged.
    pub fn privileged(&self) -> Option<&'n Node> {
        self.security("privileged").filter(|node| is_true(node))
    }

    /// Resolves a port number, or the name of one of the container's ports.
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

    /// The declared ports.
    pub fn ports(&self) -> &'n [Node] {
        self.node.get("ports").map(Node::items).unwrap_or_default()
    }

    /// The container in a message.
    pub fn description(&self) -> String {
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

/// The port number of a field.
pub fn number(node: &Node) -> Option<Port> {
    Port::new(u16::try_from(node.integer()?).ok()?)
}

/// The UID or GID of a field.
pub fn id<I: Id>(node: &Node) -> Option<I> {
    I::new(u32::try_from(node.integer()?).ok()?)
}
