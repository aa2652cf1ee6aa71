//! `sidetrack lint`: finds what defeats redirection in manifests.

use std::io::{self, Read as _};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::failure::{Failure, NEGATIVE};
use super::{args, invocation, output, settings};
use crate::lint::{self, Code, Context, Linted};
use crate::yaml::{self, Node};

/// The name of the command.
pub const NAME: &str = "lint";

/// The definition of the command line.
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
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(FORMATS.map(|(name, _)| name))
                .hide_possible_values(true)
                .help("How findings are written: text, json, sarif or github [text]"),
        )
        .arg(args::json().help("The same as --format json").conflicts_with("format"))
        .arg(
            Arg::new("ignore")
                .long("ignore")
                .value_name("CODES")
                .action(ArgAction::Append)
                .help("Leave out the findings of these codes, such as ST303,ST401"),
        )
        .arg(args::config())
        .args(args::options(args::is_rule_option))
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
    let (mut files, mut texts, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for file in matches.get_many::<String>("files").into_iter().flatten() {
        match documents(file) {
            Ok(documents) => {
                files.push(file.clone());
                texts.push(documents);
            }
            Err(reason) => unreadable.push(reason),
        }
    }
    let texts: Vec<&[Node]> = texts.iter().map(Vec::as_slice).collect();
    let reports = lint::lint_all(&texts, &context).into_iter().map(|mut report| {
        report.findings.retain(|finding| !ignored.contains(&finding.code));
        report
    });
    let linted = files
        .into_iter()
        .zip(reports)
        .map(|(file, report)| Linted { file, report });
    let linted: Vec<Linted> = linted.collect();
    let format = if matches.get_flag("json") {
        "json"
    } else {
        asked(matches)
    };
    let render = FORMATS.iter().find(|(name, _)| *name == format);
    output::print(&render.map_or(lint::text as Render, |(_, render)| *render)(&linted))?;
    let (pods, findings) = (lint::pods(&linted), lint::findings(&linted).count());
    let skipped = skipped(&linted);
    let skipped = skipped.as_deref();
    match (pods, findings) {
        _ if !unreadable.is_empty() => return Err(Failure::Input(unreadable).into()),
        (0, 0) => tracing::warn!(skipped, "no pod found: no object has a list of containers"),
        _ => tracing::info!(pods, findings, skipped, "manifests checked"),
    }
    Ok(match findings {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(NEGATIVE),
    })
}

type Render = fn(&[Linted]) -> String;

/// The output formats.
const FORMATS: [(&str, Render); 4] = [
    ("text", lint::text),
    ("json", lint::json),
    ("sarif", lint::sarif),
    ("github", lint::github),
];

fn asked(matches: &ArgMatches) -> &str {
    matches.get_one::<String>("format").map_or("text", String::as_str)
}

/// The skipped objects, which have no pod: `2 ConfigMap, 1 Ingress`.
fn skipped(linted: &[Linted]) -> Option<String> {
    let kinds = lint::skipped(linted).into_iter().map(|(kind, count)| match kind {
        "" => format!("{count} without a kind"),
        kind => format!("{count} {kind}"),
    });
    let kinds: Vec<String> = kinds.collect();
    (!kinds.is_empty()).then(|| kinds.join(", "))
}

/// The documents of a file, or why it cannot be read.
fn documents(file: &str) -> Result<Vec<Node>, String> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => io::stdin().lock().read_to_end(&mut bytes).map(drop),
        path => std::fs::read(path).map(|read| bytes = read),
    };
    read.map_err(|error| format!("{file}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| format!("{file}: {error}"))?;
    yaml::documents(&text).map_err(|error| {
        let template = if text.contains("{{") {
            ". It looks like a template of Helm: give what it renders, as in helm template CHART | sidetrack lint -"
        } else {
            ""
        };
        format!(
            "{file}:{}:{}: {}{template}",
            error.at.line, error.at.column, error.reason
        )
    })
}

/// The codes to leave out.
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
