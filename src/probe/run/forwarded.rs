//! A packet that the pod must not forward: from behind a rerouted interface, or to there.
//!
//! No host answers it. The lock drops what comes from an interface that does not lead to its source, so the pod's answers
//! go by that interface, where no host has the source. But the kernel looks for the neighbour that it is about to send to:
//! for the source, if it refuses the packet, and for the destination, if it forwards it.

use std::net::IpAddr;

use nix::net::if_::if_nametoindex;

use super::link;
use crate::linux::interfaces;
use crate::linux::route::{Neighbour, Route, RouteError};
use crate::probe::{Expected, Probe, Trial};
use crate::types::InterfaceName;

/// What the pod did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It was sent on.
    Forwarded,
    /// Its sender gets an answer.
    Answered,
}

/// A neighbour: the index of its interface, and its address.
type Place = (u32, IpAddr);

/// The neighbours that show what the pod does with a packet.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// The one that it is forwarded to.
    destination: Option<Place>,
    /// The one that answers go to, if they do not come back to the sender.
    source: Option<Place>,
}

impl Watched {
    /// Those of a probe whose packet the pod must not forward.
    pub fn of(probe: &Probe, trial: &Trial) -> Option<Self> {
        let place = |interface: &InterfaceName, address| Some((interfaces::index(interface)?, address));
        if let Some((interface, address)) = probe.destination_behind() {
            return Some(Self {
                destination: place(interface, address),
                source: None,
            });
        }
        let entry = trial.entry_of(probe).filter(|entry| !entry.is_answered)?;
        let link = if_nametoindex(link::NAME).ok();
        (probe.expected == Expected::Rejected).then(|| Self {
            destination: link.zip(entry.remote),
            source: place(&entry.interface, entry.source),
        })
    }

    /// What the pod has done with the packet so far, if that shows.
    pub fn trace(&self, neighbours: &Neighbours) -> Option<Trace> {
        let is_there = |place: Option<Place>| place.is_some_and(|place| neighbours.found.contains(&place));
        if is_there(self.destination) {
            return Some(Trace::Forwarded);
        }
        is_there(self.source).then_some(Trace::Answered)
    }
}

/// The neighbours that the pod knows or looks for, read by one socket for a whole run.
#[derive(Default)]
pub struct Neighbours {
    route: Option<Route>,
    found: Vec<Place>,
}

impl Neighbours {
    /// Lists them.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn list(&mut self) -> Result<(), RouteError> {
        let route = match self.route.take() {
            Some(route) => route,
            None => Route::open()?,
        };
        let listed = self.route.insert(route).neighbours()?;
        self.found = listed.into_iter().map(|(index, address, _)| (index, address)).collect();
        Ok(())
    }
}

/// Stops looking for the neighbours that packets of these probes made the kernel look for.
pub fn forget(route: &mut Route, trial: &Trial) -> Result<(), RouteError> {
    let unanswered = trial.entries.iter().filter(|entry| !entry.is_answered);
    let sources = unanswered.map(|entry| (&entry.interface, entry.source));
    let destinations = trial.probes.iter().filter_map(Probe::destination_behind);
    for (interface, address) in sources.chain(destinations) {
        let Some(index) = interfaces::index(interface) else {
            continue;
        };
        if route.neighbour(index, address)? == Some(Neighbour::Sought) {
            // It may have given up meanwhile.
            let _ = route.forget_neighbour(index, address)?;
        }
    }
    Ok(())
}
