//! The program: as which of its personalities it was called, and what it exits with.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Where panics abort, nothing unwinds.
    #[cfg(panic = "abort")]
    sidetrack::kernel::backtrace::switch_off();
    if std::env::var_os("CNI_COMMAND").is_some() {
        return sidetrack::cni::main();
    }
    sidetrack::cli::run(std::env::args_os())
}
