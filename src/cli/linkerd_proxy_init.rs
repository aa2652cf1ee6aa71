//! `linkerd-proxy-init`: does what Linkerd's `proxy-init` does, by its flags.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::args::{self, first_line, sentences};
use super::failure::Failure;
use super::help::OF_LINKERD;
use super::{logging, redirection, without_policy};
use crate::linux::netns;
use crate::mesh::linkerd::front_end::table::{SETTINGS, Setting};
use crate::mesh::linkerd::front_end::{self, Request};
use crate::options::Settings;
use crate::types::Accounts;

/// The name of the command.
pub const NAME: &str = "linkerd-proxy-init";

/// What Linkerd's program is called: in its images, in those of the proxy, and by people.
pub const NAMES: [&str; 3] = ["proxy-init", "linkerd2-proxy-init", NAME];

/// What is to be read as the command line of `proxy-init`, if that is what the program is called as: by a name of its,
/// or as `sidetrack linkerd-proxy-init`.
pub fn arguments(all: &[OsString]) -> Option<Vec<OsString>> {
    let program = Path::new(all.first()?).file_name()?;
    if NAMES.iter().any(|name| program == *name) {
        return Some(all.to_vec());
    }
    let is_word = all.get(1).is_some_and(|word| word == NAME);
    is_word.then(|| all.iter().skip(1).cloned().collect())
}

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Redirect as Linkerd's proxy-init does, with its flags")
        .defer(|command| {
            command
                .after_help(
                    "docs/linkerd-proxy-init.md says what is different.\n\
                     Example: sidetrack linkerd-proxy-init -p 4143 -o 4140 -u 2102 --inbound-ports-to-ignore 4190,4191",
                )
                .args(SETTINGS.iter().map(argument))
                .arg(Arg::new("ignored").num_args(0..).hide(true))
        })
}

fn argument(setting: &'static Setting) -> Arg {
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .help(args::described(setting.help, setting.default, &[]))
        .help_heading(OF_LINKERD)
        .action(ArgAction::Append);
    let argument = match setting.short {
        Some(short) => argument.short(short),
        None => argument,
    };
    args::as_go_reads(argument, setting.value_name())
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let request = request(matches)?;
    match &request.netns {
        Some(netns) => netns::administer(netns::path(netns), || redirection::apply(&request.settings))?,
        None => redirection::apply(&request.settings),
    }
}

/// What is asked for. Starts logging as it says.
///
/// # Errors
/// All mistakes in it.
pub fn request(matches: &ArgMatches) -> Result<Request, Failure> {
    let parsed = front_end::read(|setting| given(matches, setting));
    logging::start(parsed.logging, 0);
    for note in parsed.notes {
        tracing::info!("{note}");
    }
    for item in parsed.ignored_items {
        tracing::error!("{item}");
    }
    let request = parsed
        .request
        .map_err(|mistakes| Failure::Input(sentences(&mistakes)))?;
    without_policy::checked(NAME)?;
    Ok(request)
}

/// What a command line asks for, or what is wrong with it. Its program reads neither variables nor names of users.
pub fn settings(
    arguments: Vec<OsString>,
    variables: &[(&str, &str)],
    accounts: &dyn Accounts,
) -> Option<Result<Settings, Vec<String>>> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return Some(Err(first_line(&error))),
    };
    let parsed = front_end::read(|setting| given(&matches, setting));
    Some(match parsed.request {
        Ok(request) => without_policy::checked_with(NAME, variables, accounts).map(|()| request.settings),
        Err(mistakes) => Err(sentences(&mistakes)),
    })
}

fn given(matches: &ArgMatches, setting: &Setting) -> Vec<String> {
    args::many(matches, setting.name).unwrap_or_default()
}
