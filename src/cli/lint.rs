//! `sidetrack lint`: looks at manifests for what defeats redirection.

use std::io::{self, Read as _};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::failure::{Failure, NEGATIVE};
use super::{args, invocation, output, settings};
use crate::lint::{self, Code, Context, Linted, Report};

/// What it is called.
pub const NAME: &str = "lint";

/// What clap knows of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Find what defeats redirection in Kubernetes manifests")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .after_help(
            "Exit codes: 0 nothing found, 3 findings, 2 a file cannot be read.\n\
             Example: kubectl get deployments -A -o yaml | sidetrack lint -",
        )
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .num_args(1..)
                .required(true)
                .help("YAML or JSON, of any number of documents; - is standard input"),
        )
        .arg(args::json())
        .arg(
            Arg::new("ignore")
                .long("ignore")
                .value_name("CODES")
                .action(ArgAction::Append)
                .help("Leave out the findings of these codes, such as ST303,ST401"),
        )
        .arg(args::config())
        .args(args::options(args::is_about_rules))
        .arg(args::verbose())
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let layer = settings::layer(matches)?;
    let ignored = ignored(matches)?;
    let context = Context {
        settings: &layer,
        read: &invocation::read,
    };
    let (mut linted, mut unreadable) = (Vec::new(), Vec::new());
    for file in matches.get_many::<String>("files").into_iter().flatten() {
        match look_at(file, &context) {
            Ok(mut report) => {
                report.findings.retain(|finding| !ignored.contains(&finding.code));
                let file = file.clone();
                linted.push(Linted { file, report });
            }
            Err(reason) => unreadable.push(reason),
        }
    }
    let render = if matches.get_flag("json") {
        lint::json
    } else {
        lint::text
    };
    output::print(&render(&linted))?;
    let (pods, findings) = (lint::pods(&linted), lint::findings(&linted).count());
    match (pods, findings) {
        _ if !unreadable.is_empty() => return Err(Failure::Input(unreadable).into()),
        (0, 0) => tracing::warn!("there is no pod in there: nothing has a list of containers"),
        _ => tracing::info!(pods, findings, "looked at"),
    }
    Ok(match findings {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(NEGATIVE),
    })
}

/// What is found in a file, or why it cannot be read.
fn look_at(file: &str, context: &Context<'_>) -> Result<Report, String> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => io::stdin().lock().read_to_end(&mut bytes).map(drop),
        path => std::fs::read(path).map(|read| bytes = read),
    };
    read.map_err(|error| format!("{file}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| format!("{file}: {error}"))?;
    lint::lint(&text, context)
        .map_err(|error| format!("{file}:{}:{}: {}", error.at.line, error.at.column, error.reason))
}

/// The codes that are not wanted.
fn ignored(matches: &ArgMatches) -> Result<Vec<Code>, Failure> {
    let texts = matches.get_many::<String>("ignore").into_iter().flatten();
    let names = texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let (mut codes, mut wrong) = (Vec::new(), Vec::new());
    for name in names {
        match Code::ALL.iter().find(|code| code.id() == name) {
            Some(code) => codes.push(*code),
            None => wrong.push(format!(
                "--ignore: {name:?} is no code; docs/lint.md lists them, such as ST101"
            )),
        }
    }
    if wrong.is_empty() {
        Ok(codes)
    } else {
        Err(Failure::Input(wrong))
    }
}
