//! What a directory of configurations holds, and what a runtime takes of it: libcni's loader, given texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Form, form, is_configuration};
use crate::node::chain::{Chain, FolderPlugin, NotAChain};

/// A file, as far as it can be read from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its text.
    Text(String),
    /// No runtime can read it either: it is no regular file.
    NotAFile,
    /// A runtime may read it, and this program cannot: why.
    Unreadable(String),
}

/// What has the name that a folder of plugins might have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// The files in it that end in `.conf`.
    Files(BTreeMap<String, Content>),
    /// A runtime may read it, and this program cannot: why.
    Unreadable(String),
}

/// The files of a directory that a runtime looks at, the originals that we keep there, and the folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    files: BTreeMap<String, Content>,
    folders: BTreeMap<String, Folder>,
    /// What else has a name here.
    others: BTreeSet<String>,
    /// Where links lead to, by their names: to a name of this directory, or to a path elsewhere.
    links: BTreeMap<String, PathBuf>,
}

/// Why a configuration is not one that a runtime takes, or not known to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// No runtime takes it.
    Broken(NotAChain),
    /// It cannot be read from here, but may be on the node.
    Unreadable(String),
}

impl From<NotAChain> for NotTaken {
    fn from(reason: NotAChain) -> Self {
        Self::Broken(reason)
    }
}

/// A configuration that a runtime takes.
#[derive(Debug)]
pub struct Taken<'s> {
    /// What its text says.
    pub chain: Chain<'s>,
    /// The folder whose plugins follow, and these, by the names of their files.
    pub folder: Option<(String, Vec<(&'s str, FolderPlugin)>)>,
}

impl Taken<'_> {
    /// Whether all its plugins are ours, so that it is no network that could be joined.
    pub fn is_ours_alone(&self) -> bool {
        let mut in_folder = self.folder.iter().flat_map(|(_, plugins)| plugins);
        (self.chain.is_empty() || self.chain.is_ours_alone()) && in_folder.all(|(_, plugin)| plugin.is_ours())
    }
}

impl Snapshot {
    /// Adds a file.
    pub fn insert(&mut self, name: String, content: Content) {
        match name.split_once('/') {
            Some((folder, file)) => {
                let empty = || Folder::Files(BTreeMap::new());
                if let Folder::Files(files) = self.folders.entry(folder.to_owned()).or_insert_with(empty) {
                    files.insert(file.to_owned(), content);
                }
            }
            None => drop(self.files.insert(name, content)),
        }
    }

    /// Adds a folder.
    pub fn insert_folder(&mut self, name: String, folder: Folder) {
        self.folders.insert(name, folder);
    }

    /// Adds the name of something that is neither a configuration nor a folder.
    pub fn insert_other(&mut self, name: String) {
        self.others.insert(name);
    }

    /// Adds where the link of this name leads to.
    pub fn insert_link(&mut self, name: String, target: PathBuf) {
        self.links.insert(name, target);
    }

    /// The file that a name stands for: two names may stand for one.
    pub fn file<'s>(&'s self, name: &'s str) -> &'s Path {
        self.links.get(name).map_or(Path::new(name), PathBuf::as_path)
    }

    /// The text of a file, which may be in a folder.
    pub fn text(&self, name: &str) -> Option<&str> {
        let content = match name.split_once('/') {
            Some((folder, file)) => match self.folders.get(folder)? {
                Folder::Files(files) => files.get(file)?,
                Folder::Unreadable(_) => return None,
            },
            None => self.files.get(name)?,
        };
        match content {
            Content::Text(text) => Some(text),
            Content::NotAFile | Content::Unreadable(_) => None,
        }
    }

    /// Whether the directory has something of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.others.contains(name) || self.folders.contains_key(name)
    }

    /// The name of a file, where the directory has it.
    pub fn name(&self, name: &str) -> Option<&str> {
        self.files.get_key_value(name).map(|(name, _)| name.as_str())
    }

    /// The files in the directory itself whose texts are known, by name.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(name, content)| match content {
            Content::Text(text) => Some((name.as_str(), text.as_str())),
            Content::NotAFile | Content::Unreadable(_) => None,
        })
    }

    /// The names of the folders.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.folders.keys().map(String::as_str)
    }

    /// The plugins in all folders, each with its folder and file.
    pub fn folder_plugins(&self) -> impl Iterator<Item = (String, FolderPlugin)> {
        let folders = self.folders.iter().filter_map(|(name, folder)| match folder {
            Folder::Files(files) => Some((name, files)),
            Folder::Unreadable(_) => None,
        });
        folders.flat_map(|(folder, files)| {
            files.iter().filter_map(move |(file, content)| match content {
                Content::Text(text) => Some((format!("{folder}/{file}"), FolderPlugin::parse(text).ok()?)),
                Content::NotAFile | Content::Unreadable(_) => None,
            })
        })
    }

    /// The names of the configurations, in the order in which runtimes try them.
    pub fn configurations(&self) -> impl Iterator<Item = &str> {
        let names = self.files.keys().map(String::as_str);
        names.filter(|name| is_configuration(name))
    }

    /// What a runtime takes of the file with this name.
    ///
    /// # Errors
    /// It does not take it, or that is not known.
    pub fn load(&self, name: &str) -> Result<Taken<'_>, NotTaken> {
        let text = match self.files.get(name) {
            Some(Content::Text(text)) => text,
            Some(Content::Unreadable(why)) => return Err(NotTaken::Unreadable(why.clone())),
            Some(Content::NotAFile) | None => return Err(NotTaken::Broken(NotAChain::NotAFile)),
        };
        let chain = match form(name) {
            Some(Form::Single) => Chain::single(text)?,
            Some(Form::List) | None => Chain::list(text)?,
        };
        let folder = match chain.folder() {
            Some(network) => Some((network.to_owned(), self.load_folder(network)?)),
            None => None,
        };
        let has_plugins = !chain.is_empty() || folder.iter().any(|(_, plugins)| !plugins.is_empty());
        if !has_plugins {
            return Err(NotAChain::NoPluginsInFolder(chain.name().unwrap_or_default().to_owned()).into());
        }
        Ok(Taken { chain, folder })
    }

    fn load_folder(&self, network: &str) -> Result<Vec<(&str, FolderPlugin)>, NotTaken> {
        let files = match self.folders.get(network) {
            Some(Folder::Files(files)) => files,
            Some(Folder::Unreadable(why)) => return Err(NotTaken::Unreadable(format!("the folder {network}: {why}"))),
            None if self.contains(network) => return Err(NotAChain::NotAFolder(network.to_owned()).into()),
            // The path of a folder is put together from both names, and may lead elsewhere.
            None if network.is_empty() || network.contains('/') || network == "." || network == ".." => {
                let why = format!("its network is called {network:?}, which leads to no folder of a name");
                return Err(NotTaken::Unreadable(why));
            }
            None => return Ok(Vec::new()),
        };
        let plugin = |(file, content): (&'_ String, &'_ Content)| {
            let broken = |reason| NotAChain::InFolder {
                file: format!("{network}/{file}"),
                reason: Box::new(reason),
            };
            match content {
                Content::Text(text) => FolderPlugin::parse(text).map_err(|reason| broken(reason).into()),
                Content::NotAFile => Err(broken(NotAChain::NotAFile).into()),
                Content::Unreadable(why) => Err(NotTaken::Unreadable(format!("{network}/{file}: {why}"))),
            }
        };
        files
            .iter()
            .map(|(file, content)| Ok((file.as_str(), plugin((file, content))?)))
            .collect()
    }
}
