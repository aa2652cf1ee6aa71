//! The pod of a manifest, for `explain --pod FILE`.

use std::io;
use std::net::IpAddr;

use clap::ArgMatches;
use serde_json::{Map, Value};

use super::plan_flags;
use crate::cli::failure::Failure;
use crate::cli::invocation;
use crate::cli::settings::{Around, around_pod};
use crate::mesh::annotations::Annotations;
use crate::mesh::manifest;
use crate::mesh::pod::Pod;
use crate::mesh::policy::Policy;
use crate::mesh::verdict::{self, By, Inputs, SkipKind, Skipped, Undecided, Unseen, Verdict};
use crate::yaml::{self, Node};

/// The description of a pod.
pub struct Manifest {
    /// Whether a file or annotations describe it.
    pub is_given: bool,
    document: Node,
    annotations: Annotations,
    pub addresses: Vec<IpAddr>,
}

/// The manifest, if there is one, and the annotations given as arguments, which override its own.
pub fn manifest_of(path: Option<&str>, matches: &ArgMatches) -> Result<Manifest, String> {
    let document = match path {
        Some(path) => yaml::document(&contents(path)?)
            .map_err(|error| format!("--pod: {path}:{}:{}: {}", error.at.line, error.at.column, error.reason))?,
        None => Node::empty(),
    };
    let pod = manifest::only_pod(&document).map_err(|error| format!("--pod: {error}"))?;
    let mut annotations = match pod.annotations().map(Node::to_json) {
        Some(Value::Object(annotations)) => annotations,
        _ => Map::new(),
    };
    let mut is_given = path.is_some();
    for given in matches.get_many::<String>("annotation").into_iter().flatten() {
        let Some((name, value)) = given.split_once('=') else {
            return Err(format!("--annotation: {given:?} is not NAME=VALUE"));
        };
        annotations.insert(name.to_owned(), value.into());
        is_given = true;
    }
    let status = document.get("status").and_then(|status| status.get("podIPs"));
    let addresses = status.map(Node::items).unwrap_or_default().iter();
    let addresses = addresses.filter_map(|entry| entry.get("ip")?.scalar()?.parse().ok());
    Ok(Manifest {
        is_given,
        addresses: addresses.collect(),
        annotations: Annotations::of(&Value::Object(annotations))
            .map_err(|error| format!("--pod: annotations: {error}"))?,
        document,
    })
}

/// Whether a pod is redirected, and how.
pub fn verdict_of(pod: &Manifest, matches: &ArgMatches) -> Result<Verdict, Failure> {
    let mistake = |text: String| Failure::Input(vec![text]);
    let Around { before, after } = around_pod(matches)?;
    let described = manifest::only_pod(&pod.document).map_err(mistake)?;
    let facts = Pod::of_manifest(&described, pod.annotations.clone());
    let inputs = Inputs {
        policy: &Policy::default(),
        overrides: &before,
        fallbacks: &after,
        read: &invocation::read,
    };
    let verdict = match verdict::verdict(&facts, &inputs) {
        Ok(Verdict::Skipped(Skipped {
            kind: SkipKind::InitContainer(name),
            reason,
        })) => verdict::by_unknown_init_container(&facts, &inputs, name, &reason),
        Ok(verdict) => verdict,
        Err(Undecided::NoAnnotations) => return Err(mistake("--pod: its annotations are not known".to_owned())),
        Err(Undecided::Invalid(problems)) => return Err(problems.into()),
        Err(Undecided::Arguments { container, mistakes }) => {
            let mistakes = mistakes.iter().map(|text| format!("--pod: {container}: {text}"));
            return Err(Failure::Input(mistakes.collect()));
        }
    };
    if let Verdict::Redirected(redirected) = &verdict {
        if let (
            By::InitContainer {
                name,
                has_known_arguments: true,
            },
            Some(flag),
        ) = (&redirected.by, plan_flags(matches).first())
        {
            let reason =
                format!("--{flag} has no effect: the arguments of the init container {name} determine the rules");
            return Err(mistake(reason));
        }
        for Unseen {
            what,
            annotation,
            value,
            ..
        } in &redirected.unseen
        {
            tracing::warn!("the plugin does not see that {what}; set {annotation}: {value:?}");
        }
    }
    Ok(verdict)
}

/// The text of a file, or of standard input.
pub fn contents(path: &str) -> Result<String, String> {
    let read = match path {
        "-" => io::read_to_string(io::stdin()),
        path => std::fs::read_to_string(path),
    };
    read.map_err(|error| format!("{path}: {error}"))
}

/// The name servers of the pod, if the manifest determines them: with the DNS policy `None`, they are those of its
/// `dnsConfig`. With any other, they are those of the cluster or of the node.
pub fn name_servers(manifest: &Manifest) -> Option<Vec<IpAddr>> {
    let spec = manifest::only_pod(&manifest.document).ok()?.spec;
    if spec.get("dnsPolicy").and_then(Node::scalar) != Some("None") {
        return None;
    }
    let listed = spec.get("dnsConfig")?.get("nameservers").map(Node::items)?;
    Some(
        listed
            .iter()
            .filter_map(|server| server.scalar()?.parse().ok())
            .collect(),
    )
}
