//! `sidetrack cleanup`: removes what is ours from a network namespace.

use clap::{ArgMatches, Command};

use super::settings::logging_alone;
use super::{args, persist, redirection};
use crate::linux::netns;
use crate::options::table::Scope;

/// What it is called.
pub const NAME: &str = "cleanup";

/// What clap knows of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Removes all that sidetrack put into a network namespace, and nothing else")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .after_help("Example: sidetrack cleanup --netns pod")
        .arg(args::netns())
        .arg(args::persist("Apply at no boot any more, too"))
        .args(args::options(|option| option.scope == Scope::Logging))
        .arg(args::verbose())
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    logging_alone(matches)?;
    if matches.get_flag("persist") {
        return persist::cleanup(matches);
    }
    match args::text_or_variable(matches, "netns") {
        Some(netns) => netns::administer(netns::path(&netns), redirection::cleanup)?,
        None => redirection::cleanup(),
    }
}
