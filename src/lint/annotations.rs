//! Checks of annotations beyond single values: their place, their names, and contradictions between them.

use super::Report;
use super::code::Code;
use super::subject::{Said, Subject, find};
use crate::mesh::annotations::table::{self as mesh_annotations, Annotation, Meaning};
use crate::mesh::annotations::{PREFIX, REDIRECT};
use crate::mesh::manifest::Pod;
use crate::mesh::{MESHES, Mesh, Place};
use crate::options::table;
use crate::types::{MeshName, Number, Range, Ranges};
use crate::yaml::{Content, Entry, Node, Position};

/// The prefix of Istio's annotations about redirection. Istio rejects unknown names with it.
const ISTIO_PREFIX: &str = "traffic.sidecar.istio.io/";
/// The minimum length of a name that is compared with known ones: shorter names are ambiguous.
const MIN_SIMILAR_LENGTH: usize = 12;

/// Checks the annotations of a pod that is redirected.
pub fn check(subject: &Subject<'_>, report: &mut Report) {
    let said = &subject.said;
    texts(said.annotations, report);
    names(said.annotations, report);
    of_workload(&subject.pod, said, report);
    labels(said, report);
    same_option(said, report);
    no_effect(subject, report);
}

/// Checks the annotations of a pod that opts out.
pub fn check_opted_out(pod: &Pod<'_>, reason: &str, report: &mut Report) {
    let entries = pod.annotations().map(Node::entries).unwrap_or_default();
    texts(entries, report);
    let value = |name: &str| find(entries, name).and_then(|entry| entry.value.scalar());
    let injector = MESHES.iter().find(|mesh| mesh.has_injected(value));
    // Injectors write their annotations even if they have no effect.
    let is_injectors =
        |name: &str| injector.is_some_and(|mesh| mesh.annotations.iter().any(|known| known.name == name));
    for entry in entries
        .iter()
        .filter(|entry| configures_redirection(&entry.key) && !reason.contains(&entry.key) && !is_injectors(&entry.key))
    {
        report.add(
            Code::Contradiction,
            entry.at,
            format!("{} has no effect: {reason}", entry.key),
        );
    }
}

/// Whether an annotation configures redirection.
fn configures_redirection(name: &str) -> bool {
    (name.starts_with(PREFIX) && name != REDIRECT) || mesh_annotations::all().any(|known| known.name == name)
}

/// Whether an annotation configures redirection or selects pods for it.
pub fn is_about_redirection(name: &str) -> bool {
    configures_redirection(name) || name == REDIRECT || selects_pods(name)
}

/// Whether an annotation of a mesh selects pods for redirection.
fn selects_pods(name: &str) -> bool {
    let is_opt_out = || {
        MESHES
            .iter()
            .flat_map(|mesh| mesh.opt_outs)
            .any(|known| known.annotation == name)
    };
    MESHES
        .iter()
        .any(|mesh| mesh.injection.place != Place::Label && mesh.injection.name == name)
        || is_opt_out()
}

fn texts(annotations: &[Entry], report: &mut Report) {
    for entry in annotations.iter().filter(|entry| is_about_redirection(&entry.key)) {
        let Content::Scalar { text, plain: true } = &entry.value.content else {
            continue;
        };
        let value = entry.value.in_kubernetes();
        if value.is_number() || value.is_boolean() {
            report.add(
                Code::NotText,
                entry.value.at,
                format!("{}: {text} is not a string", entry.key),
            );
        }
    }
}

/// Reports names that are similar to those of annotations about redirection.
fn names(annotations: &[Entry], report: &mut Report) {
    for Entry { key, at, .. } in annotations.iter().filter(|entry| !is_about_redirection(&entry.key)) {
        let (domain, name) = key.split_once('/').unwrap_or_default();
        let similar = || mesh_annotations::all().filter(|known| is_similar(known.name, name));
        let meant = similar()
            .find(|known| known.name.starts_with(domain))
            .or_else(|| similar().next());
        if let Some(Annotation { name, .. }) = meant {
            report.add(Code::UnknownAnnotation, *at, format!("{key}: did you mean {name}?"));
        } else if key.starts_with(ISTIO_PREFIX) {
            let known: Vec<&str> = mesh_annotations::all()
                .filter_map(|known| known.name.strip_prefix(ISTIO_PREFIX))
                .collect();
            let message = format!("{key}: {name} is not one of {}", known.join(", "));
            report.add(Code::UnknownAnnotation, *at, message);
        }
    }
}

/// Whether a name differs from that of a known annotation only by domain, case, hyphens or plural.
fn is_similar(known: &str, name: &str) -> bool {
    let bare = |name: &str| {
        name.replace('-', "")
            .to_ascii_lowercase()
            .trim_end_matches('s')
            .to_owned()
    };
    let known = bare(known.rsplit('/').next().unwrap_or_default());
    known.len() >= MIN_SIMILAR_LENGTH && known == bare(name)
}

/// Reports annotations about redirection on an object whose annotations no tool reads.
pub fn check_misplaced(object: &Node, kind: &str, report: &mut Report) {
    let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
    for entry in annotations.map(Node::entries).unwrap_or_default() {
        // Linkerd's injector copies those of a namespace to its pods.
        let inherits = |mesh: &Mesh| mesh.option == MeshName::Linkerd;
        let domain = entry.key.split_once('/').unwrap_or_default().0;
        let is_inherited = MESHES
            .iter()
            .any(|mesh| domain.ends_with(mesh.domain) && inherits(mesh));
        if is_about_redirection(&entry.key) && !(kind == "Namespace" && is_inherited) {
            let message = format!("{} is set on a {kind}, and pods do not inherit it", entry.key);
            report.add(Code::Misplaced, entry.at, message);
        }
    }
}

fn of_workload(pod: &Pod<'_>, said: &Said<'_>, report: &mut Report) {
    let entries = pod.annotations_of_workload().map(Node::entries).unwrap_or_default();
    for entry in entries.iter().filter(|entry| is_about_redirection(&entry.key)) {
        if find(said.annotations, &entry.key).is_none() {
            let message = format!("{} is set on the {}, but not on its pod template", entry.key, pod.kind);
            report.add(Code::AnnotationOfWorkload, entry.at, message);
        }
    }
}

/// Reports labels that are only read as annotations. Istio reads one annotation also as a label, which takes precedence.
fn labels(said: &Said<'_>, report: &mut Report) {
    for entry in said.labels {
        let is_read = MESHES
            .iter()
            .any(|mesh| mesh.injection.name == entry.key && mesh.injection.place != Place::Annotation);
        if is_about_redirection(&entry.key) && !is_read {
            let message = format!("{} is a label, but it is only read as an annotation", entry.key);
            report.add(Code::Misplaced, entry.at, message);
        }
    }
    const INJECT: &str = "sidecar.istio.io/inject";
    let value = |entries| find(entries, INJECT).and_then(|entry: &Entry| Some((entry.value.scalar()?, entry.at)));
    if let (Some((label, _)), Some((annotation, at))) = (value(said.labels), value(said.annotations))
        && label != annotation
    {
        let message = format!("the annotation {INJECT} is {annotation}, and the label is {label}");
        report.add(Code::Contradiction, at, message);
    }
}

/// Reports annotations that set one option to different values.
fn same_option(said: &Said<'_>, report: &mut Report) {
    let mut seen: Vec<(&str, &Entry)> = Vec::new();
    let ours = said.annotations.iter().filter_map(|entry| {
        let option = entry.key.strip_prefix(PREFIX).and_then(table::find)?;
        Some((option.name, entry))
    });
    let of_meshes = mesh_annotations::all().filter_map(|known| match known.meaning {
        Meaning::Option(option) | Meaning::IptablesPorts(option) => Some((option, find(said.annotations, known.name)?)),
        Meaning::Switch { .. }
        | Meaning::GoBoolean { .. }
        | Meaning::Word(_)
        | Meaning::AlsoExcludedInbound
        | Meaning::KumaPortsForUids(_)
        | Meaning::Served { .. }
        | Meaning::Document(_)
        | Meaning::Read(_) => None,
    });
    for (option, entry) in ours.chain(of_meshes) {
        let known = seen.iter().find(|(seen, _)| *seen == option);
        match known {
            None => seen.push((option, entry)),
            Some((_, first)) if first.value.scalar() == entry.value.scalar() => {}
            Some((_, first)) => {
                let message = format!("{} has no effect: {} sets {option}", entry.key, first.key);
                report.add(Code::Contradiction, entry.at, message);
            }
        }
    }
}

/// Reports inclusions without effect, because of an exclusion or a wider inclusion.
fn no_effect(subject: &Subject<'_>, report: &mut Report) {
    let (inbound, outbound) = (&subject.config.inbound, &subject.config.outbound);
    let place = |option: &str| place(&subject.said, option);
    let lists = [
        ("include-inbound-ports", &inbound.include_ports, &inbound.exclude_ports),
        (
            "include-outbound-ports",
            &outbound.include_ports,
            &outbound.exclude_ports,
        ),
    ];
    for (option, included, excluded) in lists {
        let both = common(included, excluded);
        if let (Some(at), false, false) = (place(option), included.is_everything(), both.is_empty()) {
            report.add(Code::NoEffect, at, format!("{option}: {both} is also excluded"));
        }
    }
    if let (Some(at), true, false) = (
        place("include-outbound-ports"),
        outbound.include_cidrs.is_everything(),
        outbound.include_ports.is_empty(),
    ) {
        report.add(
            Code::NoEffect,
            at,
            "include-outbound-ports: every address is included already",
        );
    }
}

/// The position of the annotation that sets an option.
pub fn place(said: &Said<'_>, option: &str) -> Option<Position> {
    let means = |name: &str| {
        name.strip_prefix(PREFIX) == Some(option)
            || mesh_annotations::all()
                .any(|known| known.name == name && matches!(known.meaning, Meaning::Option(of) if of == option))
    };
    said.annotations
        .iter()
        .find(|entry| means(&entry.key))
        .map(|entry| entry.at)
}

/// The numbers that are in both sets.
fn common<N: Number>(one: &Ranges<N>, other: &Ranges<N>) -> Ranges<N> {
    let pairs = one.iter().flat_map(|one| other.iter().map(move |other| (one, other)));
    pairs
        .filter_map(|(one, other)| Range::new(one.first().max(other.first()), one.last().min(other.last())))
        .collect()
}
