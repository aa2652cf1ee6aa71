//! The entry point: selects the CNI plugin, Nomad's announcement or the command line, and sets the exit code.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Replaces musl's allocator, which makes about a hundred system calls for memory in a run.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return sidetrack::cni::main();
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match sidetrack::cni::nomad::announcement(&arguments) {
        Some(line) => match io::stdout().write_all(line.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        None => sidetrack::cli::run(arguments),
    }
}
