//! A pod with what is known of its redirection: the mesh, the annotations, and the options that follow from them.

use serde_json::{Map, Value};

use super::code::Code;
use super::container::{Container, Role, containers, id};
use super::manifest::Pod;
use super::{Context, Invocation, Report};
use crate::mesh::annotations::{self, Annotations, OURS};
use crate::mesh::policy::{self, Decision, Policy, Select, Undecided};
use crate::mesh::{self, MESHES, Mesh};
use crate::options::Config;
use crate::options::Layer;
use crate::options::problem::Problem;
use crate::types::{Gid, Port, Uid};
use crate::yaml::{Entry, Node, Position};

/// A pod that is to be redirected.
pub struct Subject<'n> {
    /// The pod.
    pub pod: Pod<'n>,
    /// Its containers.
    pub containers: Vec<Container<'n>>,
    /// The mesh that its annotations and labels speak of.
    pub mesh: Option<&'static Mesh>,
    /// Its annotations and labels.
    pub said: Said<'n>,
    /// How it is redirected, as far as that is known.
    pub config: Config,
}

/// What is written at a pod, by annotations and labels.
#[derive(Clone, Copy)]
pub struct Said<'n> {
    /// The annotations.
    pub annotations: &'n [Entry],
    /// The labels.
    pub labels: &'n [Entry],
}

impl<'n> Said<'n> {
    fn of(pod: &Pod<'n>) -> Self {
        Self {
            annotations: pod.annotations().map(Node::entries).unwrap_or_default(),
            labels: pod.labels().map(Node::entries).unwrap_or_default(),
        }
    }

    /// An annotation's value.
    pub fn annotation(&self, name: &str) -> Option<&'n str> {
        find(self.annotations, name)?.value.scalar()
    }

    /// Whether the injector of a mesh has left its mark: what it does is done.
    pub fn injected(&self) -> bool {
        MESHES.iter().any(|mesh| mesh.injected(|name| self.annotation(name)))
    }

    /// The annotations as a plugin would be handed them; `labels` count before annotations of the same name.
    fn as_handed_over(&self, labels: &'n [Entry], but: &str) -> Annotations {
        let entries = self.annotations.iter().chain(labels).filter(|entry| entry.key != but);
        let texts: Map<String, Value> = entries
            .filter_map(|entry| Some((entry.key.clone(), entry.value.scalar()?.into())))
            .collect();
        // Texts are what annotations are made of.
        Annotations::of(&Value::Object(texts)).unwrap_or_default()
    }
}

/// The entry of this name.
pub fn find<'n>(entries: &'n [Entry], name: &str) -> Option<&'n Entry> {
    entries.iter().find(|entry| entry.key == name)
}

/// What says that an init container redirects the pod: to the plugin a reason to keep away, not so here.
const STATUS: &str = "sidecar.istio.io/status";

/// Whether the pod keeps out of its mesh, and why. An annotation that says neither yes nor no is reported.
pub fn opt_out(pod: &Pod<'_>, report: &mut Report) -> Option<String> {
    let said = Said::of(pod);
    if find(said.labels, "kuma.io/sidecar-injection").and_then(|entry| entry.value.scalar()) == Some("disabled") {
        return Some("Kuma's injector is told to leave it alone (kuma.io/sidecar-injection)".to_owned());
    }
    let policy = Policy {
        select: Select::Always,
        ..Policy::default()
    };
    match policy::decide(&policy, Some(&said.as_handed_over(said.labels, STATUS))) {
        Ok(Decision::Skip(reason)) => Some(reason),
        Ok(Decision::Redirect(_)) | Err(Undecided::NoAnnotations) => None,
        Err(Undecided::Annotation(problem)) => {
            report.add(Code::InvalidAnnotation, place(&said, &problem), problem.to_string());
            None
        }
    }
}

impl<'n> Subject<'n> {
    /// Puts together what is known. What is wrong with the sources of it is reported.
    pub fn new(pod: Pod<'n>, context: &Context<'_>, report: &mut Report) -> Self {
        let said = Said::of(&pod);
        let domains = || {
            said.annotations
                .iter()
                .chain(said.labels)
                .filter_map(|entry| entry.key.split_once('/'))
        };
        let mesh = MESHES
            .iter()
            .find(|mesh| domains().any(|(domain, _)| domain.ends_with(mesh.domain)));
        let containers = containers(&pod);
        let mesh_wide = context.settings.clone().over(mesh.map(Mesh::layer).unwrap_or_default());
        let by_annotations = annotated(&said, mesh_wide, report);
        let redirector = containers.iter().find(|container| container.role == Role::Redirector);
        let config = redirector
            .and_then(|container| by_arguments(container, context, report))
            .unwrap_or(by_annotations);
        let mut subject = Self {
            pod,
            containers,
            mesh,
            said,
            config,
        };
        subject.recognise_proxy();
        subject
    }

    /// Who redirects a pod by hand names its proxy as they like: it is the one that runs as the proxy's user.
    fn recognise_proxy(&mut self) {
        let has = |role| self.containers.iter().any(|container| container.role == role);
        if has(Role::Proxy) || !has(Role::Redirector) {
            return;
        }
        let (uids, gids) = (&self.config.proxy.uids, &self.config.proxy.gids);
        let mut like_it = self.containers.iter_mut().filter(|container| {
            let uid = container.security("runAsUser").and_then(id::<Uid>);
            let gid = container.security("runAsGroup").and_then(id::<Gid>);
            container.role == Role::App
                && (uid.is_some_and(|uid| uids.contains(uid)) || gid.is_some_and(|gid| gids.contains(gid)))
        });
        if let (Some(proxy), None) = (like_it.next(), like_it.next()) {
            proxy.role = Role::Proxy;
        }
    }

    /// The containers of the application.
    pub fn apps(&self) -> impl Iterator<Item = &Container<'n>> {
        self.containers.iter().filter(|container| container.role == Role::App)
    }

    /// The init container that redirects, where there is one.
    pub fn redirector(&self) -> Option<&Container<'n>> {
        self.containers
            .iter()
            .find(|container| container.role == Role::Redirector)
    }

    /// Whether connections from outside to this port go to the proxy.
    pub fn captures(&self, port: Port) -> bool {
        let inbound = &self.config.inbound;
        inbound.include_ports.contains(port)
            && !inbound.exclude_ports.contains(port)
            && !self.config.proxy.mesh_ports.contains(port)
    }
}

/// The options that annotations lead to; those of the whole mesh, where an annotation is wrong.
fn annotated(said: &Said<'_>, mesh_wide: Layer, report: &mut Report) -> Config {
    let annotations = said.as_handed_over(&[], "");
    let layer = annotations::parse(&annotations).over(mesh_wide.clone());
    let settings = layer.and_then(mesh::settings).unwrap_or_else(|problems| {
        for problem in problems {
            let code = match problem {
                Problem::Contradiction { .. } => Code::Contradiction,
                Problem::Value { .. } | Problem::Source { .. } => Code::InvalidAnnotation,
            };
            report.add(code, place(said, &problem), problem.to_string());
        }
        mesh::settings(mesh_wide).unwrap_or_default()
    });
    settings.config
}

/// Where the annotation stands that a problem is about.
fn place(said: &Said<'_>, problem: &Problem) -> Position {
    let text = problem.to_string();
    let about = said
        .annotations
        .iter()
        .filter(|entry| text.contains(&entry.key))
        // One name may be the beginning of another.
        .max_by_key(|entry| entry.key.len());
    let ours = || {
        let options = problem.options();
        said.annotations.iter().find(|entry| {
            let option = entry.key.strip_prefix(OURS);
            option.is_some_and(|option| options.iter().any(|name| name == option))
        })
    };
    let entry = about.or_else(ours).or(said.annotations.first());
    entry.map_or(Position { line: 1, column: 1 }, |entry| entry.value.at)
}

/// The options that the arguments of an init container lead to, where it is one whose arguments are known.
fn by_arguments(container: &Container<'_>, context: &Context<'_>, report: &mut Report) -> Option<Config> {
    let words = container.words();
    // What the image says, and what Kubernetes puts in there, is not known here.
    let says = words.len() > usize::from(container.has_command());
    if !says || words.iter().any(|word| word.contains("$(")) {
        return None;
    }
    let invocation = Invocation {
        words,
        has_program: container.has_command(),
        variables: container.variables(),
    };
    match (context.read)(&invocation)? {
        Ok(config) => Some(config),
        Err(problems) => {
            let at = container.node.get("args").or_else(|| container.node.get("command"));
            let at = at.unwrap_or(container.node).at;
            if container.is_ours() {
                for problem in problems {
                    report.add(Code::InvalidArguments, at, format!("{}: {problem}", container.called()));
                }
            }
            None
        }
    }
}
