//! Log lines of plugin runs: one an event, on standard error, and at the end of a file. What is warned of is kept, too:
//! the node installer is told.

use std::fmt::{Debug, Write as _};
use std::fs::OpenOptions;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt as _};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::netconf::NetConf;
use crate::options::{Logging, Settings};
use crate::types::{LogFormat, LogLevel};

/// Starts logging as the NetConf says. A file that cannot be written to is no reason to keep a pod from starting.
pub fn start(netconf: &NetConf) {
    let file = netconf
        .log_file
        .as_ref()
        .map(|path| OpenOptions::new().append(true).create(true).open(path));
    match file {
        Some(Ok(file)) => {
            // Each line is one write to its end, so that runs at the same time do not cut each other's short.
            start_to(netconf.logging, BoxMakeWriter::new(io::stderr.and(Arc::new(file))));
        }
        Some(Err(error)) => {
            start_to(netconf.logging, BoxMakeWriter::new(io::stderr));
            tracing::warn!(%error, "logFile cannot be written to");
        }
        None => start_to(netconf.logging, BoxMakeWriter::new(io::stderr)),
    }
}

/// Starts logging to standard error, unless it was started before.
pub fn start_if_needed() {
    start_to(Settings::default().logging, BoxMakeWriter::new(io::stderr));
}

fn start_to(logging: Logging, writer: BoxMakeWriter) {
    let level = match logging.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from_level(level))
        .with_writer(writer)
        .with_ansi(false)
        .with_target(false)
        // A line that cannot be written, on a full disk or to nobody, is no reason to stop half-way.
        .log_internal_errors(false);
    // Whoever started logging before keeps it.
    let _started_now = match logging.format {
        LogFormat::Text => lines.finish().with(Warnings).try_init().is_ok(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .finish()
            .with(Warnings)
            .try_init()
            .is_ok(),
    };
}

/// What this process has warned of.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What was warned of since this was asked for the last time.
pub fn take_warnings() -> Vec<String> {
    std::mem::take(&mut WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Keeps the text of each warning.
struct Warnings;

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let mut text = Text::default();
            event.record(&mut text);
            let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
            warnings.push(text.message + &text.fields);
        }
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
