//! The Services of the input: meshes choose the protocol of a connection by the names of a Service's ports.

use super::ports::declares_protocol;
use crate::mesh::container::{self, Container};
use crate::mesh::manifest::{self, Object, Pod};
use crate::types::Port;
use crate::yaml::{Entry, Node};

/// The Services of an input.
#[derive(Default)]
pub struct Services<'n>(Vec<Service<'n>>);

struct Service<'n> {
    namespace: Option<&'n str>,
    selector: &'n [Entry],
    ports: &'n [Node],
}

impl<'n> Services<'n> {
    /// Collects the Services of some documents.
    pub fn of(documents: impl IntoIterator<Item = &'n Node>) -> Self {
        let objects = documents.into_iter().flat_map(manifest::objects);
        let service = |object| match object {
            Object::Service(node) => Some(Service::of(node)),
            Object::Pod(_) | Object::Namespace(_) | Object::Other(_) => None,
        };
        Self(objects.filter_map(service).collect())
    }

    /// Whether a Service of this pod declares the protocol of a container's port.
    pub fn declare_protocol(&self, pod: &Pod<'_>, container: &Container<'_>, port: Port) -> bool {
        let mut services = self.0.iter().filter(|service| service.selects(pod));
        services.any(|service| {
            let mut ports = service.ports.iter();
            ports.any(|described| declares_protocol(described) && leads_to(described, container, port))
        })
    }
}

impl<'n> Service<'n> {
    fn of(node: &'n Node) -> Self {
        let member = |key| node.get("spec").and_then(|spec| spec.get(key));
        Self {
            namespace: node
                .get("metadata")
                .and_then(|metadata| metadata.get("namespace")?.scalar()),
            selector: member("selector").map(Node::entries).unwrap_or_default(),
            ports: member("ports").map(Node::items).unwrap_or_default(),
        }
    }

    /// Whether its selector matches these pods. An object without a namespace may be deployed to any.
    fn selects(&self, pod: &Pod<'_>) -> bool {
        let labels = pod.labels().map(Node::entries).unwrap_or_default();
        let has = |wanted: &Entry| {
            let mut labels = labels.iter();
            labels.any(|label| label.key == wanted.key && label.value.scalar() == wanted.value.scalar())
        };
        let same_place = self
            .namespace
            .zip(pod.namespace())
            .is_none_or(|(own, other)| own == other);
        same_place && !self.selector.is_empty() && self.selector.iter().all(has)
    }
}

/// Whether a port of a Service targets this port of the container.
fn leads_to(described: &Node, container: &Container<'_>, port: Port) -> bool {
    let target = described.get("targetPort").or_else(|| described.get("port"));
    target.and_then(|target| container::number(target).or_else(|| container.port(target))) == Some(port)
}
