//! Help that fits one screen: options of which there are many are named alone. `sidetrack help COMMAND` explains them.

use std::io::Write as _;

use clap::{Arg, ArgMatches, Command};

use super::arguments;
use super::failure::Failure;
use crate::config::options::Group;

/// The heading of the flags that are another program's.
pub const OF_ISTIO: &str = "As in Istio";

/// The headings whose options are named alone.
const NAMED: [&str; 6] = [
    Group::Proxy.heading(),
    Group::Inbound.heading(),
    Group::Outbound.heading(),
    Group::Dns.heading(),
    Group::General.heading(),
    OF_ISTIO,
];

/// How wide help is.
const WIDTH: usize = 100;

/// What clap knows of the command line.
pub fn command() -> Command {
    Command::new("help")
        .about("Explains a command and every option of it")
        .after_help("Example: sidetrack help apply")
        .arg(Arg::new("command").value_name("COMMAND").help("Which [all]"))
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let mut command = arguments::command();
    command.build();
    let found = match matches.get_one::<String>("command") {
        Some(name) => command.find_subcommand_mut(name),
        None => Some(&mut command),
    };
    let Some(found) = found else {
        let reason = "there is no such command; sidetrack --help lists them".to_owned();
        return Err(Failure::Usage(vec![reason]).into());
    };
    let help = found.render_help().to_string();
    Ok(std::io::stdout().write_all(help.as_bytes())?)
}

/// The same command with help that fits one screen.
pub fn brief(command: Command) -> Command {
    let listing = listing(&command);
    let command = command.mut_subcommands(brief);
    if listing.is_empty() {
        return command;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let explained = format!("`sidetrack help {}` explains these.", command.get_name());
    let hidden = |argument: Arg| match is_named(&argument) {
        true => argument.hide(true),
        false => argument,
    };
    command
        .mut_args(hidden)
        .after_help(format!("{listing}{explained}\n{after}"))
}

fn is_named(argument: &Arg) -> bool {
    argument
        .get_help_heading()
        .is_some_and(|heading| NAMED.contains(&heading))
}

/// The names of options, those of a heading together.
fn listing(command: &Command) -> String {
    let mut text = String::new();
    for heading in NAMED {
        let of_heading = |argument: &&Arg| argument.get_help_heading() == Some(heading);
        let names = command.get_arguments().filter(of_heading).filter_map(Arg::get_long);
        let mut names = names.map(|name| format!(" --{name}")).peekable();
        if names.peek().is_none() {
            continue;
        }
        let mut line = format!("{heading}:");
        for name in names {
            if line.len() + name.len() > WIDTH {
                text += &line;
                line = "\n ".to_owned();
            }
            line += &name;
        }
        text += &line;
        text.push('\n');
    }
    text
}
