//! The arguments that commands share, as clap knows them; the options come from their table.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Id};

use crate::mesh::front_end::Mistake;
use crate::options::problem::environment_name;
use crate::options::table::{Group, OPTIONS, OptionSpec, Scope};

/// Whether an option applies to commands that compute rules and install none.
pub fn is_rule_option(option: &OptionSpec) -> bool {
    option.scope.is_planned() || option.scope == Scope::Logging
}

/// The options that are `wanted`.
pub fn options(wanted: fn(&OptionSpec) -> bool) -> impl Iterator<Item = Arg> {
    OPTIONS.iter().filter(move |option| wanted(option)).map(argument)
}

/// `--json`.
pub fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print the result as JSON")
        .help_heading(Group::Run.heading())
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
        .help("Work in this network namespace [default: the current one]")
        .help_heading(Group::Run.heading())
}

/// `--persist`, with the command's own help.
pub fn persist(help: &'static str) -> Arg {
    let argument = Arg::new("persist").long("persist").action(ArgAction::SetTrue);
    argument.help(help).help_heading(Group::Run.heading())
}

/// `-v`.
pub fn verbose() -> Arg {
    Arg::new("verbose")
        .short('v')
        .long("verbose")
        .action(ArgAction::Count)
        .help("Log more; twice for even more")
        .help_heading(Group::Run.heading())
}

/// An option of the table, as clap knows it.
pub fn argument(option: &'static OptionSpec) -> Arg {
    let argument = Arg::new(option.name)
        .long(option.name)
        .aliases(option.aliases)
        .help_heading(option.group.heading());
    let help = described(option.help, &(option.default)(), &(option.names)());
    match option.value_name {
        Some(value_name) => argument
            .value_name(value_name)
            .action(ArgAction::Append)
            .allow_hyphen_values(true),
        None => argument.action(ArgAction::SetTrue),
    }
    .help(help)
}

/// What an argument is for, its default and its possible values, as clap writes them. An empty default and `false` are
/// not shown.
pub fn described(help: &str, default: &str, values: &[&str]) -> String {
    /// The width of the help column beside the longest flags.
    const COLUMN_WIDTH: usize = 64;
    let default = match default {
        "" | "false" => None,
        default => Some(format!("[default: {default}]")),
    };
    let values = (!values.is_empty()).then(|| format!("[possible values: {}]", values.join(", ")));
    let (mut text, mut line) = (help.to_owned(), help.len());
    for part in [default, values].into_iter().flatten() {
        // A list that is too long for a line begins in this one.
        let fits = line + 1 + part.len() <= COLUMN_WIDTH || part.len() > COLUMN_WIDTH;
        text.push(if fits { ' ' } else { '\n' });
        line = if fits { line + 1 } else { 0 };
        for (at, word) in part.split(' ').enumerate() {
            match at {
                0 => {}
                _ if line + 1 + word.len() <= COLUMN_WIDTH => {
                    text.push(' ');
                    line += 1;
                }
                _ => {
                    text.push('\n');
                    line = 0;
                }
            }
            text += word;
            line += word.len();
        }
    }
    text
}

/// An argument as Go's libraries read flags: one with a value takes any, one without is a [`go_switch`].
pub fn as_go_reads(argument: Arg, value_name: Option<&'static str>) -> Arg {
    match value_name {
        Some(value_name) => argument.value_name(value_name).allow_hyphen_values(true),
        None => go_switch(argument.value_name("BOOL")),
    }
}

/// A switch as Go's libraries read it: a value stands after `=` alone, and without one it is `true`.
pub fn go_switch(argument: Arg) -> Arg {
    argument
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
}

/// The values of an argument, in their order.
pub fn many(matches: &ArgMatches, name: &str) -> Option<Vec<String>> {
    Some(matches.get_many::<String>(name)?.cloned().collect())
}

/// A variable of the environment as programs of meshes see it; what is not UTF-8 in it is replaced.
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|text| text.to_string_lossy().into_owned())
}

/// The same of given variables.
pub fn variable_among(variables: &[(&str, &str)], name: &str) -> Option<String> {
    let found = variables.iter().find(|(variable, _)| *variable == name);
    found.map(|(_, value)| (*value).to_owned())
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

/// The error of a command line, without the usage text.
pub fn first_line(error: &clap::Error) -> Vec<String> {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    vec![line.strip_prefix("error: ").unwrap_or(line).to_owned()]
}

/// The mistakes, a sentence each.
pub fn sentences(mistakes: &[Mistake]) -> Vec<String> {
    mistakes.iter().map(ToString::to_string).collect()
}

/// The names of the arguments that a command line gives.
pub fn given(matches: &ArgMatches) -> impl Iterator<Item = &str> {
    let is_given = |id: &&Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    matches.ids().filter(is_given).map(Id::as_str)
}
