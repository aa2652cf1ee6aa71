//! From the sources of options to settings, and the start of logging.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::ArgMatches;

use super::failure::Failure;
use super::{args, logging};
use crate::linux::accounts::AccountFiles;
use crate::mesh;
use crate::mesh::annotations::{self, Annotations};
use crate::options::problem::{Problem, Source};
use crate::options::sources::{self, Parsed};
use crate::options::{Layer, Settings};

/// Reads all sources, merges them, and starts logging as they say.
///
/// # Errors
/// All that is wrong with any of them.
pub fn settings(matches: &ArgMatches) -> Result<Settings, Failure> {
    read(matches, environment(), file(matches)).map(|(_, settings)| settings)
}

/// The same, for a command that has more to say about options: what was given alone.
///
/// # Errors
/// All that is wrong with any of the sources.
pub fn layer(matches: &ArgMatches) -> Result<Layer, Failure> {
    read(matches, environment(), file(matches)).map(|(layer, _)| layer)
}

/// The same for a pod with annotations: they count before the file, and after the environment.
///
/// # Errors
/// All that is wrong with any of them.
pub fn settings_of_pod(matches: &ArgMatches, annotations: &Annotations) -> Result<Settings, Failure> {
    let mut below = file(matches);
    match annotations::parse(annotations).over(std::mem::take(&mut below.layer)) {
        Ok(layer) => below.layer = layer,
        Err(problems) => below.problems.extend(problems),
    }
    read(matches, environment(), below).map(|(_, settings)| settings)
}

/// Starts logging as the sources say, for a command that has no other options.
///
/// # Errors
/// What is wrong with the options about logging; variables for other commands are not this one's matter.
pub fn logging_alone(matches: &ArgMatches) -> Result<(), Failure> {
    let variables = environment().filter(|(name, _)| name.starts_with("SIDETRACK_LOG_"));
    read(matches, variables, Parsed::default()).map(drop)
}

fn read(
    matches: &ArgMatches,
    variables: impl Iterator<Item = (String, String)>,
    file: Parsed,
) -> Result<(Layer, Settings), Failure> {
    let accounts = &AccountFiles;
    let sources = [
        sources::from_flags(|option| args::texts(matches, option), accounts),
        sources::from_environment(variables, accounts),
        file,
    ];
    let (mut layer, mut problems, mut notes) = (Layer::default(), Vec::new(), Vec::new());
    for source in sources {
        layer = layer.over(source.layer);
        problems.extend(source.problems);
        notes.extend(source.notes);
    }
    let settings = match mesh::settings(layer.clone()) {
        Ok(settings) => settings,
        Err(contradictions) => {
            problems.extend(contradictions);
            Settings::default()
        }
    };
    logging::start(settings.logging, matches.get_count("verbose"));
    for note in notes {
        tracing::warn!("{note}");
    }
    if problems.is_empty() {
        Ok((layer, settings))
    } else {
        Err(problems.into())
    }
}

/// The variables that may be options. What is not text cannot be an option's value; its replacement characters will be
/// refused.
fn environment() -> impl Iterator<Item = (String, String)> {
    let ours = |(name, _): &(OsString, OsString)| name.as_bytes().starts_with(b"SIDETRACK_");
    std::env::vars_os().filter(ours).map(|(name, value)| {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        (text(name), text(value))
    })
}

fn file(matches: &ArgMatches) -> Parsed {
    let Some(path) = args::text_or_variable(matches, "config").map(PathBuf::from) else {
        return Parsed::default();
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => sources::from_file(&path, &text, &AccountFiles),
        Err(error) => Parsed {
            problems: vec![Problem::Source {
                source: Source::File(path),
                reason: error.to_string(),
            }],
            ..Parsed::default()
        },
    }
}
