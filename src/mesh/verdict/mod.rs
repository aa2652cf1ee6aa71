//! What becomes of a pod: redirected, by whom and how, or not, and why. One pure function, for the plugin, repair, lint
//! and `explain --pod`.
//!
//! A runtime tells a pod's names and annotations, and no more. A manifest tells its labels and containers as well: an
//! init container that redirects counts before everything else, since nothing holds it back; a pod that is not injected
//! yet is taken for one that will be. What a manifest says and a plugin is not told is [`Unseen`].

#[cfg(test)]
mod tests;
mod unseen;

use self::unseen::unseen;
pub use self::unseen::{Unseen, Where};
use super::annotations::{self, Annotations, REDIRECT};
use super::container::Container;
use super::invocation::ReadInvocation;
use super::pod::{Described, Pod};
use super::policy::{self, OnMissing, Policy, Select};
use super::{Injection, MESHES, Mesh, OptOut, Place, consul, istio, kuma};
use crate::options::problem::{Problem, Source};
use crate::options::{Layer, Settings};
use crate::types::{Invalid, MeshName};

/// What counts besides the pod.
pub struct Given<'g> {
    /// Which pods the plugin redirects.
    pub policy: &'g Policy,
    /// Options that count before annotations.
    pub before: &'g Layer,
    /// Options that count after annotations, and before what is usual in the pod's mesh.
    pub after: &'g Layer,
    /// Reads the command line of an init container.
    pub read: &'g ReadInvocation,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its traffic is redirected.
    Redirected(Box<Redirected>),
    /// It is let through.
    Left(Left),
}

impl Verdict {
    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Self::Redirected(redirected) => &redirected.reason,
            Self::Left(left) => &left.reason,
        }
    }
}

/// How a pod is redirected.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirected {
    /// By whom.
    pub by: By,
    /// Why.
    pub reason: String,
    /// How, as far as that is known.
    pub settings: Settings,
    /// What its manifest says and the plugin is not told.
    pub unseen: Vec<Unseen>,
}

/// Who redirects a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The CNI plugin.
    Plugin,
    /// An init container.
    InitContainer {
        /// Its name.
        name: String,
        /// Whether its arguments are known. Otherwise the settings are those that its annotations and mesh lead to.
        is_told: bool,
    },
}

/// A pod that is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What kind of reason there is.
    pub because: Because,
    /// The reason.
    pub reason: String,
}

/// Why a pod is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It has no network namespace of its own.
    HostNetwork,
    /// By its names.
    Exempt,
    /// It, or the plugin, is told so.
    Told,
    /// The init container of this name redirects it, of which no more is known.
    InitContainer(&'static str),
    /// Nobody injected a sidecar.
    NotInjected,
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq)]
pub enum Undecided {
    /// The annotations are needed and were not handed over.
    NoAnnotations,
    /// What is wrong with its annotations, and with options together with them.
    Invalid(Vec<Problem>),
    /// What is wrong with the arguments of the init container that redirects.
    Arguments {
        /// The container.
        container: String,
        /// What is wrong.
        mistakes: Vec<String>,
    },
}

/// Lists, among others, the init containers that Istio's injector has added.
const ISTIO_STATUS: &str = "sidecar.istio.io/status";

/// Says what becomes of a pod.
///
/// # Errors
/// It cannot be told.
pub fn verdict(pod: &Pod<'_>, given: &Given<'_>) -> Result<Verdict, Undecided> {
    if let Some(container) = pod.redirector() {
        return by_init_container(pod, container, given);
    }
    if let Some(reason) = policy::exempt(given.policy, &pod.name) {
        return Ok(left(Because::Exempt, reason));
    }
    let reason = match reason(pod, given.policy)? {
        Ok(reason) => reason,
        Err(left) => return Ok(Verdict::Left(left)),
    };
    let settings = by_annotations(pod, given).map_err(Undecided::Invalid)?;
    Ok(Verdict::Redirected(Box::new(Redirected {
        by: By::Plugin,
        reason,
        unseen: unseen(pod, given, &settings),
        settings,
    })))
}

/// The settings that annotations and options lead to.
///
/// # Errors
/// Everything that is wrong with them.
pub fn by_annotations(pod: &Pod<'_>, given: &Given<'_>) -> Result<Settings, Vec<Problem>> {
    super::settings(merged(pod, given, Layer::default())?)
}

/// The mesh that a pod belongs to, or that was asked for.
pub fn mesh(pod: &Pod<'_>, given: &Given<'_>) -> Option<MeshName> {
    let said = merged(pod, given, Layer::default()).map(|layer| layer.mesh);
    said.unwrap_or_else(|_| {
        let asked = given.before.mesh.or(given.after.mesh);
        asked.or_else(|| mesh_of(pod).map(|mesh| mesh.option))
    })
}

/// Every option that something is said about; `more` counts after annotations.
fn merged(pod: &Pod<'_>, given: &Given<'_>, more: Layer) -> Result<Layer, Vec<Problem>> {
    let parsed = pod.annotations.as_deref().map(annotations::parse).unwrap_or_default();
    let mut layer = given.before.clone().over(parsed.over(more.over(given.after.clone()))?);
    // Whose sidecar it is says whose numbers count.
    layer.mesh = layer.mesh.or_else(|| mesh_of(pod).map(|mesh| mesh.option));
    Ok(layer)
}

/// Why the pod keeps out of its mesh, if it does.
///
/// # Errors
/// An annotation says neither yes nor no.
pub fn opt_out(pod: &Pod<'_>) -> Result<Option<Left>, Problem> {
    let told = |reason: String| {
        let because = Because::Told;
        Ok(Some(Left { because, reason }))
    };
    match pod.annotation(REDIRECT) {
        Some("true") => return Ok(None),
        Some("false") => return told(format!("{REDIRECT} is false")),
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
        && asked(pod).is_none()
        && let Some(mesh) = told_by(pod, |injection| injection.no)
    {
        let name = mesh.injection.name;
        return told(format!("{}'s injector is told to leave it alone ({name})", mesh.name));
    }
    let mut opt_outs = MESHES.iter().flat_map(|mesh| mesh.opt_outs);
    let found = opt_outs.find(|OptOut { annotation, says, .. }| pod.annotation(annotation).is_some_and(says));
    let told = found.map(|OptOut { annotation, reason, .. }| Left {
        because: match *annotation {
            ISTIO_STATUS => Because::InitContainer(istio::INIT_CONTAINER),
            _ => Because::Told,
        },
        reason: format!("{reason} ({annotation})"),
    });
    Ok(told.or_else(|| left_to_init_container(pod.annotations.as_deref()?)))
}

/// What the injectors of Consul and Kuma say without a word of it: that their init container redirects the pod.
fn left_to_init_container(annotations: &Annotations) -> Option<Left> {
    let found = |name, reason: String| Left {
        because: Because::InitContainer(name),
        reason,
    };
    if consul::init_container_redirects(annotations) {
        let reason = "Consul's init container redirects it (there is no consul.hashicorp.com/redirect-traffic-config)";
        return Some(found(consul::INIT_CONTAINER, reason.to_owned()));
    }
    kuma::redirects_by_init_container(annotations).map(|reason| found(kuma::INIT_CONTAINER, reason))
}

/// Why the plugin redirects a pod that its names do not exempt, or why it does not.
fn reason(pod: &Pod<'_>, policy: &Policy) -> Result<Result<String, Left>, Undecided> {
    let is_left = |because, reason: &str| {
        let reason = reason.to_owned();
        Ok(Err(Left { because, reason }))
    };
    let always = match policy.select {
        Select::Never => return is_left(Because::Told, "select is never"),
        Select::Always => true,
        Select::Injected => false,
    };
    if pod.annotations.is_none() {
        return match policy.on_missing_annotations {
            _ if always => Ok(Ok("select is always".to_owned())),
            OnMissing::Pass => is_left(
                Because::Told,
                "its annotations are not known, and onMissingAnnotations is pass",
            ),
            OnMissing::Fail => Err(Undecided::NoAnnotations),
        };
    }
    if let Some(left) = opt_out(pod).map_err(|problem| Undecided::Invalid(vec![problem]))? {
        return Ok(Err(left));
    }
    let described = pod.described.as_ref();
    if described.is_some_and(|described| described.host_network) {
        return is_left(
            Because::HostNetwork,
            "hostNetwork is true: it is in the node's network, where no plugin is called",
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
            Some(_) => Ok(Ok(not_yet(pod))),
            None => is_left(Because::NotInjected, "it bears no mark of an injected sidecar"),
        },
    }
}

/// Why a pod that nobody has injected yet is taken for one that will be.
fn not_yet(pod: &Pod<'_>) -> String {
    match asked(pod) {
        Some(Mesh { name, injection, .. }) => {
            format!("{name}'s injector is told to inject a sidecar ({})", injection.name)
        }
        None => "taken as if a sidecar were injected, of which it bears no mark yet".to_owned(),
    }
}

/// The mesh whose injector is asked for a sidecar.
fn asked(pod: &Pod<'_>) -> Option<&'static Mesh> {
    told_by(pod, |injection| injection.yes)
}

/// The mesh whose injector reads this from the pod.
fn told_by(pod: &Pod<'_>, what: fn(&Injection) -> fn(&str) -> bool) -> Option<&'static Mesh> {
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

/// The mesh whose injector has left its mark.
fn injected(pod: &Pod<'_>) -> Option<&'static Mesh> {
    super::injected(pod.annotations.as_deref()?)
}

/// The mesh that a pod belongs to: by its mark; from a manifest also by what asks for a sidecar, or by the domains of
/// annotations and labels.
fn mesh_of(pod: &Pod<'_>) -> Option<&'static Mesh> {
    let by_domain = || {
        let described = pod.described.as_ref()?;
        let annotations = pod.annotations.as_deref().into_iter().flat_map(Annotations::names);
        let labels = described.labels.iter().map(|entry| entry.key.as_str());
        let domains: Vec<&str> = annotations
            .chain(labels)
            .filter_map(|name| Some(name.split_once('/')?.0))
            .collect();
        let is_its = |mesh: &&Mesh| domains.iter().any(|domain| domain.ends_with(mesh.domain));
        MESHES.iter().find(is_its)
    };
    injected(pod).or_else(|| asked(pod)).or_else(by_domain)
}

/// An init container redirects: no annotation holds it back, and its arguments say how.
fn by_init_container(pod: &Pod<'_>, container: &Container<'_>, given: &Given<'_>) -> Result<Verdict, Undecided> {
    let read = container.invocation().and_then(|invocation| (given.read)(&invocation));
    let is_told = read.is_some();
    let settings = match read {
        Some(Ok(settings)) => settings,
        Some(Err(mistakes)) => {
            return Err(Undecided::Arguments {
                container: container.called(),
                mistakes,
            });
        }
        None => usual(pod, given, container.mesh()),
    };
    let host_network = |described: &Described<'_>| described.host_network;
    let where_ = match pod.described.as_ref().is_some_and(host_network) {
        true => ", in the node's network (hostNetwork is true)",
        false => "",
    };
    Ok(Verdict::Redirected(Box::new(Redirected {
        by: By::InitContainer {
            name: container.name.to_owned(),
            is_told,
        },
        reason: format!("its init container {} redirects it{where_}", container.name),
        settings,
        unseen: Vec::new(),
    })))
}

/// A pod that the plugin is told to leave to an init container, of which no more is known.
pub fn by_unknown_init_container(pod: &Pod<'_>, given: &Given<'_>, name: &str, reason: &str) -> Verdict {
    Verdict::Redirected(Box::new(Redirected {
        by: By::InitContainer {
            name: name.to_owned(),
            is_told: false,
        },
        reason: reason.to_owned(),
        settings: usual(pod, given, None),
        unseen: Vec::new(),
    }))
}

/// What an init container of this mesh, or else the pod's, usually does.
fn usual(pod: &Pod<'_>, given: &Given<'_>, mesh: Option<&Mesh>) -> Settings {
    let more = Layer {
        mesh: mesh.map(|mesh| mesh.option),
        ..Layer::default()
    };
    let settings = merged(pod, given, more).and_then(super::settings);
    // What is wrong with annotations does not stop it.
    settings.unwrap_or_else(|_| super::settings(given.after.clone()).unwrap_or_default())
}

fn left(because: Because, reason: String) -> Verdict {
    Verdict::Left(Left { because, reason })
}
