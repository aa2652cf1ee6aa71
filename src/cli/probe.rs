//! `sidetrack probe`: tests an installed redirection by making connections through it.

use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use super::failure::{Failure, ProbeFailure};
use super::{args, front_end, output, place, redirection};
use crate::backend::{Namespace, Observed, RuleBackend};
use crate::mesh::redirectors::redirectors;
use crate::options::Config;
use crate::options::table::Group;
use crate::plan::Plan;
use crate::probe::{PORT, Report, Verdict, judge, run, trial};
use crate::types::{Port, parse_duration};

/// The name of the command.
pub const NAME: &str = "probe";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Prove an installed redirection by making connections through it")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .disable_help_subcommand(true)
        .after_help(
            "Give the options that the redirection was applied with, or Istio's flags after istio-iptables.\n\
             Exit codes: 0 all passed, 3 some failed, 1 some could not be made.\n\
             Examples: sidetrack probe --netns /proc/4321/ns/net --exclude-outbound-ports 3306,6379\n          \
             sidetrack probe --pod shop/web-0\n          \
             sidetrack probe istio-iptables -p 15001 -z 15006 -i '*' -b '*'",
        )
        .arg(args::netns())
        .arg(place::pod())
        .arg(args::config())
        .args(args::options(args::is_rule_option))
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("DURATION")
                .default_value("5s")
                .help("How long to wait for connections that get no answer")
                .help_heading(Group::Run.heading()),
        )
        .arg(args::json().global(true))
        .arg(args::verbose())
        .subcommands(front_end::commands("Prove"))
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let request = place::request(matches, &["json", "timeout"]);
    let (request, timeout) = match (request, timeout(matches)) {
        (Ok(request), Ok(timeout)) => (request, timeout),
        (Err(failure), Ok(_)) => return Err(failure.into()),
        (Ok(_), Err(problem)) => return Err(Failure::Input(vec![problem]).into()),
        (Err(Failure::Input(problems)), Err(problem)) => {
            return Err(Failure::Input([problems, vec![problem]].concat()).into());
        }
        (Err(Failure::Usage(problems)), Err(problem)) => {
            return Err(Failure::Usage([problems, vec![problem]].concat()).into());
        }
    };
    let (settings, place) = request.open()?;
    let report = place.probe(|| prove(&settings.config, PORT, timeout))??;
    let text = if matches.get_flag("json") {
        report.json()
    } else {
        report.text()
    };
    output::print(&text)?;
    let tally = report.tally();
    match (tally.failed, tally.not_made) {
        (0, 0) => Ok(()),
        (0, _) => Err(ProbeFailure::Incomplete(tally).into()),
        _ => Err(ProbeFailure::Failed(tally).into()),
    }
}

fn timeout(matches: &ArgMatches) -> Result<Duration, String> {
    let text = matches.get_one::<String>("timeout").map_or("5s", String::as_str);
    parse_duration(text).map_err(|invalid| format!("--timeout: {:?} is not {}", invalid.value, invalid.expected))
}

/// Makes the probes that Istio's validation does not cover, as far as permissions allow. Logs failures.
///
/// # Errors
/// A probe failed.
pub fn validate(config: &Config, port: Port, timeout: Duration) -> anyhow::Result<()> {
    let report = prove(config, port, timeout)?;
    for (probe, outcome) in &report.outcomes {
        let text = Report::line(probe, outcome);
        match judge(probe, outcome) {
            Verdict::Passed | Verdict::NotMade => tracing::debug!("{text}"),
            Verdict::Failed { meaning, advice } => tracing::error!("{text}. Meaning: {meaning}. Advice: {advice}"),
        }
    }
    match report.tally() {
        tally if tally.failed > 0 => Err(ProbeFailure::Validation(tally).into()),
        _ => Ok(()),
    }
}

/// Makes the probes for a configuration in this network namespace.
fn prove(config: &Config, port: Port, timeout: Duration) -> anyhow::Result<Report> {
    let mut namespace = Namespace::default();
    let facts = redirection::observed_facts(config)?;
    let families = Plan::new(config, &facts)?.ruleset.families;
    let surroundings = run::surroundings(&mut namespace)?;
    let mut report = run::run(&trial(config, &facts, families, &surroundings, port), timeout)?;
    if report.tally().failed > 0 {
        match namespace.observe() {
            Ok(observed) => report.notes.extend(notes(&observed)),
            Err(error) => tracing::debug!(%error, "cannot see which rules there are"),
        }
    }
    Ok(report)
}

/// Observations that may explain failures.
fn notes(observed: &Observed) -> Vec<String> {
    let mut notes = Vec::new();
    if run::may_see_rules()
        && !RuleBackend::ALL
            .into_iter()
            .any(|backend| observed.holds_rules(backend))
    {
        notes.push("no rules of sidetrack are installed".to_owned());
    }
    if !observed.loopback.up {
        notes.push("the loopback interface is down, and redirected connections need it".to_owned());
    }
    for other in redirectors(observed.all_chains()) {
        notes.push(format!(
            "{} redirects traffic here too (chain {} of {})",
            other.tool, other.chain, other.table
        ));
    }
    let others: Vec<String> = observed
        .foreign_chains()
        .map(|chain| format!("{} {}", chain.table, chain.chain))
        .collect();
    if !others.is_empty() {
        notes.push(format!("foreign chains: {}", others.join(", ")));
    }
    notes
}
