//! Finds pods and Services in documents, nested in any object.

use crate::yaml::Node;

/// A pod, or the template of pods.
#[derive(Clone, Copy)]
pub struct Pod<'n> {
    /// The whole object; for a workload, the one that contains the template.
    pub object: &'n Node,
    /// The kind of the object.
    pub kind: &'n str,
    /// The pod or the template: what has `metadata` and `spec`.
    pub template: &'n Node,
    /// The `spec` of the pod.
    pub spec: &'n Node,
}

/// A part of a document.
pub enum Object<'n> {
    /// A pod, or the template of pods.
    Pod(Pod<'n>),
    /// A Service.
    Service(&'n Node),
    /// A Namespace.
    Namespace(&'n Node),
    /// An object of this kind without a pod; empty if it has no kind.
    Other(&'n str),
}

/// The API groups of Argo, whose pod templates have another shape.
const ARGO: &str = "argoproj.io/";

/// All objects of a document, including the items of lists.
pub fn objects(document: &Node) -> Vec<Object<'_>> {
    let mut objects = Vec::new();
    collect(document, "", &mut objects);
    objects
}

/// `kind` is that of the enclosing list: items of a PodList may omit their kind.
fn collect<'n>(node: &'n Node, kind: &'n str, objects: &mut Vec<Object<'n>>) {
    let kind = text(node, "kind").unwrap_or(kind);
    // The core group has no name.
    let is_core = text(node, "apiVersion").is_none_or(|version| !version.contains('/'));
    match (kind.strip_suffix("List"), node.get("items"), kind) {
        (Some(kind), Some(items), _) => items.items().iter().for_each(|item| collect(item, kind, objects)),
        (_, _, "Service") if is_core => objects.push(Object::Service(node)),
        (_, _, "Namespace") if is_core => objects.push(Object::Namespace(node)),
        (_, _, "") if node.entries().is_empty() => {}
        (_, _, "") => objects.push(Object::Other(kind)),
        _ => {
            let before = objects.len();
            match kind {
                "Pod" => objects.extend(template(node, kind, node).map(Object::Pod)),
                _ => search(node, kind, node, objects),
            }
            if objects.len() == before {
                objects.push(Object::Other(kind));
            }
        }
    }
}

/// Finds pod templates below `node` by their shape, and nested objects: operators' resources, and those of OpenShift's
/// Template.
fn search<'n>(object: &'n Node, kind: &'n str, node: &'n Node, objects: &mut Vec<Object<'n>>) {
    let entries = node.entries().iter().map(|entry| &entry.value);
    for child in entries.chain(node.items()) {
        if text(child, "apiVersion").is_some() && text(child, "kind").is_some() {
            collect(child, "", objects);
        } else if let Some(pod) = template(object, kind, child) {
            objects.push(Object::Pod(pod));
        } else {
            search(object, kind, child, objects);
        }
    }
}

/// Reads this node as a pod or a pod template.
fn template<'n>(object: &'n Node, kind: &'n str, node: &'n Node) -> Option<Pod<'n>> {
    let has_containers = |spec: &&Node| {
        let lists = ["containers", "initContainers"].map(|key| spec.get(key).map(Node::items));
        let mut containers = lists.into_iter().flatten().flatten();
        lists[0].is_some() && containers.any(|container| !container.entries().is_empty())
    };
    // Argo's templates have the fields of a pod's spec beside `metadata`.
    let of_argo = || {
        let is_argo = text(object, "apiVersion").is_some_and(|version| version.starts_with(ARGO));
        let runs = |key| node.get(key).is_some_and(|container| container.get("image").is_some());
        (is_argo && (runs("container") || runs("script"))).then_some(node)
    };
    let spec = node.get("spec").filter(has_containers).or_else(of_argo)?;
    Some(Pod {
        object,
        kind,
        template: node,
        spec,
    })
}

fn text<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.get(key).and_then(Node::scalar)
}

/// The only pod or pod template of a document, however incomplete.
///
/// # Errors
/// There are several.
pub fn only_pod(document: &Node) -> Result<Pod<'_>, String> {
    let pods = objects(document).into_iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        Object::Service(_) | Object::Namespace(_) | Object::Other(_) => None,
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
        several => Err(format!("there are {} pods in the manifest; give one", several.len())),
    }
}

impl<'n> Pod<'n> {
    /// The namespace of the object, if given.
    pub fn namespace(&self) -> Option<&'n str> {
        metadata(self.object, "namespace").and_then(Node::scalar)
    }

    /// The name of the object, if given.
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

    /// The annotations of the workload that contains the template; `None` for a pod.
    pub fn annotations_of_workload(&self) -> Option<&'n Node> {
        let around = !std::ptr::eq(self.object, self.template);
        around.then(|| metadata(self.object, "annotations")).flatten()
    }
}

/// An object in messages: its kind, and its namespace and name as far as they are known.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::document;

    /// The kinds of objects with pods, and how many pods; the kinds of the skipped objects.
    fn found(text: &str) -> (Vec<(String, usize)>, Vec<String>) {
        let document = document(text).unwrap();
        let (mut pods, mut others): (Vec<(String, usize)>, Vec<String>) = (Vec::new(), Vec::new());
        for object in objects(&document) {
            match object {
                Object::Pod(pod) => match pods.last_mut().filter(|(kind, _)| kind == pod.kind) {
                    Some((_, count)) => *count += 1,
                    None => pods.push((pod.kind.to_owned(), 1)),
                },
                Object::Other(kind) => others.push(kind.to_owned()),
                Object::Service(_) => others.push("a Service".to_owned()),
                Object::Namespace(_) => others.push("a Namespace".to_owned()),
            }
        }
        (pods, others)
    }

    const SPEC: &str = "spec: {containers: [{name: a, image: b}]}";

    #[test]
    fn pod_templates_are_found_in_any_object() {
        for (text, kind, count) in [
            (format!("{{kind: Pod, {SPEC}}}"), "Pod", 1),
            (format!("{{kind: PodTemplate, template: {{{SPEC}}}}}"), "PodTemplate", 1),
            (format!("{{kind: CronJob, spec: {{jobTemplate: {{spec: {{template: {{{SPEC}}}}}}}}}}}"), "CronJob", 1),
            // Knative
            (format!("{{apiVersion: serving.knative.dev/v1, kind: Service, spec: {{template: {{{SPEC}}}}}}}"), "Service", 1),
            (
                "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, spec: {templates: [{name: a, container: {image: b}}, \
                 {name: c, script: {image: d, source: e}}, {name: f, steps: [[{name: g, template: a}]]}]}}"
                    .to_owned(),
                "Workflow",
                2,
            ),
            (
                format!(
                    "{{kind: RayCluster, spec: {{headGroupSpec: {{template: {{{SPEC}}}}}, workerGroupSpecs: \
                     [{{template: {{{SPEC}}}}}]}}}}"
                ),
                "RayCluster",
                2,
            ),
            (
                format!("{{kind: JobSet, spec: {{replicatedJobs: [{{template: {{spec: {{template: {{{SPEC}}}}}}}}}]}}}}"),
                "JobSet",
                1,
            ),
            // Agones
            (format!("{{kind: Fleet, spec: {{template: {{spec: {{template: {{{SPEC}}}}}}}}}}}"), "Fleet", 1),
            (format!("{{kind: MongoDB, spec: {{podSpec: {{podTemplate: {{{SPEC}}}}}}}}}"), "MongoDB", 1),
        ] {
            assert_eq!(found(&text), (vec![(kind.to_owned(), count)], vec![]), "{text}");
        }
        let template = format!(
            "{{apiVersion: template.openshift.io/v1, kind: Template, objects: [{{apiVersion: v1, kind: Service}}, \
             {{apiVersion: apps/v1, kind: Deployment, spec: {{template: {{{SPEC}}}}}}}]}}"
        );
        assert_eq!(
            found(&template),
            (vec![("Deployment".to_owned(), 1)], vec!["a Service".to_owned()])
        );
    }

    #[test]
    fn objects_without_a_pod_are_reported() {
        let only_the_proxy =
            "{kind: Deployment, spec: {template: {spec: {containers: [], initContainers: [{name: a}]}}}}";
        assert_eq!(found(only_the_proxy), (vec![("Deployment".to_owned(), 1)], vec![]));
        for (text, kind) in [
            ("{kind: ConfigMap, data: {a: b}}", "ConfigMap"),
            ("{a: {spec: {containers: [{name: a}]}}}", ""),
            // Containers that are merged into its pods, without the rest of a pod.
            ("{kind: Prometheus, spec: {containers: [{name: a}]}}", "Prometheus"),
            (
                "{kind: Deployment, spec: {template: {spec: {containers: []}}}}",
                "Deployment",
            ),
            ("{kind: Pod}", "Pod"),
        ] {
            assert_eq!(found(text), (vec![], vec![kind.to_owned()]), "{text}");
        }
        assert_eq!(found("~"), (vec![], vec![]));
    }
}
