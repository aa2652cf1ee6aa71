//! Log lines of plugin runs: one per event, on standard error and appended to a file. Warnings are also kept for the
//! report to the node installer.

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

/// Starts logging as the NetConf configures it. A log file that cannot be written does not keep a pod from starting.
pub fn start(netconf: &NetConf) {
    let file = netconf
        .log_file
        .as_ref()
        .map(|path| OpenOptions::new().append(true).create(true).open(path));
    match file {
        Some(Ok(file)) => {
            // Each line is one appending write, so that concurrent runs do not mix their lines.
            start_to(netconf.logging, BoxMakeWriter::new(io::stderr.and(Arc::new(file))));
        }
        Some(Err(error)) => {
            start_to(netconf.logging, BoxMakeWriter::new(io::stderr));
            tracing::warn!(%error, "cannot write to logFile");
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
        // A log line that cannot be written must not stop a run half-way.
        .log_internal_errors(false);
    // A subscriber that was set before stays.
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

/// The warnings of this process.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Takes the warnings since the last call.
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
