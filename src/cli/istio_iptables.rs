//! `istio-iptables`: does what Istio's program of this name does, by its flags and variables.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use thiserror::Error;

use super::args::{self, first_line, sentences};
use super::failure::Failure;
use super::help::OF_ISTIO;
use super::{logging, name_servers, output, redirection, without_policy};
use crate::backend::Namespace;
use crate::linux::accounts::AccountFiles;
use crate::linux::netns::{self, Netns};
use crate::mesh::front_end::Mistake;
use crate::mesh::istio::front_end::table::{SETTINGS, Setting};
use crate::mesh::istio::front_end::{self, Probe, Request, Task};
use crate::options::{Config, Settings};
use crate::plan::PASSTHROUGH_V4;
use crate::probe::validation::{self, Validation};
use crate::types::Accounts;

/// The file for a dry run cannot be written.
#[derive(Debug, Error)]
#[error("DRY_RUN_FILE_PATH: {}: {reason}", path.display())]
struct DryRunFile {
    path: PathBuf,
    reason: std::io::Error,
}

/// Nothing says whether IPv6 is to be redirected.
#[derive(Debug, Error)]
#[error(
    "no valid local IP address found: this network namespace has none but those of loopback and of links, and the first \
     one says whether IPv6 is redirected. Set up the network first; sidetrack apply and sidetrack cleanup need no address"
)]
struct NoAddress;

/// The name of the command.
pub const NAME: &str = "istio-iptables";

/// What is to be read as the command line of `istio-iptables`, if that is what the program is called as: by its own
/// name, as `sidetrack istio-iptables`, or in the place of `pilot-agent`, whose flags may come before the word.
pub fn arguments(all: &[OsString]) -> Option<Vec<OsString>> {
    let program = Path::new(all.first()?).file_name()?;
    let word = all.iter().skip(1).position(|argument| argument == NAME);
    let without_word = |position: usize| [&all[..=position], &all[position + 2..]].concat();
    if program == NAME {
        Some(all.to_vec())
    } else if program == "pilot-agent" {
        Some(word.map_or_else(|| all.to_vec(), without_word))
    } else {
        word.filter(|position| *position == 0).map(without_word)
    }
}

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Redirect as Istio's program of this name does, with its flags and variables")
        .defer(|command| {
            command
                .after_help(
                    "docs/istio-iptables.md says what is different.\n\
                     Example: sidetrack istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -b '*' -d 15090",
                )
                .args_override_self(true)
                .args(SETTINGS.iter().filter(|setting| setting.has_flag()).map(argument))
        })
}

fn argument(setting: &'static Setting) -> Arg {
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .help(help(setting))
        .help_heading(OF_ISTIO);
    let argument = match setting.short {
        Some(short) => argument.short(short),
        None => argument,
    };
    args::as_go_reads(argument, setting.value_name())
}

fn help(setting: &Setting) -> String {
    let variables = match setting.variables() {
        variables if variables.is_empty() => String::new(),
        variables => format!(" [env: {}]", variables.join(", ")),
    };
    args::described(setting.help, setting.default, &[]) + &variables
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let mut request = request(matches)?;
    let Some(path) = request.netns.clone() else {
        change(&request)?;
        return prove(&request);
    };
    name_servers::of_netns(&mut request.settings.config, &path)?;
    let netns = Netns::open(netns::path(&path))?;
    if request.settings.dry_run.requested {
        return netns.administer(|| change(&request))?;
    }
    netns.administer(|| change(&request))??;
    netns.probe(|| prove(&request))?
}

/// What is asked for. Starts logging as it says.
///
/// # Errors
/// All mistakes in it.
pub fn request(matches: &ArgMatches) -> Result<Request, Failure> {
    let flag = |setting: &Setting| matches.get_one::<String>(setting.name).cloned();
    let parsed = front_end::read(flag, args::variable, &AccountFiles);
    logging::start(parsed.logging, 0);
    for note in parsed.notes {
        tracing::info!("{note}");
    }
    let request = parsed.request.map_err(failure)?;
    match request.task {
        Task::Apply => without_policy::checked(NAME)?,
        Task::Cleanup | Task::Nothing => {}
    }
    Ok(request)
}

/// What a command line and variables ask for, or what is wrong with them. `None` where it is no command to redirect.
pub fn settings(
    arguments: Vec<OsString>,
    variables: &[(&str, &str)],
    accounts: &dyn Accounts,
) -> Option<Result<Settings, Vec<String>>> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return Some(Err(first_line(&error))),
    };
    let flag = |setting: &Setting| matches.get_one::<String>(setting.name).cloned();
    let variable = |name: &str| args::variable_among(variables, name);
    match front_end::read(flag, variable, accounts).request {
        Ok(request) if request.task == Task::Apply => {
            Some(without_policy::checked_with(NAME, variables, accounts).map(|()| request.settings))
        }
        Ok(_) => None,
        Err(mistakes) => Some(Err(sentences(&mistakes))),
    }
}

/// One wrong use of a flag makes the whole command line one.
fn failure(mistakes: Vec<Mistake>) -> Failure {
    let usage = mistakes
        .iter()
        .any(|mistake| matches!(mistake, Mistake::Value { usage: true, .. }));
    let sentences = sentences(&mistakes);
    if usage {
        Failure::Usage(sentences)
    } else {
        Failure::Input(sentences)
    }
}

/// Does what is asked for about the rules.
fn change(request: &Request) -> anyhow::Result<()> {
    // As Istio does, before any other action. Rules for IPv4 alone would let IPv6 bypass the proxy where
    // its addresses come later.
    if let Ok(loopback) = Namespace::default().loopback()
        && !(loopback.addresses.v4 || loopback.addresses.v6)
    {
        return Err(NoAddress.into());
    }
    if request.settings.dry_run.requested {
        return dry_run(request);
    }
    match request.task {
        Task::Apply => redirection::apply(&request.settings)?,
        Task::Cleanup => redirection::cleanup()?,
        Task::Nothing => tracing::debug!("the rules are left as they are"),
    }
    Ok(())
}

/// Tries whether the rules do what they should, where that is asked for.
fn prove(request: &Request) -> anyhow::Result<()> {
    match request.probe {
        Some(probe) if !request.settings.dry_run.requested => validate(&request.settings.config, probe),
        _ => Ok(()),
    }
}

/// Tries whether traffic is redirected, in the families that it should be in.
fn validate(config: &Config, probe: Probe) -> anyhow::Result<()> {
    let validation = Validation {
        inbound_port: config.proxy.inbound_port,
        outbound_port: config.proxy.outbound_port,
        probe_port: probe.port,
        timeout: probe.timeout,
        families: redirection::plan(config)?.ruleset.families,
        v4_destination: validation::own_address(config.general.loopback_cidr).unwrap_or(PASSTHROUGH_V4),
    };
    validation.run()?;
    super::probe::validate(config, probe.port, probe.timeout)?;
    tracing::info!("traffic is redirected");
    Ok(())
}

/// Prints the rules, and does nothing else.
fn dry_run(request: &Request) -> anyhow::Result<()> {
    if request.task == Task::Cleanup {
        tracing::info!("this is a dry run: nothing is removed");
        return Ok(());
    }
    let text = redirection::text(&request.settings)?;
    if let Some(path) = &request.dry_run_file {
        std::fs::write(path, &text).map_err(|reason| DryRunFile {
            path: path.clone(),
            reason,
        })?;
    }
    Ok(output::print(&text)?)
}
