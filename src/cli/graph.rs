//! `sidetrack graph`: the packet's way through the rules as a picture.

use std::io::Write as _;

use clap::{Arg, ArgMatches, Command};

use super::settings::settings;
use super::{apply, arguments};
use crate::render::graph::{Graph, dot, mermaid, svg};

/// Draws a picture.
type Writer = fn(&Graph) -> String;

/// The languages of pictures; the first is the default.
const FORMATS: [(&str, Writer); 3] = [
    ("mermaid", mermaid::document),
    ("dot", dot::document),
    ("svg", svg::document),
];

/// What clap knows of the command line.
pub fn command() -> Command {
    Command::new("graph")
        .about("Draws the way of packets through the rules that applying would write")
        .after_help("Example: sidetrack graph --format svg --redirect-dns > graph.svg")
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(FORMATS.map(|(name, _)| name))
                .default_value(FORMATS[0].0)
                .hide_default_value(true)
                .hide_possible_values(true)
                .help("mermaid for Markdown, dot for Graphviz, or svg [mermaid]"),
        )
        .arg(arguments::config())
        .args(arguments::about_rules())
        .args(arguments::about_logging())
        .arg(arguments::verbose())
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let settings = settings(matches)?;
    let graph = Graph::new(&apply::plan(&settings.config)?.ruleset);
    let wanted = matches.get_one::<String>("format");
    for (name, document) in FORMATS {
        if wanted.is_some_and(|wanted| wanted == name) {
            std::io::stdout().write_all(document(&graph).as_bytes())?;
        }
    }
    Ok(())
}
