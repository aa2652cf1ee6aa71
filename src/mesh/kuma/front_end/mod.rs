//! `kuma-init`: the flags, configuration and variables of `kumactl install transparent-proxy`.
//!
//! `docs/kuma-init.md` describes the differences to Kuma, and the reasons.

mod draft;
pub mod table;
#[cfg(test)]
mod tests;
mod values;

use serde_json::Value;

use self::draft::Draft;
use self::table::{Kind, SETTINGS, Setting};
pub use self::values::{networks, ports_for_uids};
use crate::mesh::front_end::Mistake;
use crate::mesh::go;
use crate::options::Settings;
use crate::options::problem::Problem;
use crate::types::Accounts;
use crate::yaml;

/// The prefix of variables.
pub const VARIABLES: &str = "KUMA_TRANSPARENT_PROXY_";

/// A file of `--config`: its name in messages, and its text.
pub type Document = (String, String);

/// The result of parsing flags, files and variables.
#[derive(Debug)]
pub struct Parsed {
    /// The settings of sidetrack, or all errors.
    pub settings: Result<Settings, Vec<Mistake>>,
    /// Notes about ignored settings.
    pub notes: Vec<String>,
    /// Warnings about settings with unexpected effects.
    pub warnings: Vec<String>,
}

/// Reads every setting, in this order of precedence: flag, variable, last file, default. Variables only apply if there is
/// a file.
///
/// `flag` returns the values of a setting's flag, `variable` that of a variable by name.
pub fn read(
    flag: impl Fn(&Setting) -> Option<Vec<String>>,
    documents: &[Document],
    variable: impl Fn(&str) -> Option<String>,
    accounts: &dyn Accounts,
) -> Parsed {
    let (mut draft, mut mistakes) = (Draft::default(), Vec::new());
    let mut files = Vec::new();
    for (name, text) in documents {
        match yaml::document(text) {
            Ok(document) => files.push((name.as_str(), document.to_json())),
            Err(error) => mistakes.push(Mistake::Other {
                setting: "",
                origin: name.clone(),
                reason: error.to_string(),
            }),
        }
    }
    let variable = |setting: &Setting| match documents {
        [] => None,
        _ => variable(&setting.variable()?),
    };
    for setting in SETTINGS {
        let given = match find(setting, &flag, &files, variable) {
            Ok(given) => given,
            Err(mistake) => {
                mistakes.push(mistake);
                continue;
            }
        };
        let ignored = matches!(setting.kind, Kind::Ignored(_) | Kind::IgnoredSwitch);
        // Kuma's injector writes every default, which needs no note.
        if let Some((origin, texts)) = &given
            && ignored
            && *texts != setting.default_texts()
        {
            draft.notes.push(format!("{origin} is accepted and ignored"));
        }
        let (origin, texts) = given.unwrap_or_else(|| (format!("--{}", setting.name), setting.default_texts()));
        if let Err(invalid) = (setting.read)(&mut draft, &texts, accounts) {
            mistakes.extend(invalid.into_iter().map(|invalid| Mistake::Value {
                setting: setting.name,
                origin: origin.clone(),
                usage: false,
                invalid,
            }));
        }
    }
    if is_flag_true(&flag, "redirect-dns") && is_flag_true(&flag, "redirect-all-dns-traffic") {
        let both = ["redirect-dns", "redirect-all-dns-traffic"];
        mistakes.push(Mistake::Contradiction(Problem::between(
            &both,
            "only one of them should be specified",
        )));
    }
    let (notes, warnings) = (std::mem::take(&mut draft.notes), std::mem::take(&mut draft.warnings));
    Parsed {
        settings: draft.settings(accounts, mistakes),
        notes,
        warnings,
    }
}

/// The effective values and their origin; `None` for the default.
fn find(
    setting: &Setting,
    flag: impl Fn(&Setting) -> Option<Vec<String>>,
    files: &[(&str, Value)],
    variable: impl Fn(&Setting) -> Option<String>,
) -> Result<Option<(String, Vec<String>)>, Mistake> {
    if let Some(texts) = setting.has_flag().then(|| flag(setting)).flatten() {
        return Ok(Some((format!("--{}", setting.name), texts)));
    }
    if let (Some(text), Some(name)) = (variable(setting), setting.variable()) {
        let texts = match setting.kind {
            Kind::Many(_) if text.is_empty() => Vec::new(),
            Kind::Many(_) => text.split(',').map(str::to_owned).collect(),
            _ => vec![text],
        };
        return Ok(Some((name, texts)));
    }
    for (file, document) in files.iter().rev().filter(|_| !setting.key.is_empty()) {
        let origin = format!("{file}: {}", setting.key);
        let member = setting.key.split('.').try_fold(document, |value, key| value.get(key));
        match member.map(texts) {
            None | Some(Some(None)) => {}
            Some(Some(Some(texts))) => {
                let texts = match setting.kind {
                    Kind::Many(_) => texts,
                    _ => vec![texts.join(",")],
                };
                return Ok(Some((origin, texts)));
            }
            Some(None) => {
                return Err(Mistake::Other {
                    setting: setting.name,
                    origin,
                    reason: "neither a value nor a list of values".to_owned(),
                });
            }
        }
    }
    Ok(None)
}

/// Converts the member of a document to texts, a mapping to `NAME:VALUE`: `Some(None)` for null, `None` for anything that
/// is not a value or a list of values.
fn texts(value: &Value) -> Option<Option<Vec<String>>> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    match value {
        Value::Null => Some(None),
        Value::Array(items) => items.iter().map(scalar).collect::<Option<_>>().map(Some),
        Value::Object(entries) => {
            let pair = |(name, value)| Some(format!("{name}:{}", scalar(value)?));
            entries.iter().map(pair).collect::<Option<_>>().map(Some)
        }
        value => scalar(value).map(|text| Some(vec![text])),
    }
}

fn is_flag_true(flag: impl Fn(&Setting) -> Option<Vec<String>>, name: &str) -> bool {
    let texts = SETTINGS.iter().find(|setting| setting.name == name).and_then(flag);
    let last = texts.and_then(|mut texts| texts.pop());
    last.is_some_and(|text| go::boolean(&text) == Ok(true))
}
