//! `linkerd-proxy-init`: the flags of Linkerd's `proxy-init`.
//!
//! Where sidetrack takes them in another way than Linkerd does, `docs/linkerd-proxy-init.md` says so, and why.

mod draft;
pub mod table;
#[cfg(test)]
mod tests;
mod values;

use self::draft::Draft;
use self::table::{Kind, SETTINGS, Setting};
use crate::mesh::front_end::Mistake;
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
    pub request: Result<Request, Vec<Mistake>>,
    /// How to log, as far as that can be read.
    pub logging: Logging,
    /// Items that are not valid, and that are left out.
    pub left_out: Vec<String>,
    /// Things that mean nothing here.
    pub notes: Vec<String>,
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
            mistakes.extend(missing.map(|name| Mistake::of_flag(name, "it must be given")));
            continue;
        }
        if matches!(setting.kind, Kind::Ignored(_)) {
            notes.push(format!("--{} is accepted, but does nothing", setting.name));
        }
        let mistake = |invalid| Mistake::Value {
            setting: setting.name,
            origin: format!("--{}", setting.name),
            usage: false,
            invalid,
        };
        let invalid = (setting.read)(&mut draft, &texts).err().unwrap_or_default();
        mistakes.extend(invalid.into_iter().map(mistake));
        let items = std::mem::take(&mut draft.left_out).into_iter();
        left_out.extend(items.map(|invalid| format!("{}; left out", mistake(invalid))));
    }
    let logging = draft.logging();
    Parsed {
        request: draft.request(mistakes),
        logging,
        left_out,
        notes,
    }
}
