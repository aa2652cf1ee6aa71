//! `sidetrack completions`: completion scripts for shells, from the definition of the command line.

use clap::{Arg, ArgMatches, Command};
use clap_complete::{Shell, generate};

use super::output;

/// The shells, by name.
const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("fish", Shell::Fish), ("zsh", Shell::Zsh)];

/// The name of the command.
pub const NAME: &str = "completions";

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Print the completion script of a shell")
        .after_help("Example: sidetrack completions bash > /etc/bash_completion.d/sidetrack")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .value_parser(SHELLS.map(|(name, _)| name))
                .required(true)
                .help("Shell to complete for"),
        )
}

/// Runs the command. `command` is the whole command line.
///
/// # Errors
/// Standard output cannot be written to.
pub fn run(matches: &ArgMatches, mut command: Command) -> anyhow::Result<()> {
    let wanted = matches.get_one::<String>("shell");
    for (name, shell) in SHELLS {
        if wanted.is_some_and(|wanted| wanted == name) {
            let mut script = Vec::new();
            generate(shell, &mut command, "sidetrack", &mut script);
            output::print(&String::from_utf8(script)?)?;
        }
    }
    Ok(())
}
