//! The man pages of the program and of each of its commands.

use std::io;

use clap::Command;
use clap_mangen::Man;

/// The name of each page, such as `sidetrack-apply.1`, and its text.
///
/// # Errors
/// None, as nothing is written but memory.
pub fn pages(command: &Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    collect(command, command.get_name(), &mut pages)?;
    Ok(pages)
}

fn collect(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    // Pages refer to each other by these names.
    let command = command
        .clone()
        .display_name(name.to_owned())
        .bin_name(name.replace('-', " "));
    let mut roff = Vec::new();
    let source = concat!("sidetrack ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(name).source(source).manual("sidetrack");
    man.render(&mut roff)?;
    pages.push((format!("{name}.1"), roff));
    for inner in command.get_subcommands() {
        collect(inner, &format!("{name}-{}", inner.get_name()), pages)?;
    }
    Ok(())
}
