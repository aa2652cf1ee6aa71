//! Parsing the command line of an init container, as its program would: lint and explain use it for pods that an init
//! container redirects.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::Path;

use clap::Command;

use super::{apply, args, istio_iptables, kuma_init, linkerd_proxy_init};
use crate::mesh::invocation::Invocation;
use crate::mesh::{self, linkerd};
use crate::options::{Settings, sources};
use crate::types::{Accounts, AccountsError};

/// The settings of a command line, or its mistakes; `None` if the command does not redirect.
type Settle = fn(Vec<OsString>, &[(&str, &str)], &dyn Accounts) -> Option<Result<Settings, Vec<String>>>;

/// A program that redirects.
struct FrontEnd {
    /// Its names, besides being a command of sidetrack.
    programs: &'static [&'static str],
    /// Names of init containers whose image runs the program by default.
    containers: &'static [&'static str],
    /// The part of a command line that is the program's own.
    arguments: fn(&[OsString]) -> Option<Vec<OsString>>,
    /// Reads it.
    settings: Settle,
}

/// The programs of meshes whose flags sidetrack accepts.
const FRONT_ENDS: &[FrontEnd] = &[
    FrontEnd {
        programs: &["istio-iptables", "pilot-agent"],
        containers: &[],
        arguments: istio_iptables::arguments,
        settings: istio_iptables::settings,
    },
    FrontEnd {
        programs: &linkerd_proxy_init::NAMES,
        containers: &[linkerd::INIT_CONTAINER],
        arguments: linkerd_proxy_init::arguments,
        settings: linkerd_proxy_init::settings,
    },
    FrontEnd {
        programs: &[kuma_init::KUMACTL],
        containers: &[],
        arguments: kuma_init::arguments,
        settings: kuma_init::settings_of,
    },
];

/// The name of our own program.
const SIDETRACK: &str = "sidetrack";

/// Parses the command line of an init container, as its program would.
pub fn read(invocation: &Invocation<'_>) -> Option<Result<Settings, Vec<String>>> {
    let mut words = invocation.words.clone();
    if !invocation.has_program {
        let by_container = |front_end: &&FrontEnd| front_end.containers.contains(&invocation.container);
        let of_image = FRONT_ENDS
            .iter()
            .find(by_container)
            .and_then(|found| found.programs.first());
        words.insert(0, of_image.unwrap_or(&SIDETRACK));
    }
    let program = Path::new(*words.first()?).file_name()?.to_str()?;
    if program != SIDETRACK && !FRONT_ENDS.iter().any(|known| known.programs.contains(&program)) {
        return None;
    }
    let accounts = AccountsOfImage::default();
    let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    let variables = &invocation.variables;
    let theirs = FRONT_ENDS
        .iter()
        .find_map(|front_end| Some((front_end, (front_end.arguments)(&words)?)));
    let settings = match theirs {
        Some((front_end, words)) => (front_end.settings)(words, variables, &accounts),
        None if program == SIDETRACK => sidetrack(words, variables, &accounts),
        None => None,
    };
    settings.filter(|_| !accounts.was_asked.get())
}

fn sidetrack(
    words: Vec<OsString>,
    variables: &[(&str, &str)],
    accounts: &dyn Accounts,
) -> Option<Result<Settings, Vec<String>>> {
    let matches = match Command::new(SIDETRACK)
        .subcommand(apply::command())
        .try_get_matches_from(words)
    {
        Ok(matches) => matches,
        Err(error) => return Some(Err(args::first_line(&error))),
    };
    let (apply::NAME, matches) = matches.subcommand()? else {
        return None;
    };
    let flags = sources::from_flags(|option| args::texts(matches, option), accounts);
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment = sources::from_environment(variables, accounts);
    let problems: Vec<_> = flags.problems.into_iter().chain(environment.problems).collect();
    let settings = if problems.is_empty() {
        mesh::settings(flags.layer.over(environment.layer))
    } else {
        Err(problems)
    };
    Some(settings.map_err(|problems| problems.iter().map(ToString::to_string).collect()))
}

/// The users and groups of an image, which are unknown here.
#[derive(Default)]
struct AccountsOfImage {
    /// Whether a lookup was needed.
    was_asked: Cell<bool>,
}

impl Accounts for AccountsOfImage {
    fn uid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        self.was_asked.set(true);
        Ok(None)
    }

    fn gid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        self.was_asked.set(true);
        Ok(None)
    }

    /// The default user of a program is the one that its images have.
    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Ok(true)
    }
}
