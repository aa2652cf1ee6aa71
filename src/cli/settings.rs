//! From the sources of options to settings, and the start of logging.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::failure::Failure;
use super::{args, logging};
use crate::linux::accounts::AccountFiles;
use crate::mesh;
use crate::options::problem::{Problem, Source};
use crate::options::sources::{self, Parsed};
use crate::options::{Layer, Settings};

/// Reads and merges all sources of options, and starts logging.
///
/// # Errors
/// All mistakes in them.
pub fn settings(matches: &ArgMatches) -> Result<Settings, Failure> {
    layer_and_settings(matches).map(|(_, settings)| settings)
}

/// The given options alone, without defaults.
///
/// # Errors
/// All mistakes in the sources.
pub fn layer(matches: &ArgMatches) -> Result<Layer, Failure> {
    layer_and_settings(matches).map(|(layer, _)| layer)
}

/// The given options alone, and the settings that they make.
///
/// # Errors
/// All mistakes in the sources.
pub fn layer_and_settings(matches: &ArgMatches) -> Result<(Layer, Settings), Failure> {
    read(matches, environment(), file(matches))
}

/// The sources that rank before a pod's annotations (flags and variables), and after them (the file).
pub struct Around {
    /// Flags and variables.
    pub before: Layer,
    /// The file.
    pub after: Layer,
}

/// Reads all sources for a pod, and starts logging.
///
/// # Errors
/// All mistakes in any of them.
pub fn around_pod(matches: &ArgMatches) -> Result<Around, Failure> {
    let (around, problems) = gathered(matches, environment(), file(matches));
    if problems.is_empty() {
        Ok(around)
    } else {
        Err(problems.into())
    }
}

/// Starts logging, for a command that has no other options of the table.
///
/// # Errors
/// Mistakes in the options of logging; variables of other commands are ignored.
pub fn start_logging(matches: &ArgMatches) -> Result<(), Failure> {
    let variables = environment().filter(|(name, _)| name.starts_with("SIDETRACK_LOG_"));
    read(matches, variables, Parsed::default()).map(drop)
}

fn read(
    matches: &ArgMatches,
    variables: impl Iterator<Item = (String, String)>,
    file: Parsed,
) -> Result<(Layer, Settings), Failure> {
    let (Around { before, after }, mut problems) = gathered(matches, variables, file);
    let layer = before.over(after);
    match mesh::settings(layer.clone()) {
        Ok(settings) if problems.is_empty() => Ok((layer, settings)),
        Ok(_) => Err(problems.into()),
        Err(contradictions) => {
            problems.extend(contradictions);
            Err(problems.into())
        }
    }
}

/// Reads all sources, and starts logging.
fn gathered(
    matches: &ArgMatches,
    variables: impl Iterator<Item = (String, String)>,
    file: Parsed,
) -> (Around, Vec<Problem>) {
    let accounts = &AccountFiles;
    let flags = sources::from_flags(|option| args::texts(matches, option), accounts);
    let variables = sources::from_environment(variables, accounts);
    let around = Around {
        before: flags.layer.over(variables.layer),
        after: file.layer,
    };
    let all = around.before.clone().over(around.after.clone());
    let settings = mesh::settings(all).unwrap_or_default();
    logging::start(settings.logging, matches.get_count("verbose"));
    let (mut problems, mut notes) = (flags.problems, flags.notes);
    for source in [(variables.problems, variables.notes), (file.problems, file.notes)] {
        problems.extend(source.0);
        notes.extend(source.1);
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    (around, problems)
}

/// The variables of sidetrack, without those of `sidetrack node`, which has options of its own. Bytes that are not UTF-8 become replacement characters, which no option accepts.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let ours = |(name, _): &(OsString, OsString)| {
        name.as_bytes().starts_with(b"SIDETRACK_") && !name.as_bytes().starts_with(b"SIDETRACK_NODE_")
    };
    std::env::vars_os().filter(ours).map(|(name, value)| {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        (text(name), text(value))
    })
}

fn file(matches: &ArgMatches) -> Parsed {
    let path = args::text_or_variable(matches, "config").map(PathBuf::from);
    path.map(|path| file_at(&path)).unwrap_or_default()
}

/// The options of a file.
pub fn file_at(path: &Path) -> Parsed {
    match std::fs::read_to_string(path) {
        Ok(text) => sources::from_file(path, &text, &AccountFiles),
        Err(error) => Parsed {
            problems: vec![Problem::Source {
                source: Source::File(path.to_owned()),
                reason: error.to_string(),
            }],
            ..Parsed::default()
        },
    }
}
