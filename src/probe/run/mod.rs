//! Runs probes: connects as the application, as the proxy and as a host outside, and listens where connections may
//! arrive.
//!
//! Nothing remains, however a run ends: the kernel closes sockets with the process, and removes the namespace at the other
//! end of the link, and with it the link, its addresses and its routes.

mod attempt;
mod bound;
mod echo;
mod entry;
mod forwarded;
mod invalid;
pub mod link;
pub mod listeners;
mod lookup;
mod owner;
mod socket;
mod start;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;

use self::attempt::{Attempt, Circumstances};
use self::forwarded::Neighbours;
use self::link::{Link, LinkError};
use self::listeners::{Listeners, Role};
use super::{Finding, Owner, Report, Surroundings, Transport, Trial};
use crate::backend::Namespace;
use crate::linux::route::{Route, RouteError};
use crate::linux::{interfaces, tcp};
use crate::types::Family;

/// The interval between observations of what the kernel reports no changes of.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A run that failed as a whole.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Another run has a link, or removing the link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The network namespace could not be read.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The interfaces could not be listed.
    #[error("listing the interfaces: {0}")]
    Interfaces(#[source] io::Error),
    /// An unexpected error of a system call.
    #[error("waiting for connections: {0}")]
    Wait(#[source] io::Error),
    /// The user or group of this process is 4294967295, which is not valid.
    #[error("the user or group of this process is not valid: run it as another one")]
    InvalidOwner,
}

/// Reads what the choice of probes depends on, in the network namespace of this thread.
///
/// # Errors
/// The kernel did not answer.
pub fn surroundings(namespace: &mut Namespace) -> Result<Surroundings, ProbeError> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let interfaces = interfaces::networks().map_err(ProbeError::Interfaces)?;
    let forwarding = interfaces.iter().flat_map(|(name, _)| {
        let forwards = |family: &Family| forwards(name.as_str(), *family);
        Family::BOTH
            .into_iter()
            .filter(forwards)
            .map(|family| (name.clone(), family))
    });
    let route = namespace.route()?;
    Ok(Surroundings {
        routes: route.destinations()?,
        addresses: route.usable_addresses()?,
        forwarding: forwarding.collect(),
        forwarding_links: Family::BOTH
            .into_iter()
            .filter(|family| forwards("default", *family))
            .collect(),
        interfaces,
        caller: current_owner()?,
        may_switch: has(Capability::CAP_SETUID) && has(Capability::CAP_SETGID),
    })
}

/// Whether the pod forwards packets that arrive on an interface, or by default on a new one
/// (Documentation/networking/ip-sysctl.rst).
fn forwards(interface: &str, family: Family) -> bool {
    let path = match family {
        Family::V4 => format!("/proc/sys/net/ipv4/conf/{interface}/forwarding"),
        // Of one interface, the setting says whether it is that of a router.
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding".to_owned(),
    };
    fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
}

/// Whether this process has the right to read rules.
pub fn may_see_rules() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false)
}

/// The user and group of this thread.
///
/// # Errors
/// One of them is not valid.
pub fn current_owner() -> Result<Owner, ProbeError> {
    owner::current().ok_or(ProbeError::InvalidOwner)
}

/// Runs all probes at once, in the network namespace of this thread. Returns when each has an outcome, or at the timeout.
///
/// # Errors
/// No probe could run. The outcome of a probe says what it alone lacks.
pub fn run(trial: &Trial, timeout: Duration) -> Result<Report, ProbeError> {
    let link = match Link::create(trial) {
        Ok(link) => Ok(link),
        Err(error @ LinkError::Busy) => return Err(error.into()),
        Err(error) => Err(error.to_string()),
    };
    let mut listeners = Listeners::of_proxy(trial, link.as_ref().ok());
    listeners.add_destinations(trial, link.as_ref().ok());
    let report = run_with(trial, link.as_ref().map_err(String::as_str), &listeners, timeout);
    drop(listeners);
    if let Ok(link) = link {
        forwarded::forget(&mut Route::open()?, trial)?;
        link.remove()?;
    }
    report
}

/// Runs all probes with this link, or the reason why there is none, and these listeners.
///
/// # Errors
/// An unexpected error of a system call.
pub fn run_with(
    trial: &Trial,
    link: Result<&Link, &str>,
    listeners: &Listeners,
    timeout: Duration,
) -> Result<Report, ProbeError> {
    let deadline = Instant::now() + timeout;
    let circumstances = Circumstances { trial, link, listeners };
    let mut attempts: Vec<Attempt> = trial
        .probes
        .iter()
        .zip(1..)
        .map(|(probe, id)| Attempt::start(probe, id, &circumstances))
        .collect();
    // A proxy closes a connection once its upstream is closed, so accepted connections stay open.
    let mut accepted: Vec<TcpStream> = Vec::new();
    let mut neighbours = Neighbours::default();
    loop {
        let connections = if attempts.iter().any(Attempt::needs_polling) {
            tcp::connections()
        } else {
            Ok(Vec::new())
        };
        if attempts.iter().any(Attempt::needs_neighbours) {
            neighbours.list()?;
        }
        accept(listeners, &mut attempts, &mut accepted).map_err(ProbeError::Wait)?;
        attempts
            .iter_mut()
            .for_each(|attempt| attempt.observe(&circumstances, &connections, &neighbours));
        if attempts.iter().all(|attempt| attempt.outcome.is_some()) || Instant::now() >= deadline {
            break;
        }
        wait(listeners, &attempts, deadline).map_err(ProbeError::Wait)?;
    }
    let (left_out, reported): (Vec<Attempt>, Vec<Attempt>) =
        attempts.into_iter().partition(|attempt| attempt.left_out.is_some());
    let mut notes = trial.notes.clone();
    for note in left_out.into_iter().filter_map(|attempt| attempt.left_out) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Ok(Report {
        outcomes: reported
            .into_iter()
            .map(|attempt| (attempt.probe.clone(), attempt.end()))
            .collect(),
        proxy_listens: listeners.proxy_listens.iter().map(|(_, at)| *at).collect(),
        notes,
    })
}

/// Accepts connections and receives queries, and records the findings of their probes.
fn accept(listeners: &Listeners, attempts: &mut [Attempt], accepted: &mut Vec<TcpStream>) -> io::Result<()> {
    for listener in &listeners.tcp {
        while let Some((stream, client)) = listener.next()? {
            match attempt_of(attempts, client) {
                Some(attempt) => {
                    attempt.record(listener.finding(&stream));
                    accepted.push(stream);
                }
                None if listener.role == Role::Destination => accepted.push(stream),
                // A connection of another program to a port of the proxy: it is closed.
                None => {}
            }
        }
    }
    for receiver in &listeners.udp {
        let mut message = [0; 512];
        while let Some((length, client)) = received(receiver.socket.recv_from(&mut message))? {
            // Not by the client: its port may be another one where the query arrives.
            let Some(id) = lookup::id_of_query(&message[..length]) else {
                continue;
            };
            let Some(attempt) = attempts.iter_mut().find(|attempt| attempt.is_query(id)) else {
                continue;
            };
            match receiver.role {
                Role::Destination => attempt.record(Finding::Direct),
                Role::Proxy { .. } => {
                    attempt.record_answer(receiver.address);
                    // An answer that is not sent is reported as one that did not arrive.
                    let _ = receiver.socket.send_to(&lookup::answer(id), client);
                }
            }
        }
    }
    Ok(())
}

/// The attempt with this TCP client.
fn attempt_of<'a, 't>(attempts: &'a mut [Attempt<'t>], client: SocketAddr) -> Option<&'a mut Attempt<'t>> {
    let from = attempts.iter().position(|attempt| attempt.is_from(client));
    let translated = || attempts.iter().position(|attempt| attempt.is_translated_to(client));
    let index = from.or_else(translated)?;
    attempts.get_mut(index)
}

fn received(result: io::Result<(usize, SocketAddr)>) -> io::Result<Option<(usize, SocketAddr)>> {
    match result {
        Ok(received) => Ok(Some(received)),
        // ECONNREFUSED is the result of an earlier answer.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Waits for an event, or until the next observation.
fn wait(listeners: &Listeners, attempts: &[Attempt], deadline: Instant) -> io::Result<()> {
    let until = match attempts.iter().any(Attempt::needs_polling) {
        true => Instant::now() + POLL_INTERVAL,
        false => attempts
            .iter()
            .filter_map(Attempt::next_observation)
            .min()
            .unwrap_or(deadline),
    };
    let arrivals = listeners.fds().map(|fd| (fd, PollFlags::POLLIN));
    let answers = attempts.iter().filter_map(|attempt| {
        let flags = match attempt.probe.protocol {
            Transport::Tcp => PollFlags::POLLOUT,
            Transport::Udp | Transport::Icmp => PollFlags::POLLIN,
        };
        Some((attempt.fd()?, flags))
    });
    let pending: Vec<(BorrowedFd, PollFlags)> = arrivals.chain(answers).collect();
    let mut waiting: Vec<PollFd> = pending.into_iter().map(|(fd, flags)| PollFd::new(fd, flags)).collect();
    // Rounded up: a wait that ends too early would be repeated.
    let left = until.min(deadline).saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
    match poll(&mut waiting, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
