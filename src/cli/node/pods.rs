//! `sidetrack node pods`: lists the pods of the node, or shows all that is known about one.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches};

use super::options::{JSON, WATCH};
use super::wanted::{Given, node_to_read, places};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::settings::start_logging;
use crate::node::pods;
use crate::node::repair::locate::Places;
use crate::node::repair::target::{self, Name};
use crate::node::repair::{self, Found, Scan};
use crate::node::watch::{Pause, Watch};
use crate::node::{Node, NodeError};

/// The time between two scans of `--watch`, unless the runtime's cache changes.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);
/// Changes of the cache within this time are shown by one scan.
const WATCH_DEBOUNCE: Duration = Duration::from_millis(100);

/// The name of the one pod.
const POD: &str = "POD";

/// The argument that names one pod.
pub fn argument() -> Arg {
    Arg::new(POD)
        .value_name("NAMESPACE/NAME")
        .help("Show all that is known about this pod; without it, list all")
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    start_logging(matches)?;
    let mut problems = Vec::new();
    let given = Given::ReadOnly(matches);
    let node = node_to_read(given, &mut problems);
    let watches = WATCH.is_set(matches).map_err(|problem| problems.push(problem)).ok();
    let pod = match matches.get_one::<String>(POD) {
        None => None,
        Some(text) => {
            let pod = Name::parse(text);
            if pod.is_none() {
                problems.push(format!("{text:?} is not NAMESPACE/NAME, such as shop/web-0"));
            }
            pod
        }
    };
    if pod.is_some() && watches == Some(true) {
        problems.push("--watch: it watches all pods; give no pod".to_owned());
    }
    let (Some(node), Some(watches), true) = (node, watches, problems.is_empty()) else {
        return Err(Failure::Input(problems).into());
    };
    let (places, as_json) = (places(given), matches.get_flag(JSON.id));
    match pod {
        Some(pod) => output::print(&one(&node, &places, &pod, as_json)?)?,
        None if watches => watch(&node, &places, as_json)?,
        None => {
            let scan = compared(&node, &places)?;
            scan.warn_of_unusable(&places);
            output::print(&if as_json {
                pods::document(&scan)
            } else {
                pods::table(&scan)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn compared(node: &Node, places: &Places) -> Result<Scan, repair::RepairError> {
    let mut scan = repair::scan_available(node, places)?;
    scan.compare(places);
    Ok(scan)
}

fn one(node: &Node, places: &Places, pod: &Name, as_json: bool) -> anyhow::Result<String> {
    let scan = compared(node, places)?;
    let mut found: Vec<Found> = scan
        .found
        .into_iter()
        .filter(|found| pod.is_of(&found.sandbox))
        .collect();
    // A scan does not enter pods that the plugin skips. Where several sandboxes have the name, the running one counts.
    match target::find(node, places, pod) {
        Ok(target) => {
            found.retain(|one| one.sandbox.container == target.sandbox.container);
            for one in &mut found {
                let seen = (target.netns.clone(), target.seen.holder);
                one.namespace.get_or_insert(seen);
            }
        }
        Err(error) if found.is_empty() => return Err(error.into()),
        Err(error) => tracing::debug!(%error, "the pod's network namespace was not observed"),
    }
    let text = |found: &Found| match as_json {
        true => pods::detailed_document(found),
        false => pods::detailed_text(found),
    };
    Ok(found.iter().map(text).collect::<Vec<_>>().join("\n"))
}

/// A pod that `--watch` has shown. It keeps no network namespace.
struct Shown {
    state: (&'static str, String),
    warning: Option<String>,
    /// What is printed once the pod is gone.
    removal: String,
}

/// Prints all pods, and then each change, until standard output is closed, or SIGTERM or SIGINT comes.
fn watch(node: &Node, places: &Places, as_json: bool) -> anyhow::Result<()> {
    let change = if as_json { pods::change } else { pods::change_as_text };
    let mut watch = Watch::new(vec![places.cache.clone()]).map_err(NodeError::Watch)?;
    let mut known: BTreeMap<String, Shown> = BTreeMap::new();
    let mut is_first = true;
    loop {
        if let Err(error) = watch.renew(&[]) {
            tracing::debug!(%error, "cannot watch the runtime's cache; scanning every second");
        }
        let scan = match compared(node, places) {
            Ok(scan) => scan,
            Err(error) if is_first => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "cannot list the pods; retrying");
                if watch.wait(Pause::of(WATCH_INTERVAL))? {
                    return Ok(());
                }
                continue;
            }
        };
        is_first = false;
        let (mut before, mut text) = (std::mem::take(&mut known), String::new());
        for found in scan.found {
            let now = Shown {
                state: (found.state.name(), found.state.reason().to_owned()),
                warning: found.warning.clone(),
                removal: change("removed", &found),
            };
            match before.remove(&found.sandbox.container) {
                None => text += &change("added", &found),
                Some(earlier) if (&earlier.state, &earlier.warning) != (&now.state, &now.warning) => {
                    text += &change("changed", &found);
                }
                Some(_) => {}
            }
            known.insert(found.sandbox.container, now);
        }
        text.extend(before.into_values().map(|earlier| earlier.removal));
        let pause = Pause {
            shortest: WATCH_DEBOUNCE,
            longest: WATCH_INTERVAL,
        };
        if !output::print_if_open(&text)? || watch.wait(pause)? {
            return Ok(());
        }
    }
}
