//! `sidetrack check`: compares the installed rules with the plan.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use serde_json::json;

use super::expectation::{Expectation, Request, Source};
use super::failure::NEGATIVE;
use super::{args, front_end, output, redirection};
use crate::backend::check::{Report, State};
use crate::backend::{Namespace, applied};
use crate::drift::Difference;
use crate::mesh::redirectors::{Redirector, redirectors};
use crate::options::table::Scope;
use crate::plan::Plan;

/// The version of the JSON schema.
const VERSION: u32 = 1;

/// The name of the command.
pub const NAME: &str = "check";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Compare what is installed with what apply would install")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .disable_help_subcommand(true)
        .after_help(
            "The options are those of apply; without any, those recorded with the rules count.\n\
             Exit codes: 0 the rules match the plan, 3 otherwise.\n\
             Examples: sidetrack check --netns pod --exclude-outbound-ports 3306,6379\n          \
             sidetrack check istio-iptables -p 15001 -z 15006 -b '*'\n          \
             sidetrack check kuma-init --redirect-all-dns-traffic",
        )
        .arg(args::netns())
        .arg(args::config())
        .args(args::options(|option| option.scope != Scope::DryRun))
        .arg(args::json().global(true))
        .arg(args::verbose())
        .subcommands(front_end::commands("Compare with"))
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let request = Request::read(matches, &["json"])?;
    let netns = request.netns.clone();
    let (report, source, others) = request.within(check)?;
    let removals = removals(&others, netns.as_deref());
    let text = if matches.get_flag("json") {
        json(&report, &source, &removals)
    } else {
        self::text(&report, &source, &removals)
    };
    output::print(&text)?;
    Ok(match report.state {
        State::InSync => ExitCode::SUCCESS,
        State::Absent | State::Drifted => ExitCode::from(NEGATIVE),
    })
}

fn check(request: &Request) -> anyhow::Result<(Report, Source, Vec<Redirector>)> {
    let mut namespace = Namespace::default();
    let observed = namespace.observe()?;
    observed.warn_of_loopback();
    if observed.legacy.is_none() {
        tracing::warn!("the rules of legacy iptables cannot be read here and are not compared");
    }
    let Expectation {
        settings,
        resolvers,
        source,
    } = request.expectation(&mut namespace, &observed)?;
    let facts = redirection::facts_with(&settings.config, Some(&observed.loopback), resolvers.as_deref())?;
    let plan = Plan::new(&settings.config, &facts)?;
    applied::warn_of_options_without_effect(&settings.config, &facts, &plan);
    namespace.warn_of_blocked_ports(&settings.config, &observed);
    let report = namespace.check(&plan, settings.install.backend, &observed)?;
    Ok((report, source, redirectors(observed.all_chains())))
}

/// The commands that remove the rules of other tools, by tool.
fn removals(others: &[Redirector], netns: Option<&str>) -> Vec<(&'static str, String)> {
    let netns = netns.map(|netns| format!(" --netns {netns}")).unwrap_or_default();
    let known = others.iter().filter(|other| other.mesh.is_some());
    known
        .map(|other| (other.tool, format!("{}{netns}", other.removal())))
        .collect()
}

fn text(report: &Report, source: &Source, removals: &[(&str, String)]) -> String {
    let differences = &report.differences;
    let number = match differences.len() {
        1 => "1 difference".to_owned(),
        number => format!("{number} differences"),
    };
    let backends: Vec<String> = report.backends.iter().map(ToString::to_string).collect();
    let mut lines = vec![match report.state {
        State::InSync => format!(
            "{}: the installed rules match the plan, in {}",
            report.state,
            backends.join(", ")
        ),
        State::Absent => format!("{}: no rules of sidetrack are installed", report.state),
        State::Drifted => format!("{}: {number} from the plan, in {}", report.state, backends.join(", ")),
    }];
    lines.extend(differences.iter().map(|difference| format!("  {difference}")));
    lines.extend(source.sentence("Compared with"));
    if let Some(elsewhere) = differences.iter().find_map(Difference::unplanned_backend) {
        lines.push(format!(
            "To compare with the rules in {elsewhere}, pass --backend {elsewhere}."
        ));
    }
    let is_repairable = differences.iter().any(Difference::is_repaired_by_apply);
    if is_repairable || report.state == State::Absent {
        lines.push("Run `sidetrack apply` with the same options to repair it.".to_owned());
    }
    if !differences.iter().all(Difference::is_repaired_by_apply) {
        lines.push("sidetrack does not change foreign rules: remove those that should not be there.".to_owned());
    }
    let removals = removals.iter();
    lines.extend(removals.map(|(tool, command)| format!("To remove the rules of {tool}: {command}")));
    lines.join("\n") + "\n"
}

fn json(report: &Report, source: &Source, removals: &[(&str, String)]) -> String {
    let mut document = json!({
        "version": VERSION,
        "state": report.state.to_string(),
        "backends": report.backends.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "differences": report.differences.iter().map(Difference::json).collect::<Vec<_>>(),
        "remove": removals.iter().map(|(_, command)| command).collect::<Vec<_>>(),
    });
    for (field, value) in source.json() {
        document[field] = value;
    }
    format!("{document:#}\n")
}
