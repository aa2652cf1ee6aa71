//! The tree of commands, and running the one that was typed.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::{ExitCode, Termination};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};

use super::failure::{self, ExitCodes, Failure};
use super::{
    apply, check, cleanup, completions, explain, graph, help, istio_iptables, kuma_init, linkerd_proxy_init, lint,
    logging, node, output, probe, stats, trace,
};
use crate::mesh::peers::{self, PeerFlag};
use crate::types::LogLevel;

/// Runs one command: `istio-iptables`, `proxy-init` or `kumactl` if the program is called by that name, else a command
/// of sidetrack.
///
/// Logs errors. Returns 0, or the command's exit code for failures and findings.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(called) = kuma_init::called(&arguments) {
        return exit_code(called.command, &called.arguments, called.run, failure::KUMACTL);
    }
    if let Some(arguments) = istio_iptables::arguments(&arguments) {
        return exit_code(
            istio_iptables::command,
            &arguments,
            |matches| istio_iptables::run(matches).map(|()| ExitCode::SUCCESS),
            failure::ISTIO_IPTABLES,
        );
    }
    if let Some(arguments) = linkerd_proxy_init::arguments(&arguments) {
        return exit_code(
            linkerd_proxy_init::command,
            &arguments,
            |matches| linkerd_proxy_init::run(matches).map(|()| ExitCode::SUCCESS),
            failure::LINKERD_PROXY_INIT,
        );
    }
    exit_code(sidetrack, &arguments, run_sidetrack, failure::SIDETRACK)
}

/// The definition of the whole command line with all options, for man pages.
pub fn command() -> Command {
    help::full(sidetrack())
}

/// The command line of sidetrack. The arguments of a command are built only if that command runs or shows help.
fn sidetrack() -> Command {
    let commands = [
        apply::command(),
        check::command(),
        cleanup::command(),
        explain::command(),
        graph::command(),
        lint::command(),
        node::command(),
        probe::command(),
        stats::command(),
        trace::command(),
        istio_iptables::command(),
        kuma_init::command(),
        linkerd_proxy_init::command(),
        completions::command(),
        help::command(),
    ];
    Command::new("sidetrack")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Redirect a pod's TCP traffic to its sidecar proxy")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(commands)
        .after_help("Example: sidetrack apply --dry-run")
}

fn run_sidetrack(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let succeeded = |()| ExitCode::SUCCESS;
    match matches.subcommand() {
        Some((apply::NAME, matches)) => apply::run(matches).map(succeeded),
        Some((check::NAME, matches)) => check::run(matches),
        Some((cleanup::NAME, matches)) => cleanup::run(matches).map(succeeded),
        Some((completions::NAME, matches)) => completions::run(matches, command()).map(succeeded),
        Some((explain::NAME, matches)) => explain::run(matches).map(succeeded),
        Some((help::NAME, matches)) => help::run(matches, command()).map(succeeded),
        Some((graph::NAME, matches)) => graph::run(matches).map(succeeded),
        Some((lint::NAME, matches)) => lint::run(matches),
        Some((node::NAME, matches)) => node::run(matches),
        Some((probe::NAME, matches)) => probe::run(matches).map(succeeded),
        Some((stats::NAME, matches)) => stats::run(matches),
        Some((trace::NAME, matches)) => trace::run(matches).map(succeeded),
        _ => Err(Failure::Usage(vec!["no such command".to_owned()]).into()),
    }
}

fn exit_code<T: Termination>(
    command: fn() -> Command,
    arguments: &[OsString],
    run: fn(&ArgMatches) -> anyhow::Result<T>,
    codes: ExitCodes,
) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Err(error) if help::is_help(&error) => help::brief(command()).try_get_matches_from(arguments),
        matches => matches,
    };
    let matches = match matches {
        Ok(matches) => matches,
        Err(error) => {
            let printed = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output::print(&error.render().to_string()),
                ErrorKind::UnknownArgument if codes == failure::SIDETRACK && explain_peers(&error, arguments) => {
                    return ExitCode::from(codes.usage);
                }
                _ => {
                    // Standard error may be closed.
                    let _printed = error.print();
                    return ExitCode::from(codes.usage);
                }
            };
            return match printed {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(codes.usage),
            };
        }
    };
    match run(&matches) {
        Ok(done) => done.report(),
        Err(error) => {
            logging::start_if_needed(LogLevel::Info);
            failure::report(&error, codes)
        }
    }
}

/// Prints advice about flags of other tools, if the command line fails because of one.
fn explain_peers(error: &clap::Error, arguments: &[OsString]) -> bool {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return false;
    };
    let flags = arguments.iter().skip(1).filter_map(|argument| {
        let text = argument.to_str()?;
        Some(text.split_once('=').map_or(text, |(flag, _)| flag))
    });
    let found: Vec<(&str, PeerFlag)> = flags.filter_map(|flag| Some((flag, peers::find(flag)?))).collect();
    // clap reports only the first letter of an unknown argument with one hyphen.
    let is_unknown = |flag: &str| flag == unknown || flag.starts_with(unknown.as_str()) && !flag.starts_with("--");
    if !found.iter().any(|(flag, _)| is_unknown(flag)) {
        return false;
    }
    for (flag, peer) in found {
        let (what, hint) = peer.advice(flag);
        // Standard error may be closed.
        let _printed = writeln!(
            io::stderr(),
            "error: {what}, not an option of this command\nhint: {hint}"
        );
    }
    true
}
