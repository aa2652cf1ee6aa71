//! `sidetrack probe`: tests an installed redirection by making connections through it.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use super::expectation::{Expectation, Incomplete, Opened, Request, Source};
use super::failure::{Failure, ProbeFailure};
use super::{args, front_end, output, place, redirection};
use crate::backend::{KernelError, Namespace, Observed, RuleBackend, choice};
use crate::linux::interfaces;
use crate::mesh::redirectors::redirectors;
use crate::options::Config;
use crate::options::table::Group;
use crate::plan::Plan;
use crate::probe::{PORT, Report, Trial, Verdict, derive, judge, run, trial};
use crate::ruleset::Installed;
use crate::simulate::{self, effect};
use crate::types::{Backend, Families, Family, InterfaceName, Port, parse_duration};

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
            "Without options, those recorded with the rules count. Istio's flags follow istio-iptables.\n\
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
    let request = Request::read(matches, &["json", "timeout"]);
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
    let request = request.open()?;
    let (report, source) = request.place.probe(|| prove_request(&request, timeout))??;
    let text = if matches.get_flag("json") {
        report.json(source.json())
    } else {
        report.text(source.sentence("Expected by").as_deref())
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

/// Makes the probes of a request in this network namespace.
fn prove_request(request: &Opened, timeout: Duration) -> anyhow::Result<(Report, Source)> {
    if let Some(expectation) = request.given() {
        let config = &expectation.settings.config;
        let report = prove_with(config, expectation.resolvers.as_deref(), PORT, timeout)?;
        return Ok((report, expectation.source));
    }
    let mut namespace = Namespace::default();
    let observed = namespace.observe()?;
    let ignored = match request.expectation(&mut namespace, &observed) {
        Ok(Expectation {
            settings,
            source: source @ Source::Record(_),
            resolvers,
        }) => {
            let report = prove_with(&settings.config, resolvers.as_deref(), PORT, timeout)?;
            return Ok((report, source));
        }
        Ok(Expectation {
            source: Source::Defaults(ignored),
            ..
        }) => ignored,
        Ok(_) => None,
        Err(Incomplete(unusable)) => Some(unusable.into()),
    };
    match installed(&mut namespace, &observed) {
        Ok(rules) if derive::redirects(&rules) => {
            let report = prove_rules(&mut namespace, &observed, &rules, timeout)?;
            Ok((report, Source::Rules(ignored)))
        }
        other => {
            if let Err(error) = other {
                tracing::debug!(%error, "cannot read the installed rules");
            }
            let report = prove(&request.defaults().config, PORT, timeout)?;
            Ok((report, Source::Defaults(ignored)))
        }
    }
}

/// The installed rules, as they apply to each family; none if sidetrack has none.
fn installed(namespace: &mut Namespace, observed: &Observed) -> Result<Vec<(Family, Installed)>, KernelError> {
    let Some(backend) = choice::holding(Backend::Auto, observed) else {
        return Ok(Vec::new());
    };
    let mut rules = namespace.rules(backend)?;
    Family::BOTH
        .into_iter()
        .map(|family| Ok((family, rules.installed(family)?)))
        .collect()
}

/// Makes probes of rules whose options are not known. A simulation of the rules says what to expect.
fn prove_rules(
    namespace: &mut Namespace,
    observed: &Observed,
    rules: &[(Family, Installed)],
    timeout: Duration,
) -> anyhow::Result<Report> {
    let config = derive::suggested(rules);
    let facts = redirection::facts_with(&config, Some(&observed.loopback), Some(&[]))?;
    let surroundings = run::surroundings(namespace)?;
    let trial = trial(&config, &facts, Families::Both, &surroundings, PORT);
    let link = InterfaceName::parse(run::link::NAME).unwrap_or_else(|_| InterfaceName::loopback());
    let mut pod = simulate::Pod {
        addresses: interfaces::addresses()?,
        local_marks: namespace.local_marks()?,
    };
    let own = pod.addresses.clone();
    pod.addresses
        .extend(trial.ends.iter().map(|ends| (link.clone(), ends.near)));
    let far: Vec<IpAddr> = trial.ends.iter().map(|ends| ends.far).collect();
    let route = |address: IpAddr| {
        let by_route = interfaces::leading_to((address, PORT.get()).into(), &own);
        by_route
            .filter(|_| !far.contains(&address))
            .unwrap_or_else(|| link.clone())
    };
    let scene = derive::Scene {
        rules,
        all: &effect::own_rules(&namespace.netfilter()?),
        pod: &pod,
        route: &route,
    };
    made(namespace, &derive::expected(trial, &scene), timeout)
}

/// Makes the probes for a configuration in this network namespace.
fn prove(config: &Config, port: Port, timeout: Duration) -> anyhow::Result<Report> {
    prove_with(config, None, port, timeout)
}

/// The same, where the name servers of the pod's `/etc/resolv.conf` may be known.
fn prove_with(config: &Config, resolvers: Option<&[IpAddr]>, port: Port, timeout: Duration) -> anyhow::Result<Report> {
    let mut namespace = Namespace::default();
    let facts = redirection::observed_facts_with(config, resolvers)?;
    let families = Plan::new(config, &facts)?.ruleset.families;
    let surroundings = run::surroundings(&mut namespace)?;
    made(
        &mut namespace,
        &trial(config, &facts, families, &surroundings, port),
        timeout,
    )
}

/// The report of a trial, with observations that may explain failures.
fn made(namespace: &mut Namespace, trial: &Trial, timeout: Duration) -> anyhow::Result<Report> {
    let mut report = run::run(trial, timeout)?;
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
