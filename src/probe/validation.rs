//! A proof that the rules redirect, from inside the pod and before its proxy starts: a connection that the proxy's user
//! opens to the address that the proxy passes traffic on from must arrive at a port of the proxy.
//!
//! It needs no privilege. It proves the rules of loopback alone, and the kernel's ability to redirect.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use thiserror::Error;

use super::run::listeners::Listeners;
use super::run::{self, ProbeError};
use super::{Caller, Expected, Finding, Needs, Original, Outcome, Owner, Probe, Source, Subject, Transport, Trial};
use crate::plan::{PASSTHROUGH_V4, PASSTHROUGH_V6};
use crate::types::{Families, Family, LoopbackCidr, Port};

/// How long a call is waited for before the next one is made. Rules may be on their way.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is proved, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validation {
    /// Where the proxy will take inbound connections, and the proxy's user's own to the pod.
    pub inbound_port: Port,
    /// Where the proxy will take outbound connections.
    pub outbound_port: Port,
    /// The port that is called. Nothing listens there.
    pub probe_port: Port,
    /// When to give up.
    pub timeout: Duration,
    /// The families that must be redirected.
    pub families: Families,
    /// The IPv4 address that is called: one of this host's own that the rules do not take for loopback.
    pub v4_destination: Ipv4Addr,
}

/// An IPv4 address of this host's own outside `loopback`; 127.0.0.6 where it can be.
pub fn own_address(loopback: LoopbackCidr) -> Option<Ipv4Addr> {
    if !loopback.net().contains(&PASSTHROUGH_V4) {
        return Some(PASSTHROUGH_V4);
    }
    let interfaces = getifaddrs().ok()?;
    let addresses = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    addresses.into_iter().find(|address| !address.is_loopback())
}

/// Traffic that is not redirected as it should be, or a probe that cannot be made.
#[derive(Debug, Error)]
pub enum ValidationError {
    /// No call reached a port of the proxy.
    #[error(
        "traffic is not redirected: no connection to {destination} reached the proxy's ports within {timeout:?} \
         (the last one: {last}). Either the rules are missing, or they leave this process alone: over loopback they \
         redirect only what the proxy's user or group sends, and this is user {} in group {}. \
         See what installs the rules, and run this as the proxy's user",
        caller.uid, caller.gid
    )]
    NothingArrived {
        /// What was called.
        destination: SocketAddr,
        /// For how long.
        timeout: Duration,
        /// The outcome of the last call.
        last: String,
        /// Who called.
        caller: Owner,
    },
    /// A call arrived, and the kernel does not know where it was meant to go.
    #[error(
        "a connection to {destination} arrived at {listener} without its original destination ({reason}): something \
         other than these rules has redirected it, and the proxy could not tell where to pass it on to. \
         Remove the other redirection"
    )]
    NoOriginalDestination {
        /// What was called.
        destination: SocketAddr,
        /// Where it arrived.
        listener: SocketAddr,
        /// How the kernel said so.
        reason: String,
    },
    /// A call arrived that the kernel believes to be meant for somewhere else.
    #[error(
        "a connection to {destination} arrived at {listener} as if it was meant for {found}: something else has \
         redirected it too, and the proxy would pass it on to the wrong place. Remove the other redirection"
    )]
    WrongOriginalDestination {
        /// What was called.
        destination: SocketAddr,
        /// Where it arrived.
        listener: SocketAddr,
        /// Where the proxy would take it for going.
        found: SocketAddr,
    },
    /// Another process listens there, most likely the proxy.
    #[error(
        "{0} is taken: a proxy seems to listen there already. The probe stands in for the proxy: run it before the \
         proxy starts, or leave it out"
    )]
    Taken(SocketAddr),
    /// The probe cannot listen there.
    #[error("listening on {address}: {reason}{}", hint(reason))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        reason: io::Error,
    },
    /// The call could not be made.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

fn hint(reason: &io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => {
            ". The loopback interface is down, or this family is switched off: \
             set the interface up, or leave the family out"
        }
        ErrorKind::PermissionDenied => ". Ports below net.ipv4.ip_unprivileged_port_start are not for every user",
        _ => "",
    }
}

impl Validation {
    /// Proves that connections are redirected. Returns as soon as each family is proved, or at the timeout.
    ///
    /// # Errors
    /// They are not; or the probe cannot be made.
    pub fn run(&self) -> Result<(), ValidationError> {
        let deadline = Instant::now() + self.timeout;
        let caller = run::current_owner()?;
        let mut trial = self.trial(caller);
        let listeners = listeners(&trial)?;
        loop {
            let next_call = deadline.min(Instant::now() + INTERVAL);
            let report = run::run_with(&trial, Err(""), &listeners, until(next_call))?;
            let mut unproved = Vec::new();
            for (probe, outcome) in report.outcomes {
                if let Some(last) = self.fault(probe.destination, outcome)? {
                    unproved.push((probe, last));
                }
            }
            if unproved.is_empty() {
                return Ok(());
            }
            thread::sleep(until(next_call));
            if next_call == deadline {
                let (probe, last) = unproved.swap_remove(0);
                return Err(ValidationError::NothingArrived {
                    destination: probe.destination,
                    timeout: self.timeout,
                    last,
                    caller,
                });
            }
            trial.probes = unproved.into_iter().map(|(probe, _)| probe).collect();
        }
    }

    fn trial(&self, caller: Owner) -> Trial {
        let mut ports = vec![self.inbound_port, self.outbound_port];
        ports.dedup();
        Trial {
            probes: self.families.iter().map(|family| self.probe(family, caller)).collect(),
            ends: Vec::new(),
            stand_ins: Vec::new(),
            entries: Vec::new(),
            unused: Vec::new(),
            notes: Vec::new(),
            proxy: caller,
            ports,
            transparent: None,
        }
    }

    /// A call to an address of this host's own. The source is explicit: the kernel would call ::6 from ::6, which no rule
    /// redirects.
    fn probe(&self, family: Family, caller: Owner) -> Probe {
        let (source, destination): (IpAddr, IpAddr) = match family {
            Family::V4 => (Ipv4Addr::LOCALHOST.into(), self.v4_destination.into()),
            Family::V6 => (Ipv6Addr::LOCALHOST.into(), PASSTHROUGH_V6.into()),
        };
        Probe {
            subject: Subject::SelfCall,
            protocol: Transport::Tcp,
            caller: Caller::Process(caller),
            source: Some(Source {
                address: source,
                mark: None,
            }),
            bound_to: None,
            destination: SocketAddr::new(destination, self.probe_port.get()),
            expected: Expected::Captured(self.inbound_port),
            needs: Needs::Route,
        }
    }

    /// What is wrong with a call, unless it arrived at a port of the proxy.
    fn fault(&self, destination: SocketAddr, outcome: Outcome) -> Result<Option<String>, ValidationError> {
        let ports = [self.inbound_port, self.outbound_port].map(Port::get);
        Ok(Some(match outcome {
            Outcome::Found(Finding::Redirected { at, original }) if ports.contains(&at.port()) => match original {
                Original::Known(original) if original == destination => return Ok(None),
                Original::Known(found) => {
                    return Err(ValidationError::WrongOriginalDestination {
                        destination,
                        listener: at,
                        found,
                    });
                }
                Original::Unknown(reason) => {
                    return Err(ValidationError::NoOriginalDestination {
                        destination,
                        listener: at,
                        reason,
                    });
                }
                Original::NotAsked => format!("{at} has it"),
            },
            Outcome::Found(Finding::Redirected { at, .. }) => format!("it went to {at}"),
            Outcome::Found(Finding::Refused) => "Connection refused".to_owned(),
            Outcome::Found(Finding::Rejected) => "a rule rejects it".to_owned(),
            Outcome::Found(Finding::Lost | Finding::Unanswered { .. }) => "no answer".to_owned(),
            Outcome::Found(Finding::Unreachable(reason) | Finding::NoSource(reason)) | Outcome::NotMade(reason) => {
                reason
            }
            Outcome::Found(
                Finding::Direct
                | Finding::HandedOver
                | Finding::HalfClosed { .. }
                | Finding::LeftByInterface
                | Finding::Dropped
                | Finding::Answered
                | Finding::AnsweredInPod
                | Finding::AnsweredOutside
                | Finding::Closed { .. },
            ) => "something else listens there and took it".to_owned(),
        }))
    }
}

/// Listens in the proxy's place.
fn listeners(trial: &Trial) -> Result<Listeners, ValidationError> {
    let mut listeners = Listeners::of_proxy(trial, None);
    if let Some((_, address)) = listeners.proxy_listens.first() {
        return Err(ValidationError::Taken(*address));
    }
    if listeners.failed.is_empty() {
        return Ok(listeners);
    }
    let (address, reason) = listeners.failed.swap_remove(0);
    Err(ValidationError::Listen { address, reason })
}

fn until(time: Instant) -> Duration {
    time.saturating_duration_since(Instant::now())
}
