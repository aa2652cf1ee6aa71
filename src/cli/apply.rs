//! `sidetrack apply`: redirects the traffic of a network namespace, or prints how.

use clap::{ArgMatches, Command};

use super::settings::settings;
use super::{args, name_servers, persist, redirection};
use crate::linux::netns;

/// The name of the command.
pub const NAME: &str = "apply";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Redirect a network namespace's TCP traffic to its proxy")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .after_help("Example: sidetrack apply --exclude-outbound-ports 3306,6379 --exclude-inbound-ports 22")
        .arg(args::netns())
        .arg(args::persist("Also apply at every boot, on a host with systemd"))
        .arg(args::config())
        .args(args::options(|_| true))
        .arg(args::verbose())
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    if matches.get_flag("persist") {
        return persist::apply(matches);
    }
    let mut settings = settings(matches)?;
    match args::text_or_variable(matches, "netns") {
        Some(netns) => {
            name_servers::of_netns(&mut settings.config, &netns)?;
            netns::administer(netns::path(&netns), || redirection::apply(&settings))?
        }
        None => redirection::apply(&settings),
    }
}
