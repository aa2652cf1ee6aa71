//! Log lines on standard error, one for each event.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::options::Logging;
use crate::types::{LogFormat, LogLevel};

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

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
        // A log line that cannot be written, on a full disk or to a closed pipe, must not stop the program.
        .log_internal_errors(false);
    // Logging that was started before stays as it is.
    let started_now = match logging.format {
        LogFormat::Text => lines.without_time().finish().try_init().is_ok(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init().is_ok(),
    };
    JSON.fetch_or(started_now && logging.format == LogFormat::Json, Ordering::Relaxed);
}

/// Prints the error that a command ends with: `error: ` what failed, `hint: ` what to do about it. As JSON it is an
/// event like others.
pub fn error(message: &str) {
    if JSON.load(Ordering::Relaxed) {
        tracing::error!("{message}");
        return;
    }
    let (failure, hint) = sentences(message);
    let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    let text = printable(&format!("error: {failure}\n{hint}"));
    // There is no other place to report this.
    let _written = io::stderr().write_all(text.as_bytes());
}

/// The first sentence of an error says what failed and why; those after it say what to do.
fn sentences(message: &str) -> (&str, Option<&str>) {
    let begins_sentence = |rest: &str| rest.starts_with(|c: char| c.is_uppercase() || c == '`');
    let mut ends = message.match_indices(". ").map(|(end, _)| end);
    match ends.find(|end| begins_sentence(&message[end + 2..])) {
        Some(end) => (&message[..end], Some(&message[end + 2..])),
        None => (message, None),
    }
}

/// Escapes control characters, which foreign text could send to a terminal.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Starts logging as text, unless it was started before.
pub fn start_if_needed(level: LogLevel) {
    let format = LogFormat::Text;
    start(Logging { level, format }, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_failure_and_hint() {
        for (message, failure, hint) in [
            ("it failed: no such file", "it failed: no such file", None),
            ("it failed: EPERM. Run as root", "it failed: EPERM", Some("Run as root")),
            (
                "no backend. nftables: none. iptables: none",
                "no backend. nftables: none. iptables: none",
                None,
            ),
            (
                "left over. `sidetrack cleanup` removes it. Then continue",
                "left over",
                Some("`sidetrack cleanup` removes it. Then continue"),
            ),
            ("version 1.8. 9", "version 1.8. 9", None),
            ("", "", None),
        ] {
            assert_eq!(sentences(message), (failure, hint));
        }
    }

    #[test]
    fn escapes_control_characters() {
        assert_eq!(printable("a\u{1b}[2J\tb\n"), "a\\u{1b}[2J\tb\n");
    }
}
