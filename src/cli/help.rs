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
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(0..)
                .help("Which [all], such as node install"),
        )
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let mut command = full(arguments::command());
    let mut names = matches.get_many::<String>("command").into_iter().flatten();
    let Some(found) = names.try_fold(&mut command, |command, name| command.find_subcommand_mut(name)) else {
        let reason = "there is no such command; sidetrack --help lists them".to_owned();
        return Err(Failure::Usage(vec![reason]).into());
    };
    let help = found.render_help().to_string();
    Ok(std::io::stdout().write_all(help.as_bytes())?)
}

/// The end of what stands for options that are named alone.
const EXPLAINED: &str = " explains these.\n";

/// The same command with help that fits one screen.
pub fn brief(command: Command) -> Command {
    let listing = listing(&command);
    let after = after_help(&command);
    let explained = format!("`sidetrack help {}`{EXPLAINED}", command.get_name());
    command
        .mut_args(|argument| {
            let heading = heading(&argument);
            argument.hide(heading.is_some()).help_heading(heading)
        })
        .after_help(format!("{listing}{explained}{after}"))
}

/// The same command, built, with help that explains every option.
pub fn full(mut command: Command) -> Command {
    command.build();
    every_option_shown(command)
}

fn every_option_shown(command: Command) -> Command {
    let after = after_help(&command);
    let after = after
        .split_once(EXPLAINED)
        .map(|(_, after)| after.to_owned())
        .unwrap_or(after);
    command
        .mut_args(|argument| {
            let hidden = argument.is_hide_set() && heading(&argument).is_none();
            argument.hide(hidden)
        })
        .after_help(after)
        .mut_subcommands(every_option_shown)
}

fn after_help(command: &Command) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

/// The heading that an option is named below, if it is one of those that are named alone.
fn heading(argument: &Arg) -> Option<&'static str> {
    NAMED
        .into_iter()
        .find(|heading| argument.get_help_heading() == Some(heading))
}

/// The names of options, those of a heading together.
fn listing(command: &Command) -> String {
    let mut text = String::new();
    for heading in NAMED {
        let of_heading = |argument: &&Arg| self::heading(argument) == Some(heading);
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
