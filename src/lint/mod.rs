//! Checks manifests before deployment for settings that defeat redirection: documents in, findings out.
//!
//! [`crate::mesh::verdict`] decides whether and how a pod is redirected.

mod annotations;
pub mod code;
mod holes;
mod init;
mod owners;
mod pod;
mod ports;
mod probes;
mod render;
mod sarif;
mod service;
mod subject;
mod unseen;

use std::collections::BTreeMap;

pub use self::code::Code;
pub use self::render::{Linted, VERSION, findings, github, json, pods, skipped, text};
pub use self::sarif::sarif;
use self::service::Services;
use self::subject::Subject;
pub use crate::mesh::invocation::{Invocation, ReadInvocation};
use crate::mesh::manifest::{self, Object};
use crate::options::Layer;
use crate::yaml::{self, Node, Position};

/// The inputs besides the manifests.
pub struct Context<'c> {
    /// The options of the whole mesh, which annotations of pods override.
    pub settings: &'c Layer,
    /// Reads the command line of an init container.
    pub read: &'c ReadInvocation,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind of finding.
    pub code: Code,
    /// The position in the file.
    pub at: Position,
    /// The object: kind, namespace and name.
    pub object: String,
    /// The details.
    pub message: String,
}

/// The result for one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings, in the order of the text.
    pub findings: Vec<Finding>,
    /// The number of pods, including those that opt out.
    pub pods: usize,
    /// The number of objects without a pod, by kind; an empty kind stands for objects without a kind.
    pub skipped: BTreeMap<String, usize>,
    /// The object that is being checked.
    object: String,
}

impl Report {
    fn add(&mut self, code: Code, at: Position, message: impl Into<String>) {
        self.findings.push(Finding {
            code,
            at,
            object: self.object.clone(),
            message: message.into(),
        });
    }
}

/// Checks every document of a text, YAML or JSON.
///
/// # Errors
/// The text is neither.
pub fn lint(text: &str, context: &Context<'_>) -> Result<Report, yaml::Error> {
    let documents = yaml::documents(text)?;
    Ok(lint_all(&[&documents], context).pop().unwrap_or_default())
}

/// Checks the documents of several texts that belong together, and returns a report for each text.
pub fn lint_all(texts: &[&[Node]], context: &Context<'_>) -> Vec<Report> {
    let services = Services::of(texts.iter().copied().flatten());
    texts
        .iter()
        .map(|documents| report(documents, &services, context))
        .collect()
}

fn report(documents: &[Node], services: &Services<'_>, context: &Context<'_>) -> Report {
    let mut report = Report::default();
    for object in documents.iter().flat_map(manifest::objects) {
        match object {
            Object::Pod(pod) => {
                report.pods += 1;
                report.object = manifest::name(pod.object, pod.kind);
                check(pod, services, context, &mut report);
            }
            Object::Service(service) => {
                report.object = manifest::name(service, "Service");
                ports::check_service(service, &mut report);
                annotations::check_misplaced(service, "Service", &mut report);
            }
            Object::Namespace(namespace) => {
                report.object = manifest::name(namespace, "Namespace");
                annotations::check_misplaced(namespace, "Namespace", &mut report);
            }
            Object::Other(kind) => *report.skipped.entry(kind.to_owned()).or_default() += 1,
        }
    }
    report
        .findings
        .sort_by(|one, other| (one.at, one.code, &one.message).cmp(&(other.at, other.code, &other.message)));
    report.findings.dedup();
    report
}

fn check(pod: manifest::Pod<'_>, services: &Services<'_>, context: &Context<'_>, report: &mut Report) {
    let Some(subject) = Subject::new(pod, context, report) else {
        return;
    };
    annotations::check(&subject, report);
    if pod::never_redirected(&subject, report) {
        return;
    }
    pod::dns_policy(&subject, report);
    owners::check(&subject, report);
    unseen::check(&subject, report);
    ports::check(&subject, services, report);
    probes::check(&subject, report);
    init::check(&subject, report);
    holes::check(&subject, report);
}
