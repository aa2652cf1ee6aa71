//! `sidetrack stats`: connections by reason, from the counters of the installed rules.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::failure::NEGATIVE;
use super::place::{self, Place};
use super::settings::start_logging;
use super::{args, logging, output};
use crate::backend::stats::Counted;
use crate::backend::{KernelError, Namespace};
use crate::options::table::Scope;
use crate::stats;

/// The name of the command.
pub const NAME: &str = "stats";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Show how many connections were redirected or not, by reason")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .after_help(
            "The rules need counters: apply --counters, or the annotation.\n\
             Exit codes: 0 there are numbers, 3 there are none.\n\
             Examples: sidetrack stats --netns pod\n          \
             sidetrack stats --pod shop/web-0 --json",
        )
        .arg(args::netns())
        .arg(place::pod().help("Show the numbers of this pod of the node"))
        .arg(args::json())
        .args(args::options(|option| option.scope == Scope::Logging))
        .arg(args::verbose())
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    start_logging(matches)?;
    let place = place::named(matches)?;
    let counted = place.administer(|| -> Result<Counted, KernelError> {
        let mut namespace = Namespace::default();
        let observed = namespace.observe()?;
        namespace.stats(&observed)
    })??;
    let (backend, stats) = match counted {
        Counted::Stats(backend, stats) => (backend, stats),
        Counted::WithoutCounters(backend) => {
            logging::error(&format!(
                "the rules of sidetrack, in {backend}, have no counters. {}",
                advice(&place)
            ));
            return Ok(ExitCode::from(NEGATIVE));
        }
        Counted::Nothing => {
            logging::error(&format!("no rules of sidetrack are installed. {}", advice(&place)));
            return Ok(ExitCode::from(NEGATIVE));
        }
    };
    output::print(&if matches.get_flag("json") {
        stats::document(&stats, &backend.to_string())
    } else {
        stats::table(&stats)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How to get numbers.
fn advice(place: &Place) -> &'static str {
    match place {
        Place::Here | Place::Netns(_) => "Run `sidetrack apply --counters` with the other options that count here",
        Place::Pod(_) => {
            "Set the option counters for the pod: an annotation, or the configuration of the node; it counts for pods \
             that start later"
        }
    }
}
