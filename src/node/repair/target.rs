//! One pod of the node by its name: for commands that work in its network namespace.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::locate::{Located, Namespaces, Places};
use super::sandbox::{self, Sandbox};
use super::{RepairError, cache, network};
use crate::cni::late::Seen;
use crate::linux::files::FileError;
use crate::linux::netns::{Identity, Netns};
use crate::node::Node;

/// Namespace and name of a pod, as the command line has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    namespace: String,
    name: String,
}

impl Name {
    /// Reads `NAMESPACE/NAME`; `None` if the text has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        // DNS labels and subdomains (Kubernetes, "Object Names and IDs").
        let is_name = |text: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !text.is_empty() && !text.starts_with(['.', '-']) && text.bytes().all(is_allowed)
        };
        (is_name(namespace) && is_name(name)).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Whether a pod of the cache has this name.
    pub fn is_of(&self, sandbox: &Sandbox) -> bool {
        let (namespace, name) = (&sandbox.pod.namespace, &sandbox.pod.name);
        namespace.as_ref() == Some(&self.namespace) && name.as_ref() == Some(&self.name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod of the node whose network namespace was found.
#[derive(Clone, Debug)]
pub struct Target {
    /// The pod, as the cache describes it.
    pub sandbox: Sandbox,
    /// The network namespace.
    pub netns: Arc<Netns>,
    /// Its observed state.
    pub seen: Seen,
}

/// Why a pod was not found.
#[derive(Debug, Error)]
pub enum TargetError {
    /// The pods of the node cannot be found.
    #[error("{0}")]
    Scan(#[from] RepairError),
    /// The files of network namespaces cannot be read.
    #[error(transparent)]
    Netns(#[from] FileError),
    /// The cache has no such pod.
    #[error(
        "pod {pod}: the runtime's cache has no such pod in the network {network:?}. Run this on the pod's node \
         (kubectl get pod -o wide shows it); pods with hostNetwork are in no cache"
    )]
    NotHere {
        /// The pod.
        pod: Name,
        /// The network that the plugin is chained to.
        network: String,
    },
    /// The namespace of the pod was not found.
    #[error(
        "pod {pod}: its network namespace is not accessible: {reason}. Run as root on the node, or in the installer's \
         pod with the component repair, which mounts /var/run/netns and may enter pods"
    )]
    Inaccessible {
        /// The pod.
        pod: Name,
        /// The reason.
        reason: String,
    },
    /// The pod ended.
    #[error("pod {pod} is in the runtime's cache, and does not run: {reason}")]
    Gone {
        /// The pod.
        pod: Name,
        /// How that was detected.
        reason: String,
    },
    /// Several running sandboxes have the name.
    #[error(
        "pod {pod}: {} sandboxes with this name run on this node. Choose one by its network namespace: {}", .netns.len(),
        .netns.iter().map(|path| format!("--netns {path}")).collect::<Vec<_>>().join(", or ")
    )]
    Several {
        /// The pod.
        pod: Name,
        /// The paths of their network namespaces.
        netns: Vec<String>,
    },
}

/// Finds a pod by its name, as repair finds the pods of the node. Changes nothing.
///
/// # Errors
/// See [`TargetError`].
pub fn find(node: &Node, places: &Places, pod: &Name) -> Result<Target, TargetError> {
    let network = network(node)?;
    let sandboxes = sandboxes(node, places, &network)?;
    if !sandboxes.iter().any(|sandbox| pod.is_of(sandbox)) {
        let pod = pod.clone();
        return Err(TargetError::NotHere { pod, network });
    }
    let mut namespaces = Namespaces::of(places)?;
    // The namespaces of the other pods are not this pod's.
    let by_file: Vec<Option<Located>> = sandboxes.iter().map(|sandbox| namespaces.by_file(sandbox)).collect();
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (sandbox, located) in sandboxes.into_iter().zip(by_file) {
        if !pod.is_of(&sandbox) {
            continue;
        }
        match located.unwrap_or_else(|| namespaces.by_address(&sandbox)) {
            Located::At(netns, seen) => found.push(Target { sandbox, netns, seen }),
            Located::Unknown(reason) => errors.push(TargetError::Inaccessible {
                pod: pod.clone(),
                reason,
            }),
            Located::Gone(reason) => errors.push(TargetError::Gone {
                pod: pod.clone(),
                reason,
            }),
        }
    }
    // A pod whose sandbox was replaced leaves the old one's file until the runtime removes it.
    errors.sort_by_key(|error| matches!(error, TargetError::Gone { .. }));
    match (found.len(), errors.into_iter().next()) {
        (0, Some(error)) => Err(error),
        (1, _) => Ok(found.swap_remove(0)),
        _ => Err(TargetError::Several {
            pod: pod.clone(),
            netns: found.iter().map(|one| one.netns.path().display().to_string()).collect(),
        }),
    }
}

/// The pod that the cache has for a network namespace; `None` where it has none, or more than one, or is not there.
pub fn owner_of(node: &Node, places: &Places, netns: Identity) -> Option<Sandbox> {
    let network = network(node).ok()?;
    let sandboxes = sandboxes(node, places, &network).ok()?;
    let mut namespaces = Namespaces::of(places).ok()?;
    let mut owners = sandboxes.into_iter().filter(|sandbox| {
        // Only the one namespace is entered.
        places.lead_to(sandbox, netns) && matches!(namespaces.by_file(sandbox), Some(Located::At(..)))
    });
    let owner = owners.next()?;
    owners.next().is_none().then_some(owner)
}

fn sandboxes(node: &Node, places: &Places, network: &str) -> Result<Vec<Sandbox>, RepairError> {
    let (cached, _) = cache::read(&places.cache)?;
    Ok(sandbox::sandboxes(cached, network, &node.wanted.entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_name_has_one_slash_and_names_of_kubernetes() {
        for text in ["shop/web-0", "kube-system/coredns-5d78c9869d-abcde", "a/b.c"] {
            assert_eq!(Name::parse(text).map(|name| name.to_string()).as_deref(), Some(text));
        }
        for text in [
            "web-0",
            "/web-0",
            "shop/",
            "shop/web/0",
            "./pod",
            "-/pod",
            "Shop/web",
            "shop/web_0",
            "",
        ] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
