//! The desired files of a configuration directory, and the steps that lead there: pure decisions.
//!
//! No state is kept between two scans. Everything is read from the files, so an installer may be stopped after any
//! step. After each step, the configuration that a runtime uses is a complete old one or the complete new one.

mod install;
mod snapshot;
mod uninstall;
mod verdict;

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;
use thiserror::Error;

use super::chain::Chain;

pub use self::install::install;
pub use self::snapshot::{Content, Folder, Loaded, NotLoaded, Snapshot};
pub use self::uninstall::uninstall;
pub use self::verdict::{Judged, Verdict, judge};

/// The suffix for a configuration of a single plugin that was replaced by a conflist. Runtimes select files by the end
/// of the name, so they ignore it.
pub const ORIGINAL: &str = ".sidetrack";

/// Whether this is the name of such an original.
pub fn is_original(name: &str) -> bool {
    name.ends_with(ORIGINAL)
}

/// The configuration that the plugin joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The one that runtimes use: the first valid one by name.
    First,
    /// The one with this name.
    Named(String),
    /// None: the plugin gets its own configuration with this name.
    Standalone(String),
    /// A copy, with this name, of the one that runtimes would use. Its name must sort first.
    Copy(String),
}

/// The desired state of a configuration directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The configuration to join.
    pub choice: Choice,
    /// The plugin's entry in the chain, or its whole configuration where it stands alone.
    pub entry: Value,
}

/// Why something has to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The binary does not exist.
    BinaryMissing,
    /// The binary has another content, mode or owner.
    BinaryDifferent,
    /// The plugin's entry is missing.
    EntryMissing,
    /// The plugin's entry has another content.
    EntryDifferent,
    /// Other plugins follow our entry.
    EntryNotLast,
    /// The delegates of another plugin in the chain have our entry, too.
    EntryDelegated,
    /// A configuration that is not the chosen one has our entry.
    EntryElsewhere,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::BinaryMissing,
        Self::BinaryDifferent,
        Self::EntryMissing,
        Self::EntryDifferent,
        Self::EntryNotLast,
        Self::EntryDelegated,
        Self::EntryElsewhere,
    ];

    /// The name in logs, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::BinaryMissing => "binary-missing",
            Self::BinaryDifferent => "binary-different",
            Self::EntryMissing => "entry-missing",
            Self::EntryDifferent => "entry-different",
            Self::EntryNotLast => "entry-not-last",
            Self::EntryDelegated => "entry-delegated",
            Self::EntryElsewhere => "entry-elsewhere",
        }
    }
}

/// Why there is no configuration to join yet. The network plugin may change that at any time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Waiting {
    /// No valid configuration. Invalid ones, with the reason.
    #[error("there is no valid network configuration yet; the cluster's network plugin is to write one{}", listed(.0))]
    NoNetwork(Vec<(String, String)>),
    /// The named configuration does not exist.
    #[error("there is no {0} yet; without --cni-conf-name, the first configuration by name is taken")]
    NotThere(String),
    /// The named one cannot be joined.
    #[error("{name} cannot be joined: {reason}")]
    NotUsable {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The configuration has no plugin but sidetrack.
    #[error("{0} names no plugin but sidetrack, so there is no network to join")]
    OursAlone(String),
    /// A version of the specification without chaining, or one that is not supported.
    #[error(
        "{name} has cniVersion {version}; a chain with sidetrack needs one from 0.3.0 to 1.1.0. Raise it where that \
         file comes from, if the plugins in it know a newer one"
    )]
    Version {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// Runtimes would not use the copy.
    #[error("{first} comes before {name} by name, so that runtimes would take that one: choose another --own-conflist")]
    NotFirst {
        /// The name of the copy.
        name: String,
        /// The configuration that sorts before it.
        first: String,
    },
    /// The needed file name is in use.
    #[error("{0} is there already, and sidetrack did not write it: remove it, or rename it")]
    Taken(String),
}

fn listed(files: &[(String, String)]) -> String {
    let file = |(name, reason): &(String, String)| format!(". {name}: {reason}");
    files.iter().map(file).collect()
}

/// One atomic step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a file.
    Write {
        /// Its name.
        name: String,
        /// The expected old content.
        was: Option<String>,
        /// The new content.
        text: String,
        /// The file whose mode and owner it gets, mostly itself.
        like: String,
    },
    /// Give a file another name.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
        /// The expected content.
        was: String,
    },
    /// Remove a file.
    Remove {
        /// Its name.
        name: String,
        /// The expected content.
        was: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { name, was: None, .. } => write!(f, "{name} was written"),
            Self::Write { name, was: Some(_), .. } => write!(f, "{name} was changed"),
            Self::Rename { from, to, .. } => write!(f, "{from} was renamed to {to}"),
            Self::Remove { name, .. } => write!(f, "{name} was removed"),
        }
    }
}

/// The plan for a configuration directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The final name of the configuration that the plugin joins.
    pub target: Result<String, Waiting>,
    /// The file that is changed into the target; `None` where there is no target.
    pub source: Option<String>,
    /// The steps, in order. Empty where everything is as wanted, or there is no target.
    pub steps: Vec<Step>,
    /// The reasons for the steps.
    pub reasons: Vec<Reason>,
}

/// The plan for [`uninstall()`], and what stays in the directory after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Configurations whose entry for our plugin was not written by the installer.
    pub by_hand: Vec<String>,
    /// Originals that cannot be restored, because another process changed or removed their replacement.
    pub originals: Vec<String>,
}

/// The form that runtimes expect in a file of this name; `None` where they ignore it.
fn form(name: &str) -> Option<Form> {
    match name.rsplit_once('.')?.1 {
        "conflist" => Some(Form::List),
        "conf" | "json" => Some(Form::Single),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    List,
    Single,
}

/// Whether runtimes read files of this name.
pub fn is_configuration(name: &str) -> bool {
    form(name).is_some()
}

/// Whether runtimes read files of this name in a plugin folder.
pub fn is_folder_plugin(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, form)| form == "conf")
}

/// Whether a file of this name is a configuration or an original that sidetrack keeps.
pub fn is_relevant(name: &str) -> bool {
    is_configuration(name.strip_suffix(ORIGINAL).unwrap_or(name))
}

/// Parses a text in the form that the file name implies.
fn read<'t>(name: &str, text: &'t str) -> Option<Chain<'t>> {
    match form(name)? {
        Form::List => Chain::list(text).ok(),
        Form::Single => Chain::single(text).ok(),
    }
}

/// Whether a runtime would use this text under this name.
pub fn is_valid(name: &str, text: &str) -> bool {
    read(name, text).is_some()
}

/// The plugin folders that configurations use.
pub fn plugin_folders(snapshot: &Snapshot) -> Vec<String> {
    let named = snapshot
        .texts()
        .filter_map(|(name, text)| Some(read(name, text)?.folder()?.to_owned()));
    let named: BTreeSet<String> = named.collect();
    let folders = snapshot.folders().filter(|folder| named.contains(*folder));
    folders.map(str::to_owned).collect()
}

/// The name of the conflist that replaces a configuration of a single plugin.
fn list_form(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("{stem}.conflist")
}

/// The names that a configuration of a single plugin may have had before it became this conflist.
fn single_form(name: &str) -> impl Iterator<Item = String> {
    let stem = name.strip_suffix(".conflist").map(str::to_owned);
    ["conf", "json"]
        .into_iter()
        .filter_map(move |form| Some(format!("{}.{form}", stem.as_ref()?)))
}

/// The files with an entry of the installer, each under one of its names.
fn managed(snapshot: &Snapshot) -> Vec<String> {
    let is_managed = |(name, text): &(&str, &str)| read(name, text).is_some_and(|chain| chain.is_managed());
    let files = snapshot.texts().filter(is_managed).map(|(name, _)| name.to_owned());
    let plugins = snapshot.folder_plugins().filter(|(_, plugin)| plugin.is_managed());
    let mut seen = BTreeSet::new();
    let names = files.chain(plugins.map(|(name, _)| name));
    names
        .filter(|name| seen.insert(snapshot.file(name).to_owned()))
        .collect()
}

fn same_value(one: &str, other: &str) -> bool {
    let value = |text| serde_json::from_str::<Value>(text).ok();
    value(one).is_some() && value(one) == value(other)
}

#[cfg(test)]
mod tests;
