//! The program: as which of its personalities it was called, and what it exits with.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidetrack::cli::run(std::env::args_os())
}
