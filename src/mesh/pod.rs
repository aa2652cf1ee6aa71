//! A pod: its names, annotations, labels and containers, as far as they are known.

use std::borrow::Cow;
use std::fmt;

use super::annotations::Annotations;
use super::container::{Container, Role, containers, is_true};
use super::manifest;
use crate::yaml::{Entry, Node};

/// A pod's namespace and name, as far as the runtime passes them. Podman passes no namespace, `ctr` neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodName {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub name: Option<String>,
}

impl PodName {
    /// Reads one pair of `CNI_ARGS`. Keys of other plugins are ignored.
    pub fn learn(&mut self, key: &str, value: &str) {
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "K8S_POD_NAMESPACE" => self.namespace = value,
            "K8S_POD_NAME" => self.name = value,
            _ => {}
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "{}/{}", part(&self.namespace), part(&self.name))
    }
}

/// A pod, from a container runtime or a manifest.
pub struct Pod<'p> {
    /// Namespace and name.
    pub name: PodName,
    /// Annotations; `None` if the runtime passed none.
    pub annotations: Option<Cow<'p, Annotations>>,
    /// The parts that only a manifest has; `None` without a manifest.
    pub described: Option<Described<'p>>,
}

/// The parts of a pod that only a manifest has.
pub struct Described<'n> {
    /// Labels.
    pub labels: &'n [Entry],
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Whether it is for Windows nodes.
    pub is_windows: bool,
    /// Whether it exists in a cluster, so that injectors have already run.
    pub is_created: bool,
    /// The security context that its containers share.
    pub security: Option<&'n Node>,
    /// The containers in the order in which they start.
    pub containers: Vec<Container<'n>>,
}

impl<'p> Pod<'p> {
    /// A pod as a container runtime passes it to a CNI plugin.
    pub fn of_runtime(name: &PodName, annotations: Option<&'p Annotations>) -> Self {
        Self {
            name: name.clone(),
            annotations: annotations.map(Cow::Borrowed),
            described: None,
        }
    }

    /// A pod of a manifest, with these annotations.
    pub fn of_manifest(pod: &manifest::Pod<'p>, annotations: Annotations) -> Self {
        let created = || {
            let uid = pod.object.get("metadata").and_then(|metadata| metadata.get("uid"));
            let status = pod.object.get("status").map(Node::entries).unwrap_or_default();
            uid.is_some() || !status.is_empty()
        };
        let is_pod = std::ptr::eq(pod.object, pod.template);
        Self {
            name: PodName {
                namespace: pod.namespace().map(str::to_owned),
                // The name of a workload is not that of its pods.
                name: is_pod.then(|| pod.name()).flatten().map(str::to_owned),
            },
            annotations: Some(Cow::Owned(annotations)),
            described: Some(Described {
                labels: pod.labels().map(Node::entries).unwrap_or_default(),
                host_network: pod.spec.get("hostNetwork").is_some_and(is_true),
                is_windows: is_windows(pod.spec),
                is_created: is_pod && created(),
                security: pod.spec.get("securityContext"),
                containers: containers(pod),
            }),
        }
    }

    /// An annotation.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name)
    }

    /// A label; `None` without a manifest.
    pub(super) fn label(&self, name: &str) -> Option<&'p str> {
        let labels = self.described.as_ref()?.labels;
        labels.iter().find(|entry| entry.key == name)?.value.scalar()
    }

    /// The containers; empty without a manifest.
    pub fn containers(&self) -> &[Container<'p>] {
        self.described.as_ref().map_or(&[], |described| &described.containers)
    }

    /// The init container that redirects the pod, if the manifest has one.
    pub fn redirector(&self) -> Option<&Container<'p>> {
        let mut containers = self.containers().iter();
        containers.find(|container| container.role == Role::Redirector)
    }
}

/// Whether a pod is for Windows nodes: by `os.name`, or by a node selector.
fn is_windows(spec: &Node) -> bool {
    let named = |path: [&str; 2]| {
        path.iter()
            .try_fold(spec, |node, key| node.get(key))
            .and_then(Node::scalar)
    };
    named(["os", "name"]) == Some("windows") || named(["nodeSelector", "kubernetes.io/os"]) == Some("windows")
}
