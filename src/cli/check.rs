//! `sidetrack check`: says whether what is installed is what would be applied, and what differs.

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde_json::json;

use super::failure::{Failure, NEGATIVE};
use super::settings::settings;
use super::{args, istio_iptables, kuma_init, output, redirection};
use crate::backend::Namespace;
use crate::backend::check::{Report, State};
use crate::drift::Difference;
use crate::linux::netns;
use crate::mesh::istio::front_end::Task;
use crate::options::Settings;
use crate::options::table::Scope;
use crate::plan::Plan;

/// The version of what `--json` prints.
const VERSION: u32 = 1;

/// What it is called.
pub const NAME: &str = "check";

/// What clap knows of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Says whether what is installed is what apply would install, and what differs")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .disable_help_subcommand(true)
        .after_help(
            "The options are those of apply. It exits with 0 where all is as planned, and with 3 otherwise.\n\
             Examples: sidetrack check --netns pod --exclude-outbound-ports 3306,6379\n          \
             sidetrack check istio-iptables -p 15001 -z 15006 -b '*'\n          \
             sidetrack check kuma-init --redirect-all-dns-traffic",
        )
        .arg(args::netns())
        .arg(args::config())
        .args(args::options(|option| option.scope != Scope::DryRun))
        .arg(args::json().global(true))
        .arg(args::verbose())
        .subcommand(istio_iptables::command().about("Compares with what istio-iptables with these flags would install"))
        .subcommand(kuma_init::command().about("Compares with what kuma-init with these flags would install"))
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (settings, netns) = match matches.subcommand() {
        Some((kuma_init::NAME, theirs)) => {
            let mistakes = stray(matches, kuma_init::NAME);
            if !mistakes.is_empty() {
                return Err(Failure::Usage(mistakes).into());
            }
            (kuma_init::settings(theirs)?, args::text_or_variable(matches, "netns"))
        }
        Some((_, theirs)) => of_istio_iptables(matches, theirs)?,
        None => (settings(matches)?, args::text_or_variable(matches, "netns")),
    };
    let report = match netns {
        Some(netns) => netns::within(netns::path(&netns), || check(&settings))??,
        None => check(&settings)?,
    };
    let text = if matches.get_flag("json") {
        json(&report)
    } else {
        words(&report)
    };
    output::print(&text)?;
    Ok(match report.state {
        State::InSync => ExitCode::SUCCESS,
        State::Absent | State::Drifted => ExitCode::from(NEGATIVE),
    })
}

/// The settings and the network namespace of a command line of `istio-iptables`.
fn of_istio_iptables(ours: &ArgMatches, theirs: &ArgMatches) -> anyhow::Result<(Settings, Option<String>)> {
    let mut mistakes = stray(ours, istio_iptables::NAME);
    let request = istio_iptables::request(theirs)?;
    if request.task == Task::Cleanup {
        mistakes.push("--cleanup-only: there is no plan to compare with. Leave it out".to_owned());
    }
    if mistakes.is_empty() {
        Ok((request.settings, request.netns))
    } else {
        Err(Failure::Usage(mistakes).into())
    }
}

/// What is wrong with our own flags before the word of another program. Kuma's has none for a network namespace.
fn stray(ours: &ArgMatches, program: &str) -> Vec<String> {
    let given = |id: &&clap::Id| ours.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    let meant = |id: &str| id == "json" || id == program || id == "netns" && program == kuma_init::NAME;
    let stray = ours.ids().filter(given).filter(|id| !meant(id.as_str()));
    stray
        .map(|id| format!("--{id} means nothing before {program}, whose own flags come after that word"))
        .collect()
}

fn check(settings: &Settings) -> anyhow::Result<Report> {
    let mut namespace = Namespace::default();
    let observed = namespace.observe()?;
    observed.warn_of_loopback();
    if observed.legacy.is_none() {
        tracing::warn!("the rules of legacy iptables cannot be seen here, and are left out of the comparison");
    }
    let plan = Plan::new(
        &settings.config,
        &redirection::facts(&settings.config, Some(&observed.loopback))?,
    )?;
    Ok(namespace.check(&plan, settings.install.backend, &observed)?)
}

fn words(report: &Report) -> String {
    let differences = &report.differences;
    let number = match differences.len() {
        1 => "1 difference".to_owned(),
        number => format!("{number} differences"),
    };
    let backends: Vec<String> = report.backends.iter().map(ToString::to_string).collect();
    let mut lines = vec![match report.state {
        State::InSync => format!("{}: all is as planned, in {}", report.state, backends.join(", ")),
        State::Absent => format!("{}: there are no rules of sidetrack here", report.state),
        State::Drifted => format!("{}: {number} from the plan, in {}", report.state, backends.join(", ")),
    }];
    lines.extend(differences.iter().map(|difference| format!("  {difference}")));
    if let Some(elsewhere) = differences.iter().find_map(Difference::elsewhere) {
        lines.push(format!(
            "To compare with what is in {elsewhere}, pass --backend {elsewhere}."
        ));
    }
    let ours = differences.iter().any(Difference::is_repaired_by_apply);
    if ours || report.state == State::Absent {
        lines.push("Applying with the same options puts it right.".to_owned());
    }
    if !differences.iter().all(Difference::is_repaired_by_apply) {
        lines.push("What is foreign is left as it is: remove what should not be there.".to_owned());
    }
    lines.join("\n") + "\n"
}

fn json(report: &Report) -> String {
    let document = json!({
        "version": VERSION,
        "state": report.state.to_string(),
        "backends": report.backends.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "differences": report.differences.iter().map(Difference::json).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}
