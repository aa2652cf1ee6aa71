//! `istio-iptables`: the flags and variables of `pilot-agent istio-iptables`.
//!
//! `docs/istio-iptables.md` describes the differences to Istio, and the reasons.

mod draft;
pub mod table;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use self::draft::Draft;
use self::table::{Kind, SETTINGS, Setting};
use crate::mesh::front_end::Mistake;
use crate::options::{Logging, Settings};
use crate::types::{Accounts, Port};

/// The requested operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The settings of sidetrack.
    pub settings: Settings,
    /// The task.
    pub task: Task,
    /// The validation after the task, if any.
    pub probe: Option<Probe>,
    /// The path of a network namespace; `None` for the current one.
    pub netns: Option<String>,
    /// An additional output file of a dry run.
    pub dry_run_file: Option<PathBuf>,
}

/// The operation on the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Apply or print them.
    Apply,
    /// Remove them.
    Cleanup,
    /// Do not change them.
    Nothing,
}

/// A validation of the redirection by a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The port to connect to.
    pub port: Port,
    /// The timeout of the connection.
    pub timeout: Duration,
}

/// The result of parsing flags and variables.
#[derive(Debug)]
pub struct Parsed {
    /// The request, or all errors.
    pub request: Result<Request, Vec<Mistake>>,
    /// The log settings, as far as they are valid.
    pub logging: Logging,
    /// Notes about ignored settings.
    pub notes: Vec<String>,
}

/// Reads every setting: a flag overrides a variable, which overrides the default.
///
/// `flag` returns the value of a setting's flag, `variable` that of a variable by name.
pub fn read(
    flag: impl Fn(&Setting) -> Option<String>,
    variable: impl Fn(&str) -> Option<String>,
    accounts: &dyn Accounts,
) -> Parsed {
    let (mut draft, mut mistakes, mut notes) = (Draft::default(), Vec::new(), Vec::new());
    for setting in SETTINGS {
        let given = find(setting, &flag, &variable);
        if given.is_some() && matches!(setting.kind, Kind::Ignored(_)) {
            notes.push(format!("--{} is accepted and ignored", setting.name));
        }
        let by_default = || (format!("default of {}", setting.name), setting.default.to_owned());
        let (origin, text) = given.unwrap_or_else(by_default);
        if let Err(invalid) = (setting.read)(&mut draft, &text, accounts) {
            let usage = matches!(setting.kind, Kind::Switch | Kind::Checked(_)) && origin.starts_with("--");
            mistakes.extend(invalid.into_iter().map(|invalid| Mistake::Value {
                setting: setting.name,
                origin: origin.clone(),
                usage,
                invalid,
            }));
        }
    }
    let logging = Logging::of(&draft.layer);
    Parsed {
        request: draft.request(accounts, mistakes),
        logging,
        notes,
    }
}

/// The effective value and its origin; `None` for the default.
fn find(
    setting: &Setting,
    flag: impl Fn(&Setting) -> Option<String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<(String, String)> {
    let has_value = |text: &str| !text.is_empty() || matches!(setting.kind, Kind::List(_));
    if let Some(text) = setting.has_flag().then(|| flag(setting)).flatten() {
        // An empty flag selects the default, not the variable. A switch needs a value.
        let needs_value = matches!(setting.kind, Kind::Switch | Kind::Checked(_));
        return (needs_value || has_value(&text)).then(|| (format!("--{}", setting.name), text));
    }
    let variables = setting.variables().into_iter();
    variables
        .filter_map(|name| variable(&name).map(|text| (name, text)))
        .find(|(_, text)| has_value(text))
}
