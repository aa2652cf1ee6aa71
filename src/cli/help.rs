//! Help that fits one screen: it lists the names of options that are many. `sidetrack help COMMAND` explains them.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};

use super::failure::Failure;
use super::output;
use crate::options::table::Group;

/// The heading of flags of Istio.
pub const OF_ISTIO: &str = "As in Istio";
/// The heading of flags of Linkerd.
pub const OF_LINKERD: &str = "As in Linkerd";
/// The heading of flags of Kuma.
pub const OF_KUMA: &str = "As in Kuma";

/// The headings whose options brief help lists by name only.
const LISTED_HEADINGS: [&str; 8] = [
    Group::Proxy.heading(),
    Group::Inbound.heading(),
    Group::Outbound.heading(),
    Group::Dns.heading(),
    Group::General.heading(),
    OF_ISTIO,
    OF_LINKERD,
    OF_KUMA,
];

/// The width of help text.
const HELP_WIDTH: usize = 100;

/// The name of the command.
pub const NAME: &str = "help";

/// The definition of the command line.
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

/// Whether a clap "error" is help to print.
pub fn is_help(error: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};
    matches!(error.kind(), DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// The command, built, with help that fits one screen. Only help requests need the time for this.
pub fn brief(command: Command) -> Command {
    with_listed_options(full(command))
}

fn with_listed_options(command: Command) -> Command {
    let command = command.mut_subcommands(with_listed_options);
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

/// The command, built, with help that explains every option.
pub fn full(mut command: Command) -> Command {
    command.build();
    grouped(command)
}

/// Keeps the headings with many options; moves the others below one heading.
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

/// The heading of an option, if brief help lists its options by name only.
fn heading(argument: &Arg) -> Option<&'static str> {
    LISTED_HEADINGS
        .into_iter()
        .find(|heading| argument.get_help_heading() == Some(heading))
}

/// The names of options, grouped by heading.
fn listing(command: &Command) -> String {
    let mut text = String::new();
    for heading in LISTED_HEADINGS {
        let of_heading = |argument: &&Arg| self::heading(argument) == Some(heading);
        let names = command.get_arguments().filter(of_heading).filter_map(Arg::get_long);
        let mut names = names.map(|name| format!(" --{name}")).peekable();
        if names.peek().is_none() {
            continue;
        }
        let mut line = format!("{heading}:");
        for name in names {
            if line.len() + name.len() > HELP_WIDTH {
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
