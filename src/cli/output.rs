//! Standard output, which is for what was asked for alone.

use std::io::{self, ErrorKind, Write as _};

/// Prints a text. A reader that has seen enough, such as `head`, is no error: what is left is not printed, and the
/// command goes on to its exit code.
///
/// # Errors
/// Standard output cannot be written to.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
