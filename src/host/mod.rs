//! A host with systemd, such as a virtual machine: the files that make a redirection last there.
//!
//! A unit that applies a configuration at boot, that configuration, and the links that enable the unit, as
//! `systemctl enable` would make them (systemd.unit(5)): at boot, and with the services that flush rules. Nothing else
//! of the host is touched, and no program is run.

mod firewalls;
mod trust;

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::linux::files::{self, Access, FileError};
use crate::linux::netns;
use crate::options::{Layer, file};

pub use self::firewalls::{FIREWALLS, Firewall, LATE_FIREWALLS};

/// The configuration that the unit applies.
pub const CONFIG: &str = "/etc/sidetrack/config.yaml";
/// The link that enables the unit.
pub const LINK: &str = "/etc/systemd/system/multi-user.target.wants/sidetrack.service";

/// A unit, as packages bring it, and where it is.
struct Unit {
    template: &'static str,
    /// Where sidetrack writes it, unless a package has brought it.
    written: &'static str,
    packaged: &'static str,
}

/// Applies the configuration at boot.
const UNIT: Unit = Unit {
    template: include_str!("sidetrack.service"),
    written: "/etc/systemd/system/sidetrack.service",
    packaged: "/usr/lib/systemd/system/sidetrack.service",
};

/// Applies it again after a firewall was started. What only starts with a firewall stays active, and would miss that the
/// firewall is started, and flushes the rules, later.
const REAPPLICATION: Unit = Unit {
    template: include_str!("sidetrack-reapply.service"),
    written: "/etc/systemd/system/sidetrack-reapply.service",
    packaged: "/usr/lib/systemd/system/sidetrack-reapply.service",
};

/// The program of the unit that packages bring.
const PACKAGED_PROGRAM: &str = "/usr/bin/sidetrack";
/// The first line of a unit that sidetrack wrote. A unit without it is foreign and stays.
const MARK: &str = "# Written by `sidetrack apply --persist`; `sidetrack cleanup --persist` removes it.\n";
/// The first line of a configuration that sidetrack wrote. One without it is foreign and stays.
const CONFIG_MARK: &str = "# Written by `sidetrack apply --persist`, and replaced by the next one.\n";
const CONFIG_HINT: &str = "# `systemctl reload sidetrack` puts in force what is changed here.\n";

/// Why a redirection cannot be made persistent on this host.
#[derive(Debug, Error)]
pub enum HostError {
    /// The host was not booted with systemd (sd_booted(3)).
    #[error(
        "systemd does not run this machine (there is no /run/systemd/system): leave --persist out, and have whatever \
         starts the machine run `sidetrack apply --config FILE` before its network"
    )]
    NoSystemd,
    /// Units run in another network namespace.
    #[error(
        "this is not the network namespace of the host, in which units run: leave --persist out, or run this on the \
         host itself"
    )]
    OtherNamespace,
    /// The network namespace of this process cannot be determined.
    #[error("the host's network namespace, /proc/1/ns/net: {0}. Run as root on the host itself")]
    Unseen(io::Error),
    /// The unit is masked (systemctl(1)).
    #[error("{0} is a link, as of a unit that is masked: `systemctl unmask {name}`, then run this again", name = file_name(.0))]
    Masked(&'static str),
    /// The existing configuration was not written by sidetrack.
    #[error(
        "{CONFIG} was not written by `sidetrack apply --persist`, and would be overwritten. To keep it, leave the options \
         out and enable the unit (`systemctl enable sidetrack`), which applies it; else move it away and run this again"
    )]
    ForeignConfig,
    /// Another user than root can replace the program, or its path cannot be written into a unit.
    #[error(
        "the unit would run {} as root at every boot, {reason}: have it where root alone can write, by \
         `install -m 755 sidetrack /usr/local/bin/`, and run that one", path.display()
    )]
    Program {
        /// The path of the program.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file operation failed.
    #[error("{doing} {}: {reason}{}", path.display(), advice(reason))]
    File {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        reason: io::Error,
    },
    /// Another process changed a file meanwhile.
    #[error(transparent)]
    Changed(FileError),
}

impl HostError {
    fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |reason| Self::File { doing, path, reason }
    }
}

impl From<FileError> for HostError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::System { doing, path, reason } => Self::File { doing, path, reason },
            changed @ FileError::Changed(_) => Self::Changed(changed),
        }
    }
}

fn advice(reason: &io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            ". The file system is read-only: put what `sidetrack apply --persist --dry-run` prints into the image that \
             this host is made from, and leave --persist out here"
        }
        ErrorKind::PermissionDenied => ". Run as root",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ". Make room on that file system, and run this again",
        _ => "",
    }
}

/// The content of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Nothing,
    Text(String),
    Link(PathBuf),
}

impl Content {
    fn read(path: &str) -> Result<Self, HostError> {
        let read = |path: &Path| {
            if fs::symlink_metadata(path)?.is_symlink() {
                return fs::read_link(path).map(Self::Link);
            }
            fs::read_to_string(path).map(Self::Text)
        };
        match read(Path::new(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::Nothing),
            content => content.map_err(HostError::file("reading", path)),
        }
    }

    fn put(&self, path: &str) -> Result<(), HostError> {
        let path = Path::new(path);
        if let (Self::Text(_) | Self::Link(_), Some(directory)) = (self, path.parent()) {
            fs::create_dir_all(directory).map_err(HostError::file("making the directory", directory))?;
        }
        match self {
            Self::Nothing => files::remove(path).map(drop),
            Self::Text(text) => files::put(path, &mut text.as_bytes(), Access::CONFIGURATION),
            Self::Link(target) => files::link(path, target),
        }
        .map_err(HostError::from)
    }

    /// Whether it is a file that sidetrack wrote: its text begins with this mark.
    fn has_mark(&self, mark: &str) -> bool {
        matches!(self, Self::Text(text) if text.starts_with(mark))
    }
}

/// One file of the host, with its old and its new content.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    path: &'static str,
    was: Content,
    becomes: Content,
}

impl Change {
    fn to(path: &'static str, becomes: Content) -> Result<Self, HostError> {
        let was = Content::read(path)?;
        Ok(Self { path, was, becomes })
    }
}

/// The desired files of the host, in the order in which they are written: an enabled unit always exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files(Vec<Change>);

impl Files {
    /// The files that make the redirection with these options persistent.
    ///
    /// # Errors
    /// The unit is masked, the program cannot be trusted, or a file cannot be read.
    pub fn lasting(layer: &Layer) -> Result<Self, HostError> {
        let (unit, enabled) = UNIT.wanted()?;
        let (reapplication, reapplying) = REAPPLICATION.wanted()?;
        let config = Content::Text(format!("{CONFIG_MARK}{CONFIG_HINT}{}", file::text(layer)));
        let config = Change::to(CONFIG, config)?;
        if config.was != Content::Nothing && !config.was.has_mark(CONFIG_MARK) {
            return Err(HostError::ForeignConfig);
        }
        // A firewall may be installed later: `systemctl enable` would make the links, too.
        let links = firewalls().map(|firewall| (firewall.link, reapplying));
        let links = [(LINK, enabled)].into_iter().chain(links);
        let links = links.map(|(link, target)| Change::to(link, Content::Link(target.into())));
        let mut changes = vec![config, unit, reapplication];
        changes.extend(links.collect::<Result<Vec<_>, _>>()?);
        Ok(Self(changes))
    }

    /// Removes all files that sidetrack wrote. Files of packages stay, and so do a foreign unit and configuration.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn none() -> Result<Self, HostError> {
        let removed = |path, mark| -> Result<Change, HostError> {
            let mut change = Change::to(path, Content::Nothing)?;
            if !change.was.has_mark(mark) {
                change.becomes = change.was.clone();
            }
            Ok(change)
        };
        let links = links().map(|link| Change::to(link, Content::Nothing));
        let mut changes = links.collect::<Result<Vec<_>, _>>()?;
        for unit in [UNIT, REAPPLICATION] {
            changes.push(removed(unit.written, MARK)?);
        }
        changes.push(removed(CONFIG, CONFIG_MARK)?);
        Ok(Self(changes))
    }

    fn changes(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.0.iter().filter(|change| change.was != change.becomes)
    }

    /// Logs the changes.
    pub fn tell(&self) {
        for Change { path, becomes, .. } in self.changes() {
            match becomes {
                Content::Nothing => tracing::info!(path, "removed"),
                Content::Text(_) | Content::Link(_) => tracing::info!(path, "written"),
            }
        }
    }

    /// Writes the files, each atomically. If one fails, the earlier ones are restored.
    ///
    /// # Errors
    /// A file operation failed.
    pub fn put(&self) -> Result<(), HostError> {
        for (done, change) in self.changes().enumerate() {
            if let Err(error) = change.becomes.put(change.path) {
                take_back(self.changes().take(done).collect());
                return Err(error);
            }
        }
        remove_empty_directories();
        Ok(())
    }

    /// Restores all files. A file that cannot be restored is logged.
    pub fn take_back(&self) {
        take_back(self.changes().collect());
    }
}

/// The links that enable the unit.
fn links() -> impl Iterator<Item = &'static str> {
    [LINK].into_iter().chain(firewalls().map(|firewall| firewall.link))
}

fn firewalls() -> impl Iterator<Item = &'static Firewall> {
    FIREWALLS.iter().chain(&LATE_FIREWALLS)
}

fn take_back(changes: Vec<&Change>) {
    for change in changes.into_iter().rev() {
        if let Err(error) = change.was.put(change.path) {
            tracing::warn!(path = change.path, %error, "cannot restore the file");
        }
    }
    remove_empty_directories();
}

/// Removes the directories of our files where they are empty.
fn remove_empty_directories() {
    for directory in [CONFIG]
        .into_iter()
        .chain(links())
        .filter_map(|path| Path::new(path).parent())
    {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => tracing::warn!(path = %directory.display(), %error, "an empty directory stays"),
        }
    }
}

/// The files as comments for the end of a script.
impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Change { path, becomes, .. } in &self.0 {
            match becomes {
                Content::Nothing => {}
                Content::Link(target) => writeln!(f, "\n# The link {path} to {}", target.display())?,
                Content::Text(text) => {
                    writeln!(f, "\n# The file {path}:")?;
                    for line in text.lines() {
                        writeln!(f, "#   {line}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Unit {
    /// The change that makes the unit one that runs this program, unless a package or the administrator has brought one;
    /// and the path of the unit.
    fn wanted(&self) -> Result<(Change, &'static str), HostError> {
        let mut change = Change::to(self.written, Content::Nothing)?;
        let is_packaged = Path::new(self.packaged).exists();
        let path = match &change.was {
            Content::Link(_) => return Err(HostError::Masked(self.written)),
            Content::Text(_) if !change.was.has_mark(MARK) => {
                change.becomes = change.was.clone();
                self.written
            }
            Content::Nothing | Content::Text(_) if is_packaged => self.packaged,
            Content::Nothing | Content::Text(_) => {
                change.becomes = Content::Text(self.text(&trust::program()?));
                self.written
            }
        };
        Ok((change, path))
    }

    /// Its text, for this program.
    fn text(&self, program: &str) -> String {
        format!("{MARK}{}", self.template.replace(PACKAGED_PROGRAM, program))
    }
}

/// The name of a unit whose path this is.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Checks that systemd runs this host, and that its units run in the network namespace of this process.
///
/// # Errors
/// systemd does not run this host, or units run in another network namespace.
pub fn check() -> Result<(), HostError> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(HostError::NoSystemd);
    }
    match netns::is_in_init_netns() {
        Ok(true) => Ok(()),
        Ok(false) => Err(HostError::OtherNamespace),
        Err(error) => Err(HostError::Unseen(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_runs_the_program_that_wrote_it() {
        let unit = UNIT.text("/opt/bin/sidetrack");
        assert!(unit.starts_with(MARK));
        assert!(unit.contains("\nExecStart=/opt/bin/sidetrack apply --config /etc/sidetrack/config.yaml\n"));
        assert!(unit.contains("\nExecStop=/opt/bin/sidetrack cleanup\n"));
        assert!(!unit.contains(PACKAGED_PROGRAM));
        assert!(UNIT.template.contains(CONFIG));
    }

    #[test]
    fn units_follow_every_firewall() {
        let names = |firewalls: &[Firewall]| {
            let names: Vec<&str> = firewalls.iter().map(|firewall| firewall.unit).collect();
            names.join(" ")
        };
        for key in ["After", "PartOf", "ReloadPropagatedFrom"] {
            let line = format!("\n{key}={}\n", names(&FIREWALLS));
            assert!(UNIT.template.contains(&line), "{line}");
        }
        for key in ["After", "WantedBy"] {
            for firewalls in [&FIREWALLS[..], &LATE_FIREWALLS] {
                let line = format!("\n{key}={}\n", names(firewalls));
                assert!(REAPPLICATION.template.contains(&line), "{line}");
            }
        }
    }

    #[test]
    fn what_failed_is_told_with_what_to_do() {
        let said = |errno| HostError::file("writing", CONFIG)(io::Error::from_raw_os_error(errno)).to_string();
        assert!(said(libc::EROFS).contains("into the image"));
        assert!(said(libc::EACCES).ends_with("Run as root"));
        assert!(said(libc::EIO).ends_with("(os error 5)"));
    }
}
