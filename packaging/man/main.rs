//! Writes the man pages into a directory. `scripts/man` runs it.

mod pages;

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let directory = PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    fs::create_dir_all(&directory)?;
    for (name, text) in pages::pages(&sidetrack::cli::command())? {
        fs::write(directory.join(name), text)?;
    }
    Ok(())
}
