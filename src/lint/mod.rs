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
mod subject;
mod unseen;

pub use self::code::Code;
pub use self::render::{Linted, VERSION, findings, json, pods, text};
use self::subject::Subject;
pub use crate::mesh::invocation::{Invocation, ReadInvocation};
use crate::mesh::manifest::{self, Object};
use crate::options::Layer;
use crate::yaml::{self, Position};

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
    let mut report = Report::default();
    for document in &yaml::documents(text)? {
        for object in manifest::objects(document) {
            match object {
                Object::Pod(pod) => {
                    report.pods += 1;
                    report.object = manifest::name(pod.object, pod.kind);
                    look_at(pod, context, &mut report);
                }
                Object::Service(service) => {
                    report.object = manifest::name(service, "Service");
                    ports::of_service(service, &mut report);
                }
            }
        }
    }
    report
        .findings
        .sort_by(|one, other| (one.at, one.code, &one.message).cmp(&(other.at, other.code, &other.message)));
    report.findings.dedup();
    Ok(report)
}

fn look_at(pod: manifest::Pod<'_>, context: &Context<'_>, report: &mut Report) {
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
    ports::look_at(&subject, report);
    probes::look_at(&subject, report);
    init::look_at(&subject, report);
}
