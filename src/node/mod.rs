//! The node installer: installs the CNI plugin on a node and keeps it installed.
//!
//! [`chain`], [`entry`] and [`layout`] decide the contents of files, and [`pace`] the delay of repairs; they are pure.
//! [`conf_dir`] and [`binary`] change files atomically. [`service`] is the daemon: it [`watch`]es and repairs, serves
//! HTTP ([`health`], [`metrics`]), and logs the [`reports`] of plugin runs. [`warm_up`] loads kernel modules; [`repair`] finds pods that started before
//! the plugin was installed; [`startup_taint`] keeps new pods off the node until then.

pub mod binary;
pub mod chain;
pub mod conf_dir;
pub mod entry;
pub mod health;
pub mod layout;
pub mod metrics;
pub mod pace;
pub mod pods;
pub mod repair;
pub mod reports;
pub mod service;
pub mod startup_taint;
pub mod warm_up;
pub mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use thiserror::Error;

use self::layout::{Judged, Layout, Reason, Verdict, Waiting, Wanted};
use crate::linux::files::{self, FileError};

/// Why the installer failed.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no configuration to join, and `--once` does not wait for one.
    #[error("{0}. Without --once, the installer waits for it")]
    Waiting(Waiting),
    /// A configuration that the runtime may use is unreadable. Everything else is installed.
    #[error("{0}")]
    Unreadable(String),
    /// Files cannot be watched.
    #[error("watching for changes: {0}. The limits are fs.inotify.max_user_instances and max_user_watches")]
    Watch(Errno),
    /// The health endpoint cannot listen.
    #[error("listening on {address} (--health-address): {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        reason: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("starting a thread: {0}. Is there a limit on processes (pids.max, ulimit -u)?")]
    Thread(std::io::Error),
    /// A running installer would restore everything.
    #[error(
        "an installer is running ({} answers) and would restore everything: stop it first, by deleting its DaemonSet",
        .0.display()
    )]
    Running(PathBuf),
    /// The runtime needs the binary to remove pods.
    #[error(
        "the configurations are free of sidetrack, and {} stays: {pods} pods were attached with it, and CRI-O takes a pod \
         down by the configuration that it was attached by. Run this again once they have gone, or with --force where the \
         runtime is containerd, which does not need it", binary.display()
    )]
    Needed {
        /// The number of these pods.
        pods: usize,
        /// The path of the binary.
        binary: PathBuf,
    },
    /// A configuration that was edited by hand needs the binary to start pods.
    #[error(
        "{} still names sidetrack, in an entry that `node install` did not write: remove that, and run this again. The \
         binary stays until then, since pods could not start without it", .0.join(", ")
    )]
    ByHand(Vec<String>),
}

/// The directories of a node that the installer works in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// The plugins of the runtime.
    pub bin: PathBuf,
    /// The network configurations of the runtime.
    pub conf: PathBuf,
}

/// The desired state of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The directories of the node.
    pub directories: Directories,
    /// The desired configuration.
    pub wanted: Wanted,
}

/// The observed state of a node, and what is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Why the binary has to be replaced, if it has to.
    pub binary: Option<Reason>,
    /// The planned configurations.
    pub layout: Layout,
    /// The verdict on each file.
    pub files: Vec<Judged>,
    /// The plugin folders of the configurations.
    pub folders: Vec<PathBuf>,
}

impl Observation {
    /// Why something has to be changed; empty where nothing has.
    pub fn reasons(&self) -> Vec<Reason> {
        self.binary
            .into_iter()
            .chain(self.layout.reasons.iter().copied())
            .collect()
    }

    /// The names of these reasons, separated by commas.
    pub fn reason_names(&self) -> String {
        let names: Vec<&str> = self.reasons().into_iter().map(Reason::name).collect();
        names.join(", ")
    }

    /// Why a pod that starts now would not get our plugin, as text; `None` where everything is in place.
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

    /// Whether the configuration with this name is valid, so that a runtime would use it if it were the first.
    pub fn is_valid(&self, name: &str) -> bool {
        let is_valid = |judged: &Judged| matches!(judged.verdict, Verdict::Joined | Verdict::Unused);
        self.files.iter().any(|judged| judged.name == name && is_valid(judged))
    }
}

impl Node {
    /// Observes the node; changes nothing.
    ///
    /// # Errors
    /// A file or a directory cannot be read.
    pub fn observe(&self) -> Result<Observation, FileError> {
        let snapshot = conf_dir::snapshot(&self.directories.conf)?;
        let layout = layout::install(&snapshot, &self.wanted);
        let folders = layout::plugin_folders(&snapshot).into_iter();
        Ok(Observation {
            binary: binary::check(&self.directories.binary())?,
            files: layout::judge(&snapshot, &self.wanted, &layout),
            layout,
            folders: folders.map(|folder| self.directories.conf.join(folder)).collect(),
        })
    }

    /// Installs what is missing: the binary first, because a chain that names a missing binary fails.
    ///
    /// # Errors
    /// A file operation failed. Earlier steps stay in effect; later steps were not started.
    pub fn install(&self, observation: &Observation) -> Result<(), FileError> {
        if observation.binary.is_some() {
            binary::put(&self.directories.binary())?;
        }
        let mut steps = observation.layout.steps.iter();
        steps.try_for_each(|step| conf_dir::apply(&self.directories.conf, step))
    }
}

/// How often an operation is tried while another program changes the same file.
const MAX_ATTEMPTS: usize = 20;

/// Runs `work` until it returns a value. `None`, or a file that another program changed meanwhile, starts another
/// attempt.
///
/// # Errors
/// The error of `work`, or another program changed `directory` in each attempt.
fn retry_if_changed<T>(
    directory: &Path,
    mut work: impl FnMut() -> Result<Option<T>, FileError>,
) -> Result<T, FileError> {
    for _ in 0..MAX_ATTEMPTS {
        match work() {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            Err(FileError::Changed(path)) => {
                tracing::debug!(path = %path.display(), "another program changed the file meanwhile; retrying")
            }
            Err(error) => return Err(error),
        }
    }
    Err(FileError::Changed(directory.to_owned()))
}

impl Directories {
    /// The path of the binary.
    pub fn binary(&self) -> PathBuf {
        binary::path(&self.bin)
    }

    /// Removes everything owned by sidetrack: the entries in configurations first, because a chain that names a missing
    /// binary fails. The binary stays where `is_needed` counts pods that the runtime cannot remove without it.
    ///
    /// # Errors
    /// A file operation failed, a configuration still names the binary, or pods need it.
    pub fn uninstall(&self, is_needed: impl FnOnce() -> Result<usize, FileError>) -> Result<(), NodeError> {
        let removal = retry_if_changed(&self.conf, || {
            let removal = layout::uninstall(&conf_dir::snapshot(&self.conf)?);
            for step in &removal.steps {
                conf_dir::apply(&self.conf, step)?;
                tracing::info!(directory = %self.conf.display(), %step, "configuration changed");
            }
            Ok(Some(removal))
        })?;
        for original in removal.originals {
            tracing::warn!(
                original,
                "original configuration kept: its replacement was changed or removed by another process"
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
            tracing::info!(path = %self.binary().display(), "binary removed");
        }
        Ok(())
    }

    /// Removes unfinished files of installers that were killed.
    ///
    /// # Errors
    /// A directory cannot be read, or is not a directory.
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
    fn conflicting_writes_are_retried_a_limited_number_of_times() {
        let directory = Path::new("/etc/cni/net.d");
        let tries = |disturbed: usize| {
            let mut left = disturbed;
            retry_if_changed(directory, || match left {
                0 => Ok(Some(())),
                _ => {
                    left -= 1;
                    Err(FileError::Changed(directory.join("10-pods.conflist")))
                }
            })
        };
        assert!(tries(0).is_ok() && tries(MAX_ATTEMPTS - 1).is_ok());
        assert!(matches!(tries(MAX_ATTEMPTS), Err(FileError::Changed(path)) if path == directory));
    }
}
