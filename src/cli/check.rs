//! `sidetrack check`: compares the installed rules with the plan.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::failure::NEGATIVE;
use super::settings::settings;
use super::{args, front_end, output, redirection};
use crate::backend::check::{Report, State};
use crate::backend::{Namespace, applied};
use crate::drift::Difference;
use crate::linux::netns;
use crate::mesh::redirectors::{Redirector, redirectors};
use crate::options::Settings;
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
            "The options are those of apply. Exit codes: 0 the rules match the plan, 3 otherwise.\n\
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
    let (mut settings, netns) = match front_end::asked(matches, &["json"]) {
        Some(asked) => asked?,
        None => (settings(matches)?, args::text_or_variable(matches, "netns")),
    };
    let (report, others) = match &netns {
        Some(netns) => {
            redirection::settle_name_servers(&mut settings.config, netns)?;
            netns::within(netns::path(netns), || check(&settings))??
        }
        None => check(&settings)?,
    };
    let redirectors = found(&others, netns.as_deref());
    let text = if matches.get_flag("json") {
        json(&report, &redirectors)
    } else {
        self::text(&report, &redirectors)
    };
    output::print(&text)?;
    Ok(match report.state {
        State::InSync => ExitCode::SUCCESS,
        State::Absent | State::Foreign | State::Drifted => ExitCode::from(NEGATIVE),
    })
}

fn check(settings: &Settings) -> anyhow::Result<(Report, Vec<Redirector>)> {
    let mut namespace = Namespace::default();
    let observed = namespace.observe()?;
    observed.warn_of_loopback();
    if observed.legacy.is_none() {
        tracing::warn!("the rules of legacy iptables cannot be read here and are not compared");
    }
    let facts = redirection::facts(&settings.config, Some(&observed.loopback))?;
    let plan = Plan::new(&settings.config, &facts)?;
    applied::warn_of_idle_options(&settings.config, &facts, &plan);
    namespace.warn_of_blocked_ports(&settings.config, &observed);
    let report = namespace.check(&plan, settings.install.backend, &observed)?;
    Ok((report, redirectors(observed.all_chains())))
}

/// Another tool that redirects, and what to do about it.
struct Found<'o> {
    other: &'o Redirector,
    /// The command that removes its rules, if sidetrack can.
    removal: Option<String>,
}

impl Found<'_> {
    fn json(&self) -> Value {
        let Redirector {
            tool,
            mesh,
            table,
            chain,
        } = self.other;
        json!({
            "tool": tool,
            "mesh": mesh.map(|mesh| mesh.to_string()),
            "table": table,
            "chain": chain,
            "remove": self.removal,
            "migration": self.other.migration(),
        })
    }
}

fn found<'o>(others: &'o [Redirector], netns: Option<&str>) -> Vec<Found<'o>> {
    let netns = netns.map(|netns| format!(" --netns {netns}")).unwrap_or_default();
    let found = others.iter().map(|other| Found {
        removal: other.mesh.map(|_| format!("{}{netns}", other.removal())),
        other,
    });
    found.collect()
}

fn text(report: &Report, redirectors: &[Found]) -> String {
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
        State::Foreign => format!(
            "{}: {} redirects this network namespace, not sidetrack",
            report.state,
            tools(redirectors)
        ),
        State::Drifted => format!("{}: {number} from the plan, in {}", report.state, backends.join(", ")),
    }];
    lines.extend(differences.iter().map(|difference| format!("  {difference}")));
    if let Some(elsewhere) = differences.iter().find_map(Difference::unplanned_backend) {
        lines.push(format!(
            "To compare with the rules in {elsewhere}, pass --backend {elsewhere}."
        ));
    }
    lines.extend(advice(report));
    for Found { other, removal } in redirectors {
        let tool = other.tool;
        if let (State::Foreign, Some(section)) = (report.state, other.migration()) {
            lines.push(format!("To migrate from {tool}: {section}"));
        }
        lines.extend(
            removal
                .iter()
                .map(|command| format!("To remove the rules of {tool}: {command}")),
        );
    }
    lines.join("\n") + "\n"
}

fn tools(redirectors: &[Found]) -> String {
    let tools: Vec<&str> = redirectors.iter().map(|found| found.other.tool).collect();
    tools.join(" and ")
}

/// What to do.
fn advice(report: &Report) -> Vec<String> {
    if report.state == State::Foreign {
        return vec![
            "Do not run `sidetrack apply` here as long as these rules are installed: both would redirect.".to_owned(),
        ];
    }
    let mut lines = Vec::new();
    let is_repairable = report.differences.iter().any(Difference::is_repaired_by_apply);
    if is_repairable || report.state == State::Absent {
        lines.push("Run `sidetrack apply` with the same options to repair it.".to_owned());
    }
    if !report.differences.iter().all(Difference::is_repaired_by_apply) {
        lines.push("sidetrack does not change foreign rules: remove those that should not be there.".to_owned());
    }
    lines
}

fn json(report: &Report, redirectors: &[Found]) -> String {
    let document = json!({
        "version": VERSION,
        "state": report.state.to_string(),
        "backends": report.backends.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "differences": report.differences.iter().map(Difference::json).collect::<Vec<_>>(),
        "remove": redirectors.iter().filter_map(|found| found.removal.as_ref()).collect::<Vec<_>>(),
        "redirectors": redirectors.iter().map(Found::json).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}
