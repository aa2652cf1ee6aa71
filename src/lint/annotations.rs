//! Annotations beyond the values of each: where they stand, what they are called, and whether they agree.

use super::Report;
use super::code::Code;
use super::subject::{Said, Subject, find};
use crate::mesh::annotations::table::{self as mesh_annotations, Annotation, Meaning};
use crate::mesh::annotations::{OURS, REDIRECT};
use crate::mesh::manifest::Pod;
use crate::mesh::{MESHES, Place};
use crate::options::table;
use crate::types::{Number, Range, Ranges};
use crate::yaml::{Content, Entry, Node, Position};

/// The annotations whose values say how pods are redirected begin like this in Istio; it knows no others.
const OF_ISTIO: &str = "traffic.sidecar.istio.io/";
/// The ends of names that are long enough to mean one thing only.
const TELLING: usize = 12;

/// Looks at the annotations of a pod that is redirected.
pub fn look_at(subject: &Subject<'_>, report: &mut Report) {
    let said = &subject.said;
    texts(said.annotations, report);
    names(said.annotations, report);
    of_workload(&subject.pod, said, report);
    labels(said, report);
    same_option(said, report);
    no_effect(subject, report);
}

/// Looks at the annotations of a pod that keeps out.
pub fn of_opted_out(pod: &Pod<'_>, reason: &str, report: &mut Report) {
    let entries = pod.annotations().map(Node::entries).unwrap_or_default();
    texts(entries, report);
    for entry in entries
        .iter()
        .filter(|entry| says_how(&entry.key) && !reason.contains(&entry.key))
    {
        report.add(
            Code::Contradiction,
            entry.at,
            format!("{} does nothing: {reason}", entry.key),
        );
    }
}

/// Whether an annotation says how a pod is redirected.
fn says_how(name: &str) -> bool {
    (name.starts_with(OURS) && name != REDIRECT) || mesh_annotations::all().any(|known| known.name == name)
}

/// Whether an annotation says how, or whether, a pod is redirected.
fn is_about_redirection(name: &str) -> bool {
    says_how(name) || name == REDIRECT || says_whether(name)
}

/// Whether an annotation of a mesh says whether a pod is redirected.
fn says_whether(name: &str) -> bool {
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
        // What Kubernetes' tools take for true and false, as YAML 1.1 does.
        let words = ["y", "n", "yes", "no", "on", "off"];
        let word = words.iter().any(|word| text.eq_ignore_ascii_case(word));
        let value = entry.value.to_json();
        if word || value.is_number() || value.is_boolean() {
            report.add(
                Code::NotText,
                entry.value.at,
                format!("{}: {text} is not a text", entry.key),
            );
        }
    }
}

/// Names that are almost those of annotations about redirection.
fn names(annotations: &[Entry], report: &mut Report) {
    for Entry { key, at, .. } in annotations.iter().filter(|entry| !is_about_redirection(&entry.key)) {
        let (domain, name) = key.split_once('/').unwrap_or_default();
        let alike = || mesh_annotations::all().filter(|known| is_alike(known.name, name));
        let meant = alike()
            .find(|known| known.name.starts_with(domain))
            .or_else(|| alike().next());
        if let Some(Annotation { name, .. }) = meant {
            report.add(Code::UnknownAnnotation, *at, format!("{key}: did you mean {name}?"));
        } else if key.starts_with(OF_ISTIO) {
            let known: Vec<&str> = mesh_annotations::all()
                .filter_map(|known| known.name.strip_prefix(OF_ISTIO))
                .collect();
            let message = format!("{key}: {name} is none of {}", known.join(", "));
            report.add(Code::UnknownAnnotation, *at, message);
        }
    }
}

/// Whether a name is that of a known annotation but for its domain, case, hyphens or plural.
fn is_alike(known: &str, name: &str) -> bool {
    let bare = |name: &str| {
        name.replace('-', "")
            .to_ascii_lowercase()
            .trim_end_matches('s')
            .to_owned()
    };
    let known = bare(known.rsplit('/').next().unwrap_or_default());
    known.len() >= TELLING && known == bare(name)
}

fn of_workload(pod: &Pod<'_>, said: &Said<'_>, report: &mut Report) {
    let entries = pod.annotations_of_workload().map(Node::entries).unwrap_or_default();
    for entry in entries.iter().filter(|entry| is_about_redirection(&entry.key)) {
        if find(said.annotations, &entry.key).is_none() {
            let message = format!("{} is an annotation of the {} alone", entry.key, pod.kind);
            report.add(Code::AnnotationOfWorkload, entry.at, message);
        }
    }
}

/// Istio reads this one as a label, too, and the label counts.
fn labels(said: &Said<'_>, report: &mut Report) {
    const INJECT: &str = "sidecar.istio.io/inject";
    let value = |entries| find(entries, INJECT).and_then(|entry: &Entry| Some((entry.value.scalar()?, entry.at)));
    if let (Some((label, _)), Some((annotation, at))) = (value(said.labels), value(said.annotations))
        && label != annotation
    {
        let message = format!("{INJECT} is {annotation} here, and {label} among the labels");
        report.add(Code::Contradiction, at, message);
    }
}

/// Annotations that say different things about one option.
fn same_option(said: &Said<'_>, report: &mut Report) {
    let mut seen: Vec<(&str, &Entry)> = Vec::new();
    let ours = said.annotations.iter().filter_map(|entry| {
        let option = entry.key.strip_prefix(OURS).and_then(table::find)?;
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
                let message = format!("{} does nothing: {} says what {option} is", entry.key, first.key);
                report.add(Code::Contradiction, entry.at, message);
            }
        }
    }
}

/// Inclusions that an exclusion, or a wider inclusion, takes the effect from.
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
            report.add(Code::NoEffect, at, format!("{option}: {both} is excluded, too"));
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

/// Where an annotation says what an option is.
fn place(said: &Said<'_>, option: &str) -> Option<Position> {
    let means = |name: &str| {
        name.strip_prefix(OURS) == Some(option)
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
