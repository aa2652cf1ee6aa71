//! `kuma-init`: does what `kumactl install transparent-proxy` does, by its flags, configuration and variables; and in
//! the place of `kumactl` what its commands about transparent proxying do.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::args::{self, first_line, sentences};
use super::failure::Failure;
use super::help::OF_KUMA;
use super::{logging, redirection, without_policy};
use crate::linux::accounts::AccountFiles;
use crate::mesh::go;
use crate::mesh::kuma::front_end::table::{Kind, SETTINGS, Setting};
use crate::mesh::kuma::front_end::{self, Document};
use crate::options::Settings;
use crate::plan::PASSTHROUGH_V4;
use crate::probe::validation::Validation;
use crate::types::{Accounts, Port};

/// The name of the command.
pub const NAME: &str = "kuma-init";

/// The program of Kuma that it stands in for.
pub const KUMACTL: &str = "kumactl";

/// Flags of every command of `kumactl`, for those that are not in the table. None means anything here.
const GLOBAL: [&str; 4] = ["config-file", "context", "log-level", "api-timeout"];

/// The port that the validation calls where Kuma's takes one from 20000 to 29999. Nothing listens there.
const VALIDATION_PORT: Port = match Port::new(20_000) {
    Some(port) => port,
    None => unreachable!(),
};
/// How long Kuma's validation tries: eleven times, a second apart.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(11);

/// A command line of this program, and what to do with it.
pub struct Called {
    /// What clap knows of it.
    pub command: fn() -> Command,
    /// The command line.
    pub arguments: Vec<OsString>,
    /// Runs it.
    pub run: fn(&ArgMatches) -> anyhow::Result<ExitCode>,
}

/// What is asked for, if it is one of Kuma's commands: as `sidetrack kuma-init`, or in the place of `kumactl`.
pub fn called(all: &[OsString]) -> Option<Called> {
    if let Some(arguments) = arguments(all) {
        return Some(Called::new(command, |matches| run(matches).map(done)).with(arguments));
    }
    if Path::new(all.first()?).file_name()? != KUMACTL {
        return None;
    }
    let found = all.windows(2).enumerate().find_map(|(at, pair)| {
        let called = match [pair.first()?.to_str()?, pair.get(1)?.to_str()?] {
            ["install", VALIDATOR] => Called::new(validator, |matches| validate(matches).map(done)),
            ["uninstall", "transparent-proxy"] => Called::new(uninstaller, |matches| uninstall(matches).map(done)),
            _ => return None,
        };
        Some(called.with([&all[..at], &all[at + 2..]].concat()))
    });
    Some(found.unwrap_or_else(|| Called::new(others, |_| Ok(ExitCode::SUCCESS)).with(all.to_vec())))
}

/// What is to be read as the command line that redirects, if one is.
pub fn arguments(all: &[OsString]) -> Option<Vec<OsString>> {
    let program = Path::new(all.first()?).file_name()?;
    if program != KUMACTL {
        let is_first = all.get(1).is_some_and(|word| word == NAME);
        return is_first.then(|| [&all[..1], &all[2..]].concat());
    }
    let is_it = |pair: &[OsString]| pair == ["install", "transparent-proxy"];
    let at = all.windows(2).position(is_it)?;
    Some([&all[..at], &all[at + 2..]].concat())
}

/// What a command line asks for, or what is wrong with it. `None` where files say more, which are not known here.
pub fn settings_of(
    arguments: Vec<OsString>,
    variables: &[(&str, &str)],
    accounts: &dyn Accounts,
) -> Option<Result<Settings, Vec<String>>> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return Some(Err(first_line(&error))),
    };
    let texts = |name: &str| args::many(&matches, name);
    if texts("config").is_some() {
        return None;
    }
    let variable = |name: &str| args::variable_among(variables, name);
    let parsed = front_end::read(|setting| texts(setting.name), &[], variable, accounts);
    let settings = parsed.settings.map_err(|mistakes| sentences(&mistakes));
    Some(settings.and_then(|settings| {
        without_policy::checked_with(NAME, variables, accounts)?;
        Ok(settings)
    }))
}

fn done(_: ()) -> ExitCode {
    ExitCode::SUCCESS
}

impl Called {
    fn new(command: fn() -> Command, run: fn(&ArgMatches) -> anyhow::Result<ExitCode>) -> Self {
        Self {
            command,
            arguments: Vec::new(),
            run,
        }
    }

    fn with(self, arguments: Vec<OsString>) -> Self {
        Self { arguments, ..self }
    }
}

const VALIDATOR: &str = "transparent-proxy-validator";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Redirect as kumactl install transparent-proxy does, with its flags")
        .defer(|command| {
            command
                .after_help(
                    "docs/kuma-init.md says what is different.\n\
                     Example: sidetrack kuma-init --kuma-dp-user 5678 --redirect-all-dns-traffic",
                )
                .args_override_self(true)
                .args(SETTINGS.iter().filter(|setting| setting.has_flag()).map(argument))
        })
}

fn argument(setting: &'static Setting) -> Arg {
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .help(args::described(setting.help, setting.default, &[]))
        .help_heading(OF_KUMA);
    let argument = match setting.name {
        "kuma-dp-user" => argument.alias("kuma-dp-uid"),
        _ => argument,
    };
    let argument = args::as_go_reads(argument, setting.value_name());
    match setting.kind {
        Kind::Many(_) => argument.action(ArgAction::Append),
        _ => argument,
    }
}

fn global() -> Vec<Arg> {
    let value = |name: &'static str| Arg::new(name).long(name).hide(true).allow_hyphen_values(true);
    let switch = args::go_switch(Arg::new("no-config").long("no-config").hide(true));
    GLOBAL.into_iter().map(value).chain([switch]).collect()
}

/// Runs the command.
fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let settings = settings(matches)?;
    redirection::apply(&settings)
}

/// What is asked for. Starts logging.
///
/// # Errors
/// All mistakes in it.
pub fn settings(matches: &ArgMatches) -> Result<Settings, Failure> {
    logging::start(Settings::default().logging, 0);
    let texts = |name: &str| args::many(matches, name);
    let documents = documents(texts("config").unwrap_or_default())?;
    let parsed = front_end::read(|setting| texts(setting.name), &documents, args::variable, &AccountFiles);
    for note in parsed.notes {
        tracing::info!("{note}");
    }
    for warning in parsed.warnings {
        tracing::warn!("{warning}");
    }
    let settings = parsed
        .settings
        .map_err(|mistakes| Failure::Input(sentences(&mistakes)))?;
    without_policy::checked(NAME)?;
    Ok(settings)
}

/// The files of this name, or standard input where it is `-`. An empty name is none.
fn documents(paths: Vec<String>) -> Result<Vec<Document>, Failure> {
    let (mut documents, mut mistakes) = (Vec::new(), Vec::new());
    for path in paths.into_iter().filter(|path| !path.is_empty()) {
        let text = if path == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(&path)
        };
        match text {
            Ok(text) => documents.push((path, text)),
            Err(reason) => mistakes.push(format!("--config: {path}: {reason}")),
        }
    }
    if mistakes.is_empty() {
        Ok(documents)
    } else {
        Err(Failure::Input(mistakes))
    }
}

/// `kumactl install transparent-proxy-validator`.
fn validator() -> Command {
    let value = |name: &'static str, help: &'static str| {
        let argument = Arg::new(name).long(name).help(help);
        argument.allow_hyphen_values(true).action(ArgAction::Append)
    };
    Command::new(VALIDATOR)
        .about("Test whether traffic is redirected, as the proxy's user and before the proxy starts")
        .args_override_self(true)
        .arg(value("ip-family-mode", "dualstack or ipv4 [dualstack]"))
        .arg(value(
            "validation-server-port",
            "Port that inbound TCP is redirected to [15006]",
        ))
        .arg(value(
            "transparent-proxy-config",
            "File that says both: it counts before the flags",
        ))
        .args(global())
}

/// Tries whether what the proxy's user sends from this pod to 127.0.0.6 and ::6 arrives at the inbound port.
fn validate(matches: &ArgMatches) -> anyhow::Result<()> {
    logging::start(Settings::default().logging, 0);
    let texts = |name: &str| args::many(matches, name);
    let documents = documents(texts("transparent-proxy-config").unwrap_or_default())?;
    let flag = |setting: &Setting| match setting.name {
        // No user is looked up: the user that this runs as is the proxy's.
        "kuma-dp-user" => Some(vec!["0".to_owned()]),
        _ if !documents.is_empty() => None,
        "ip-family-mode" => texts("ip-family-mode"),
        "redirect-inbound-port" => texts("validation-server-port"),
        _ => None,
    };
    let settings = front_end::read(flag, &documents, args::variable, &AccountFiles).settings;
    let config = settings
        .map_err(|mistakes| Failure::Input(sentences(&mistakes)))?
        .config;
    let families = redirection::plan(&config)?.ruleset.families;
    let inbound_port = config.proxy.inbound_port;
    let validation = Validation {
        inbound_port,
        outbound_port: inbound_port,
        probe_port: VALIDATION_PORT,
        timeout: VALIDATION_TIMEOUT,
        families,
        v4_destination: PASSTHROUGH_V4,
    };
    // Istio's validation has an exit code of its own; Kuma's has not.
    validation
        .run()
        .map_err(|error| anyhow!("validation failed: {error}"))?;
    tracing::info!("traffic is redirected");
    Ok(())
}

/// `kumactl uninstall transparent-proxy`.
fn uninstaller() -> Command {
    let switch = |name: &'static str, help: &'static str| args::go_switch(Arg::new(name).long(name).help(help));
    Command::new("uninstall")
        .about("Remove the rules, like sidetrack cleanup")
        .args_override_self(true)
        .arg(switch("dry-run", "Remove nothing"))
        .arg(switch("verbose", "Accepted, without effect"))
        .args(global())
}

fn uninstall(matches: &ArgMatches) -> anyhow::Result<()> {
    logging::start(Settings::default().logging, 0);
    let dry_run = matches.get_one::<String>("dry-run");
    if dry_run.is_some_and(|text| go::boolean(text) == Ok(true)) {
        tracing::info!("this is a dry run: nothing is removed");
        return Ok(());
    }
    redirection::cleanup()
}

/// Whatever else `kumactl` is asked for.
fn others() -> Command {
    Command::new("kumactl")
        .about("Redirect in the place of kumactl, and do nothing else that it does")
        .override_usage(
            "kumactl install transparent-proxy | install transparent-proxy-validator | uninstall transparent-proxy",
        )
        .arg_required_else_help(true)
}
