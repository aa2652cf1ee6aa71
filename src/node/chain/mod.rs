//! Edits of a conflist's text: sidetrack's entry in the chain of plugins.
//!
//! A conflist belongs to another program. So it is not read into values and written again, which would change numbers,
//! escapes, order and layout: only the bytes of our own entry are inserted and removed. Removal restores the text
//! before insertion byte for byte. [`libcni`] decides which texts are valid.

mod delegates;
mod libcni;

use std::ops::Range;

use serde_json::{Value, json};

pub use self::libcni::NotAChain;
use crate::cni::netconf::AWAITS_NETWORK;
use crate::cni::nomad;
use crate::cni::verbatim::{elements, member};
use crate::cni::version::Version;

/// The type of sidetrack's plugin, which is the name of its binary.
pub const PLUGIN: &str = "sidetrack";

/// The key of an entry that names its installer. An entry written by hand has none.
pub const INSTALLER: &str = "installer";

/// Plugins whose installers put them at the end again and again. They only add rules, as ours does, so ours stays before
/// them: otherwise both installers would rewrite the conflist without end.
const BEHIND: &[&str] = &[nomad::PLUGIN];

/// The key that marks a conflist written by sidetrack as the copy of another.
const COPY: &str = "sidetrack.dev/copy";

/// A network configuration of either form, and where in its text the plugins are.
#[derive(Debug)]
pub struct Chain<'t> {
    text: &'t str,
    /// The name of the network; empty where it has none.
    name: String,
    /// The version that its plugins are run with; empty where it says none.
    version: String,
    /// Where the list of plugins is; `None` in a configuration of a single plugin, and where all plugins are in a folder.
    list: Option<Range<usize>>,
    plugins: Vec<Plugin>,
    takes_folder: bool,
    is_copy: bool,
}

#[derive(Debug)]
struct Plugin {
    at: Range<usize>,
    value: Value,
}

impl Plugin {
    fn is_ours(&self) -> bool {
        is_ours(&self.value)
    }

    fn is_managed(&self) -> bool {
        is_managed(&self.value)
    }

    fn is_behind(&self) -> bool {
        libcni::plugin(&self.value).is_ok_and(|plugin| BEHIND.contains(&plugin.kind.as_str()))
    }
}

fn is_ours(plugin: &Value) -> bool {
    libcni::plugin(plugin).is_ok_and(|plugin| plugin.kind == PLUGIN)
}

fn is_managed(plugin: &Value) -> bool {
    is_ours(plugin) && plugin[INSTALLER].is_string()
}

/// How our entry was found in a conflist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Last in the chain but for [`BEHIND`], with the content it should have.
    AsWanted,
    /// Missing.
    Missing,
    /// With other content, or more than once.
    Different,
    /// With other plugins after it.
    NotLast,
    /// As wanted, and also in a chain that a plugin delegates to.
    Delegated,
}

impl<'t> Chain<'t> {
    /// Reads a conflist. It may be without plugins, where it takes those of a folder.
    ///
    /// # Errors
    /// A runtime would not take it.
    pub fn list(text: &'t str) -> Result<Self, NotAChain> {
        let object = libcni::object(text)?;
        let head = libcni::head(&object)?;
        let list = if head.has_plugins {
            Some(member(text, "plugins").ok_or(NotAChain::NoPlugins)?)
        } else {
            None
        };
        let mut plugins = Vec::new();
        if let Some(list) = list {
            for written in elements(list)
                .filter(|list| !list.is_empty())
                .ok_or(NotAChain::NoPlugins)?
            {
                let at = place(text, written);
                let value = serde_json::from_str(written).map_err(|error| NotAChain::Json(error.to_string()))?;
                libcni::plugin(&value)?;
                plugins.push(Plugin { at, value });
            }
        }
        Ok(Self {
            text,
            name: head.name,
            version: head.version,
            list: list.map(|list| place(text, list)),
            plugins,
            takes_folder: head.takes_folder,
            is_copy: object.contains_key(COPY),
        })
    }

    /// Reads a configuration of a single plugin, as `.conf` files have it.
    ///
    /// # Errors
    /// A runtime would not take it.
    pub fn single(text: &'t str) -> Result<Self, NotAChain> {
        let value = Value::Object(libcni::object(text)?);
        let plugin = libcni::plugin(&value)?;
        let at = 0..text.len();
        Ok(Self {
            text,
            name: plugin.name,
            version: plugin.version,
            list: None,
            plugins: vec![Plugin { at, value }],
            takes_folder: false,
            is_copy: false,
        })
    }

    /// The name of the network. CRI-O calls one that has none by the name of its file; containerd lets no pod start in it.
    pub fn name(&self) -> Option<&str> {
        Some(self.name.as_str()).filter(|name| !name.is_empty())
    }

    /// The name of the folder whose plugins come after those in the list. It is the one of the configurations where the
    /// network has no name.
    pub fn folder(&self) -> Option<&str> {
        self.takes_folder.then_some(self.name.as_str())
    }

    /// Whether no plugin is in the list.
    pub fn is_empty(&self) -> bool {
        self.plugins.is_empty()
    }

    /// The entry of our plugin.
    pub fn entry(&self) -> Option<&Value> {
        self.plugins
            .iter()
            .find(|plugin| plugin.is_ours())
            .map(|plugin| &plugin.value)
    }

    /// Whether sidetrack wrote this conflist, as the copy of another.
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// Whether each plugin is sidetrack's, so that there is no network to join.
    pub fn is_ours_alone(&self) -> bool {
        self.plugins.iter().all(Plugin::is_ours) && !self.is_empty()
    }

    /// Whether the installer inserted an entry.
    pub fn is_managed(&self) -> bool {
        self.plugins.iter().any(Plugin::is_managed) || self.delegates(Plugin::is_managed)
    }

    /// Whether sidetrack's plugin runs in it; `None` if its plugins are in a directory, outside of this text.
    pub fn runs_plugin(&self) -> Option<bool> {
        let runs = self.plugins.iter().any(Plugin::is_ours) || self.delegates(Plugin::is_ours);
        (!self.is_empty()).then_some(runs)
    }

    /// Whether another program inserted an entry for sidetrack's plugin.
    pub fn is_written_by_hand(&self) -> bool {
        let is_by_hand = |plugin: &Plugin| plugin.is_ours() && !plugin.is_managed();
        self.plugins.iter().any(is_by_hand) || self.delegates(is_by_hand)
    }

    /// Whether a plugin delegates to such an entry.
    fn delegates(&self, is_so: impl Fn(&Plugin) -> bool) -> bool {
        let lists = self
            .plugins
            .iter()
            .flat_map(|plugin| delegates::lists(self.text, plugin));
        lists.into_iter().any(|list| list.plugins.iter().any(&is_so))
    }

    /// The version of the specification, if it has no chains of plugins.
    pub fn unsupported_version(&self) -> Option<String> {
        // The specification's default for a missing version.
        let version = if self.version.is_empty() {
            "0.1.0"
        } else {
            &self.version
        };
        Version::parse(version).is_none().then(|| version.to_owned())
    }

    /// The state of our entry.
    pub fn find(&self, entry: &Value) -> Found {
        let ours: Vec<&Plugin> = self.plugins.iter().filter(|plugin| plugin.is_ours()).collect();
        match ours.as_slice() {
            [] => Found::Missing,
            [one] if one.value != *entry => Found::Different,
            [_] if !self.end().is_some_and(Plugin::is_ours) => Found::NotLast,
            [_] if self.delegates(Plugin::is_ours) => Found::Delegated,
            [_] => Found::AsWanted,
            [_, _, ..] => Found::Different,
        }
    }

    /// The plugin that ours comes after, or ours.
    fn end(&self) -> Option<&Plugin> {
        let mut plugins = self.plugins.iter().rev();
        plugins.find(|plugin| !plugin.is_behind()).or(self.plugins.last())
    }

    /// The text of the conflist with `entry` at its end, and no other entry of sidetrack.
    pub fn with(&self, entry: &Value) -> String {
        if self.find(entry) == Found::AsWanted {
            return self.text.to_owned();
        }
        let bare = self.without(Plugin::is_ours);
        match Chain::list(&bare) {
            Ok(chain) => chain.append(entry),
            // Nothing but entries of sidetrack: there is no chain to join.
            Err(_) => self.text.to_owned(),
        }
    }

    /// The text of the configuration without the entries that the installer put there.
    pub fn without_managed(&self) -> String {
        self.without(Plugin::is_managed)
    }

    fn append(&self, entry: &Value) -> String {
        let Some(last) = self.end() else {
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
        // From the end, so that earlier positions stay valid.
        for plugin in self.plugins.iter().rev().filter(|plugin| !unwanted(plugin)) {
            let written = &self.text[plugin.at.clone()];
            text.replace_range(plugin.at.clone(), &without_delegated(written, &plugin.value, unwanted));
        }
        if self.list.is_none() {
            return text;
        }
        // The positions have changed.
        let removed = Chain::list(&text).map(|chain| match &chain.list {
            Some(list) => remove(&text, list, &chain.plugins, unwanted),
            None => text.clone(),
        });
        removed.unwrap_or(text)
    }
}

/// The text of a plugin without the unwanted entries in its delegates.
fn without_delegated(written: &str, value: &Value, unwanted: fn(&Plugin) -> bool) -> String {
    let mut text = written.to_owned();
    loop {
        let plugin = Plugin {
            at: 0..text.len(),
            value: value.clone(),
        };
        let mut lists = delegates::lists(&text, &plugin).into_iter();
        let Some(list) = lists.find(|list| list.plugins.iter().any(unwanted)) else {
            return text;
        };
        text = remove(&text, &list.at, &list.plugins, unwanted);
    }
}

/// The text without the unwanted elements of a list.
fn remove(text: &str, list: &Range<usize>, plugins: &[Plugin], unwanted: fn(&Plugin) -> bool) -> String {
    let mut text = text.to_owned();
    let Some(first_kept) = plugins.iter().position(|plugin| !unwanted(plugin)) else {
        text.replace_range(list.clone(), "[]");
        return text;
    };
    // From the end, so that earlier positions stay valid. An entry goes with the comma before it.
    for index in (first_kept..plugins.len()).rev() {
        if unwanted(&plugins[index]) {
            text.replace_range(plugins[index - 1].at.end..plugins[index].at.end, "");
        }
    }
    if first_kept > 0 {
        text.replace_range(plugins[0].at.start..plugins[first_kept].at.start, "");
    }
    text
}

/// The position of a part of `text`.
fn place(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

/// The conflist that a runtime makes of the configuration of a single plugin: its name, its version, and as the only
/// plugin the whole of it, without entries of sidetrack. A network without a name is called `file`, as CRI-O calls it.
pub fn list_of(single: &Chain<'_>, file: &str) -> String {
    let bare = single.without(Plugin::is_ours);
    let plugin = bare.trim().replace('\n', "\n    ");
    let field = |key: &str, value: &str| format!("  \"{key}\": {},\n", Value::from(value));
    let version = match single.version.as_str() {
        "" => String::new(),
        version => field("cniVersion", version),
    };
    let name = field("name", single.name().unwrap_or(file));
    // Unlike a list, a single plugin is not followed by those of a folder.
    let alone = "  \"loadOnlyInlinedPlugins\": true,\n";
    format!("{{\n{version}{name}{alone}  \"plugins\": [\n    {plugin}\n  ]\n}}\n")
}

/// An own conflist: a copy of `list`, with `entry` as its last plugin.
pub fn copy_of(list: &Chain<'_>, entry: &Value) -> String {
    let text = list.with(entry);
    let begin = text.find('{').map_or(0, |brace| brace + 1);
    let (before, after) = text.split_at(begin);
    format!("{before}\n  \"{COPY}\": true,{after}")
}

/// A conflist of our own that stands in for a copy while there is nothing to copy: every pod fails with it.
pub fn stand_in(entry: &Value) -> String {
    let mut entry = entry.clone();
    entry[AWAITS_NETWORK] = true.into();
    let list = json!({
        COPY: true,
        // Every runtime knows it.
        "cniVersion": Version::V0_4_0.as_str(),
        "name": PLUGIN,
        "plugins": [entry],
    });
    format!("{list:#}\n")
}

/// A plugin in a folder that a conflist takes its plugins from.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderPlugin(Value);

impl FolderPlugin {
    /// Reads a plugin file.
    ///
    /// # Errors
    /// A runtime would not take it.
    pub fn parse(text: &str) -> Result<Self, NotAChain> {
        let value = Value::Object(libcni::object(text)?);
        libcni::plugin(&value)?;
        Ok(Self(value))
    }

    /// Whether it is sidetrack's.
    pub fn is_ours(&self) -> bool {
        is_ours(&self.0)
    }

    /// Whether the installer wrote it.
    pub fn is_managed(&self) -> bool {
        is_managed(&self.0)
    }

    /// Whether it is this entry.
    pub fn is(&self, entry: &Value) -> bool {
        self.0 == *entry
    }
}

#[cfg(test)]
mod tests;
