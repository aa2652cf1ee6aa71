//! The command line: what is asked for, who does it, and how the answer is told.

mod apply;
mod arguments;
mod cleanup;
mod failure;
mod logging;
mod settings;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

use self::failure::Failure;
use crate::config::types::LogLevel;

/// Runs one command. Errors are logged; the exit code is 0, 1 for the system, 2 for the input.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match arguments::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // clap prints help and version to standard output, and what is wrong to standard error.
            let printed = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked_for && printed.is_ok() {
                0
            } else {
                failure::INPUT
            });
        }
    };
    let result = match matches.subcommand() {
        Some(("apply", matches)) => apply::run(matches),
        Some(("cleanup", matches)) => cleanup::run(matches),
        _ => Err(Failure::Input(vec!["no such command".to_owned()]).into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::start_if_needed(LogLevel::Info);
            failure::report(&error)
        }
    }
}
