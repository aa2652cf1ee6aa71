//! A packet from behind a rerouted interface that the pod must not forward.
//!
//! The lock drops what comes from an interface that does not lead to its source, so the pod's answers go by that interface,
//! where no host has the source. But the kernel looks for the neighbour that it is about to send to: for the source, if it
//! refuses the packet, and for the destination, if it forwards it.

use std::net::IpAddr;

use nix::net::if_::if_nametoindex;

use super::link;
use crate::linux::interfaces;
use crate::linux::route::{Neighbour, Route, RouteError};
use crate::probe::{Entry, Outcome};

/// What the pod did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It was sent on.
    Forwarded,
    /// Its sender gets an answer.
    Answered,
}

/// Stops looking for the sources of these entries.
pub fn forget(route: &mut Route, entries: &[Entry]) -> Result<(), RouteError> {
    for entry in entries.iter().filter(|entry| !entry.is_answered) {
        let Some(index) = interfaces::index(&entry.interface) else {
            continue;
        };
        if route.neighbour(index, entry.source)? == Some(Neighbour::Sought) {
            // It may have given up meanwhile.
            let _ = route.forget_neighbour(index, entry.source)?;
        }
    }
    Ok(())
}

/// What the pod has done with a packet of an entry so far, if that shows. The error is the outcome.
pub fn trace(entry: &Entry) -> Result<Option<Trace>, Outcome> {
    let neighbours = Route::open().and_then(|mut route| route.neighbours());
    let neighbours =
        neighbours.map_err(|error| Outcome::NotMade(format!("the neighbours cannot be listed: {error}")))?;
    let has = |index: Option<u32>, address: IpAddr| {
        let mut neighbours = neighbours.iter();
        index.is_some_and(|index| neighbours.any(|(on, of, _)| (*on, *of) == (index, address)))
    };
    let link = if_nametoindex(link::NAME).ok();
    Ok(if entry.remote.is_some_and(|remote| has(link, remote)) {
        Some(Trace::Forwarded)
    } else {
        has(interfaces::index(&entry.interface), entry.source).then_some(Trace::Answered)
    })
}
