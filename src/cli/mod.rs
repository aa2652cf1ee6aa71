//! The command line: what is asked for, who does it, and how the answer is told.

mod apply;
mod arguments;
mod cleanup;
mod completions;
mod failure;
mod graph;
mod help;
mod istio_iptables;
mod lint;
mod logging;
mod settings;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use self::failure::{ExitCodes, Failure};
use crate::config::types::LogLevel;

/// Runs one command: as `istio-iptables` where the program is called that, else as one of our own.
///
/// Errors are logged. The exit code is 0, or what the command has for its failures.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match istio_iptables::arguments(&arguments) {
        Some(arguments) => exit_code(
            help::brief(istio_iptables::command()).try_get_matches_from(arguments),
            istio_iptables::run,
            failure::ISTIO_IPTABLES,
        ),
        None => exit_code(
            help::brief(command()).try_get_matches_from(arguments),
            command_of_ours,
            failure::SIDETRACK,
        ),
    }
}

/// What clap knows of the whole command line: one definition gives flags, help, completions and man pages.
pub fn command() -> Command {
    arguments::command()
}

fn command_of_ours(matches: &ArgMatches) -> anyhow::Result<()> {
    match matches.subcommand() {
        Some(("apply", matches)) => apply::run(matches),
        Some(("cleanup", matches)) => cleanup::run(matches),
        Some(("completions", matches)) => completions::run(matches),
        Some(("help", matches)) => help::run(matches),
        Some(("graph", matches)) => graph::run(matches),
        Some(("lint", matches)) => lint::run(matches),
        _ => Err(Failure::Usage(vec!["no such command".to_owned()]).into()),
    }
}

fn exit_code(
    matches: Result<ArgMatches, clap::Error>,
    run: fn(&ArgMatches) -> anyhow::Result<()>,
    codes: ExitCodes,
) -> ExitCode {
    let matches = match matches {
        Ok(matches) => matches,
        Err(error) => {
            // clap prints help and version to standard output, and what is wrong to standard error.
            let printed = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked_for && printed.is_ok() { 0 } else { codes.usage });
        }
    };
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::start_if_needed(LogLevel::Info);
            failure::report(&error, codes)
        }
    }
}
