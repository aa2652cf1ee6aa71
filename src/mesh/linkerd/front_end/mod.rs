//! `linkerd-proxy-init`: the flags of Linkerd's `proxy-init`.
//!
//! `docs/linkerd-proxy-init.md` describes the differences to Linkerd, and the reasons.

mod draft;
pub mod table;
#[cfg(test)]
mod tests;
mod values;

use self::draft::Draft;
use self::table::{Kind, SETTINGS, Setting};
use crate::mesh::front_end::Mistake;
use crate::options::{Logging, Settings};

/// The requested operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The settings of sidetrack.
    pub settings: Settings,
    /// The path of a network namespace; `None` for the current one.
    pub netns: Option<String>,
}

/// The result of parsing flags.
#[derive(Debug)]
pub struct Parsed {
    /// The request, or all errors.
    pub request: Result<Request, Vec<Mistake>>,
    /// The log settings, as far as they are valid.
    pub logging: Logging,
    /// Invalid items that are ignored.
    pub ignored_items: Vec<String>,
    /// Notes about ignored settings.
    pub notes: Vec<String>,
}

/// Required flags.
const REQUIRED: [&str; 2] = ["incoming-proxy-port", "outgoing-proxy-port"];

/// Reads every flag; `given` returns the values of one, in order.
pub fn read(given: impl Fn(&Setting) -> Vec<String>) -> Parsed {
    let (mut draft, mut mistakes) = (Draft::default(), Vec::new());
    let (mut ignored_items, mut notes) = (Vec::new(), Vec::new());
    for setting in SETTINGS {
        let texts = given(setting);
        if texts.is_empty() {
            let missing = REQUIRED.contains(&setting.name).then_some(setting.name);
            mistakes.extend(missing.map(|name| Mistake::of_flag(name, "it is required")));
            continue;
        }
        if matches!(setting.kind, Kind::Ignored(_)) {
            notes.push(format!("--{} is accepted and ignored", setting.name));
        }
        let mistake = |invalid| Mistake::Value {
            setting: setting.name,
            origin: format!("--{}", setting.name),
            usage: false,
            invalid,
        };
        let invalid = (setting.read)(&mut draft, &texts).err().unwrap_or_default();
        mistakes.extend(invalid.into_iter().map(mistake));
        let items = std::mem::take(&mut draft.ignored_items).into_iter();
        ignored_items.extend(items.map(|invalid| format!("{}; ignored", mistake(invalid))));
    }
    let logging = Logging::of(&draft.layer);
    Parsed {
        request: draft.request(mistakes),
        logging,
        ignored_items,
        notes,
    }
}
