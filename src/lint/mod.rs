//! Looks at manifests before they are deployed, for what defeats redirection: documents in, findings out.
//!
//! Every pod is taken for one that is to be redirected, unless it opts out. How it is redirected is known from the
//! options of the mesh, its annotations, or the arguments of its init container.

mod annotations;
pub mod code;
mod container;
mod init;
mod manifest;
mod owners;
mod pod;
mod ports;
mod probes;
mod render;
mod subject;

pub use self::code::Code;
use self::manifest::Object;
pub use self::render::{Linted, VERSION, findings, json, pods, text};
use self::subject::{Subject, opt_out};
use crate::options::{Config, Layer};
use crate::yaml::{self, Position};

/// What is known besides the manifests.
pub struct Context<'c> {
    /// The options that hold for the whole mesh; annotations of pods count before them.
    pub settings: &'c Layer,
    /// Reads the command line of an init container.
    pub read: &'c ReadInvocation,
}

/// What a command line asks for, or all that is wrong with it; `None` where it is not known.
pub type ReadInvocation = dyn Fn(&Invocation<'_>) -> Option<Result<Config, Vec<String>>>;

/// The command line of an init container.
pub struct Invocation<'n> {
    /// The words: the program, if [`Self::has_program`], and its arguments.
    pub words: Vec<&'n str>,
    /// Whether the program is among the words, rather than part of the image.
    pub has_program: bool,
    /// The variables whose values are known.
    pub variables: Vec<(&'n str, &'n str)>,
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
    if let Some(reason) = opt_out(&pod, report) {
        return annotations::of_opted_out(&pod, &reason, report);
    }
    let subject = Subject::new(pod, context, report);
    annotations::look_at(&subject, report);
    if pod::never_redirected(&subject, report) {
        return;
    }
    pod::dns_policy(&subject, report);
    owners::look_at(&subject, report);
    ports::look_at(&subject, report);
    probes::look_at(&subject, report);
    init::look_at(&subject, report);
}
