//! `sidetrack cleanup`: removes everything owned by sidetrack from a network namespace.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::failure::Failure;
use super::settings::start_logging;
use super::{args, persist, redirection};
use crate::linux::netns;
use crate::mesh::{MESHES, Mesh};
use crate::options::table::{Group, Scope};
use crate::types::{Choice as _, MeshName};

/// The name of the command.
pub const NAME: &str = "cleanup";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Remove everything that sidetrack put into a network namespace")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .after_help(
            "Examples: sidetrack cleanup --netns pod\n          \
             sidetrack cleanup --foreign istio,linkerd",
        )
        .arg(args::netns())
        .arg(
            Arg::new("foreign")
                .long("foreign")
                .value_name("MESH")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(PossibleValuesParser::new(MESHES.iter().map(|mesh| name(mesh))))
                .hide_possible_values(true)
                .help(args::described(
                    "Remove this mesh's rules instead of sidetrack's",
                    "",
                    &MESHES.each_ref().map(name),
                ))
                .help_heading(Group::Run.heading()),
        )
        .arg(args::persist("Also stop applying at boot"))
        .args(args::options(|option| option.scope == Scope::Logging))
        .arg(args::verbose())
}

/// What the option calls a mesh.
fn name(mesh: &Mesh) -> &'static str {
    let named = MeshName::ALL.iter().find(|(name, _)| *name == mesh.option);
    named.map_or("", |(_, name)| name)
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    start_logging(matches)?;
    let foreign: Vec<&Mesh> = {
        let given: Vec<&String> = matches.get_many("foreign").into_iter().flatten().collect();
        let is_given = |mesh: &&Mesh| given.iter().any(|given| *given == name(mesh));
        MESHES.iter().filter(is_given).collect()
    };
    let remove = || match foreign.as_slice() {
        [] => redirection::cleanup(),
        meshes => redirection::cleanup_foreign(meshes),
    };
    if matches.get_flag("persist") {
        if !foreign.is_empty() {
            let reason =
                "--persist and --foreign: --persist removes files of sidetrack alone; leave one of them out".to_owned();
            return Err(Failure::Usage(vec![reason]).into());
        }
        return persist::cleanup(matches);
    }
    match args::text_or_variable(matches, "netns") {
        Some(netns) => netns::administer(netns::path(&netns), remove)?,
        None => remove(),
    }
}
