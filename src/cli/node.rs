//! `sidetrack node`: installs the CNI plugin on a node, removes it, and shows its state.

mod options;
mod pods;
pub mod wanted;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use self::options::{
    CACHE_DIR, DRY_RUN, EVICTION_INTERVAL, FORCE, HEALTH_ADDRESS, JSON, MODE, NODE_NAME, NODE_OPTIONS, ONCE,
    SOCKET_PATH, STANDALONE, STARTUP_TAINT, UNINSTALL_ON_EXIT,
};
use self::wanted::{Given, directories, node, places};
use super::args;
use super::failure::{Failure, SYSTEM};
use super::output;
use super::settings::start_logging;
use crate::node::layout::{Judged, Reason};
use crate::node::repair::state::Mode;
use crate::node::repair::worker::Repair;
use crate::node::repair::{self, Found, RepairError, log};
use crate::node::service::{self, Service};
use crate::node::startup_taint::StartupTaint;
use crate::node::{Node, Observation, health};
use crate::options::table::{OPTIONS, Scope};
use crate::types::{Choice as _, parse_duration};

/// The exit code of `status` if something is missing or wrong.
const NOT_AS_WANTED: u8 = 3;

/// The version of the JSON schema of `status`.
const STATUS_VERSION: u32 = 1;

/// The name of the command.
pub const NAME: &str = "node";

/// The command and its subcommands.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Install the CNI plugin on a node, and keep it there")
        .defer(subcommands)
}

fn subcommands(command: Command) -> Command {
    let subcommand = |name: &'static str, about, examples| {
        let options = NODE_OPTIONS.iter().filter(|option| option.commands.contains(&name));
        let logging = OPTIONS.iter().filter(|option| option.scope == Scope::Logging);
        Command::new(name)
            .about(about)
            .after_help(examples)
            .args(options.map(|option| option.argument()))
            .args(logging.map(args::argument))
            .arg(args::verbose())
    };
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help(
            "Each option is also the variable SIDETRACK_NODE_… of its name.\nExample: sidetrack node status --json",
        )
        .subcommand(subcommand(
            "install",
            "Install the plugin, stay, and repair it",
            "Example: sidetrack node install --cni-bin-dir /opt/cni/bin --cni-conf-dir /etc/cni/net.d --once",
        ))
        .subcommand(subcommand(
            "uninstall",
            "Remove everything that install did, and nothing else",
            "Example: sidetrack node uninstall --cni-bin-dir /opt/cni/bin --cni-conf-dir /etc/cni/net.d",
        ))
        .subcommand(subcommand(
            "status",
            "Show whether everything is in place; exit with 3 where it is not",
            "Example: sidetrack node status --json",
        ))
        .subcommand(subcommand(
            "repair",
            "Install or repair the rules of running pods; exit with 3 where some are still wrong",
            "Example: sidetrack node repair --dry-run",
        ))
        .subcommand(
            subcommand(
                "pods",
                "List the pods of this node with mesh, verdict, and the state of their rules",
                "Examples: sidetrack node pods --watch\n          sidetrack node pods shop/web-0 --json",
            )
            .arg(pods::argument()),
        )
}

/// Runs the command.
///
/// # Errors
/// Invalid options, or an operation that the system does not allow.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("install", matches)) => install(matches),
        Some(("uninstall", matches)) => uninstall(matches),
        Some(("status", matches)) => status(matches),
        Some(("repair", matches)) => repair(matches),
        Some(("pods", matches)) => pods::run(matches),
        _ => Err(Failure::Usage(vec!["no such command".to_owned()]).into()),
    }
}

fn install(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    start_logging(matches)?;
    let mut problems = Vec::new();
    let node = node(Given::Arguments(matches), &mut problems);
    let health = take(health_address(matches), &mut problems);
    let once = take(ONCE.is_set(matches), &mut problems);
    let uninstall_on_exit = take(UNINSTALL_ON_EXIT.is_set(matches), &mut problems);
    let mode = take(mode(matches), &mut problems);
    let eviction_interval = take(eviction_interval(matches), &mut problems);
    let taint = take(startup_taint(matches, once), &mut problems);
    let (
        Some(node),
        Some(health),
        Some(once),
        Some(uninstall_on_exit),
        Some(mode),
        Some(eviction_interval),
        Some(taint),
    ) = (node, health, once, uninstall_on_exit, mode, eviction_interval, taint)
    else {
        return Err(Failure::Input(problems).into());
    };
    if once {
        service::once(&node)?;
    } else {
        let service = Service {
            node,
            socket: SOCKET_PATH.text(matches).into(),
            health,
            uninstall_on_exit,
            repair: Repair {
                mode,
                eviction_interval,
            },
            places: places(Given::Arguments(matches)),
            startup_taint: taint,
        };
        service.run()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn uninstall(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    start_logging(matches)?;
    let force = FORCE.is_set(matches).map_err(|problem| Failure::Input(vec![problem]))?;
    let (socket, cache) = (
        PathBuf::from(SOCKET_PATH.text(matches)),
        PathBuf::from(CACHE_DIR.text(matches)),
    );
    service::uninstall(
        &directories(Given::Arguments(matches)),
        &socket,
        (!force).then_some(cache.as_path()),
    )?;
    tracing::info!("sidetrack was removed from this node");
    Ok(ExitCode::SUCCESS)
}

fn status(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    start_logging(matches)?;
    let mut problems = Vec::new();
    let node = node(Given::Arguments(matches), &mut problems);
    let health = take(health_address(matches), &mut problems);
    let (Some(node), Some(health)) = (node, health) else {
        return Err(Failure::Input(problems).into());
    };
    let observation = node.observe()?;
    let installer = health::ask(health);
    let places = places(Given::Arguments(matches));
    let mut pods = repair::scan_available(&node, &places);
    pods.iter_mut().for_each(|scan| scan.compare(&places));
    let text = if matches.get_flag(JSON.id) {
        format!("{:#}\n", status_as_json(&node, &observation, installer, &pods))
    } else {
        status_as_text(&node, &observation, installer, &pods)
    };
    output::print(&text)?;
    Ok(match observation.missing() {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(NOT_AS_WANTED),
    })
}

fn repair(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    start_logging(matches)?;
    let mut problems = Vec::new();
    let node = node(Given::Arguments(matches), &mut problems);
    let dry_run = take(DRY_RUN.is_set(matches), &mut problems);
    let (Some(node), Some(dry_run)) = (node, dry_run) else {
        return Err(Failure::Input(problems).into());
    };
    let places = places(Given::Arguments(matches));
    let (mut left, mut failed) = (false, false);
    let mut scan = repair::scan(&node, &places)?;
    scan.warn_of_unusable(&places);
    scan.compare(&places);
    for mut found in scan.found {
        log::warning(&found.sandbox, found.warning.as_deref());
        if let (Some((fault, netns)), false) = (found.state.repairable(), dry_run) {
            let outcome = repair::repair(&found.sandbox, netns, fault, &places);
            failed |= outcome.is_err();
            log::outcome(&found.sandbox, &outcome);
            found.state = found.state.after(&outcome);
        }
        left |= found.state.is_wrong();
        output::print(&format!("{}\n", pod_as_json(&found)))?;
    }
    Ok(match (failed, left) {
        (true, _) => ExitCode::from(SYSTEM),
        (false, true) => ExitCode::from(NOT_AS_WANTED),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// A pod that may bypass its proxy, or any other.
fn pod_as_json(Found { sandbox, state, .. }: &Found) -> Value {
    let (pod, container) = (sandbox.pod.to_string(), &sandbox.container);
    json!({ "pod": pod, "container": container, "state": state.name(), "reason": state.reason() })
}

type Pods = Result<repair::Scan, RepairError>;

fn status_as_json(node: &Node, observation: &Observation, installer: Option<String>, pods: &Pods) -> Value {
    let reasons: Vec<&str> = observation.reasons().into_iter().map(Reason::name).collect();
    json!({
        "version": STATUS_VERSION,
        "missing": observation.missing(),
        "reasons": reasons,
        "binary": node.directories.binary(),
        "configuration": observation.layout.target.as_ref().ok().map(|name| node.directories.conf.join(name)),
        "installer": installer,
        "files": observation.files.iter().map(|Judged { name, verdict }| {
            json!({ "file": name, "verdict": verdict.name(), "reason": verdict.reason() })
        }).collect::<Vec<_>>(),
        "pods": pods.as_ref().ok().map(|scan| scan.found.iter().map(pod_as_json).collect::<Vec<_>>()),
    })
}

/// The pods that may bypass their proxy, each on a line; empty where there is no network to scan.
fn pods_as_text(pods: &Pods) -> String {
    let scan = match pods {
        Ok(scan) => scan,
        Err(RepairError::Waiting(_) | RepairError::NotInPlace(_) | RepairError::Standalone) => return String::new(),
        Err(error) => return format!("pods           not checked: {error}\n"),
    };
    let wrong: Vec<&Found> = scan.found.iter().filter(|found| found.state.is_wrong()).collect();
    let line = |found: &&Found| {
        let (pod, state) = (&found.sandbox.pod, &found.state);
        format!("               {pod}: {}: {}\n", state.name(), state.reason())
    };
    let lines: String = wrong.iter().map(line).collect();
    format!(
        "pods           {} of {} may bypass their proxy\n{lines}",
        wrong.len(),
        scan.found.len()
    )
}

fn status_as_text(node: &Node, observation: &Observation, installer: Option<String>, pods: &Pods) -> String {
    let state = |reasons: &[Reason]| match reasons {
        [] => "as wanted".to_owned(),
        reasons => reasons
            .iter()
            .map(|reason| reason.name())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let binary = state(observation.binary.as_slice());
    let (path, configuration) = match &observation.layout.target {
        Ok(name) => (node.directories.conf.join(name), state(&observation.layout.reasons)),
        Err(waiting) => (node.directories.conf.clone(), waiting.to_string()),
    };
    let file = |Judged { name, verdict }: &Judged| match verdict.reason() {
        reason if reason.is_empty() => format!("               {name}: {}\n", verdict.name()),
        reason => format!("               {name}: {}: {reason}\n", verdict.name()),
    };
    let files: String = observation.files.iter().map(file).collect();
    let installer = installer.unwrap_or_else(|| "not running, or not reached at --health-address".to_owned());
    format!(
        "binary         {}: {binary}\nconfiguration  {}: {configuration}\n{files}installer      {installer}\n{}",
        node.directories.binary().display(),
        path.display(),
        pods_as_text(pods),
    )
}

fn take<T>(result: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn mode(matches: &ArgMatches) -> Result<Mode, String> {
    let mode = Mode::parse(&MODE.text(matches));
    let mode = mode.map_err(|invalid| format!("--repair: {:?} is not {}", invalid.value, invalid.expected))?;
    if !mode.is_built_in() {
        let name = mode.name();
        return Err(format!(
            "--repair: {name:?} needs a build with the feature kubernetes; this one has off, report and in-place. Build \
             it by scripts/build --features kubernetes, or the image by scripts/image sidetrack.tar --features kubernetes"
        ));
    }
    match mode {
        _ if STANDALONE.text(matches).is_empty() => Ok(mode),
        Mode::Off | Mode::Report => Ok(Mode::Off),
        _ => Err(format!("--repair: {}", RepairError::Standalone)),
    }
}

fn eviction_interval(matches: &ArgMatches) -> Result<Duration, String> {
    let interval = parse_duration(&EVICTION_INTERVAL.text(matches));
    interval.map_err(|invalid| format!("--eviction-interval: {:?} is not {}", invalid.value, invalid.expected))
}

fn startup_taint(matches: &ArgMatches, once: Option<bool>) -> Result<Option<StartupTaint>, String> {
    let (key, node) = (STARTUP_TAINT.text(matches), NODE_NAME.text(matches));
    StartupTaint::from_options(&key, &node, once.unwrap_or_default()).map_err(|error| error.to_string())
}

fn health_address(matches: &ArgMatches) -> Result<SocketAddr, String> {
    let text = HEALTH_ADDRESS.text(matches);
    // Manifests write $(NODE_IP):15014, without the brackets that an IPv6 address would need.
    let unbracketed = || {
        let (address, port) = text.rsplit_once(':')?;
        let address: IpAddr = address.parse().ok()?;
        Some(SocketAddr::new(address, port.parse().ok()?))
    };
    let address = text.parse().ok().or_else(unbracketed);
    address
        .ok_or_else(|| format!("--health-address: {text:?} is not an IP address and a port, such as 127.0.0.1:15014"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(arguments: &[&str]) -> ArgMatches {
        let matches = command().try_get_matches_from([&["node", "install"], arguments].concat());
        matches.unwrap().subcommand().unwrap().1.clone()
    }

    #[test]
    fn an_address_may_be_of_either_family() {
        let address = |text| health_address(&matches(&["--health-address", text])).map(|address| address.to_string());
        assert_eq!(address("10.0.0.1:80"), Ok("10.0.0.1:80".to_owned()));
        assert_eq!(address("[fd00::1]:80"), Ok("[fd00::1]:80".to_owned()));
        assert_eq!(address("fd00::1:80"), Ok("[fd00::1]:80".to_owned()));
        assert!(address("15014").is_err() && address("node:80").is_err());
    }
}
