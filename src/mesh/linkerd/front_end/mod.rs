//! `linkerd-proxy-init`: the flags of Linkerd's `proxy-init`.
//!
//! Where sidetrack takes them in another way than Linkerd does, `docs/linkerd-proxy-init.md` says so, and why.

mod draft;
pub mod table;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;

use self::draft::Draft;
use self::table::{Kind, SETTINGS, Setting};
use crate::options::problem::{Problem, Source};
use crate::options::{Logging, Settings};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The settings, in our own terms.
    pub settings: Settings,
    /// Where to work, if not here: the path of a network namespace.
    pub netns: Option<String>,
}

/// What was found in flags.
#[derive(Debug)]
pub struct Parsed {
    /// What is asked for, or all that is wrong with it.
    pub request: Result<Request, Vec<Unusable>>,
    /// How to log, as far as that can be read.
    pub logging: Logging,
    /// Items that are not valid, and that are left out.
    pub left_out: Vec<String>,
    /// Things that mean nothing here.
    pub notes: Vec<String>,
}

/// One thing that is wrong with the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A flag that must be there is not.
    Missing(&'static str),
    /// A value is not valid, or values do not go together.
    Problem(Problem),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "--{name}: it must be given"),
            Self::Problem(problem) => problem.fmt(f),
        }
    }
}

/// Flags that must be there.
const REQUIRED: [&str; 2] = ["incoming-proxy-port", "outgoing-proxy-port"];

/// Reads every flag; `given` has the texts of one, in their order.
pub fn read(given: impl Fn(&Setting) -> Vec<String>) -> Parsed {
    let (mut draft, mut mistakes) = (Draft::default(), Vec::new());
    let (mut left_out, mut notes) = (Vec::new(), Vec::new());
    for setting in SETTINGS {
        let texts = given(setting);
        if texts.is_empty() {
            let missing = REQUIRED.contains(&setting.name).then_some(setting.name);
            mistakes.extend(missing.map(Unusable::Missing));
            continue;
        }
        if matches!(setting.kind, Kind::Ignored(_)) {
            notes.push(format!("--{} is accepted, but does nothing", setting.name));
        }
        let problem = |invalid| Problem::Value {
            source: Source::Flag,
            option: setting.name.to_owned(),
            invalid,
        };
        let invalid = (setting.read)(&mut draft, &texts).err().unwrap_or_default();
        mistakes.extend(invalid.into_iter().map(|invalid| Unusable::Problem(problem(invalid))));
        let items = std::mem::take(&mut draft.left_out).into_iter();
        left_out.extend(items.map(|invalid| format!("{}; left out", problem(invalid))));
    }
    let logging = draft.logging();
    let request = if mistakes.is_empty() {
        draft.request()
    } else {
        Err(mistakes)
    };
    Parsed {
        request,
        logging,
        left_out,
        notes,
    }
}
