//! From documents to what is looked at: pods, in whatever object they are described, and Services.

use crate::yaml::Node;

/// A pod, or the template of pods.
#[derive(Clone, Copy)]
pub struct Pod<'n> {
    /// The whole object; for a workload, the one around the template.
    pub object: &'n Node,
    /// The kind of the object.
    pub kind: &'n str,
    /// The pod or the template: what has `metadata` and `spec`.
    pub template: &'n Node,
    /// What the pod is made of.
    pub spec: &'n Node,
}

/// A part of a document that is looked at.
pub enum Object<'n> {
    /// A pod, or the template of pods.
    Pod(Pod<'n>),
    /// A Service.
    Service(&'n Node),
}

/// Everything in a document that is looked at; lists are looked into.
pub fn objects(document: &Node) -> Vec<Object<'_>> {
    let mut objects = Vec::new();
    collect(document, "", &mut objects);
    objects
}

/// `kind` is that of the list around the object: items of a PodList need not say that they are Pods.
fn collect<'n>(node: &'n Node, kind: &'n str, objects: &mut Vec<Object<'n>>) {
    let kind = node.get("kind").and_then(Node::scalar).unwrap_or(kind);
    match (kind.strip_suffix("List"), node.get("items")) {
        (Some(kind), Some(items)) => items.items().iter().for_each(|item| collect(item, kind, objects)),
        _ if kind == "Service" => objects.push(Object::Service(node)),
        _ => objects.extend(pod(node, kind).map(Object::Pod)),
    }
}

fn pod<'n>(object: &'n Node, kind: &'n str) -> Option<Pod<'n>> {
    let path: &[&str] = match kind {
        "" => return None,
        "Pod" => &[],
        "PodTemplate" => &["template"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        _ => &["spec", "template"],
    };
    let template = path.iter().try_fold(object, |node, key| node.get(key))?;
    let spec = template.get("spec")?;
    // Objects of other kinds may have templates of other things.
    let containers = spec
        .get("containers")
        .is_some_and(|containers| !containers.items().is_empty());
    containers.then_some(Pod {
        object,
        kind,
        template,
        spec,
    })
}

/// The one pod, or template of pods, in a document, however little it says.
///
/// # Errors
/// There are several.
pub fn only_pod(document: &Node) -> Result<Pod<'_>, String> {
    let pods = objects(document).into_iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        Object::Service(_) => None,
    });
    let pods: Vec<Pod<'_>> = pods.collect();
    match pods.as_slice() {
        [one] => Ok(*one),
        [] => {
            let template = document.get("spec").and_then(|spec| spec.get("template"));
            let template = template.unwrap_or(document);
            Ok(Pod {
                object: document,
                kind: document.get("kind").and_then(Node::scalar).unwrap_or_default(),
                template,
                spec: template.get("spec").unwrap_or(template),
            })
        }
        several => Err(format!("there are {} pods in there; give one", several.len())),
    }
}

impl<'n> Pod<'n> {
    /// The namespace, where the object says.
    pub fn namespace(&self) -> Option<&'n str> {
        metadata(self.object, "namespace").and_then(Node::scalar)
    }

    /// The name of the object, where it says.
    pub fn name(&self) -> Option<&'n str> {
        metadata(self.object, "name").and_then(Node::scalar)
    }

    /// The annotations of the pod.
    pub fn annotations(&self) -> Option<&'n Node> {
        metadata(self.template, "annotations")
    }

    /// The labels of the pod.
    pub fn labels(&self) -> Option<&'n Node> {
        metadata(self.template, "labels")
    }

    /// The annotations of the object around the template, where there is one.
    pub fn annotations_of_workload(&self) -> Option<&'n Node> {
        let around = !std::ptr::eq(self.object, self.template);
        around.then(|| metadata(self.object, "annotations")).flatten()
    }
}

/// What an object is called: kind, and namespace and name as far as they are known.
pub fn name(object: &Node, kind: &str) -> String {
    let name = ["name", "generateName"]
        .into_iter()
        .find_map(|key| metadata(object, key)?.scalar());
    match (metadata(object, "namespace").and_then(Node::scalar), name) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => format!("{kind} without a name"),
    }
}

fn metadata<'n>(object: &'n Node, key: &str) -> Option<&'n Node> {
    object.get("metadata")?.get(key)
}
