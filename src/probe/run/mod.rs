//! Makes probes: connections as the application, as the proxy and as a host outside, and listens where they may arrive.
//!
//! Nothing is left behind, however it ends: sockets, and the namespace that the link leads to, end with the process, and
//! with that namespace the link, its addresses and its routes.

mod attempt;
pub mod link;
pub mod listeners;
mod lookup;
mod owner;
mod socket;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;

use self::attempt::{Attempt, Circumstances};
use self::link::{Link, LinkError};
use self::listeners::{Listeners, Role};
use super::{Finding, Owner, Report, Surroundings, Trial};
use crate::backend::Namespace;
use crate::linux::route::RouteError;
use crate::linux::tcp;
use crate::ruleset::Protocol;

/// How long to wait until something is looked at again that does not tell when it changes.
const TICK: Duration = Duration::from_millis(2);

/// Probes that could not be made at all.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The link of another run is in the way, or this one's stays.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The namespace could not be looked at.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A system call failed that never should.
    #[error("waiting for connections: {0}")]
    Wait(#[source] io::Error),
    /// This process acts as the user or group 4294967295, which is none.
    #[error("this process acts as a user or group that does not exist: run it as another one")]
    Nobody,
}

/// Looks at what probes depend on, in the network namespace of this thread. Changes nothing.
///
/// # Errors
/// The kernel did not answer.
pub fn surroundings(namespace: &mut Namespace) -> Result<Surroundings, ProbeError> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let route = namespace.route()?;
    Ok(Surroundings {
        routes: route.destinations()?,
        addresses: route.usable_addresses()?,
        caller: current_owner()?,
        may_switch: has(Capability::CAP_SETUID) && has(Capability::CAP_SETGID),
    })
}

/// Whether this process would see rules if there were any.
pub fn may_see_rules() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false)
}

/// As whom this thread acts.
///
/// # Errors
/// As nobody.
pub fn current_owner() -> Result<Owner, ProbeError> {
    owner::current().ok_or(ProbeError::Nobody)
}

/// Makes all probes at once, in the network namespace of this thread. Returns when it is known what became of each, or
/// at the timeout.
///
/// # Errors
/// Nothing could be made. What single probes lack is in their outcomes.
pub fn run(trial: &Trial, timeout: Duration) -> Result<Report, ProbeError> {
    let link = match Link::make(&trial.ends) {
        Ok(link) => Ok(link),
        Err(error @ LinkError::Busy) => return Err(error.into()),
        Err(error) => Err(error.to_string()),
    };
    let mut listeners = Listeners::of_proxy(trial, link.as_ref().ok());
    listeners.add_destinations(trial, link.as_ref().ok());
    let report = make(trial, link.as_ref().map_err(String::as_str), &listeners, timeout);
    drop(listeners);
    if let Ok(link) = link {
        link.remove()?;
    }
    report
}

/// The same with what was prepared for it: the link or why there is none, and listeners.
///
/// # Errors
/// A system call failed that never should.
pub fn make(
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
        .map(|probe| Attempt::begin(probe, &circumstances))
        .collect();
    // What the proxy passes on is kept open, so that it does the same with what it has passed on.
    let mut kept: Vec<TcpStream> = Vec::new();
    loop {
        let connections = if attempts.iter().any(Attempt::is_open) {
            tcp::connections()
        } else {
            Ok(Vec::new())
        };
        accept(listeners, &mut attempts, &mut kept).map_err(ProbeError::Wait)?;
        attempts
            .iter_mut()
            .for_each(|attempt| attempt.look(&circumstances, &connections));
        if attempts.iter().all(|attempt| attempt.outcome.is_some()) || Instant::now() >= deadline {
            break;
        }
        wait(listeners, &attempts, deadline).map_err(ProbeError::Wait)?;
    }
    let proxy_listens = listeners.proxy_listens.iter().map(|(_, at)| *at).collect();
    Ok(Report {
        outcomes: attempts
            .into_iter()
            .map(|attempt| (attempt.probe.clone(), attempt.end()))
            .collect(),
        proxy_listens,
        notes: Vec::new(),
    })
}

/// Takes what has arrived, and tells whose it is.
fn accept(listeners: &Listeners, attempts: &mut [Attempt], kept: &mut Vec<TcpStream>) -> io::Result<()> {
    for listener in &listeners.tcp {
        while let Some((stream, client)) = listener.next()? {
            match of(attempts, Protocol::Tcp, client) {
                Some(attempt) => {
                    attempt.found(listener.finding(&stream));
                    kept.push(stream);
                }
                None if listener.role == Role::Destination => kept.push(stream),
                // Connections of others end here: the ports are the proxy's.
                None => {}
            }
        }
    }
    for receiver in &listeners.udp {
        let mut message = [0; 512];
        while let Some((length, client)) = received(receiver.socket.recv_from(&mut message))? {
            let Some(attempt) = of(attempts, Protocol::Udp, client) else {
                continue;
            };
            match receiver.role {
                _ if !lookup::is_query(&message[..length]) => {}
                Role::Destination => attempt.found(Finding::Direct),
                Role::Proxy { .. } => {
                    attempt.was_answered(receiver.address);
                    // If the answer cannot be sent, it does not arrive, and that is told.
                    let _ = receiver.socket.send_to(&lookup::answer(), client);
                }
            }
        }
    }
    Ok(())
}

/// Whose connection or lookup this is.
fn of<'a, 't>(attempts: &'a mut [Attempt<'t>], protocol: Protocol, client: SocketAddr) -> Option<&'a mut Attempt<'t>> {
    attempts.iter_mut().find(|attempt| attempt.is_from(protocol, client))
}

fn received(result: io::Result<(usize, SocketAddr)>) -> io::Result<Option<(usize, SocketAddr)>> {
    match result {
        Ok(received) => Ok(Some(received)),
        // The second is what an earlier answer has met with.
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

/// Waits until something happens, or until it is time to look again.
fn wait(listeners: &Listeners, attempts: &[Attempt], deadline: Instant) -> io::Result<()> {
    let until = match attempts.iter().any(Attempt::is_open) {
        true => Instant::now() + TICK,
        false => attempts.iter().filter_map(Attempt::next_look).min().unwrap_or(deadline),
    };
    let arrivals = listeners.fds().map(|fd| (fd, PollFlags::POLLIN));
    let answers = attempts.iter().filter_map(|attempt| {
        let flags = match attempt.probe.protocol {
            Protocol::Tcp => PollFlags::POLLOUT,
            Protocol::Udp => PollFlags::POLLIN,
        };
        Some((attempt.fd()?, flags))
    });
    let pending: Vec<(BorrowedFd, PollFlags)> = arrivals.chain(answers).collect();
    let mut waiting: Vec<PollFd> = pending.into_iter().map(|(fd, flags)| PollFd::new(fd, flags)).collect();
    // Rounded up, as a wait that ends too early would be one more.
    let left = until.min(deadline).saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
    match poll(&mut waiting, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
