//! How the files of a configuration directory should be, and the steps that lead there: pure decisions.
//!
//! Nothing is remembered between two looks. What was done is read from the files, so it does not matter where an
//! earlier installer was stopped. After each single step, the configuration that a runtime takes is one from before
//! or the one from after, whole.

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
pub use self::snapshot::{Content, Folder, NotTaken, Snapshot, Taken};
pub use self::uninstall::uninstall;
pub use self::verdict::{Judged, Verdict, judge};

/// What is added to the name of a configuration of a single plugin that was replaced by a conflist. Runtimes go by
/// the end of a name, so they leave it alone.
pub const ORIGINAL: &str = ".sidetrack";

/// Which configuration our plugin is to be part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The one that runtimes take: of the valid ones, the first by name.
    First,
    /// The one with this name.
    Named(String),
    /// None; it gets one of its own, with this name.
    Standalone(String),
}

/// What is wanted of a configuration directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Where.
    pub choice: Choice,
    /// Our entry of the chain, or the whole configuration where it stands alone.
    pub entry: Value,
}

/// Why something has to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// There is no binary.
    BinaryMissing,
    /// The binary has other content, or cannot be executed.
    BinaryDifferent,
    /// Our entry is not there.
    EntryMissing,
    /// Our entry has other content.
    EntryDifferent,
    /// There are other plugins after ours.
    EntryNotLast,
    /// There is an entry of ours in a chain that a plugin of the configuration hands pods on to, too.
    EntryDelegated,
    /// There is an entry of ours in a configuration that is not the chosen one.
    EntryElsewhere,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BinaryMissing,
        Self::BinaryDifferent,
        Self::EntryMissing,
        Self::EntryDifferent,
        Self::EntryNotLast,
        Self::EntryDelegated,
        Self::EntryElsewhere,
    ];

    /// Its name in logs and metrics.
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

/// Why there is no configuration to join yet. Whoever writes them may change that at any time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Waiting {
    /// No configuration that could be joined; those that there are, with what is wrong with them.
    #[error("there is no valid network configuration yet; the cluster's network plugin is to write one{}", listed(.0))]
    NoNetwork(Vec<(String, String)>),
    /// Not the one that was named.
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
    /// Nothing but our own plugin.
    #[error("{0} names no plugin but sidetrack, so there is no network to join")]
    OursAlone(String),
    /// A version in which our plugin cannot be chained.
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
    /// The name that we need is taken.
    #[error("{0} is there already, and sidetrack did not write it: remove it, or rename it")]
    Taken(String),
}

fn listed(files: &[(String, String)]) -> String {
    let file = |(name, reason): &(String, String)| format!(". {name}: {reason}");
    files.iter().map(file).collect()
}

/// One step, which happens whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a file hold a text.
    Write {
        /// Its name.
        name: String,
        /// What it must hold still.
        was: Option<String>,
        /// What it is to hold.
        text: String,
        /// The file whose mode and owner it gets, itself most often.
        like: String,
    },
    /// Give a file another name.
    Rename {
        /// The name that it has.
        from: String,
        /// The name that it gets.
        to: String,
    },
    /// Remove a file.
    Remove {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { name, was: None, .. } => write!(f, "{name} was written"),
            Self::Write { name, was: Some(_), .. } => write!(f, "{name} was changed"),
            Self::Rename { from, to } => write!(f, "{from} was renamed to {to}"),
            Self::Remove { name } => write!(f, "{name} was removed"),
        }
    }
}

/// What was decided about a configuration directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The configuration that our plugin is to be part of, under the name that it will have.
    pub target: Result<String, Waiting>,
    /// The file that has it now, which becomes that one; `None` where there is no target.
    pub source: Option<String>,
    /// What has to be done, in order. Nothing where all is as wanted, or there is no target.
    pub steps: Vec<Step>,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// What is left of us in a directory after the steps of [`uninstall()`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// What has to be done, in order.
    pub steps: Vec<Step>,
    /// Configurations with an entry for our plugin that somebody wrote by hand.
    pub by_hand: Vec<String>,
    /// Originals that cannot be put back, since what replaced them was changed or removed by somebody.
    pub originals: Vec<String>,
}

/// Whether runtimes look at files of this name, and which form they expect in it.
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

/// Whether runtimes look at files of this name.
pub fn is_configuration(name: &str) -> bool {
    form(name).is_some()
}

/// Whether runtimes look at files of this name in a folder of plugins.
pub fn is_folder_plugin(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, form)| form == "conf")
}

/// Whether a file of this name is our business.
pub fn concerns_us(name: &str) -> bool {
    is_configuration(name.strip_suffix(ORIGINAL).unwrap_or(name))
}

/// A text, as what its name says that it is.
fn read<'t>(name: &str, text: &'t str) -> Option<Chain<'t>> {
    match form(name)? {
        Form::List => Chain::list(text).ok(),
        Form::Single => Chain::single(text).ok(),
    }
}

/// Whether a runtime would take such a text under this name.
pub fn is_taken(name: &str, text: &str) -> bool {
    read(name, text).is_some()
}

/// The folders of plugins that configurations take theirs from.
pub fn plugin_folders(snapshot: &Snapshot) -> Vec<String> {
    let named = snapshot
        .texts()
        .filter_map(|(name, text)| Some(read(name, text)?.folder()?.to_owned()));
    let named: BTreeSet<String> = named.collect();
    let folders = snapshot.folders().filter(|folder| named.contains(*folder));
    folders.map(str::to_owned).collect()
}

/// The name of the conflist that takes the place of a configuration of a single plugin.
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

/// The files that hold an entry of ours, each by one of its names.
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
