//! Log lines: one an event, on standard error.

use std::io;

use tracing::Level;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::options::Logging;
use crate::types::{LogFormat, LogLevel};

/// Starts logging. `verbosity` counts the times that `-v` was given; it can only make the level finer.
pub fn start(logging: Logging, verbosity: u8) {
    let level = match (logging.level, verbosity) {
        (LogLevel::Trace, _) | (_, 2..) => Level::TRACE,
        (LogLevel::Debug, _) | (_, 1) => Level::DEBUG,
        (LogLevel::Info, 0) => Level::INFO,
        (LogLevel::Warn, 0) => Level::WARN,
        (LogLevel::Error, 0) => Level::ERROR,
    };
    let lines = fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false)
        // A line that cannot be written, on a full disk or to nobody, is no reason to stop half-way.
        .log_internal_errors(false);
    // Whoever started logging before keeps it.
    let _started_now = match logging.format {
        LogFormat::Text => lines.without_time().finish().try_init().is_ok(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init().is_ok(),
    };
}

/// Starts logging as text, unless it was started before.
pub fn start_if_needed(level: LogLevel) {
    let format = LogFormat::Text;
    start(Logging { level, format }, 0);
}
