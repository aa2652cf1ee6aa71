//! Standard output, which is for what was asked for alone.

use std::io::{self, ErrorKind, Write as _};

use thiserror::Error;

/// Standard output that takes no more.
#[derive(Debug, Error)]
pub enum OutputError {
    /// Whoever read it has seen enough, such as `head`. That is no failure.
    #[error("nobody reads standard output any more")]
    Closed,
    /// It cannot be written to.
    #[error(transparent)]
    Failed(io::Error),
}

/// Prints a text.
///
/// # Errors
/// It was not printed, or not all of it.
pub fn print(text: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    printed.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Failed(error),
    })
}
