//! The program: as which of its personalities it was called, and what it exits with.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return sidetrack::cni::main();
    }
    sidetrack::cli::run(std::env::args_os())
}
