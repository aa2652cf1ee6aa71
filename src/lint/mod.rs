//! Looks at manifests before they are deployed, for what defeats redirection: documents in, findings out.
//!
//! Whether and how a pod is redirected is for [`crate::mesh::verdict`] to say.

mod annotations;
pub mod code;
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

/// What is known besides the manifests.
pub struct Context<'c> {
    /// The options that hold for the whole mesh; annotations of pods count before them.
    pub settings: &'c Layer,
    /// Reads the command line of an init container.
    pub read: &'c ReadInvocation,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// Where in the file.
    pub at: Position,
    /// What it was found in: kind, namespace and name.
    pub object: String,
    /// What exactly.
    pub message: String,
}

/// What was found in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings, in the order of the text.
    pub findings: Vec<Finding>,
    /// How many pods there are, those that opt out included.
    pub pods: usize,
    /// How many objects of each kind there are in which no pod was found; an empty kind stands for objects without one.
    pub skipped: BTreeMap<String, usize>,
    /// What is being looked at.
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

/// Looks at every document of a text, YAML or JSON.
///
/// # Errors
/// It is neither.
pub fn lint(text: &str, context: &Context<'_>) -> Result<Report, yaml::Error> {
    let documents = yaml::documents(text)?;
    Ok(lint_all(&[&documents], context).pop().unwrap_or_default())
}

/// Looks at the documents of several texts, which belong together: a report for each.
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
                look_at(pod, services, context, &mut report);
            }
            Object::Service(service) => {
                report.object = manifest::name(service, "Service");
                ports::of_service(service, &mut report);
                annotations::misplaced(service, "Service", &mut report);
            }
            Object::Namespace(namespace) => {
                report.object = manifest::name(namespace, "Namespace");
                annotations::misplaced(namespace, "Namespace", &mut report);
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

fn look_at(pod: manifest::Pod<'_>, services: &Services<'_>, context: &Context<'_>, report: &mut Report) {
    let Some(subject) = Subject::new(pod, context, report) else {
        return;
    };
    annotations::look_at(&subject, report);
    if pod::never_redirected(&subject, report) {
        return;
    }
    pod::dns_policy(&subject, report);
    owners::look_at(&subject, report);
    unseen::look_at(&subject, report);
    ports::look_at(&subject, services, report);
    probes::look_at(&subject, report);
    init::look_at(&subject, report);
}
