//! Reading the command line of an init container, as the program in it would: what lint and explain know of a pod that
//! an init container redirects.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::Path;

use clap::Command;

use super::{apply, args, istio_iptables, kuma_init, linkerd_proxy_init};
use crate::mesh::invocation::Invocation;
use crate::mesh::{self, linkerd};
use crate::options::{Settings, sources};
use crate::types::{Accounts, AccountsError};

/// What a program asks for, or what is wrong with its command line; `None` where it is no command to redirect.
type Settle = fn(Vec<OsString>, &[(&str, &str)], &dyn Accounts) -> Option<Result<Settings, Vec<String>>>;

/// A program that redirects.
struct FrontEnd {
    /// What it is called, apart from being a command of sidetrack.
    programs: &'static [&'static str],
    /// What its init container is called where that says which program the image has.
    containers: &'static [&'static str],
    /// What is to be read as its command line, if a whole one is.
    arguments: fn(&[OsString]) -> Option<Vec<OsString>>,
    /// Reads it.
    settings: Settle,
}

/// The programs of others that sidetrack takes the flags of. Others' front ends come here.
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

/// What the program is called.
const OURS: &str = "sidetrack";

/// Reads the command line of an init container, as the program in it would.
pub fn read(invocation: &Invocation<'_>) -> Option<Result<Settings, Vec<String>>> {
    let mut words = invocation.words.clone();
    if !invocation.has_program {
        let by_container = |front_end: &&FrontEnd| front_end.containers.contains(&invocation.container);
        let of_image = FRONT_ENDS
            .iter()
            .find(by_container)
            .and_then(|found| found.programs.first());
        words.insert(0, of_image.unwrap_or(&OURS));
    }
    let program = Path::new(*words.first()?).file_name()?.to_str()?;
    if program != OURS && !FRONT_ENDS.iter().any(|known| known.programs.contains(&program)) {
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
        None if program == OURS => ours(words, variables, &accounts),
        None => None,
    };
    settings.filter(|_| !accounts.asked.get())
}

fn ours(
    words: Vec<OsString>,
    variables: &[(&str, &str)],
    accounts: &dyn Accounts,
) -> Option<Result<Settings, Vec<String>>> {
    let matches = match Command::new(OURS)
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

/// The users and groups of an image, which are not known here.
#[derive(Default)]
struct AccountsOfImage {
    /// Whether somebody has asked for one.
    asked: Cell<bool>,
}

impl Accounts for AccountsOfImage {
    fn uid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        self.asked.set(true);
        Ok(None)
    }

    fn gid(&self, _: &str) -> Result<Option<u32>, AccountsError> {
        self.asked.set(true);
        Ok(None)
    }

    /// The default user of a program is the one that its images have.
    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Ok(true)
    }
}
