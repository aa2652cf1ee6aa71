//! The link to a host outside: a pair of interfaces, one in the pod, the other in a network namespace of its own.
//!
//! That namespace has no name and no process: the kernel removes it when this process ends, however it ends, and with it
//! the link, its addresses and its routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use thiserror::Error;

use super::entry::Host;
use crate::linux::netlink::Refusal;
use crate::linux::netns::{Netns, NetnsError};
use crate::linux::route::{Route, RouteError, Selected};
use crate::probe::{Ends, Trial};
use crate::types::Family;

/// The name of both interfaces. No other program uses it, and a namespace can have one such link at a time.
pub const NAME: &str = "sidetrack-probe";

/// The time that the link may take until it carries packets, and another probe until its link is removed.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Link-local addresses of the pod's end and of the host outside.
///
/// The kernel has one for each interface, but for a second or two it is tentative. Until then it asks for no neighbour if
/// the packet that waits for it has an address of another interface (`ndisc_send_ns`, net/ipv6/ndisc.c): the pod's answers
/// to packets that arrive on other interfaces.
const LINK_LOCAL: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2),
];

/// A link that could not be created.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Creating a namespace is not permitted.
    #[error(
        "a link to a host outside needs another network namespace, and creating one takes CAP_SYS_ADMIN ({0}). \
         Run as root on the node: sidetrack probe --netns /proc/PID/ns/net"
    )]
    NoNamespace(#[source] io::Error),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Creating interfaces is not permitted.
    #[error("creating a link to a host outside takes CAP_NET_ADMIN ({0}). Run as root on the node, with --netns")]
    NotPermitted(Refusal),
    /// The interface exists already.
    #[error("the interface {NAME} exists already: another probe is running in this pod. Wait until it has ended")]
    Busy,
    /// The kernel refused.
    #[error("{what} was refused by the kernel: {refusal}")]
    Refused {
        /// The request.
        what: &'static str,
        /// The kernel's refusal.
        refusal: Refusal,
    },
    /// The interfaces are not running in time.
    #[error("the link to a host outside does not carry packets in time")]
    NotReady,
    /// The netlink exchange failed.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// The link. It is removed when dropped.
pub struct Link {
    /// The namespace of the host outside.
    pub far: Netns,
    route: Route,
    index: Option<u32>,
    unusable: Vec<(Family, String)>,
    /// The addresses that the host outside stands in for: the source to reach each from, or why it cannot be reached.
    stand_ins: Vec<(IpAddr, Result<IpAddr, String>)>,
    /// The addresses behind other interfaces that packets come from or go to, or why they do not.
    entries: Vec<(IpAddr, Result<(), String>)>,
}

impl Link {
    /// Creates the link that a trial needs, from the network namespace of this thread.
    ///
    /// # Errors
    /// Creating it failed or is not permitted. Nothing is left of it then.
    pub fn create(trial: &Trial) -> Result<Self, LinkError> {
        let far = Netns::make().map_err(LinkError::NoNamespace)?;
        let mut route = Route::open()?;
        let mut added = Err(Errno::EEXIST.into());
        // Another probe may end soon.
        wait_until(|| {
            added = route.add_pair(NAME, &far)?;
            Ok(!matches!(&added, Err(refusal) if refusal.errno == Errno::EEXIST))
        })?;
        match added {
            Ok(()) => {}
            Err(refusal) => {
                return Err(match refusal.errno {
                    Errno::EPERM => LinkError::NotPermitted(refusal),
                    Errno::EEXIST => LinkError::Busy,
                    _ => refused("a pair of interfaces (veth)")(refusal),
                });
            }
        }
        let mut link = Self {
            index: Some(index()?),
            far,
            route,
            unusable: Vec::new(),
            stand_ins: Vec::new(),
            entries: Vec::new(),
        };
        link.bring_up(trial)?;
        Ok(link)
    }

    /// Why the link is not usable in a family, if so.
    pub fn unusable(&self, family: Family) -> Option<&str> {
        let mut unusable = self.unusable.iter();
        unusable
            .find(|(other, _)| *other == family)
            .map(|(_, reason)| reason.as_str())
    }

    /// The source to reach an address from that the host outside stands in for, or why it cannot be reached; `None` if
    /// it does not stand in for it.
    pub fn stand_in(&self, address: IpAddr) -> Option<Result<IpAddr, &str>> {
        let (_, source) = self.stand_ins.iter().find(|(other, _)| *other == address)?;
        Some(source.as_ref().map(|source| *source).map_err(String::as_str))
    }

    /// Whether packets with this source arrive on the interface of their entry, or those to this destination get to the pod.
    ///
    /// # Errors
    /// They do not: the reason.
    pub fn entry(&self, address: IpAddr) -> Result<(), &str> {
        match self.entries.iter().find(|(other, _)| *other == address) {
            Some((_, made)) => made.as_ref().copied().map_err(String::as_str),
            None => Err("there is no link"),
        }
    }

    /// Removes the link, and returns once it is removed.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(mut self) -> Result<(), LinkError> {
        self.remove_now()
    }

    fn remove_now(&mut self) -> Result<(), LinkError> {
        let Some(index) = self.index.take() else {
            return Ok(());
        };
        match self.route.remove_link(index)? {
            // Another process removed it first.
            Err(refusal) if refusal.errno != Errno::ENODEV => Err(refused("removing the link")(refusal)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn bring_up(&mut self, trial: &Trial) -> Result<(), LinkError> {
        let own = self.index.unwrap_or_default();
        let far = self.far.run(|| {
            let (mut route, index) = (Route::open()?, index()?);
            route.set_up(index)?.map_err(refused("setting the link up"))?;
            Ok::<_, LinkError>((route, index))
        });
        let (mut far_route, far_index) = far??;
        self.route.set_up(own)?.map_err(refused("setting the link up"))?;
        if !wait_until(|| Ok(self.route.is_running(own)? && far_route.is_running(far_index)?))? {
            return Err(LinkError::NotReady);
        }
        for ends in &trial.ends {
            if let Err(reason) = add_addresses(&mut self.route, own, &mut far_route, far_index, ends) {
                self.unusable.push((ends.family(), reason));
                continue;
            }
            for address in trial.stand_ins.iter().filter(|address| ends.family().is_of(**address)) {
                let added = add_stand_in(&mut self.route, own, &mut far_route, far_index, ends, *address);
                self.stand_ins.push((*address, added.map(|()| ends.near)));
            }
            let mut host = Host {
                near: &mut self.route,
                near_index: own,
                far: &mut far_route,
                far_index,
                ends,
                sources: Vec::new(),
            };
            for entry in trial.entries.iter().filter(|entry| ends.family().is_of(entry.source)) {
                self.entries.push((entry.source, host.add_entry(entry)));
            }
            for probe in trial.probes.iter().filter(|probe| probe.family() == ends.family()) {
                if let Some((interface, address)) = probe.destination_behind() {
                    let source = probe.source.map(|source| source.address);
                    self.entries
                        .push((address, host.add_way_to(interface, address, source)));
                }
            }
            if let Err(reason) = host.wait_for_sources() {
                self.unusable.push((ends.family(), reason));
            }
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = self.remove_now() {
            tracing::warn!(%error, "the link remains until this process has ended");
        }
    }
}

/// Gives both ends their addresses. The error is a text for people.
fn add_addresses(
    near: &mut Route,
    near_index: u32,
    far: &mut Route,
    far_index: u32,
    ends: &Ends,
) -> Result<(), String> {
    if !ends.free {
        return Err(format!(
            "the pod has routes to every address that a link could have, such as {} and {}",
            ends.near, ends.far
        ));
    }
    let family = ends.family();
    let added = near.add_ends(near_index, ends.near, ends.far);
    match added.map_err(|error| error.to_string())? {
        Ok(()) => {}
        Err(refusal) if family == Family::V6 && matches!(refusal.errno, Errno::EACCES | Errno::EPERM) => {
            return Err(format!(
                "IPv6 is disabled on new interfaces (net.ipv6.conf.default.disable_ipv6), so a link cannot use it ({refusal})"
            ));
        }
        Err(refusal) => return Err(format!("the address {} for a link was refused: {refusal}", ends.near)),
    }
    let added = far.add_ends(far_index, ends.far, ends.near);
    added
        .map_err(|error| error.to_string())?
        .map_err(|refusal| format!("the address {} for a link was refused: {refusal}", ends.far))?;
    let mut leading = [vec![ends.far], vec![ends.near]];
    if family == Family::V6 {
        let [own, other] = LINK_LOCAL.map(IpAddr::from);
        let added = near.add_ends(near_index, own, other);
        added
            .map_err(|error| error.to_string())?
            .map_err(|refusal| format!("the address {own} for a link was refused: {refusal}"))?;
        leading[0].push(own);
    }
    for (route, destinations) in [near, far].into_iter().zip(leading) {
        if let Some(missing) = wait_for_routes(route, &destinations)? {
            return Err(format!("the route to {missing} by a link does not appear in time"));
        }
    }
    check_route(ends)
}

/// Waits until routes lead to all these addresses, and returns the first to which none does in time. The kernel adds routes of
/// IPv6 addresses asynchronously, to a host's own addresses too, and lets neighbours look for these no earlier
/// (`addrconf_dad_work`, net/ipv6/addrconf.c). The error is a text for people.
pub fn wait_for_routes(route: &mut Route, addresses: &[IpAddr]) -> Result<Option<IpAddr>, String> {
    let mut missing = addresses.to_vec();
    let are_there = || {
        if !missing.is_empty() {
            let destinations = route.destinations()?;
            missing.retain(|address| !destinations.contains(&IpNet::from(*address)));
        }
        Ok(missing.is_empty())
    };
    wait_until(are_there).map_err(|error| error.to_string())?;
    Ok(missing.first().copied())
}

/// Makes the far end stand in for an address: it gets the address, and the near end a route that only sockets of probes
/// use. The error is a text for people.
fn add_stand_in(
    near: &mut Route,
    near_index: u32,
    far: &mut Route,
    far_index: u32,
    ends: &Ends,
    address: IpAddr,
) -> Result<(), String> {
    let refused = |refusal| format!("a route to {address} by a link, for probes alone, was refused: {refusal}");
    let to = Selected {
        destination: address,
        source: ends.near,
    };
    far.add_ends(far_index, address, ends.near)
        .map_err(|error| error.to_string())?
        .map_err(|refusal| format!("the address {address} for a link was refused: {refusal}"))?;
    if wait_for_routes(far, &[address])?.is_some() {
        return Err(format!(
            "the address {address} for a link does not become usable in time"
        ));
    }
    near.add_selective_route(near_index, &to)
        .map_err(|error| error.to_string())?
        .map_err(refused)?;
    let interface = near.outgoing_interface(&to).map_err(|error| error.to_string())?;
    match interface {
        Ok(index) if index == near_index => Ok(()),
        Ok(_) => Err(format!(
            "the pod's routing does not lead to {address} by the link: see `ip rule` and `ip route show table all`"
        )),
        Err(refusal) => Err(format!("the pod's routing does not lead to {address}: {refusal}")),
    }
}

/// Waits until a condition holds, or returns false after [`READY_TIMEOUT`].
fn wait_until(mut condition: impl FnMut() -> Result<bool, RouteError>) -> Result<bool, RouteError> {
    let begin = Instant::now();
    while !condition()? {
        if begin.elapsed() > READY_TIMEOUT {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// Checks that the pod's routing sends packets to the far end by the link: policy routing may send them elsewhere.
fn check_route(ends: &Ends) -> Result<(), String> {
    let any: IpAddr = match ends.family() {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(ends.far, 1))?;
        socket.local_addr()
    });
    match source {
        Ok(source) if source.ip() == ends.near => Ok(()),
        Ok(source) => Err(format!(
            "the pod's routing does not lead to {} by the link, but by {}: see `ip rule`",
            ends.far,
            source.ip()
        )),
        Err(error) => Err(format!("the pod's routing does not lead to {}: {error}", ends.far)),
    }
}

fn index() -> Result<u32, LinkError> {
    if_nametoindex(NAME).map_err(refused("finding the link"))
}

fn refused<R: Into<Refusal>>(what: &'static str) -> impl FnOnce(R) -> LinkError {
    move |refusal| LinkError::Refused {
        what,
        refusal: refusal.into(),
    }
}
