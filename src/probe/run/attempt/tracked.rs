//! What conntrack shows of the connection of a probe.

use std::net::SocketAddr;

use nix::errno::Errno;

use super::{Attempt, Client};
use crate::linux::conntrack;
use crate::linux::netlink::NetlinkError;
use crate::probe::{Finding, Original, Outcome, Transport};

impl Attempt<'_> {
    /// Whether the kernel gave the client of this probe this address: with its own port, the redirected connection would have
    /// the addresses of a recent one to another destination (`nf_nat_alloc_null_binding`, net/netfilter/nf_nat_core.c).
    pub fn is_translated_to(&self, client: SocketAddr) -> bool {
        let is_possible = self.outcome.is_none()
            && self.probe.protocol == Transport::Tcp
            && self.local.is_some_and(|local| local.ip() == client.ip());
        is_possible && self.translated() == Some(client)
    }

    /// The address of the TCP client that listeners see, if conntrack shows it.
    pub(super) fn translated(&self) -> Option<SocketAddr> {
        Some(self.entry().ok()??.answers_to)
    }

    /// The entry of this connection in conntrack.
    fn entry(&self) -> Result<Option<conntrack::Entry>, NetlinkError> {
        match self.local {
            Some(local) => conntrack::entry(local, self.probe.destination),
            None => Ok(None),
        }
    }

    /// The result of a connection that leaves by an interface behind which no host is known to answer.
    pub(super) fn observe_departure(&self) -> Option<Outcome> {
        let error = match &self.client {
            Some(Client::Tcp(stream)) => stream.take_error().unwrap_or_else(Some),
            _ => None,
        };
        match self.entry() {
            Err(error) => Some(unreadable(&error)),
            Ok(Some(entry)) if entry.answers_from == self.probe.destination => {
                Some(Outcome::Found(Finding::LeftByInterface))
            }
            Ok(Some(entry)) => Some(Outcome::Found(Finding::Redirected {
                at: entry.answers_from,
                original: Original::NotAsked,
            })),
            Ok(None) => error.map(|error| Outcome::Found(Finding::Unreachable(error.to_string()))),
        }
    }

    /// Updates the outcome of a connection whose client has closed its half.
    pub(super) fn observe_half_closed(&mut self) {
        match self.entry() {
            Err(error) if error.errno() == Some(Errno::EPERM) => self.outcome = Some(unreadable(&error)),
            Err(error) => {
                self.leave_out(half_closed(&format!(
                    "this kernel does not show entries of conntrack ({error})"
                )));
            }
            Ok(Some(entry)) if entry.state == conntrack::CLOSE_WAIT => {
                self.outcome = self.arrived.take().map(|arrived| {
                    Outcome::Found(Finding::HalfClosed {
                        arrived: Box::new(arrived),
                        seconds: entry.timeout,
                    })
                });
            }
            Ok(Some(entry)) if entry.state > conntrack::CLOSE_WAIT => self.leave_out(half_closed(CLOSED_AT_ONCE)),
            Ok(Some(_) | None) => {}
        }
    }
}

/// The reason to leave out a connection that the proxy does not keep open, so that it is never half-closed.
pub(super) const CLOSED_AT_ONCE: &str = "the proxy closes them at once. Probe before the proxy starts";

/// The note that half-closed connections prove nothing.
pub(super) fn half_closed(reason: &str) -> String {
    format!("half-closed connections are not probed: {reason}")
}

/// The outcome of a probe that needs an entry of conntrack.
pub fn unreadable(error: &NetlinkError) -> Outcome {
    Outcome::NotMade(format!(
        "the connection's entry in conntrack cannot be read ({error}): this takes CAP_NET_ADMIN and a kernel with \
         nf_conntrack_netlink"
    ))
}
