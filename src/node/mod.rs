//! The node installer: puts the CNI plugin on a node, and keeps it there.
//!
//! [`chain`], [`entry`] and [`layout`] decide how files should be, and [`pace`] how fast to insist; they are pure.
//! [`conf_dir`] and [`binary`] change files, each at one instant. [`service`] stays, [`watch`]es and repairs, answers over
//! HTTP ([`health`], [`metrics`]), and logs the [`reports`] of the plugin's runs. [`repair`] finds pods that started
//! before the plugin was there, [`startup_taint`] keeps new pods away from the node until then.

pub mod binary;
pub mod chain;
pub mod conf_dir;
pub mod entry;
pub mod health;
pub mod layout;
pub mod metrics;
pub mod pace;
pub mod repair;
pub mod reports;
pub mod service;
pub mod startup_taint;
pub mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use thiserror::Error;

use self::layout::{Judged, Layout, Reason, Verdict, Waiting, Wanted};
use crate::linux::files::{self, FileError};

/// What the installer could not do.
#[derive(Debug, Error)]
pub enum NodeError {
    /// Something with a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no configuration to join, and nobody waits for one.
    #[error("{0}. Without --once, the installer waits for it")]
    Waiting(Waiting),
    /// What the runtime takes is not known. All else was done.
    #[error("{0}")]
    Unreadable(String),
    /// Files cannot be watched.
    #[error("watching for changes: {0}. The limits are fs.inotify.max_user_instances and max_user_watches")]
    Watch(Errno),
    /// Nobody can be answered.
    #[error("listening on {address} (--health-address): {reason}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        reason: std::io::Error,
    },
    /// There can be no more threads.
    #[error("starting a thread: {0}. Is there a limit on processes (pids.max, ulimit -u)?")]
    Thread(std::io::Error),
    /// Someone would put everything back.
    #[error(
        "an installer is running ({} answers), and would put everything back: stop it first, by deleting its DaemonSet",
        .0.display()
    )]
    Running(PathBuf),
    /// Pods could not be taken down without the binary.
    #[error(
        "the configurations are free of sidetrack, and {} stays: {pods} pods were attached with it, and CRI-O takes a pod \
         down by the configuration that it was attached by. Run this again once they have gone, or with --force where the \
         runtime is containerd, which does not need it", binary.display()
    )]
    Needed {
        /// How many.
        pods: usize,
        /// Where the binary is.
        binary: PathBuf,
    },
    /// Pods could not start without the binary.
    #[error(
        "{} still names sidetrack, in an entry that `node install` did not write: remove that, and run this again. The \
         binary stays until then, since pods could not start without it", .0.join(", ")
    )]
    ByHand(Vec<String>),
}

/// The directories of a node that the installer works in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Where runtimes look for plugins.
    pub bin: PathBuf,
    /// Where runtimes look for configurations.
    pub conf: PathBuf,
}

/// A node, as the installer wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub directories: Directories,
    /// What is wanted there.
    pub wanted: Wanted,
}

/// What a look at a node shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What is wrong with the binary.
    pub binary: Option<Reason>,
    /// How the configurations should be.
    pub layout: Layout,
    /// What becomes of each file.
    pub files: Vec<Judged>,
    /// The folders that configurations take plugins from.
    pub folders: Vec<PathBuf>,
}

impl Look {
    /// All that has to be changed.
    pub fn reasons(&self) -> Vec<Reason> {
        self.binary
            .into_iter()
            .chain(self.layout.reasons.iter().copied())
            .collect()
    }

    /// The names of what has to be changed.
    pub fn reason_names(&self) -> String {
        let names: Vec<&str> = self.reasons().into_iter().map(Reason::name).collect();
        names.join(", ")
    }

    /// What keeps a pod that starts now from our plugin, in words; `None` where all is in place.
    pub fn missing(&self) -> Option<String> {
        let reasons = self.reason_names();
        let not_as_wanted = match &self.layout.target {
            Err(waiting) => return Some(waiting.to_string()),
            Ok(target) if !reasons.is_empty() => Some(format!("not as wanted ({target}): {reasons}")),
            Ok(_) => None,
        };
        let unreadable = self.files.iter().filter_map(|Judged { name, verdict }| match verdict {
            Verdict::Unreadable(why) => Some(format!("{name} comes first and may be what the runtime takes: {why}")),
            _ => None,
        });
        let missing: Vec<String> = not_as_wanted.into_iter().chain(unreadable).collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }

    /// Whether a runtime would take the configuration with this name, if no other came first.
    pub fn is_valid(&self, name: &str) -> bool {
        let is_valid = |judged: &Judged| matches!(judged.verdict, Verdict::Joined | Verdict::Unused);
        self.files.iter().any(|judged| judged.name == name && is_valid(judged))
    }
}

impl Node {
    /// Looks, and changes nothing.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn look(&self) -> Result<Look, FileError> {
        let snapshot = conf_dir::snapshot(&self.directories.conf)?;
        let layout = layout::install(&snapshot, &self.wanted);
        let folders = layout::plugin_folders(&snapshot).into_iter();
        Ok(Look {
            binary: binary::look(&self.directories.binary())?,
            files: layout::judge(&snapshot, &self.wanted, &layout),
            layout,
            folders: folders.map(|folder| self.directories.conf.join(folder)).collect(),
        })
    }

    /// Does what a look showed to be missing: the binary first, since without it a chain that names it fails.
    ///
    /// # Errors
    /// The system did not do something. What was done before it stays, and what comes after it was not begun.
    pub fn install(&self, look: &Look) -> Result<(), FileError> {
        if look.binary.is_some() {
            binary::put(&self.directories.binary())?;
        }
        let mut steps = look.layout.steps.iter();
        steps.try_for_each(|step| conf_dir::take(&self.directories.conf, step))
    }
}

/// How often to try, where another program changes a configuration in the same moment.
const TRIES: usize = 20;

/// What `work` gives once no other program disturbs it. `None` asks for one more try.
///
/// # Errors
/// What `work` says; or each time another program was at the same file of `directory`.
fn undisturbed<T>(directory: &Path, mut work: impl FnMut() -> Result<Option<T>, FileError>) -> Result<T, FileError> {
    for _ in 0..TRIES {
        match work() {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            Err(FileError::Changed(path)) => tracing::debug!(path = %path.display(), "changed in this moment"),
            Err(error) => return Err(error),
        }
    }
    Err(FileError::Changed(directory.to_owned()))
}

impl Directories {
    /// Where the binary is.
    pub fn binary(&self) -> PathBuf {
        binary::path(&self.bin)
    }

    /// Takes everything of ours away: from the configurations first, since a chain that names a missing binary fails.
    /// `is_needed` says then how many pods a runtime could not take down without the binary, which stays for them.
    ///
    /// # Errors
    /// The system did not do something, or a configuration names the binary still, or it is needed.
    pub fn uninstall(&self, is_needed: impl FnOnce() -> Result<usize, FileError>) -> Result<(), NodeError> {
        let removal = undisturbed(&self.conf, || {
            let removal = layout::uninstall(&conf_dir::snapshot(&self.conf)?);
            for step in &removal.steps {
                conf_dir::take(&self.conf, step)?;
                tracing::info!(directory = %self.conf.display(), "{step}");
            }
            Ok(Some(removal))
        })?;
        for original in removal.originals {
            tracing::warn!(
                original,
                "kept: what replaced this file was changed or removed by somebody since"
            );
        }
        if !removal.by_hand.is_empty() {
            return Err(NodeError::ByHand(removal.by_hand));
        }
        self.remove_unfinished()?;
        let pods = is_needed()?;
        if pods > 0 {
            let binary = self.binary();
            return Err(NodeError::Needed { pods, binary });
        }
        if files::remove(&self.binary())? {
            tracing::info!(path = %self.binary().display(), "the binary was removed");
        }
        Ok(())
    }

    /// Removes what installers that were killed left unfinished.
    ///
    /// # Errors
    /// A directory cannot be read, or is none.
    pub fn remove_unfinished(&self) -> Result<(), FileError> {
        files::remove_unfinished(&self.bin)?;
        files::remove_unfinished(&self.conf)?;
        let folders = layout::plugin_folders(&conf_dir::snapshot(&self.conf)?);
        let mut folders = folders.into_iter().map(|folder| self.conf.join(folder));
        folders.try_for_each(|folder| files::remove_unfinished(&folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_program_disturbs_is_done_again_and_not_for_ever() {
        let directory = Path::new("/etc/cni/net.d");
        let tries = |disturbed: usize| {
            let mut left = disturbed;
            undisturbed(directory, || match left {
                0 => Ok(Some(())),
                _ => {
                    left -= 1;
                    Err(FileError::Changed(directory.join("10-pods.conflist")))
                }
            })
        };
        assert!(tries(0).is_ok() && tries(TRIES - 1).is_ok());
        assert!(matches!(tries(TRIES), Err(FileError::Changed(path)) if path == directory));
    }
}
