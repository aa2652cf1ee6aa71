//! The verdict on a pod: redirected, by which component and with which settings, or skipped, and the reason. One pure
//! function, for the plugin, repair, lint and `explain --pod`.
//!
//! A runtime passes only a pod's names and annotations. A manifest has labels and containers as well: an init container
//! that redirects takes precedence over everything else, since no annotation stops it; a pod that is not injected yet is
//! assumed to be injected later. A setting of a manifest that a plugin does not receive is [`Unseen`].

#[cfg(test)]
mod tests;
mod unseen;

use self::unseen::unseen;
pub use self::unseen::{Unseen, UnseenPlace};
use super::annotations::floor::{has_floor, keeps};
use super::annotations::{self, Annotations, REDIRECT};
use super::container::Container;
use super::invocation::ReadInvocation;
use super::pod::{Described, Pod};
use super::policy::{self, OnMissing, Policy, Select};
use super::{Injection, MESHES, Mesh, OptOut, Place, consul, kuma};
use crate::options::problem::{Problem, Source};
use crate::options::{Layer, Settings};
use crate::types::{Invalid, MeshName};

/// The inputs of a verdict besides the pod.
pub struct Inputs<'i> {
    /// Which pods the plugin redirects.
    pub policy: &'i Policy,
    /// Options that override annotations.
    pub overrides: &'i Layer,
    /// Options that annotations override, and that override the defaults of the pod's mesh.
    pub fallbacks: &'i Layer,
    /// Reads the command line of an init container.
    pub read: &'i ReadInvocation,
}

/// Whether a pod is redirected.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its traffic is redirected.
    Redirected(Box<Redirected>),
    /// Its traffic is not redirected.
    Skipped(Skipped),
}

impl Verdict {
    /// The reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::Redirected(redirected) => &redirected.reason,
            Self::Skipped(skipped) => &skipped.reason,
        }
    }
}

/// How a pod is redirected.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirected {
    /// The component that redirects it.
    pub by: By,
    /// The reason.
    pub reason: String,
    /// The settings, as far as they are known.
    pub settings: Settings,
    /// Settings of the manifest that the plugin does not receive.
    pub unseen: Vec<Unseen>,
}

/// The component that redirects a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The CNI plugin.
    Plugin,
    /// An init container.
    InitContainer {
        /// Its name.
        name: String,
        /// Whether its arguments are known. If not, the settings follow from the pod's annotations and mesh.
        has_known_arguments: bool,
    },
}

/// A pod that is not redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The kind of the reason.
    pub kind: SkipKind,
    /// The reason.
    pub reason: String,
}

/// Why a pod is not redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipKind {
    /// It has no network namespace of its own.
    HostNetwork,
    /// It runs on Windows nodes.
    Windows,
    /// Its namespace is excluded, or it is the installer.
    Exempt,
    /// An annotation, a label or the NetConf excludes it.
    OptedOut,
    /// The init container of this name redirects it, with unknown arguments.
    InitContainer(&'static str),
    /// No mesh injected a sidecar.
    NotInjected,
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq)]
pub enum Undecided {
    /// The annotations are required, and the runtime passed none.
    NoAnnotations,
    /// Its annotations are invalid, or contradict the options.
    Invalid(Vec<Problem>),
    /// The arguments of the init container that redirects are invalid.
    Arguments {
        /// The container.
        container: String,
        /// The errors.
        mistakes: Vec<String>,
    },
}

/// Decides whether and how a pod is redirected.
///
/// # Errors
/// Annotations or arguments are missing or invalid.
pub fn verdict(pod: &Pod<'_>, inputs: &Inputs<'_>) -> Result<Verdict, Undecided> {
    if let Some(container) = pod.redirector() {
        return by_init_container(pod, container, inputs);
    }
    if let Some(reason) = policy::exempt(inputs.policy, &pod.name) {
        return Ok(skipped(SkipKind::Exempt, reason));
    }
    let reason = match reason(pod, inputs)? {
        Ok(reason) => reason,
        Err(skipped) => return Ok(Verdict::Skipped(skipped)),
    };
    let settings = by_annotations(pod, inputs).map_err(Undecided::Invalid)?;
    Ok(Verdict::Redirected(Box::new(Redirected {
        by: By::Plugin,
        reason,
        unseen: unseen(pod, inputs, &settings),
        settings,
    })))
}

/// The settings of a pod from its annotations and the options.
///
/// # Errors
/// All invalid values and contradictions.
pub fn by_annotations(pod: &Pod<'_>, inputs: &Inputs<'_>) -> Result<Settings, Vec<Problem>> {
    super::settings(merged(pod, inputs, Layer::default())?)
}

/// The mesh that an option names, or that the pod belongs to.
pub fn mesh(pod: &Pod<'_>, inputs: &Inputs<'_>) -> Option<MeshName> {
    let merged = merged(pod, inputs, Layer::default()).map(|layer| layer.mesh);
    merged.unwrap_or_else(|_| {
        let named = inputs.overrides.mesh.or(inputs.fallbacks.mesh);
        named.or_else(|| mesh_of(pod).map(|mesh| mesh.option))
    })
}

/// All options that are set; annotations override `more`.
fn merged(pod: &Pod<'_>, inputs: &Inputs<'_>, more: Layer) -> Result<Layer, Vec<Problem>> {
    let parsed = pod.annotations.as_deref().map(annotations::parse).unwrap_or_default();
    let mut layer = inputs
        .overrides
        .clone()
        .over(parsed.over(more.over(inputs.fallbacks.clone()))?);
    // The mesh of the sidecar decides about the defaults.
    layer.mesh = layer.mesh.or_else(|| mesh_of(pod).map(|mesh| mesh.option));
    Ok(layer)
}

/// Why the pod opts out of redirection, if it does.
///
/// # Errors
/// The annotation that decides about it is neither `true` nor `false`.
pub fn opt_out(pod: &Pod<'_>) -> Result<Option<Skipped>, Problem> {
    let opted_out = |reason: String| {
        let kind = SkipKind::OptedOut;
        Ok(Some(Skipped { kind, reason }))
    };
    match pod.annotation(REDIRECT) {
        Some("true") => return Ok(None),
        Some("false") => return opted_out(format!("{REDIRECT} is false")),
        Some(other) => {
            return Err(Problem::Value {
                source: Source::Annotation,
                option: REDIRECT.to_owned(),
                invalid: Invalid::new(other, "true or false"),
            });
        }
        None => {}
    }
    if injected(pod).is_none()
        && requested(pod).is_none()
        && let Some(mesh) = mesh_switched(pod, |injection| injection.no)
    {
        let name = mesh.injection.name;
        return opted_out(format!("{} injection is disabled ({name})", mesh.name));
    }
    let mut opt_outs = MESHES.iter().flat_map(|mesh| mesh.opt_outs);
    let found = opt_outs.find(|OptOut { annotation, says, .. }| pod.annotation(annotation).is_some_and(says));
    let opted_out = found.map(|opt_out| Skipped {
        kind: opt_out
            .init_container
            .map_or(SkipKind::OptedOut, SkipKind::InitContainer),
        reason: format!("{} ({})", opt_out.reason, opt_out.annotation),
    });
    Ok(opted_out.or_else(|| skipped_for_init_container(pod.annotations.as_deref()?)))
}

/// Whether the init container of Consul or Kuma redirects the pod, which only follows from other annotations.
fn skipped_for_init_container(annotations: &Annotations) -> Option<Skipped> {
    let found = |name, reason: String| Skipped {
        kind: SkipKind::InitContainer(name),
        reason,
    };
    if consul::init_container_redirects(annotations) {
        let reason = "Consul's init container redirects it (there is no consul.hashicorp.com/redirect-traffic-config)";
        return Some(found(consul::INIT_CONTAINER, reason.to_owned()));
    }
    kuma::redirects_by_init_container(annotations).map(|reason| found(kuma::INIT_CONTAINER, reason))
}

/// Why the plugin redirects a pod whose names do not exempt it, or why it does not.
fn reason(pod: &Pod<'_>, inputs: &Inputs<'_>) -> Result<Result<String, Skipped>, Undecided> {
    let policy = inputs.policy;
    let skip = |kind, reason: &str| {
        let reason = reason.to_owned();
        Ok(Err(Skipped { kind, reason }))
    };
    let always = match policy.select {
        Select::Never => return skip(SkipKind::OptedOut, "select is never"),
        Select::Always => true,
        Select::Injected => false,
    };
    if pod.annotations.is_none() {
        return match policy.on_missing_annotations {
            _ if always => Ok(Ok("select is always".to_owned())),
            OnMissing::Pass => skip(
                SkipKind::OptedOut,
                "its annotations are unknown, and onMissingAnnotations is pass",
            ),
            OnMissing::Fail => Err(Undecided::NoAnnotations),
        };
    }
    if let Some(skipped) = opt_out(pod).map_err(|problem| Undecided::Invalid(vec![problem]))? {
        let floor = match skipped.kind {
            _ if !has_floor(inputs.fallbacks) => None,
            SkipKind::InitContainer(_) => Some(LEAVE_TO_PLUGIN),
            _ if always => Some("a policy of proxy-only for all pods (select is always): remove the annotation"),
            _ => None,
        };
        if let Some(floor) = floor {
            return Err(laxer_than_the_node(skipped.reason, floor));
        }
        return Ok(Err(skipped));
    }
    let described = pod.described.as_ref();
    if described.is_some_and(|described| described.host_network) {
        return skip(
            SkipKind::HostNetwork,
            "hostNetwork is true: it uses the node's network, and runtimes call no CNI plugin for it",
        );
    }
    if described.is_some_and(|described| described.is_windows) {
        return skip(
            SkipKind::Windows,
            "it is for Windows nodes, where sidetrack does not run",
        );
    }
    if pod.annotation(REDIRECT).is_some() {
        return Ok(Ok(format!("{REDIRECT} is true")));
    }
    match injected(pod) {
        _ if always => Ok(Ok("select is always".to_owned())),
        Some(mesh) => {
            let names: Vec<&str> = mesh.mark.iter().map(|(name, _)| *name).collect();
            Ok(Ok(format!("{} injected a sidecar ({})", mesh.name, names.join(", "))))
        }
        None => match described.filter(|described| !described.is_created) {
            Some(_) => Ok(Ok(reason_before_injection(pod))),
            None => skip(SkipKind::NotInjected, "it has no annotation of an injected sidecar"),
        },
    }
}

/// What the node has, where an init container redirects a pod, and what to do.
const LEAVE_TO_PLUGIN: &str =
    "a policy of proxy-only, which the rules of an init container need not have: let the plugin redirect the pod";

fn laxer_than_the_node(reason: String, floor: &str) -> Undecided {
    Undecided::Invalid(vec![Problem::Source {
        source: Source::Annotation,
        reason: format!(
            "{reason}, and the node has {floor}, or list the namespace in excludeNamespaces of the NetConf"
        ),
    }])
}

/// Why a pod that is not injected yet is assumed to be injected later.
fn reason_before_injection(pod: &Pod<'_>) -> String {
    match requested(pod) {
        Some(Mesh { name, injection, .. }) => {
            format!("{name} injection is enabled ({})", injection.name)
        }
        None => "it is not injected yet; the verdict assumes that a sidecar will be injected".to_owned(),
    }
}

/// The mesh whose injector the pod requests a sidecar from.
fn requested(pod: &Pod<'_>) -> Option<&'static Mesh> {
    mesh_switched(pod, |injection| injection.yes)
}

/// The mesh whose switch for injection has such a value.
fn mesh_switched(pod: &Pod<'_>, what: fn(&Injection) -> fn(&str) -> bool) -> Option<&'static Mesh> {
    MESHES.iter().find(|Mesh { injection, .. }| {
        let label = || pod.label(injection.name);
        let annotation = || pod.annotation(injection.name);
        let said = match injection.place {
            Place::Annotation => annotation(),
            Place::Label => label(),
            Place::LabelOrAnnotation => label().or_else(annotation),
        };
        said.is_some_and(what(injection))
    })
}

/// The mesh that injected the pod.
fn injected(pod: &Pod<'_>) -> Option<&'static Mesh> {
    super::injected_by(pod.annotations.as_deref()?)
}

/// The mesh that a pod belongs to: the one that injected it; in a manifest, also the one that it requests a sidecar from,
/// or whose domain its annotations or labels have.
fn mesh_of(pod: &Pod<'_>) -> Option<&'static Mesh> {
    let by_domain = || {
        let described = pod.described.as_ref()?;
        let annotations = pod.annotations.as_deref().into_iter().flat_map(Annotations::names);
        let labels = described.labels.iter().map(|entry| entry.key.as_str());
        let domains: Vec<&str> = annotations
            .chain(labels)
            .filter_map(|name| Some(name.split_once('/')?.0))
            .collect();
        let has_domain = |mesh: &&Mesh| domains.iter().any(|domain| domain.ends_with(mesh.domain));
        MESHES.iter().find(has_domain)
    };
    injected(pod).or_else(|| requested(pod)).or_else(by_domain)
}

/// The verdict if an init container redirects: its arguments decide, and no annotation stops it.
fn by_init_container(pod: &Pod<'_>, container: &Container<'_>, inputs: &Inputs<'_>) -> Result<Verdict, Undecided> {
    let read = container.invocation().and_then(|invocation| (inputs.read)(&invocation));
    let has_known_arguments = read.is_some();
    let settings = match read {
        Some(Ok(settings)) => settings,
        Some(Err(mistakes)) => {
            return Err(Undecided::Arguments {
                container: container.description(),
                mistakes,
            });
        }
        None => usual(pod, inputs, container.mesh()),
    };
    if has_floor(inputs.fallbacks) && !(has_known_arguments && keeps(inputs.fallbacks, &settings)) {
        let name = container.name;
        return Err(laxer_than_the_node(
            format!("its init container {name} redirects it"),
            LEAVE_TO_PLUGIN,
        ));
    }
    let host_network = |described: &Described<'_>| described.host_network;
    let network = match pod.described.as_ref().is_some_and(host_network) {
        true => ", in the node's network (hostNetwork is true)",
        false => "",
    };
    Ok(Verdict::Redirected(Box::new(Redirected {
        by: By::InitContainer {
            name: container.name.to_owned(),
            has_known_arguments,
        },
        reason: format!("its init container {} redirects it{network}", container.name),
        settings,
        unseen: Vec::new(),
    })))
}

/// The verdict on a pod that the plugin leaves to an init container with unknown arguments.
pub fn by_unknown_init_container(pod: &Pod<'_>, inputs: &Inputs<'_>, name: &str, reason: &str) -> Verdict {
    Verdict::Redirected(Box::new(Redirected {
        by: By::InitContainer {
            name: name.to_owned(),
            has_known_arguments: false,
        },
        reason: reason.to_owned(),
        settings: usual(pod, inputs, None),
        unseen: Vec::new(),
    }))
}

/// The usual settings of an init container of this mesh, or of the pod's mesh.
fn usual(pod: &Pod<'_>, inputs: &Inputs<'_>, mesh: Option<&Mesh>) -> Settings {
    let more = Layer {
        mesh: mesh.map(|mesh| mesh.option),
        ..Layer::default()
    };
    let settings = merged(pod, inputs, more).and_then(super::settings);
    // Invalid annotations do not stop an init container.
    settings.unwrap_or_else(|_| super::settings(inputs.fallbacks.clone()).unwrap_or_default())
}

fn skipped(kind: SkipKind, reason: String) -> Verdict {
    Verdict::Skipped(Skipped { kind, reason })
}
