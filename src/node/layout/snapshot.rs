//! The contents of a configuration directory, and the configurations that a runtime loads from it: libcni's loader for
//! texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Form, form, is_configuration};
use crate::node::chain::{Chain, FolderPlugin, NotAChain};

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A regular file with this text.
    Text(String),
    /// Not a regular file: no runtime can read it either.
    NotAFile,
    /// A runtime may read it, and this program cannot: the reason.
    Unreadable(String),
}

/// A possible plugin folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// The files in it that end in `.conf`.
    Files(BTreeMap<String, Content>),
    /// A runtime may read it, and this program cannot: the reason.
    Unreadable(String),
}

/// The files of a directory that a runtime reads, the originals that sidetrack keeps there, and the folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    files: BTreeMap<String, Content>,
    folders: BTreeMap<String, Folder>,
    /// The names of other files.
    others: BTreeSet<String>,
    /// The targets of links, by name: a name in this directory, or a path elsewhere.
    links: BTreeMap<String, PathBuf>,
}

/// Why a runtime would not load a configuration, or might not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLoaded {
    /// It is invalid.
    Broken(NotAChain),
    /// This program cannot read it, but a runtime may.
    Unreadable(String),
}

impl From<NotAChain> for NotLoaded {
    fn from(reason: NotAChain) -> Self {
        Self::Broken(reason)
    }
}

/// A configuration that a runtime loads.
#[derive(Debug)]
pub struct Loaded<'s> {
    /// The parsed text.
    pub chain: Chain<'s>,
    /// The folder whose plugins follow, and these plugins with their file names.
    pub folder: Option<(String, Vec<(&'s str, FolderPlugin)>)>,
}

impl Loaded<'_> {
    /// Whether all its plugins are sidetrack, so that it is not a network to join.
    pub fn is_ours_alone(&self) -> bool {
        if self.chain.is_copy() {
            return true;
        }
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

    /// Adds the target of the link with this name.
    pub fn insert_link(&mut self, name: String, target: PathBuf) {
        self.links.insert(name, target);
    }

    /// The file behind a name: two names may lead to one file.
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

    /// Whether the directory has an entry of this name.
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

    /// Loads the file with this name as a runtime does.
    ///
    /// # Errors
    /// A runtime would not load it, or might not.
    pub fn load(&self, name: &str) -> Result<Loaded<'_>, NotLoaded> {
        let text = match self.files.get(name) {
            Some(Content::Text(text)) => text,
            Some(Content::Unreadable(why)) => return Err(NotLoaded::Unreadable(why.clone())),
            Some(Content::NotAFile) | None => return Err(NotLoaded::Broken(NotAChain::NotAFile)),
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
        Ok(Loaded { chain, folder })
    }

    fn load_folder(&self, network: &str) -> Result<Vec<(&str, FolderPlugin)>, NotLoaded> {
        let files = match self.folders.get(network) {
            Some(Folder::Files(files)) => files,
            Some(Folder::Unreadable(why)) => return Err(NotLoaded::Unreadable(format!("the folder {network}: {why}"))),
            None if self.contains(network) => return Err(NotAChain::NotAFolder(network.to_owned()).into()),
            // libcni joins the name to the directory's path, so the result may lead elsewhere.
            None if network.is_empty() || network.contains('/') || network == "." || network == ".." => {
                let why = format!("its network is called {network:?}, which is not a valid folder name");
                return Err(NotLoaded::Unreadable(why));
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
                Content::Unreadable(why) => Err(NotLoaded::Unreadable(format!("{network}/{file}: {why}"))),
            }
        };
        files
            .iter()
            .map(|(file, content)| Ok((file.as_str(), plugin((file, content))?)))
            .collect()
    }
}
