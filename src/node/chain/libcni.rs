//! The validation of libcni's `conf.go`, version 1.3.1, in its order of decisions.
//!
//! Go reads fields in any case, and `null` as a missing value. Both matter here: a text that libcni accepts has to be
//! accepted here.

use serde_json::{Map, Value};
use thiserror::Error;

/// The newest version that libcni knows (`version.Current`).
const CURRENT: Parsed = [1, 1, 0];

/// The reason why a runtime refuses a configuration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotAChain {
    /// No JSON, or not an object.
    #[error("it is not a JSON object: {0}")]
    Json(String),
    /// A list without a name.
    #[error("it has no \"name\"")]
    NoName,
    /// A list without plugins.
    #[error("its \"plugins\" is not a list of plugins, each with a \"type\"")]
    NoPlugins,
    /// A list that has neither plugins nor a folder of them.
    #[error("it has no \"plugins\", and no plugin in the folder {0:?}, which is named after the network")]
    NoPluginsInFolder(String),
    /// A list that claims to have all plugins, and has none.
    #[error("it has no \"plugins\", though \"loadOnlyInlinedPlugins\" is true")]
    NoInlinedPlugins,
    /// A plugin that has no type.
    #[error("it has no \"type\"")]
    NoType,
    /// A field of the wrong type.
    #[error("its {field:?} is not {expected}")]
    Field {
        /// The field.
        field: String,
        /// The expected type.
        expected: &'static str,
    },
    /// A plugin of the list's folder.
    #[error("{file}: {reason}")]
    InFolder {
        /// Its file.
        file: String,
        /// Its fault.
        reason: Box<NotAChain>,
    },
    /// The list's plugin directory is not a directory.
    #[error("{0:?}, which is named after the network, is not a folder of plugins")]
    NotAFolder(String),
    /// A file that no runtime can read either.
    #[error("it is not a regular file")]
    NotAFile,
}

fn not(field: &str, expected: &'static str) -> NotAChain {
    NotAChain::Field {
        field: field.to_owned(),
        expected,
    }
}

/// A JSON object.
///
/// # Errors
/// It is none.
pub fn object(text: &str) -> Result<Map<String, Value>, NotAChain> {
    serde_json::from_str(text).map_err(|error| NotAChain::Json(error.to_string()))
}

/// The fields of a list that libcni reads, besides its plugins.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The name of the network, which may be empty.
    pub name: String,
    /// The version that its plugins are run with; empty where it says none.
    pub version: String,
    /// Whether there is a list of plugins in it.
    pub has_plugins: bool,
    /// Whether plugins from the folder of the network's name come after them.
    pub takes_folder: bool,
}

/// `NetworkConfFromBytes`, up to the plugins.
///
/// # Errors
/// libcni refuses it.
pub fn head(list: &Map<String, Value>) -> Result<Head, NotAChain> {
    let name = match list.get("name") {
        None => return Err(NotAChain::NoName),
        Some(name) => name.as_str().ok_or_else(|| not("name", "a string"))?,
    };
    let version = match list.get("cniVersion") {
        None => "",
        Some(version) => version.as_str().ok_or_else(|| not("cniVersion", "a string"))?,
    };
    let version = match list.get("cniVersions") {
        None => version.to_owned(),
        Some(versions) => newest(version, versions)?,
    };
    boolean(list, "disableCheck")?;
    boolean(list, "disableGC")?;
    let inlined_only = boolean(list, "loadOnlyInlinedPlugins")?;
    let has_plugins = list.contains_key("plugins");
    if inlined_only && !has_plugins {
        return Err(NotAChain::NoInlinedPlugins);
    }
    Ok(Head {
        name: name.to_owned(),
        version,
        has_plugins,
        takes_folder: !inlined_only,
    })
}

/// Of several versions, the newest that libcni knows.
fn newest(version: &str, versions: &Value) -> Result<String, NotAChain> {
    const EXPECTED: &str = "a list of versions";
    let invalid = || not("cniVersions", EXPECTED);
    let mut known = Vec::new();
    for listed in versions.as_array().ok_or_else(invalid)? {
        let text = listed.as_str().ok_or_else(invalid)?;
        known.push((parse(text).ok_or_else(invalid)?, text));
    }
    if !version.is_empty() {
        known.push((parse(version).ok_or_else(|| not("cniVersion", "a version"))?, version));
    }
    known.retain(|(parsed, _)| *parsed <= CURRENT);
    let newest = known.into_iter().max_by_key(|(parsed, _)| *parsed);
    Ok(newest.map_or(version, |(_, text)| text).to_owned())
}

type Parsed = [i64; 3];

/// `version.ParseVersion`.
fn parse(version: &str) -> Option<Parsed> {
    if version.is_empty() {
        return Some([0, 1, 0]);
    }
    let mut parsed = [0; 3];
    for (index, part) in version.split('.').enumerate() {
        *parsed.get_mut(index)? = part.parse().ok()?;
    }
    Some(parsed)
}

/// `readBool`: a boolean, or its name.
fn boolean(list: &Map<String, Value>, key: &str) -> Result<bool, NotAChain> {
    match list.get(key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(_) => Err(not(key, "true or false")),
    }
}

/// The fields of a plugin that libcni reads (`types.PluginConf`).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plugin {
    /// The name of its binary.
    pub kind: String,
    /// `name`: of the network, where the plugin stands alone.
    pub name: String,
    /// `cniVersion`, likewise.
    pub version: String,
}

/// `NetworkPluginConfFromBytes`.
///
/// # Errors
/// libcni refuses it.
pub fn plugin(value: &Value) -> Result<Plugin, NotAChain> {
    let mut plugin = Plugin::default();
    // `null` is an empty plugin.
    let empty = Map::new();
    let members = match value {
        Value::Object(members) => members,
        Value::Null => &empty,
        _ => return Err(not("plugins", "a list of objects")),
    };
    for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        match key.to_ascii_lowercase().as_str() {
            "type" => plugin.kind = string(key, value)?,
            "name" => plugin.name = string(key, value)?,
            "cniversion" => plugin.version = string(key, value)?,
            "capabilities" => each(key, value, "an object of true and false", Value::is_boolean)?,
            "ipam" => members_are(key, value, &[("type", false)])?,
            "dns" => {
                let lists = ["nameservers", "search", "options"].map(|name| (name, true));
                members_are(key, value, &[&lists[..], &[("domain", false)]].concat())?;
            }
            "prevresult" => each(key, value, "an object", |_| true)?,
            "cni.dev/valid-attachments" => {
                for attachment in value.as_array().ok_or_else(|| not(key, "a list"))? {
                    members_are(key, attachment, &[("containerid", false), ("ifname", false)])?;
                }
            }
            _ => {}
        }
    }
    if plugin.kind.is_empty() {
        return Err(NotAChain::NoType);
    }
    Ok(plugin)
}

fn string(key: &str, value: &Value) -> Result<String, NotAChain> {
    value.as_str().map(str::to_owned).ok_or_else(|| not(key, "a string"))
}

/// An object whose values all satisfy `is_so`.
fn each(key: &str, value: &Value, expected: &'static str, is_so: fn(&Value) -> bool) -> Result<(), NotAChain> {
    let object = value.as_object();
    let is_so = object.is_some_and(|object| object.values().all(|value| value.is_null() || is_so(value)));
    if is_so { Ok(()) } else { Err(not(key, expected)) }
}

/// An object, whose members of these names in lower case are strings, or lists of them.
fn members_are(key: &str, value: &Value, known: &[(&str, bool)]) -> Result<(), NotAChain> {
    let is_text = |value: &Value| value.is_null() || value.is_string();
    let is_so = |(name, value): (&String, &Value)| {
        let known = known.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        match (known, value) {
            (None, _) | (_, Value::Null) => true,
            (Some((_, true)), Value::Array(list)) => list.iter().all(is_text),
            (Some((_, is_list)), value) => !is_list && value.is_string(),
        }
    };
    let is_object = value.is_null() || value.as_object().is_some_and(|object| object.iter().all(is_so));
    if is_object {
        Ok(())
    } else {
        Err(not(key, "an object as the specification has it"))
    }
}
