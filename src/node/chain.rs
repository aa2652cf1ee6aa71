//! Our entry in the chain of plugins that a conflist names: edits of its text, and nothing else.
//!
//! A conflist belongs to somebody else. So it is not read into values and written anew, which would change numbers,
//! escapes, order and layout: only the bytes of our own entry are put in and taken out. What one edit puts in, the
//! other takes out to the byte.

use std::ops::Range;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::cni::verbatim::{elements, member};
use crate::cni::version::Version;

/// The type of our plugin, which is the name of its binary.
pub const PLUGIN: &str = "sidetrack";

/// The key of an entry that says who installed it. One that was written by hand has none.
pub const INSTALLER: &str = "installer";

/// Why a text is not a configuration that a runtime takes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotAChain {
    /// No JSON, or not an object.
    #[error("it is not a JSON object: {0}")]
    Json(String),
    /// A network without a name.
    #[error("it has no \"name\"")]
    NoName,
    /// A list without plugins.
    #[error("its \"plugins\" is not a list of plugins, each with a \"type\"")]
    NoPlugins,
    /// A configuration of one plugin that has no type.
    #[error("it has no \"type\"")]
    NoType,
}

/// A network configuration of either form, and where in its text the plugins are.
#[derive(Debug)]
pub struct Chain<'t> {
    text: &'t str,
    object: Map<String, Value>,
    /// Where the list of plugins is; `None` in a configuration of a single plugin.
    list: Option<Range<usize>>,
    plugins: Vec<Plugin>,
}

#[derive(Debug)]
struct Plugin {
    at: Range<usize>,
    value: Value,
}

impl Plugin {
    fn is_ours(&self) -> bool {
        self.value["type"] == PLUGIN
    }

    fn is_managed(&self) -> bool {
        self.is_ours() && self.value[INSTALLER].is_string()
    }
}

/// How our entry was found in a conflist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Last in the chain, with the content it should have.
    AsWanted,
    /// Nowhere.
    Missing,
    /// With other content, or more than once.
    Different,
    /// With other plugins after it.
    NotLast,
}

impl<'t> Chain<'t> {
    /// Reads a conflist.
    ///
    /// # Errors
    /// A runtime would not take it.
    pub fn list(text: &'t str) -> Result<Self, NotAChain> {
        let object = object(text)?;
        let list = member(text, "plugins").ok_or(NotAChain::NoPlugins)?;
        let plugin = |written: &str| {
            let value: Value = serde_json::from_str(written).ok()?;
            let at = place(text, written);
            has_type(&value).then_some(Plugin { at, value })
        };
        let plugins: Option<Vec<Plugin>> = elements(list).and_then(|list| list.into_iter().map(plugin).collect());
        Ok(Self {
            text,
            object,
            list: Some(place(text, list)),
            plugins: plugins
                .filter(|plugins| !plugins.is_empty())
                .ok_or(NotAChain::NoPlugins)?,
        })
    }

    /// Reads a configuration of a single plugin, as `.conf` files have it.
    ///
    /// # Errors
    /// A runtime would not take it.
    pub fn single(text: &'t str) -> Result<Self, NotAChain> {
        let object = object(text)?;
        let value = Value::Object(object.clone());
        if !has_type(&value) {
            return Err(NotAChain::NoType);
        }
        let at = 0..text.len();
        Ok(Self {
            text,
            object,
            list: None,
            plugins: vec![Plugin { at, value }],
        })
    }

    /// The name of the network.
    pub fn name(&self) -> Option<&str> {
        self.object.get("name")?.as_str()
    }

    /// Whether each plugin is ours, so that it is not a network that we could join.
    pub fn is_ours_alone(&self) -> bool {
        self.plugins.iter().all(Plugin::is_ours)
    }

    /// Whether the installer put an entry here.
    pub fn is_managed(&self) -> bool {
        self.plugins.iter().any(Plugin::is_managed)
    }

    /// Whether somebody else put an entry for our plugin here.
    pub fn is_written_by_hand(&self) -> bool {
        self.plugins
            .iter()
            .any(|plugin| plugin.is_ours() && !plugin.is_managed())
    }

    /// The version of the specification, where it is none that our plugin can be chained in.
    pub fn unsupported_version(&self) -> Option<String> {
        let version = self.object.get("cniVersion");
        let versions = self.object.get("cniVersions").and_then(Value::as_array);
        let supported = |version: &Value| version.as_str().and_then(Version::parse).is_some();
        if version.into_iter().chain(versions.into_iter().flatten()).any(supported) {
            return None;
        }
        // What a configuration that names no version has, says the specification.
        let version = version.and_then(Value::as_str).unwrap_or("0.1.0");
        Some(version.to_owned())
    }

    /// How our entry is found here.
    pub fn find(&self, entry: &Value) -> Found {
        let ours: Vec<&Plugin> = self.plugins.iter().filter(|plugin| plugin.is_ours()).collect();
        match ours.as_slice() {
            [] => Found::Missing,
            [one] if one.value != *entry => Found::Different,
            [_] if self.plugins.last().is_some_and(Plugin::is_ours) => Found::AsWanted,
            [_] => Found::NotLast,
            [_, _, ..] => Found::Different,
        }
    }

    /// The text of the conflist with `entry` as its last plugin, and no other entry of ours.
    pub fn with(&self, entry: &Value) -> String {
        if self.find(entry) == Found::AsWanted {
            return self.text.to_owned();
        }
        let bare = self.without(Plugin::is_ours);
        match Chain::list(&bare) {
            Ok(chain) => chain.append(entry),
            // Nothing but entries of ours: there is no chain to join.
            Err(_) => self.text.to_owned(),
        }
    }

    /// The text of the conflist without the entries that the installer put there.
    pub fn without_managed(&self) -> String {
        self.without(Plugin::is_managed)
    }

    fn append(&self, entry: &Value) -> String {
        let Some(last) = self.plugins.last() else {
            return self.text.to_owned();
        };
        let (before, after) = self.text.split_at(last.at.end);
        // As the last plugin is laid out: on lines of its own, or behind the others.
        let line = &self.text[..last.at.start];
        let indentation = line.rfind('\n').map(|newline| &line[newline + 1..]);
        let entry = match indentation.filter(|indentation| indentation.chars().all(char::is_whitespace)) {
            Some(indentation) => {
                let separator = format!("\n{indentation}");
                format!("{separator}{}", format!("{entry:#}").replace('\n', &separator))
            }
            None => entry.to_string(),
        };
        format!("{before},{entry}{after}")
    }

    fn without(&self, unwanted: fn(&Plugin) -> bool) -> String {
        let mut text = self.text.to_owned();
        let places: Vec<Range<usize>> = self.plugins.iter().map(|plugin| plugin.at.clone()).collect();
        let keeps = |index: &usize| !unwanted(&self.plugins[*index]);
        let Some(list) = &self.list else {
            return text;
        };
        let Some(first_kept) = (0..places.len()).find(keeps) else {
            text.replace_range(list.clone(), "[]");
            return text;
        };
        // From the end, so that the places before stay true. An entry goes with the comma before it.
        for index in (first_kept..places.len()).rev().filter(|index| !keeps(index)) {
            text.replace_range(places[index - 1].end..places[index].end, "");
        }
        if first_kept > 0 {
            text.replace_range(places[0].start..places[first_kept].start, "");
        }
        text
    }
}

fn object(text: &str) -> Result<Map<String, Value>, NotAChain> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| NotAChain::Json(error.to_string()))?;
    match object.get("name").and_then(Value::as_str) {
        Some(name) if !name.is_empty() => Ok(object),
        _ => Err(NotAChain::NoName),
    }
}

fn has_type(value: &Value) -> bool {
    value["type"].as_str().is_some_and(|name| !name.is_empty())
}

/// Where a part of `text` is in it.
fn place(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

/// The conflist that a runtime makes of the configuration of a single plugin: its name, its version, and as the only
/// plugin the whole of it.
pub fn list_of(single: &Chain<'_>) -> String {
    let plugin = single.text.trim().replace('\n', "\n    ");
    let field = |key| Some(format!("  \"{key}\": {},\n", member(single.text, key)?));
    let fields: String = ["cniVersion", "name"].into_iter().filter_map(field).collect();
    format!("{{\n{fields}  \"plugins\": [\n    {plugin}\n  ]\n}}\n")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::node::entry::{Installer, entry};

    const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "big": 123456789012345678901234567890, "float": 1.50, "escaped": "\u00e9",
  "plugins": [
    {
      "type": "flannel",
      "delegate": { "hairpinMode": true }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"#;

    fn ours() -> Value {
        entry(json!({"select": "injected"}), &Installer::default()).unwrap()
    }

    fn chain(text: &str) -> Chain<'_> {
        Chain::list(text).unwrap()
    }

    fn types(text: &str) -> Vec<String> {
        let plugins = chain(text).plugins;
        plugins
            .iter()
            .map(|plugin| plugin.value["type"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn what_is_put_in_is_taken_out_to_the_byte() {
        let compact = r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"}]}"#;
        let odd = "{\"name\":\"a\",\"plugins\" : [ {\"type\":\"x\"} ,\t{\"type\":\"y\"}\n\n ] , \"z\":1}";
        let tabs = "{\n\t\"name\": \"a\",\n\t\"plugins\": [\n\t\t{\n\t\t\t\"type\": \"x\"\n\t\t}\n\t]\n}";
        for text in [FLANNEL, compact, odd, tabs] {
            let with = chain(text).with(&ours());
            assert_eq!(chain(&with).find(&ours()), Found::AsWanted, "{with}");
            assert_eq!(chain(&with).with(&ours()), with, "again");
            assert_eq!(chain(&with).without_managed(), text);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_layout_what_is_put_in_is_taken_out_to_the_byte(
            types in vec("[a-z]{1,8}", 1..6),
            spaces in vec("[ \t\r\n]{0,6}", 24),
            before: bool,
        ) {
            let types: Vec<String> = types.iter().map(|name| format!("{{ \"type\" : \"{name}\" }}")).collect();
            let plugins = format!("\"plugins\" : [ {} ]", types.join(" , "));
            let name = "\"name\" : \"a\"";
            let members = if before { [&plugins, name] } else { [name, &plugins] };
            let words = format!("{{ {} }} ", members.join(" , "));
            let text: String = words.split(' ').zip(spaces.iter().cycle()).flat_map(|(word, space)| [word, space]).collect();
            let with = chain(&text).with(&ours());
            prop_assert_eq!(chain(&with).find(&ours()), Found::AsWanted, "{}", with);
            prop_assert_eq!(chain(&with).without_managed(), text);
        }
    }

    #[test]
    fn the_entry_is_laid_out_like_the_others() {
        let with = chain(FLANNEL).with(&json!({"type": "sidetrack", "a": 1}));
        let end = "{\"portMappings\": true}},\n    {\n      \"type\": \"sidetrack\",\n      \"a\": 1\n    }\n  ]\n}\n";
        assert!(with.ends_with(end), "{with}");
        let compact = chain(r#"{"name":"a","plugins":[{"type":"x"}]}"#).with(&json!({"type": "sidetrack"}));
        assert_eq!(compact, r#"{"name":"a","plugins":[{"type":"x"},{"type":"sidetrack"}]}"#);
    }

    #[test]
    fn an_entry_that_is_not_as_wanted_is_told_and_put_right() {
        let other = json!({"type": "sidetrack", "select": "never"}).to_string();
        let wanted = ours().to_string();
        for (plugins, found) in [
            (format!("{{\"type\":\"x\"}},{other}"), Found::Different),
            (format!("{{\"type\":\"x\"}},{wanted},{wanted}"), Found::Different),
            (format!("{other},{{\"type\":\"x\"}},{wanted}"), Found::Different),
            (format!("{wanted},{{\"type\":\"x\"}}"), Found::NotLast),
            (
                format!("{wanted} , {other},{{\"type\":\"x\"}},{other}"),
                Found::Different,
            ),
            ("{\"type\":\"x\"}".to_owned(), Found::Missing),
        ] {
            let text = format!("{{\"name\":\"a\",\"plugins\":[{plugins}]}}");
            assert_eq!(chain(&text).find(&ours()), found, "{text}");
            let with = chain(&text).with(&ours());
            assert_eq!(chain(&with).find(&ours()), Found::AsWanted, "{text}");
            assert_eq!(types(&with), ["x", "sidetrack"]);
            assert_eq!(
                chain(&with).without_managed(),
                r#"{"name":"a","plugins":[{"type":"x"}]}"#
            );
        }
    }

    #[test]
    fn the_order_of_keys_in_the_entry_means_nothing() {
        let text = r#"{"name":"a","plugins":[{"type":"x"},{"b":1,"type":"sidetrack"}]}"#;
        assert_eq!(chain(text).find(&json!({"type": "sidetrack", "b": 1})), Found::AsWanted);
    }

    #[test]
    fn an_entry_written_by_hand_is_not_taken_out() {
        let text = r#"{"name":"a","plugins":[{"type":"x"},{"type":"sidetrack"}]}"#;
        assert!(chain(text).is_written_by_hand() && !chain(text).is_managed());
        assert_eq!(chain(text).without_managed(), text);
    }

    #[test]
    fn nothing_but_entries_of_ours_leaves_an_empty_list() {
        let text = format!("{{\"name\":\"a\",\"plugins\":[{},{}]}}", ours(), ours());
        assert!(chain(&text).is_ours_alone());
        assert_eq!(chain(&text).without_managed(), "{\"name\":\"a\",\"plugins\":[]}");
    }

    #[test]
    fn what_a_runtime_does_not_take_is_no_chain() {
        let json = |text| matches!(Chain::list(text), Err(NotAChain::Json(_)));
        assert!(json("") && json("{") && json("[]") && json("{\"name\":\"a\"} trailing"));
        assert_eq!(Chain::list("{}").unwrap_err(), NotAChain::NoName);
        assert_eq!(Chain::list("{\"name\":\"\"}").unwrap_err(), NotAChain::NoName);
        for plugins in [
            "",
            ",\"plugins\":3",
            ",\"plugins\":[]",
            ",\"plugins\":[{}]",
            ",\"plugins\":[{\"type\":\"\"}]",
        ] {
            let text = format!("{{\"name\":\"a\"{plugins}}}");
            assert_eq!(Chain::list(&text).unwrap_err(), NotAChain::NoPlugins, "{text}");
        }
        assert_eq!(
            Chain::single("{\"name\":\"a\",\"plugins\":[]}").unwrap_err(),
            NotAChain::NoType
        );
    }

    #[test]
    fn a_version_without_chains_is_told() {
        let version = |fields: &str| {
            let text = format!("{{\"name\":\"a\",{fields}\"plugins\":[{{\"type\":\"x\"}}]}}");
            chain(&text).unsupported_version()
        };
        assert_eq!(version(""), Some("0.1.0".to_owned()));
        assert_eq!(version("\"cniVersion\":\"0.2.0\","), Some("0.2.0".to_owned()));
        assert_eq!(version("\"cniVersion\":\"9.0.0\","), Some("9.0.0".to_owned()));
        assert_eq!(version("\"cniVersion\":\"0.3.1\","), None);
        assert_eq!(version("\"cniVersions\":[\"0.1.0\",\"1.1.0\"],"), None);
    }

    #[test]
    fn a_single_plugin_becomes_the_list_that_a_runtime_makes_of_it() {
        let text = "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"a\",\n  \"type\": \"x\",\n  \"mtu\": 1.50\n}\n";
        let list = list_of(&Chain::single(text).unwrap());
        let value: Value = serde_json::from_str(&list).unwrap();
        let single: Value = serde_json::from_str(text).unwrap();
        assert_eq!(value, json!({"cniVersion": "0.3.1", "name": "a", "plugins": [single]}));
        assert!(list.contains("1.50"), "{list}");
        let no_version = list_of(&Chain::single("{\"name\":\"a\",\"type\":\"x\"}").unwrap());
        assert_eq!(types(&no_version), ["x"]);
    }
}
