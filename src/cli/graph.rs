//! `sidetrack graph`: the packet's way through the rules as a picture.

use clap::ArgMatches;

use super::settings::settings;
use super::{apply, output};
use crate::render::graph::{Graph, dot, mermaid, svg};

/// Draws a picture.
type Writer = fn(&Graph) -> String;

/// The languages of pictures; the first is the default.
pub const FORMATS: [(&str, Writer); 3] = [
    ("mermaid", mermaid::document),
    ("dot", dot::document),
    ("svg", svg::document),
];

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let settings = settings(matches)?;
    let graph = Graph::new(&apply::plan(&settings.config)?.ruleset);
    let wanted = matches.get_one::<String>("format");
    for (name, document) in FORMATS {
        if wanted.is_some_and(|wanted| wanted == name) {
            output::print(&document(&graph))?;
        }
    }
    Ok(())
}
