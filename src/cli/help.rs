//! Help that fits one screen: options of which there are many are named alone. `sidetrack help COMMAND` explains them.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};

use super::failure::Failure;
use super::output;
use crate::options::table::Group;

/// The heading of the flags that are another program's.
pub const OF_ISTIO: &str = "As in Istio";
/// The heading of those that are Linkerd's.
pub const OF_LINKERD: &str = "As in Linkerd";
/// The same for flags of Kuma.
pub const OF_KUMA: &str = "As in Kuma";

/// The headings whose options are named alone.
const NAMED: [&str; 8] = [
    Group::Proxy.heading(),
    Group::Inbound.heading(),
    Group::Outbound.heading(),
    Group::Dns.heading(),
    Group::General.heading(),
    OF_ISTIO,
    OF_LINKERD,
    OF_KUMA,
];

/// How wide help is.
const WIDTH: usize = 100;

/// What it is called.
pub const NAME: &str = "help";

/// What clap knows of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Explain a command and every option of it")
        .after_help("Example: sidetrack help apply")
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(0..)
                .help("Command to explain, such as node install [default: all]"),
        )
}

/// Runs the command. `command` is the whole command line, built by [`full`].
///
/// # Errors
/// There is no such command.
pub fn run(matches: &ArgMatches, mut command: Command) -> anyhow::Result<()> {
    let mut names = matches.get_many::<String>("command").into_iter().flatten();
    let Some(found) = names.try_fold(&mut command, |command, name| command.find_subcommand_mut(name)) else {
        let reason = "there is no such command; sidetrack --help lists them".to_owned();
        return Err(Failure::Usage(vec![reason]).into());
    };
    let help = found.render_help().to_string();
    Ok(output::print(&help)?)
}

/// Whether clap has help to print, rather than matches or a mistake.
pub fn is_help(error: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};
    matches!(error.kind(), DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// The same command, built, with help that fits one screen. Only runs that are asked for help pay for it.
pub fn brief(command: Command) -> Command {
    options_named_alone(full(command))
}

fn options_named_alone(command: Command) -> Command {
    let command = command.mut_subcommands(options_named_alone);
    let listing = listing(&command);
    if listing.is_empty() {
        return command;
    }
    let after = after_help(&command);
    let name = command.get_name().to_owned();
    command
        .mut_args(|argument| {
            let hidden = argument.is_hide_set() || heading(&argument).is_some();
            argument.hide(hidden)
        })
        .after_help(format!("{listing}`sidetrack help {name}` explains these.\n{after}"))
}

/// The same command, built, with help that explains every option.
pub fn full(mut command: Command) -> Command {
    command.build();
    grouped(command)
}

/// Of the headings, those alone that have many options stay; the rest is below one.
fn grouped(command: Command) -> Command {
    let command = command.mut_subcommands(grouped);
    if command.get_arguments().all(|argument| heading(argument).is_none()) {
        return command;
    }
    command.mut_args(|argument| {
        let heading = heading(&argument);
        argument.help_heading(heading)
    })
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
