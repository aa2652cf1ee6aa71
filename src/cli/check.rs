//! `sidetrack check`: compares the installed rules with the plan.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::expectation::{Expectation, Opened, Request, Source};
use super::failure::NEGATIVE;
use super::place::{self, Place};
use super::{args, front_end, output, redirection};
use crate::backend::check::{Report, State};
use crate::backend::{Namespace, applied};
use crate::drift::{Difference, Subject};
use crate::linux::interfaces;
use crate::mesh::redirectors::{Redirector, redirectors};
use crate::options::table::Scope;
use crate::plan::Plan;
use crate::simulate::effect::{self, Comparison, Effect};
use crate::simulate::{Pod, Simulation};

/// The version of the JSON schema.
const VERSION: u32 = 1;

/// The number of effects that the text lists.
const MAX_LISTED_EFFECTS: usize = 20;

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
             sidetrack check --pod shop/web-0\n          \
             sidetrack check istio-iptables -p 15001 -z 15006 -b '*'\n          \
             sidetrack check kuma-init --redirect-all-dns-traffic",
        )
        .arg(args::netns())
        .arg(place::pod())
        .arg(args::config())
        .args(args::options(|option| option.scope != Scope::DryRun))
        .arg(args::json().global(true))
        .arg(args::verbose())
        .subcommands(front_end::commands("Compare with"))
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let request = Request::read(matches, &["json"])?.open()?;
    let place = &request.place;
    let Answer {
        report,
        source,
        others,
        effects,
    } = place.administer(|| check(&request))??;
    let redirectors = found(&others, place.netns().as_deref());
    let text = if matches.get_flag("json") {
        json(&report, &source, &redirectors, effects.as_ref())
    } else {
        self::text(&report, &source, &redirectors, effects.as_ref(), place)
    };
    output::print(&text)?;
    Ok(match report.state {
        State::InSync => ExitCode::SUCCESS,
        State::Absent | State::Foreign | State::Drifted => ExitCode::from(NEGATIVE),
    })
}

/// The result of a check.
struct Answer {
    report: Report,
    /// What the rules were compared with.
    source: Source,
    /// Other tools that redirect.
    others: Vec<Redirector>,
    /// What foreign rules do to packets, if there are any.
    effects: Option<Comparison>,
}

fn check(request: &Opened) -> anyhow::Result<Answer> {
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
    applied::warn_of_bridges(&settings.config);
    let facts = redirection::facts_with(&settings.config, Some(&observed.loopback), resolvers.as_deref())?;
    let plan = Plan::new(&settings.config, &facts)?;
    applied::warn_of_options_without_effect(&settings.config, &facts, &plan);
    namespace.warn_of_foreign_rules(&settings.config, &observed);
    let mut report = namespace.check(&plan, settings.install.backend, &observed)?;
    let effects = match report.state {
        // The flags are those of the program that wrote these rules: what they do must be the same, not how.
        State::Foreign if request.is_of_front_end => {
            let effects = effects_instead(plan, &mut namespace)?;
            // Nothing is in front of rules that are not there.
            report
                .differences
                .retain(|difference| !matches!(difference.subject, Subject::BaseChain { .. }));
            report.state = if effects.effects.is_empty() {
                State::InSync
            } else {
                State::Drifted
            };
            Some(effects)
        }
        State::Foreign | State::Absent => None,
        State::InSync | State::Drifted => effects_beside(&mut namespace)?,
    };
    Ok(Answer {
        report,
        source,
        others: redirectors(observed.all_chains()),
        effects,
    })
}

/// What the installed rules do, instead of those of a plan.
fn effects_instead(plan: Plan, namespace: &mut Namespace) -> anyhow::Result<Comparison> {
    let pod = installed_pod(namespace)?;
    let found = effect::simulation("the installed rules", namespace.netfilter()?, pod.clone());
    let planned = Simulation::planned("the plan", plan, pod, None);
    Ok(effect::compare(&planned, &found)?)
}

/// What foreign rules do beside sidetrack's; `None` if there are none.
fn effects_beside(namespace: &mut Namespace) -> anyhow::Result<Option<Comparison>> {
    let all = namespace.netfilter()?;
    let own = effect::own_rules(&all);
    if own == all {
        return Ok(None);
    }
    let pod = installed_pod(namespace)?;
    let own = effect::simulation("sidetrack's rules", own, pod.clone());
    let all = effect::simulation("all rules", all, pod);
    Ok(Some(effect::compare(&own, &all)?))
}

/// The pod of this network namespace.
fn installed_pod(namespace: &mut Namespace) -> anyhow::Result<Pod> {
    Ok(Pod {
        addresses: interfaces::addresses()?,
        local_marks: namespace.local_marks()?,
        route_localnet: interfaces::route_localnet(),
    })
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

fn effect_json(effect: &Effect) -> Value {
    let Effect {
        packet,
        packets,
        expected,
        found,
        rule,
        place,
        doubts,
    } = effect;
    json!({
        "packet": packet,
        "packets": packets,
        "expected": expected,
        "found": found,
        "rule": rule,
        "place": place,
        "doubts": doubts,
        "words": effect.to_string(),
    })
}

fn found<'o>(others: &'o [Redirector], netns: Option<&str>) -> Vec<Found<'o>> {
    let netns = netns.map(|netns| format!(" --netns {netns}")).unwrap_or_default();
    let found = others.iter().map(|other| Found {
        removal: other.mesh.map(|_| format!("{}{netns}", other.removal())),
        other,
    });
    found.collect()
}

fn text(
    report: &Report,
    source: &Source,
    redirectors: &[Found],
    effects: Option<&Comparison>,
    place: &Place,
) -> String {
    let differences = &report.differences;
    let number = match differences.len() {
        1 => "1 difference".to_owned(),
        number => format!("{number} differences"),
    };
    let backends: Vec<String> = report.backends.iter().map(ToString::to_string).collect();
    let by_effect = effects.filter(|_| report.backends.is_empty());
    let mut lines = vec![match (report.state, by_effect) {
        (state, Some(effects)) => summary_by_effect(state, effects, &tools(redirectors)),
        (State::InSync, None) => format!(
            "{}: the installed rules match the plan, in {}",
            report.state,
            backends.join(", ")
        ),
        (State::Absent, None) => format!("{}: no rules of sidetrack are installed", report.state),
        (State::Foreign, None) => format!(
            "{}: {} redirects this network namespace, not sidetrack",
            report.state,
            tools(redirectors)
        ),
        (State::Drifted, None) => format!("{}: {number} from the plan, in {}", report.state, backends.join(", ")),
    }];
    lines.extend(differences.iter().map(|difference| format!("  {difference}")));
    let effects = effects.map(|effects| effects.effects.as_slice()).unwrap_or_default();
    lines.extend(
        effects
            .iter()
            .take(MAX_LISTED_EFFECTS)
            .map(|effect| format!("  effect: {effect}")),
    );
    if let Some(more) = effects.len().checked_sub(MAX_LISTED_EFFECTS).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more effects, which --json lists"));
    }
    lines.extend(source.sentence("Compared with"));
    if let Some(elsewhere) = differences.iter().find_map(Difference::unplanned_backend) {
        lines.push(format!(
            "To compare with the rules in {elsewhere}, pass --backend {elsewhere}."
        ));
    }
    lines.extend(advice(report, source, place));
    if !effects.is_empty() {
        lines.push("To see why: sidetrack explain --from-kernel, with the words of an effect.".to_owned());
    }
    for Found { other, removal } in redirectors {
        let tool = other.tool;
        if let (true, Some(section)) = (report.backends.is_empty(), other.migration()) {
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

/// The first line of a report on rules that another tool wrote.
fn summary_by_effect(state: State, Comparison { packets, effects }: &Comparison, tools: &str) -> String {
    match effects.iter().map(|effect| effect.packets).sum() {
        0 => format!("{state}: by effect: all {packets} packets land as planned, by the rules of {tools}"),
        differing => format!(
            "{state}: by effect: {differing} of {packets} packets land elsewhere than planned, or may, by the rules of \
             {tools}"
        ),
    }
}

fn tools(redirectors: &[Found]) -> String {
    let tools: Vec<&str> = redirectors.iter().map(|found| found.other.tool).collect();
    tools.join(" and ")
}

/// What to do.
fn advice(report: &Report, source: &Source, place: &Place) -> Vec<String> {
    let is_foreign = report.state != State::Absent && report.backends.is_empty();
    if is_foreign {
        return vec![
            "Do not run `sidetrack apply` here as long as these rules are installed: both would redirect.".to_owned(),
        ];
    }
    let mut lines = Vec::new();
    let is_repairable = report.differences.iter().any(Difference::is_repaired_by_apply);
    if is_repairable || report.state == State::Absent {
        lines.push(match (place, source) {
            (Place::Here | Place::Netns(_), _) => {
                "Run `sidetrack apply` with the same options to repair it.".to_owned()
            }
            (Place::Pod(_), Source::Record(_)) => {
                "Restart the pod to repair it: `sidetrack node repair` does not change rules that the pod's own init \
                 container wrote."
                    .to_owned()
            }
            (Place::Pod(_), _) => "Run `sidetrack node repair` on the node to repair it.".to_owned(),
        });
    }
    if !report.differences.iter().all(Difference::is_repaired_by_apply) {
        lines.push("sidetrack does not change foreign rules: remove those that should not be there.".to_owned());
    }
    lines
}

fn json(report: &Report, source: &Source, redirectors: &[Found], effects: Option<&Comparison>) -> String {
    let mut document = json!({
        "version": VERSION,
        "state": report.state.to_string(),
        "backends": report.backends.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "differences": report.differences.iter().map(Difference::json).collect::<Vec<_>>(),
        "remove": redirectors.iter().filter_map(|found| found.removal.as_ref()).collect::<Vec<_>>(),
        "redirectors": redirectors.iter().map(Found::json).collect::<Vec<_>>(),
        "comparedBy": if effects.is_some() && report.backends.is_empty() { "effect" } else { "content" },
        "packets": effects.map(|effects| effects.packets),
        "effects": effects.iter().flat_map(|effects| &effects.effects).map(effect_json).collect::<Vec<_>>(),
    });
    for (field, value) in source.json() {
        document[field] = value;
    }
    format!("{document:#}\n")
}
