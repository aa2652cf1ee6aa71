//! What is known of a pod.

use std::borrow::Cow;
use std::fmt;

use super::annotations::Annotations;
use super::container::{Container, Role, containers, is_true};
use super::manifest;
use crate::yaml::{Entry, Node};

/// A pod's names, as far as the runtime tells them. Podman gives no namespace, `ctr` nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodName {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub name: Option<String>,
}

impl PodName {
    /// Takes what one pair of `CNI_ARGS` says. Keys that mean nothing here are for others.
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

/// A pod, as far as it is known.
pub struct Pod<'p> {
    /// Its names.
    pub name: PodName,
    /// Its annotations; `None` where the runtime handed none over.
    pub annotations: Option<Cow<'p, Annotations>>,
    /// What its manifest says besides, where there is one.
    pub described: Option<Described<'p>>,
}

/// What only a manifest says of a pod.
pub struct Described<'n> {
    /// Its labels.
    pub labels: &'n [Entry],
    /// Whether it is in the node's network.
    pub host_network: bool,
    /// Whether it is for nodes of Windows.
    pub is_windows: bool,
    /// Whether it has been created: injectors have had their turn.
    pub is_created: bool,
    /// The security context that its containers share.
    pub security: Option<&'n Node>,
    /// Its containers in the order in which they start.
    pub containers: Vec<Container<'n>>,
}

impl<'p> Pod<'p> {
    /// What a runtime tells of a pod.
    pub fn of_runtime(name: &PodName, annotations: Option<&'p Annotations>) -> Self {
        Self {
            name: name.clone(),
            annotations: annotations.map(Cow::Borrowed),
            described: None,
        }
    }

    /// What a manifest says of a pod, whose annotations are these.
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
                // What is around a template is called otherwise than its pods.
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

    /// A label, where a manifest tells.
    pub(super) fn label(&self, name: &str) -> Option<&'p str> {
        let labels = self.described.as_ref()?.labels;
        labels.iter().find(|entry| entry.key == name)?.value.scalar()
    }

    /// Its containers, as far as they are known.
    pub fn containers(&self) -> &[Container<'p>] {
        self.described.as_ref().map_or(&[], |described| &described.containers)
    }

    /// The init container that redirects it, where a manifest shows one.
    pub fn redirector(&self) -> Option<&Container<'p>> {
        let mut containers = self.containers().iter();
        containers.find(|container| container.role == Role::Redirector)
    }
}

/// Whether a pod says that it is for nodes of Windows: by its field of its own, or by the label of such nodes.
fn is_windows(spec: &Node) -> bool {
    let named = |path: [&str; 2]| {
        path.iter()
            .try_fold(spec, |node, key| node.get(key))
            .and_then(Node::scalar)
    };
    named(["os", "name"]) == Some("windows") || named(["nodeSelector", "kubernetes.io/os"]) == Some("windows")
}
