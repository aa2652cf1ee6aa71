//! `sidetrack graph`: a diagram of the rules.

use clap::{Arg, ArgMatches, Command};

use super::settings::settings;
use super::{args, output, redirection};
use crate::render::graph::{Graph, dot, mermaid, svg};

/// Renders a graph.
type Writer = fn(&Graph) -> String;

/// The output formats; the first is the default.
pub const FORMATS: [(&str, Writer); 3] = [
    ("mermaid", mermaid::document),
    ("dot", dot::document),
    ("svg", svg::document),
];

/// The name of the command.
pub const NAME: &str = "graph";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Draw the way of packets through the rules that apply would write")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    command
        .after_help("Example: sidetrack graph --format svg --redirect-dns > graph.svg")
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value(FORMATS[0].0)
                .value_parser(FORMATS.map(|(name, _)| name))
                .hide_default_value(true)
                .hide_possible_values(true)
                .help(args::described(
                    "mermaid is for Markdown, dot for Graphviz",
                    FORMATS[0].0,
                    &FORMATS.map(|(name, _)| name),
                )),
        )
        .arg(args::config())
        .args(args::options(args::is_rule_option))
        .arg(args::verbose())
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let settings = settings(matches)?;
    let graph = Graph::new(&redirection::plan(&settings.config)?.ruleset);
    let wanted = matches.get_one::<String>("format");
    for (name, document) in FORMATS {
        if wanted.is_some_and(|wanted| wanted == name) {
            output::print(&document(&graph))?;
        }
    }
    Ok(())
}
