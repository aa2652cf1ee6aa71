//! The programs of meshes whose flags `check`, `probe` and `explain` accept after the program's name: the commands then
//! work on the rules that this program would write.

use clap::{ArgMatches, Command};

use super::failure::Failure;
use super::{args, istio_iptables, kuma_init, linkerd_proxy_init};
use crate::mesh::istio::front_end::Task;
use crate::options::Settings;

/// The settings, and the network namespace if it is not the current one.
pub type Request = (Settings, Option<String>);

/// A program that redirects.
struct FrontEnd {
    name: &'static str,
    command: fn() -> Command,
    /// Whether the program has a flag for the network namespace; otherwise sidetrack's `--netns` selects it.
    has_netns: bool,
    asked: fn(&ArgMatches) -> Result<Request, Failure>,
}

const FRONT_ENDS: [FrontEnd; 3] = [
    FrontEnd {
        name: istio_iptables::NAME,
        command: istio_iptables::command,
        has_netns: true,
        asked: |theirs| {
            let request = istio_iptables::request(theirs)?;
            match request.task {
                Task::Cleanup => Err(Failure::Usage(vec![
                    "--cleanup-only: there is no plan. Leave it out".to_owned(),
                ])),
                _ => Ok((request.settings, request.netns)),
            }
        },
    },
    FrontEnd {
        name: linkerd_proxy_init::NAME,
        command: linkerd_proxy_init::command,
        has_netns: true,
        asked: |theirs| linkerd_proxy_init::request(theirs).map(|request| (request.settings, request.netns)),
    },
    FrontEnd {
        name: kuma_init::NAME,
        command: kuma_init::command,
        has_netns: false,
        asked: |theirs| kuma_init::settings(theirs).map(|settings| (settings, None)),
    },
];

/// A subcommand for each program; `does` is the verb of its help.
pub fn commands(does: &str) -> Vec<Command> {
    let word = |program: &FrontEnd| {
        let about = format!("{does} what {} with these flags would redirect", program.name);
        (program.command)().about(about)
    };
    FRONT_ENDS.iter().map(word).collect()
}

/// The request of the flags after a program's name, if there is one. Of sidetrack's own arguments, only those in
/// `allowed` may come before it.
///
/// # Errors
/// All mistakes in either.
pub fn asked(ours: &ArgMatches, allowed: &[&str]) -> Option<Result<Request, Failure>> {
    let (word, theirs) = ours.subcommand()?;
    let program = FRONT_ENDS.iter().find(|program| program.name == word)?;
    let is_allowed = |id: &str| allowed.contains(&id) || id == word || id == "netns" && !program.has_netns;
    let stray = args::given(ours).filter(|id| !is_allowed(id));
    let stray: Vec<String> = stray
        .map(|id| format!("--{id} has no effect before {word}: give flags of {word} after that word"))
        .collect();
    Some(match ((program.asked)(theirs), stray.is_empty()) {
        (Ok((settings, netns)), true) => {
            let of_ours = || args::text_or_variable(ours, "netns").filter(|_| !program.has_netns);
            Ok((settings, netns.or_else(of_ours)))
        }
        (Err(failure), true) => Err(failure),
        (Err(Failure::Input(wrong) | Failure::Usage(wrong)), false) => Err(Failure::Usage([stray, wrong].concat())),
        (Ok(_), false) => Err(Failure::Usage(stray)),
    })
}
