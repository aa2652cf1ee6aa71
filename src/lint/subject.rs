//! A pod with what is known of its redirection: the mesh, the annotations, and the options that follow from them.

use serde_json::{Map, Value};

use super::code::Code;
use super::{Context, Report, annotations};
use crate::mesh::annotations::{Annotations, OURS};
use crate::mesh::container::{Container, Role, id};
use crate::mesh::manifest::Pod;
use crate::mesh::pod::Pod as Facts;
use crate::mesh::policy::Policy;
use crate::mesh::verdict::{self, Because, By, Given, Left, Undecided, Unseen, Verdict};
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
    /// The mesh that its annotations and labels speak of.
    pub mesh: Option<&'static Mesh>,
    /// Its annotations and labels.
    pub said: Said<'n>,
    /// How it is redirected, as far as that is known.
    pub config: Config,
    /// What a plugin that redirects it is not told.
    pub unseen: Vec<Unseen>,
    /// Whether a plugin redirects it.
    pub by_plugin: bool,
    /// Why nobody redirects it, if so.
    pub left: Option<Because>,
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

    /// The annotations as a plugin would be handed them.
    fn as_handed_over(&self) -> Annotations {
        let texts: Map<String, Value> = self
            .annotations
            .iter()
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

impl<'n> Subject<'n> {
    /// Puts together what is known of a pod that is looked at. What is wrong with the sources of it is reported.
    pub fn new(pod: Pod<'n>, context: &Context<'_>, report: &mut Report) -> Option<Self> {
        let said = Said::of(&pod);
        let facts = Facts::of_manifest(&pod, said.as_handed_over());
        let given = Given {
            policy: &Policy::default(),
            before: &Layer::default(),
            after: context.settings,
            read: context.read,
        };
        let keeps_out = verdict::opt_out(&facts).unwrap_or_else(|problem| {
            report.add(Code::InvalidAnnotation, place(&said, &problem), problem.to_string());
            None
        });
        let keeps_out = keeps_out.filter(|left| left.because == Because::Told);
        // Pods of a cluster that nobody injected, and the installer of our plugin, are as they should be.
        let is_nobodys = facts.described.as_ref().is_some_and(|described| described.is_created) && !said.injected();
        let is_installer = facts.containers().iter().any(Container::installs);
        let found = verdict::verdict(&facts, &given);
        if (is_nobodys || is_installer) && matches!(found, Ok(Verdict::Left(_))) {
            return None;
        }
        let (redirected, left) = match found {
            Ok(Verdict::Redirected(redirected)) => (Some(redirected), None),
            Ok(Verdict::Left(left)) => match (left.because, keeps_out) {
                (_, Some(Left { reason, .. })) => {
                    annotations::of_opted_out(&pod, &reason, report);
                    return None;
                }
                // Nobody redirects it, nor is that a mistake.
                (Because::NotInjected, None) => return None,
                (Because::Windows, None) => {
                    annotations::of_opted_out(&pod, &left.reason, report);
                    return None;
                }
                (because, None) => (None, Some(because)),
            },
            Err(Undecided::Arguments { mistakes, .. }) => {
                arguments(&facts, &mistakes, report);
                (None, None)
            }
            // Reported by whoever reads the annotations.
            Err(Undecided::NoAnnotations | Undecided::Invalid(_)) => (None, None),
        };
        let by_annotations = annotated(&facts, &given, &said, report);
        let mesh = verdict::mesh(&facts, &given).and_then(mesh::named);
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
            left,
        };
        subject.recognise_proxy();
        Some(subject)
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

    /// Whether somebody wants it to be redirected.
    pub fn asks(&self) -> bool {
        let says = |entries: &[Entry]| {
            entries
                .iter()
                .any(|entry| annotations::is_about_redirection(&entry.key))
        };
        self.said.injected() || self.redirector().is_some() || says(self.said.annotations) || says(self.said.labels)
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
fn annotated(facts: &Facts<'_>, given: &Given<'_>, said: &Said<'_>, report: &mut Report) -> Config {
    let settings = verdict::by_annotations(facts, given).unwrap_or_else(|problems| {
        for problem in problems {
            let code = match problem {
                Problem::Contradiction { .. } => Code::Contradiction,
                Problem::Value { .. } | Problem::Source { .. } => Code::InvalidAnnotation,
            };
            report.add(code, place(said, &problem), problem.to_string());
        }
        let layer = Layer {
            mesh: verdict::mesh(facts, given),
            ..given.after.clone()
        };
        mesh::settings(layer).unwrap_or_default()
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

/// What is wrong with the arguments of the init container that redirects. Those of other programs are not ours to judge.
fn arguments(facts: &Facts<'_>, mistakes: &[String], report: &mut Report) {
    let Some(container) = facts.redirector().filter(|container| container.is_ours()) else {
        return;
    };
    let at = container.node.get("args").or_else(|| container.node.get("command"));
    let at = at.unwrap_or(container.node).at;
    for mistake in mistakes {
        let message = format!("{}: {mistake}", container.called());
        report.add(Code::InvalidArguments, at, message);
    }
}
