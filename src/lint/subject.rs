//! The subject of the checks: a pod with its mesh, its annotations, and the resulting options.

use serde_json::{Map, Value};

use super::code::Code;
use super::{Context, Report, annotations};
use crate::mesh::annotations::{Annotations, PREFIX};
use crate::mesh::container::{Container, Role, id};
use crate::mesh::manifest::Pod;
use crate::mesh::pod::Pod as Facts;
use crate::mesh::policy::Policy;
use crate::mesh::verdict::{self, By, Inputs, SkipKind, Skipped, Undecided, Unseen, Verdict};
use crate::mesh::{self, MESHES, Mesh};
use crate::options::problem::Problem;
use crate::options::{Config, Layer};
use crate::types::{Gid, Port, Uid};
use crate::yaml::{Entry, Node, Position};

/// A pod that is to be redirected.
pub struct Subject<'n> {
    /// The pod.
    pub pod: Pod<'n>,
    /// Its containers.
    pub containers: Vec<Container<'n>>,
    /// The mesh that its annotations and labels belong to.
    pub mesh: Option<&'static Mesh>,
    /// Its annotations and labels.
    pub said: Said<'n>,
    /// The configuration of its redirection, as far as it is known.
    pub config: Config,
    /// Settings of the manifest that a plugin does not receive.
    pub unseen: Vec<Unseen>,
    /// Whether a plugin redirects it.
    pub by_plugin: bool,
    /// Why it is not redirected, if so.
    pub skipped: Option<SkipKind>,
}

/// The annotations and labels of a pod.
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

    /// Whether a mesh has injected the pod.
    pub fn is_injected(&self) -> bool {
        MESHES
            .iter()
            .any(|mesh| mesh.has_injected(|name| self.annotation(name)))
    }

    /// The annotations as a plugin would receive them.
    fn as_received(&self) -> Annotations {
        let texts: Map<String, Value> = self
            .annotations
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), entry.value.scalar()?.into())))
            .collect();
        // All values are strings, so this never fails.
        Annotations::of(&Value::Object(texts)).unwrap_or_default()
    }
}

/// The entry of this name.
pub fn find<'n>(entries: &'n [Entry], name: &str) -> Option<&'n Entry> {
    entries.iter().find(|entry| entry.key == name)
}

impl<'n> Subject<'n> {
    /// Collects the facts about a pod, and reports errors of its annotations and arguments. `None` if nothing redirects the pod
    /// and that is intended.
    pub fn new(pod: Pod<'n>, context: &Context<'_>, report: &mut Report) -> Option<Self> {
        let said = Said::of(&pod);
        let facts = Facts::of_manifest(&pod, said.as_received());
        let inputs = Inputs {
            policy: &Policy::default(),
            overrides: &Layer::default(),
            fallbacks: context.settings,
            read: context.read,
        };
        let opt_out = verdict::opt_out(&facts).unwrap_or_else(|problem| {
            report.add(Code::InvalidAnnotation, place(&said, &problem), problem.to_string());
            None
        });
        let opt_out = opt_out.filter(|skipped| skipped.kind == SkipKind::OptedOut);
        // Existing pods without a sidecar, and the installer of sidetrack's plugin, are not redirected on purpose.
        let is_uninjected =
            facts.described.as_ref().is_some_and(|described| described.is_created) && !said.is_injected();
        let is_installer = facts.containers().iter().any(Container::is_installer);
        let found = verdict::verdict(&facts, &inputs);
        if (is_uninjected || is_installer) && matches!(found, Ok(Verdict::Skipped(_))) {
            return None;
        }
        let (redirected, skipped) = match found {
            Ok(Verdict::Redirected(redirected)) => (Some(redirected), None),
            Ok(Verdict::Skipped(skipped)) => match (skipped.kind, opt_out) {
                (_, Some(Skipped { reason, .. })) => {
                    annotations::check_opted_out(&pod, &reason, report);
                    return None;
                }
                // Not redirected, which is correct.
                (SkipKind::NotInjected, None) => return None,
                (SkipKind::Windows, None) => {
                    annotations::check_opted_out(&pod, &skipped.reason, report);
                    return None;
                }
                (kind, None) => (None, Some(kind)),
            },
            Err(Undecided::Arguments { mistakes, .. }) => {
                arguments(&facts, &mistakes, report);
                (None, None)
            }
            // Errors of annotations are reported below.
            Err(Undecided::NoAnnotations | Undecided::Invalid(_)) => (None, None),
        };
        let by_annotations = annotated(&facts, &inputs, &said, report);
        let mesh = verdict::mesh(&facts, &inputs).and_then(mesh::named);
        let by_plugin = redirected
            .as_ref()
            .is_some_and(|redirected| redirected.by == By::Plugin);
        let (config, unseen) = match redirected {
            Some(redirected) => (redirected.settings.config, redirected.unseen),
            None => (by_annotations, Vec::new()),
        };
        let mut subject = Self {
            pod,
            containers: facts
                .described
                .map(|described| described.containers)
                .unwrap_or_default(),
            mesh,
            said,
            config,
            unseen,
            by_plugin,
            skipped,
        };
        subject.identify_proxy_by_user();
        Some(subject)
    }

    /// In a manifest that no injector wrote, the proxy container may have any name: it is the one that runs as the proxy's
    /// user.
    fn identify_proxy_by_user(&mut self) {
        let has = |role| self.containers.iter().any(|container| container.role == role);
        if has(Role::Proxy) || !has(Role::Redirector) {
            return;
        }
        let (uids, gids) = (&self.config.proxy.uids, &self.config.proxy.gids);
        let mut candidates = self.containers.iter_mut().filter(|container| {
            let uid = container.security("runAsUser").and_then(id::<Uid>);
            let gid = container.security("runAsGroup").and_then(id::<Gid>);
            container.role == Role::App
                && (uid.is_some_and(|uid| uids.contains(uid)) || gid.is_some_and(|gid| gids.contains(gid)))
        });
        if let (Some(proxy), None) = (candidates.next(), candidates.next()) {
            proxy.role = Role::Proxy;
        }
    }

    /// Whether anything in the manifest requests redirection.
    pub fn requests_redirection(&self) -> bool {
        let says = |entries: &[Entry]| {
            entries
                .iter()
                .any(|entry| annotations::is_about_redirection(&entry.key))
        };
        self.said.is_injected() || self.redirector().is_some() || says(self.said.annotations) || says(self.said.labels)
    }

    /// The containers of the application.
    pub fn apps(&self) -> impl Iterator<Item = &Container<'n>> {
        self.containers.iter().filter(|container| container.role == Role::App)
    }

    /// The init container that redirects, if there is one.
    pub fn redirector(&self) -> Option<&Container<'n>> {
        self.containers
            .iter()
            .find(|container| container.role == Role::Redirector)
    }

    /// Whether inbound connections to this port are redirected to the proxy.
    pub fn captures(&self, port: Port) -> bool {
        let inbound = &self.config.inbound;
        inbound.include_ports.contains(port)
            && !inbound.exclude_ports.contains(port)
            && !self.config.proxy.mesh_ports.contains(port)
    }
}

/// The configuration that annotations lead to; that of the whole mesh if an annotation is invalid.
fn annotated(facts: &Facts<'_>, inputs: &Inputs<'_>, said: &Said<'_>, report: &mut Report) -> Config {
    let settings = verdict::by_annotations(facts, inputs).unwrap_or_else(|problems| {
        for problem in problems {
            let code = match problem {
                Problem::Contradiction { .. } => Code::Contradiction,
                Problem::Value { .. } | Problem::Source { .. } => Code::InvalidAnnotation,
            };
            report.add(code, place(said, &problem), problem.to_string());
        }
        let layer = Layer {
            mesh: verdict::mesh(facts, inputs),
            ..inputs.fallbacks.clone()
        };
        mesh::settings(layer).unwrap_or_default()
    });
    settings.config
}

/// The position of the annotation that a problem concerns.
fn place(said: &Said<'_>, problem: &Problem) -> Position {
    let text = problem.to_string();
    let about = said
        .annotations
        .iter()
        .filter(|entry| text.contains(&entry.key))
        // One name may be a prefix of another.
        .max_by_key(|entry| entry.key.len());
    let ours = || {
        let options = problem.options();
        said.annotations.iter().find(|entry| {
            let option = entry.key.strip_prefix(PREFIX);
            option.is_some_and(|option| options.iter().any(|name| name == option))
        })
    };
    let entry = about.or_else(ours).or(said.annotations.first());
    entry.map_or(Position { line: 1, column: 1 }, |entry| entry.value.at)
}

/// Reports invalid arguments of the init container that redirects, if it runs sidetrack.
fn arguments(facts: &Facts<'_>, mistakes: &[String], report: &mut Report) {
    let Some(container) = facts.redirector().filter(|container| container.is_sidetrack()) else {
        return;
    };
    let at = container.node.get("args").or_else(|| container.node.get("command"));
    let at = at.unwrap_or(container.node).at;
    for mistake in mistakes {
        let message = format!("{}: {mistake}", container.description());
        report.add(Code::InvalidArguments, at, message);
    }
}
