//! Log lines: one an event, on standard error.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{Data, LookupSpan};
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
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_target(false)
        // A line that cannot be written, on a full disk or to nobody, is no reason to stop half-way.
        .log_internal_errors(false);
    let events = EventsAlone.with(LevelFilter::from_level(level));
    // Whoever started logging before keeps it.
    let _started_now = match logging.format {
        LogFormat::Text => events.with(lines.without_time()).try_init().is_ok(),
        LogFormat::Json => events.with(lines.json().flatten_event(true)).try_init().is_ok(),
    };
}

/// Starts logging as text, unless it was started before.
pub fn start_if_needed(level: LogLevel) {
    let format = LogFormat::Text;
    start(Logging { level, format }, 0);
}

/// Has no spans, as the command line knows none: a [`Registry`](tracing_subscriber::Registry) makes room for thousands
/// of them, which is a noticeable part of the time that a run takes.
struct EventsAlone;

impl Subscriber for EventsAlone {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(u64::MAX)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl<'s> LookupSpan<'s> for EventsAlone {
    type Data = Data<'s>;

    fn span_data(&'s self, _: &Id) -> Option<Self::Data> {
        None
    }
}
