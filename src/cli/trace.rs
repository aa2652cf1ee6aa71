//! `sidetrack trace`: shows new connections as they happen, and which rule decided each.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use clap::{Arg, ArgMatches, Command};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use thiserror::Error;

use super::failure::Failure;
use super::place::{self, Place};
use super::settings::start_logging;
use super::{args, output};
use crate::backend::iptables::legacy;
use crate::backend::nftables::live::{Ended, LiveError, Marked, Session};
use crate::linux::accounts::AccountFiles;
use crate::linux::netns::{self, Netns, NetnsError};
use crate::linux::privilege::{self, PrivilegeError};
use crate::linux::processes::Processes;
use crate::linux::tcp;
use crate::linux::{signals, sock_diag};
use crate::options::table::{Group, Scope};
use crate::ruleset::Protocol;
use crate::trace::{self, Connection, Direction, Filter, Losses, Owner, Tracer, json, text};
use crate::types::{Id as _, Uid, parse_duration};

/// The name of the command.
pub const NAME: &str = "trace";

/// Connections a second that are traced by default.
const DEFAULT_RATE: &str = "2000";
/// How often losses are reported, and late packets given up.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The arguments.
struct Options {
    filter: Filter,
    rate: NonZeroU32,
    count: Option<u64>,
    duration: Option<Duration>,
    json: bool,
}

/// A trace that cannot begin or go on.
#[derive(Debug, Error)]
enum TraceError {
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    #[error("starting a thread: {0}. Is there a limit on processes (pids.max, ulimit -u)?")]
    Thread(#[source] io::Error),
    #[error("receiving signals: {0}")]
    Signals(#[source] Errno),
    #[error("waiting for messages: {0}")]
    Wait(#[source] Errno),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// The definition of the command line.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Show new connections as they happen, and which rule decides each")
        .defer(arguments)
}

fn arguments(command: Command) -> Command {
    const CONNECTIONS: &str = "Connections";
    let value = |name: &'static str, value: &'static str, help: &'static str| {
        let argument = Arg::new(name).long(name).value_name(value);
        argument.allow_hyphen_values(true).help(help)
    };
    command
        .after_help(
            "It ends with Ctrl+C. The kernel removes its table then, also if it is killed.\n\
             Examples: sidetrack trace --netns pod\n          \
             sidetrack trace outbound tcp 10.0.0.0/8:443 --uid 1000 --pod shop/web-0\n          \
             sidetrack trace inbound :8080 --from 10.1.0.0/16 --json",
        )
        .arg(
            Arg::new("filter")
                .value_name("FILTER")
                .num_args(0..)
                .help("outbound or inbound, tcp or udp, destination as\nADDRESS[/LENGTH][:PORT]"),
        )
        .arg(
            value("source", "ADDRESS[/LENGTH]", "From here")
                .visible_alias("from")
                .help_heading(CONNECTIONS),
        )
        .arg(value("uid", "UID", "Of this user").help_heading(CONNECTIONS))
        .arg(
            value("rate", "NUMBER", "Trace at most so many a second")
                .default_value(DEFAULT_RATE)
                .help_heading(CONNECTIONS),
        )
        .arg(value("count", "NUMBER", "End after so many lines").help_heading(Group::Run.heading()))
        .arg(value("duration", "DURATION", "End after this time").help_heading(Group::Run.heading()))
        .arg(args::json().help("Print one JSON object a line"))
        .arg(args::netns())
        .arg(place::pod().help("Trace this pod of the node"))
        .args(args::options(|option| option.scope == Scope::Logging))
        .arg(args::verbose())
}

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    start_logging(matches)?;
    let options = options(matches).map_err(Failure::Input)?;
    Ok(trace(&options, &place::named(matches)?)?)
}

fn options(matches: &ArgMatches) -> Result<Options, Vec<String>> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let words: Vec<&str> = matches
        .get_many::<String>("filter")
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let mut mistakes = Vec::new();
    let filter = trace::read(&words, text("source"), text("uid"), &AccountFiles);
    let filter = filter.map_err(|wrong| mistakes.extend(wrong)).ok();
    let mut number = |name: &str| {
        let number = text(name).map(|text| {
            let number = text.parse::<NonZeroU32>();
            number.map_err(|_| mistakes.push(format!("--{name}: {text:?} is not a number from 1 to {}", u32::MAX)))
        });
        number.and_then(Result::ok)
    };
    let (rate, count) = (number("rate"), number("count"));
    let duration = text("duration").and_then(|text| {
        let duration = parse_duration(text);
        let mistake = |invalid: crate::types::Invalid| {
            mistakes.push(format!("--duration: {:?} is not {}", invalid.value, invalid.expected));
        };
        duration.map_err(mistake).ok()
    });
    match (filter, rate) {
        (Some(filter), Some(rate)) if mistakes.is_empty() => Ok(Options {
            filter,
            rate,
            count: count.map(|count| count.get().into()),
            duration,
            json: matches.get_flag("json"),
        }),
        _ => Err(mistakes),
    }
}

fn trace(options: &Options, place: &Place) -> Result<(), TraceError> {
    let stop = signals::stop_requests().map_err(TraceError::Signals)?;
    let work = || {
        privilege::keep_tracing_capabilities()?;
        let session = Session::start(&options.filter, options.rate.get())?;
        warn_of_legacy_iptables();
        tracing::info!(table = session.table(), "tracing new connections; Ctrl+C ends it");
        Trace::new(session, options).run(&stop)
    };
    match place {
        Place::Netns(netns) => Netns::open(netns::path(netns))?.run(work)?,
        Place::Pod(netns) => netns.run(work)?,
        // A thread of its own gives up capabilities alone.
        Place::Here => netns::on_thread(work).map_err(TraceError::Thread)?,
    }
}

/// The kernel reports no rules of legacy iptables.
fn warn_of_legacy_iptables() {
    match legacy::chains() {
        Ok(Some(chains)) if !chains.is_empty() => tracing::warn!(
            "the kernel does not trace rules of legacy iptables: the lines show where they send a connection, but not \
             which one does"
        ),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "cannot read the rules of legacy iptables"),
    }
}

/// A running trace.
struct Trace<'o> {
    session: Session,
    tracer: Tracer,
    options: &'o Options,
    processes: Processes,
    lines: u64,
    reported: Losses,
    /// Whether standard output has a reader.
    has_reader: bool,
}

impl<'o> Trace<'o> {
    fn new(session: Session, options: &'o Options) -> Self {
        Self {
            tracer: Tracer::new(session.table()),
            session,
            options,
            processes: Processes::default(),
            lines: 0,
            reported: Losses::default(),
            has_reader: true,
        }
    }

    fn run(mut self, stop: &SignalFd) -> Result<(), TraceError> {
        let start = Instant::now();
        let end = self.options.duration.and_then(|duration| start.checked_add(duration));
        let mut next_report = start + REPORT_INTERVAL;
        while !self.is_complete() {
            self.drain()?;
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            if now >= next_report {
                self.report_losses()?;
                next_report = now + REPORT_INTERVAL;
            }
            let wake = end.map_or(next_report, |end| end.min(next_report));
            if self.wait(stop, wake.saturating_duration_since(now))? {
                break;
            }
        }
        self.session.stop()?;
        self.drain()?;
        self.tracer.finish(self.session.rules());
        self.print()?;
        self.report_losses()
    }

    fn is_complete(&self) -> bool {
        !self.has_reader || self.options.count.is_some_and(|count| self.lines >= count)
    }

    /// Waits for messages. Returns whether a signal requests the end.
    fn wait(&self, stop: &SignalFd, longest: Duration) -> Result<bool, TraceError> {
        // Rounded up: a wait that ends early would only start again.
        let milliseconds = longest.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        match poll(&mut [readable(stop.as_fd()), readable(self.session.as_fd())], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(TraceError::Wait(errno)),
        }
        Ok(stop.read_signal().map_err(TraceError::Signals)?.is_some())
    }

    /// Takes all queued messages, and prints the connections that are complete.
    fn drain(&mut self) -> Result<(), TraceError> {
        let mut was_discarded = false;
        loop {
            self.session.refresh()?;
            let tracer = &mut self.tracer;
            let ended = self
                .session
                .receive(|message, rules| tracer.message(message, rules, now()))?;
            match ended {
                Ended::Discarded => was_discarded = true,
                Ended::Empty if was_discarded => self.tracer.messages_were_discarded(),
                Ended::Empty | Ended::More => {}
            }
            self.tracer.expire(self.session.rules(), now());
            self.print()?;
            if ended == Ended::Empty || !self.has_reader {
                return Ok(());
            }
        }
    }

    fn print(&mut self) -> Result<(), TraceError> {
        for connection in self.tracer.take_finished() {
            if self.is_complete() {
                break;
            }
            let owner = self.owner(&connection);
            let line = match self.options.json {
                true => json::line(&connection, owner.as_ref()),
                false => text::line(&connection, owner.as_ref()),
            };
            self.has_reader = output::print_if_open(&line)?;
            self.lines += 1;
        }
        Ok(())
    }

    /// Prints the losses since the last report, if any.
    fn report_losses(&mut self) -> Result<(), TraceError> {
        // The counters first: the messages about what they count are queued already.
        let Marked { selected, reported } = self.session.marked()?;
        self.drain()?;
        let total = Losses {
            above_rate: selected.saturating_sub(reported),
            discarded: reported.saturating_sub(self.tracer.counts().started),
        };
        let new = Losses {
            above_rate: total.above_rate.saturating_sub(self.reported.above_rate),
            discarded: total.discarded.saturating_sub(self.reported.discarded),
        };
        if new.is_empty() || !self.has_reader {
            return Ok(());
        }
        self.reported = total;
        let line = match self.options.json {
            true => json::losses(new, now()),
            false => text::losses(new, self.options.rate.get(), now()),
        };
        self.has_reader = output::print_if_open(&line)?;
        Ok(())
    }

    /// The owner of the socket that began a connection, as far as it can be found.
    fn owner(&mut self, connection: &Connection) -> Option<Owner> {
        if connection.direction == Direction::Inbound {
            return None;
        }
        let headers = &connection.headers;
        let protocol = match headers.protocol {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
        };
        let socket = tcp::Connection {
            local: headers.source,
            remote: headers.destination,
        };
        // A socket without an inode has no owner any more.
        let owner = sock_diag::owner(&socket, protocol).filter(|owner| owner.inode != 0)?;
        Some(Owner {
            uid: Uid::new(owner.uid)?,
            process: self.processes.with_socket(owner.inode),
        })
    }
}

/// The time since the epoch.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}
