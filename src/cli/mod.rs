//! The command line: what is asked for, who does it, and how the answer is told.

mod apply;
mod arguments;
mod check;
mod cleanup;
mod completions;
mod explain;
mod failure;
mod graph;
mod help;
mod istio_iptables;
mod lint;
mod logging;
mod node;
mod output;
mod persist;
mod probe;
mod settings;

use std::ffi::OsString;
use std::process::{ExitCode, Termination};

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use self::failure::{ExitCodes, Failure};
use self::output::OutputError;
use crate::types::LogLevel;

/// Runs one command: as `istio-iptables` where the program is called that, else as one of our own.
///
/// Errors are logged. The exit code is 0, or what the command has for its failures and findings.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match istio_iptables::arguments(&arguments) {
        Some(arguments) => exit_code(
            istio_iptables::command,
            &arguments,
            |matches| istio_iptables::run(matches).map(|()| ExitCode::SUCCESS),
            failure::ISTIO_IPTABLES,
        ),
        None => exit_code(arguments::command, &arguments, command_of_ours, failure::SIDETRACK),
    }
}

/// What clap knows of the whole command line, every option of it: for man pages and the like.
pub fn command() -> Command {
    help::full(arguments::command())
}

fn command_of_ours(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let succeeded = |()| ExitCode::SUCCESS;
    match matches.subcommand() {
        Some(("apply", matches)) => apply::run(matches).map(succeeded),
        Some(("check", matches)) => check::run(matches),
        Some(("cleanup", matches)) => cleanup::run(matches).map(succeeded),
        Some(("completions", matches)) => completions::run(matches).map(succeeded),
        Some(("explain", matches)) => explain::run(matches).map(succeeded),
        Some(("help", matches)) => help::run(matches).map(succeeded),
        Some(("graph", matches)) => graph::run(matches).map(succeeded),
        Some(("lint", matches)) => lint::run(matches),
        Some(("node", matches)) => node::run(matches),
        Some(("probe", matches)) => probe::run(matches).map(succeeded),
        _ => Err(Failure::Usage(vec!["no such command".to_owned()]).into()),
    }
}

fn exit_code<T: Termination>(
    command: fn() -> Command,
    arguments: &[OsString],
    run: fn(&ArgMatches) -> anyhow::Result<T>,
    codes: ExitCodes,
) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Err(error) if help::is_help(&error) => help::brief(command()).try_get_matches_from(arguments),
        matches => matches,
    };
    let matches = match matches {
        Ok(matches) => matches,
        Err(error) => {
            let printed = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output::print(&error.render().to_string()),
                _ => {
                    // What is wrong goes to standard error, where maybe nobody reads it.
                    let _printed = error.print();
                    return ExitCode::from(codes.usage);
                }
            };
            return match printed {
                Ok(()) | Err(OutputError::Closed) => ExitCode::SUCCESS,
                Err(OutputError::Failed(_)) => ExitCode::from(codes.usage),
            };
        }
    };
    match run(&matches) {
        Ok(done) => done.report(),
        Err(error) => {
            logging::start_if_needed(LogLevel::Info);
            failure::report(&error, codes)
        }
    }
}
