//! Standard output: results alone, no log lines.

use std::io::{self, ErrorKind, Write as _};

/// Prints a text. A closed pipe, as with `head`, is no error: the rest is not printed, and the command
/// continues to its exit code.
///
/// # Errors
/// Standard output cannot be written to.
pub fn print(text: &str) -> io::Result<()> {
    print_if_open(text).map(drop)
}

/// Prints a text as [`print`] does, and returns whether a reader was left.
///
/// # Errors
/// Standard output cannot be written to.
pub fn print_if_open(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        printed => printed.map(|()| true),
    }
}
