//! Errors of the iptables programs, each with advice.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use thiserror::Error;

use super::{PREFIX, TableName, TooManyRules, Variant};
use crate::types::Family;

/// An error of the iptables backend.
#[derive(Debug, Error)]
pub enum IptablesError {
    /// The programs are not installed.
    #[error(
        "no iptables ({variant}) for {family}: found no {programs} of that variant in PATH ({search}). \
         Install the package iptables, or use the nftables backend, which needs no program"
    )]
    NotFound {
        /// The variant wanted.
        variant: Variant,
        /// The family wanted.
        family: Family,
        /// The names that were searched for.
        programs: String,
        /// The search path.
        search: String,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}. Check that it is executable here, or use the nftables backend")]
    CannotRun {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Writing a program's input or reading its output failed.
    #[error("the exchange with {program} broke off: {source}. Try again")]
    BrokenOff {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program did not end in time and was stopped.
    #[error(
        "{program} did not end within {seconds} seconds and was stopped. \
         Look for another iptables that hangs, and try again"
    )]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// The time limit.
        seconds: u64,
    },
    /// A program failed.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// The lists are too long.
    #[error(transparent)]
    TooManyRules(#[from] TooManyRules),
    /// A table holds rules that iptables cannot read, so our rules cannot be distinguished from foreign ones.
    #[error(
        "iptables (nf_tables) cannot read the {family} table {}: another tool put rules into it that only nft can \
         write. Remove those, or use the nftables backend; `nft list ruleset` shows them and the chains of sidetrack ({PREFIX}…)",
        .table.as_str()
    )]
    Incompatible {
        /// The family of the table.
        family: Family,
        /// The table.
        table: TableName,
    },
    /// Applying failed, and the rollback failed too.
    #[error("{failure}. Rolling back the earlier changes failed too: {rollback}. Remove the rules, and apply again")]
    NotUndone {
        /// Why applying failed.
        failure: Box<IptablesError>,
        /// Why the rollback failed.
        rollback: Box<IptablesError>,
    },
}

impl IptablesError {
    /// The error for programs that are missing in `search`.
    pub(super) fn not_found(variant: Variant, family: Family, search: &OsStr) -> Self {
        let programs = variant
            .programs(family)
            .map(|name| format!("{name}-save and {name}-restore"));
        Self::NotFound {
            variant,
            family,
            programs: programs.join(", and no "),
            search: search.to_string_lossy().into_owned(),
        }
    }

    /// Whether the same rules may be accepted without comments.
    pub(super) fn may_be_about_comments(&self) -> bool {
        match self {
            // The program did not even end.
            Self::Failed(failure) if failure.status.code().is_none() => false,
            Self::Failed(failure) => match &failure.reason {
                Reason::Extension(name) => name == "comment",
                // The kernel does not report which extension it lacks.
                Reason::Other => true,
                Reason::Permission
                | Reason::Lock
                | Reason::LockFile
                | Reason::Busy
                | Reason::Memory
                | Reason::NoNfTables
                | Reason::NoTable => false,
            },
            Self::NotFound { .. }
            | Self::CannotRun { .. }
            | Self::BrokenOff { .. }
            | Self::TimedOut { .. }
            | Self::TooManyRules(_)
            | Self::Incompatible { .. }
            | Self::NotUndone { .. } => false,
        }
    }

    /// Whether the kernel denied permission.
    pub fn is_permission_denied(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.reason == Reason::Permission,
            Self::NotUndone { failure, .. } => failure.is_permission_denied(),
            Self::NotFound { .. }
            | Self::CannotRun { .. }
            | Self::BrokenOff { .. }
            | Self::TimedOut { .. }
            | Self::TooManyRules(_)
            | Self::Incompatible { .. } => false,
        }
    }

    /// Whether another process changed the same tables at the same time.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.reason == Reason::Busy)
    }

    /// Adds that the rollback failed too.
    pub(super) fn with_failed_rollback(self, rollback: Self) -> Self {
        Self::NotUndone {
            failure: Box::new(self),
            rollback: Box::new(rollback),
        }
    }
}

/// A program that failed.
#[derive(Debug)]
pub struct Failure {
    program: PathBuf,
    status: ExitStatus,
    /// The message of the program.
    message: String,
    /// The line of input that the message is about.
    line: Option<String>,
    reason: Reason,
}

/// Why a program failed, as far as its message shows.
#[derive(Debug, PartialEq, Eq)]
enum Reason {
    Permission,
    Lock,
    LockFile,
    Busy,
    Memory,
    NoNfTables,
    NoTable,
    Extension(String),
    Other,
}

impl Failure {
    /// The failure of a program that read `input` and wrote `stderr`.
    pub(super) fn new(program: &Path, status: ExitStatus, stderr: &str, input: &str) -> Self {
        let useful = |line: &&str| !line.is_empty() && !line.starts_with("Try `") && !line.starts_with("# Warning");
        let message: Vec<&str> = stderr.lines().map(str::trim).filter(useful).take(3).collect();
        let line = line_number(stderr)
            .and_then(|number| input.lines().nth(number.checked_sub(1)?))
            .filter(|line| *line != "COMMIT"); // The kernel refused the table without naming a rule.
        Self {
            program: program.to_owned(),
            status,
            message: message.join("; ").replace(":; ", ": ").trim_end_matches('.').to_owned(),
            line: line.map(str::to_owned),
            reason: Reason::of(stderr),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({})", self.program.display(), self.status)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(line) = &self.line {
            write!(f, "; the line is '{line}'")?;
        }
        write!(f, ". {}", self.reason)
    }
}

impl std::error::Error for Failure {}

impl Reason {
    fn of(stderr: &str) -> Self {
        let says = |words: &str| stderr.contains(words);
        if says("can't open lock file") {
            Self::LockFile
        } else if says("Permission denied") || says("Operation not permitted") {
            Self::Permission
        } else if says("xtables lock") {
            Self::Lock
        } else if says("Resource temporarily unavailable") || says("Device or resource busy") {
            Self::Busy
        } else if says("Memory allocation problem") || says("Cannot allocate memory") || says("No buffer space") {
            Self::Memory
        } else if says("Failed to initialize nft") || says("Could not fetch rule set generation id") {
            Self::NoNfTables
        } else if says("initialize table") || says("initialize iptables table") || says("initialize ip6tables table") {
            Self::NoTable
        } else if let Some(name) = extension(stderr) {
            Self::Extension(name)
        } else {
            Self::Other
        }
    }
}

/// The advice.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission => f.write_str("It needs the capability NET_ADMIN and, for the variant legacy, NET_RAW"),
            Self::Lock => f.write_str("Another iptables holds the lock: wait for it to end, and try again"),
            Self::LockFile => {
                f.write_str("Let this user write to it, or set XTABLES_LOCKFILE to a file where that is so")
            }
            Self::Busy => f.write_str(
                "Another process may be changing the same tables: try again. Or a foreign rule jumps to a chain of \
                 sidetrack (SIDETRACK_…): remove that rule",
            ),
            Self::Memory => f.write_str("The system is short of memory: try again"),
            Self::NoNfTables => f.write_str("The kernel has no nf_tables: use the variant legacy"),
            Self::NoTable => f.write_str(
                "Load the module of the table on the node (modprobe iptable_nat, ip6table_nat), and check that the \
                 capabilities NET_ADMIN and NET_RAW are there; or use the nftables backend",
            ),
            Self::Extension(name) => write!(
                f,
                "It needs the extension {name}: load the module xt_{name} on the node, or install a complete \
                 package iptables; or use the nftables backend"
            ),
            Self::Other => f.write_str(
                "The kernel may lack a module (xt_owner, xt_multiport, xt_REDIRECT): load it on the node, or use the \
                 nftables backend",
            ),
        }
    }
}

/// The number in `line 7` or `line: 7`.
fn line_number(stderr: &str) -> Option<usize> {
    stderr.split("line").skip(1).find_map(|after| {
        let after = after.trim_start_matches([':', ' ']);
        let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

/// The extension that a message is about: "Couldn't load match `owner'", "Extension comment revision 0 not
/// supported", or an option that only the extension knows.
fn extension(stderr: &str) -> Option<String> {
    const OPTIONS: [(&str, &str); 5] = [
        ("--to-ports", "REDIRECT"),
        ("--uid-owner", "owner"),
        ("--gid-owner", "owner"),
        ("--dports", "multiport"),
        ("--comment", "comment"),
    ];
    let word_after = |prefix: &str, end: char| {
        let (_, after) = stderr.split_once(prefix)?;
        after.split(end).next().map(str::to_owned)
    };
    word_after("Couldn't load match `", '\'')
        .or_else(|| word_after("Couldn't load target `", '\''))
        .or_else(|| word_after("Extension ", ' '))
        .or_else(|| {
            let (_, name) = OPTIONS.iter().find(|(option, _)| stderr.contains(option))?;
            Some((*name).to_owned())
        })
}
