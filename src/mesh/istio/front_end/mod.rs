//! `istio-iptables`: the flags and variables of `pilot-agent istio-iptables`.
//!
//! Where sidetrack takes them in another way than Istio does, `docs/istio-iptables.md` says so, and why.

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

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The settings, in our own terms.
    pub settings: Settings,
    /// What to do.
    pub task: Task,
    /// What to try in the end, if anything.
    pub probe: Option<Probe>,
    /// Where to work, if not here: the path of a network namespace.
    pub netns: Option<String>,
    /// The file that a dry run writes to, too.
    pub dry_run_file: Option<PathBuf>,
}

/// What is done about rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// They are applied, or printed.
    Apply,
    /// They are removed.
    Cleanup,
    /// Nothing.
    Nothing,
}

/// How to try whether traffic is redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The port to call.
    pub port: Port,
    /// How long it may take.
    pub timeout: Duration,
}

/// What was found in flags and variables.
#[derive(Debug)]
pub struct Parsed {
    /// What is asked for, or all that is wrong with it.
    pub request: Result<Request, Vec<Mistake>>,
    /// How to log, as far as that can be read.
    pub logging: Logging,
    /// Things that mean nothing here.
    pub notes: Vec<String>,
}

/// Reads every setting: a flag counts before a variable before the default.
///
/// `flag` gives the text of a setting's flag, `variable` that of a variable by name.
pub fn read(
    flag: impl Fn(&Setting) -> Option<String>,
    variable: impl Fn(&str) -> Option<String>,
    accounts: &dyn Accounts,
) -> Parsed {
    let (mut draft, mut mistakes, mut notes) = (Draft::default(), Vec::new(), Vec::new());
    for setting in SETTINGS {
        let given = find(setting, &flag, &variable);
        if given.is_some() && matches!(setting.kind, Kind::Ignored(_)) {
            notes.push(format!("--{} is accepted, but does nothing", setting.name));
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
    let logging = draft.logging();
    Parsed {
        request: draft.request(accounts, mistakes),
        logging,
        notes,
    }
}

/// The text that counts, and where it comes from; `None` where the default does.
fn find(
    setting: &Setting,
    flag: impl Fn(&Setting) -> Option<String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<(String, String)> {
    let says_something = |text: &str| !text.is_empty() || matches!(setting.kind, Kind::List(_));
    if let Some(text) = setting.has_flag().then(|| flag(setting)).flatten() {
        // An empty flag asks for the default, not for the variable. A switch must say which.
        let must_say = matches!(setting.kind, Kind::Switch | Kind::Checked(_));
        return (must_say || says_something(&text)).then(|| (format!("--{}", setting.name), text));
    }
    let variables = setting.variables().into_iter();
    variables
        .filter_map(|name| variable(&name).map(|text| (name, text)))
        .find(|(_, text)| says_something(text))
}
