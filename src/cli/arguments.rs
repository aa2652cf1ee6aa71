//! What clap knows of the command line; the options come from their table.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{completions, graph, help, istio_iptables, lint};
use crate::config::options::{Group, OPTIONS, OptionSpec};
use crate::config::problem::environment_name;

/// The whole command line.
pub fn command() -> Command {
    Command::new("sidetrack")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts a pod's TCP traffic through its sidecar proxy")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(apply())
        .subcommand(cleanup())
        .subcommand(graph::command())
        .subcommand(lint::command())
        .subcommand(istio_iptables::command())
        .subcommand(completions::command())
        .subcommand(help::command())
        .after_help("Example: sidetrack apply --dry-run")
}

fn apply() -> Command {
    Command::new("apply")
        .about("Redirects the TCP traffic of a network namespace to its proxy")
        .after_help("Example: sidetrack apply --exclude-outbound-ports 3306,6379 --exclude-inbound-ports 22")
        .arg(netns())
        .arg(config())
        .args(OPTIONS.iter().map(argument))
        .arg(verbose())
}

fn cleanup() -> Command {
    Command::new("cleanup")
        .about("Removes everything that sidetrack put into a network namespace, and nothing else")
        .after_help("Example: sidetrack cleanup --netns pod")
        .arg(netns())
        .args(about_logging())
        .arg(verbose())
}

/// The options that decide about the rules.
pub fn about_rules() -> impl Iterator<Item = Arg> {
    let about_rules = |option: &&OptionSpec| option.group != Group::Run;
    OPTIONS.iter().filter(about_rules).map(argument)
}

/// The options that decide about the log.
pub fn about_logging() -> impl Iterator<Item = Arg> {
    let about_logging = |option: &&OptionSpec| option.name.starts_with("log-");
    OPTIONS.iter().filter(about_logging).map(argument)
}

/// `--config`.
pub fn config() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("Read options from a JSON or YAML file")
        .help_heading(Group::Run.heading())
}

/// `--netns`.
pub fn netns() -> Arg {
    Arg::new("netns")
        .long("netns")
        .value_name("PATH|NAME")
        .help("Work in this network namespace [the current one]")
        .help_heading(Group::Run.heading())
}

/// `--verbose`.
pub fn verbose() -> Arg {
    Arg::new("verbose")
        .short('v')
        .long("verbose")
        .action(ArgAction::Count)
        .help("Log more; twice for even more")
        .help_heading(Group::Run.heading())
}

fn argument(option: &'static OptionSpec) -> Arg {
    let argument = Arg::new(option.name)
        .long(option.name)
        .aliases(option.aliases)
        .help_heading(option.group.heading());
    let help = match option.default {
        "" | "false" => option.help.to_owned(),
        default => format!("{} [{default}]", option.help),
    };
    match option.value_name {
        Some(value_name) => argument
            .value_name(value_name)
            .action(ArgAction::Append)
            .allow_hyphen_values(true),
        None => argument.action(ArgAction::SetTrue),
    }
    .help(help)
}

/// The texts that flags give for an option, or none where the flag is absent, or the command does not have it.
pub fn texts(matches: &ArgMatches, option: &OptionSpec) -> Option<Vec<String>> {
    match option.value_name {
        Some(_) => {
            let texts = matches.try_get_many::<String>(option.name).ok().flatten()?;
            Some(texts.cloned().collect())
        }
        None => {
            let given = matches.try_get_one::<bool>(option.name).ok().flatten();
            (given == Some(&true)).then(|| vec!["true".to_owned()])
        }
    }
}

/// A text from a flag, or else from the variable of the option's name.
pub fn text_or_variable(matches: &ArgMatches, option: &str) -> Option<String> {
    let flag = matches.get_one::<String>(option).cloned();
    flag.or_else(|| std::env::var(environment_name(option)).ok())
}

/// What is wrong with a command line, without the usage that follows it.
pub fn first_line(error: &clap::Error) -> Vec<String> {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    vec![line.strip_prefix("error: ").unwrap_or(line).to_owned()]
}
