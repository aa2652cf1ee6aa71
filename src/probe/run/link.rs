//! The link to a host outside: a pair of interfaces, one in the pod, the other in a namespace of its own.
//!
//! That namespace has no name and no process: it ends with this process, however that ends, and the kernel then takes
//! the link away with its addresses and routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use thiserror::Error;

use crate::linux::netlink::Refusal;
use crate::linux::netns::{Netns, NetnsError};
use crate::linux::route::{Route, RouteError};
use crate::probe::Ends;
use crate::types::Family;

/// What both interfaces are called: nobody else has such a one, so that there is one link at a time.
pub const NAME: &str = "sidetrack-probe";

/// How long the link may take until it carries packets.
const PATIENCE: Duration = Duration::from_secs(5);

/// A link that could not be made.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Neither may this process make a namespace.
    #[error(
        "a link to a host outside takes another network namespace, and making one takes CAP_SYS_ADMIN ({0}). \
         Run as root on the node: sidetrack probe --netns /proc/PID/ns/net"
    )]
    NoNamespace(#[source] io::Error),
    /// Nor may it enter that.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Nor an interface.
    #[error("a link to a host outside takes CAP_NET_ADMIN ({0}). Run as root on the node, with --netns")]
    NotPermitted(Refusal),
    /// There is such an interface.
    #[error("an interface {NAME} is there already: another probe is running in this pod. Wait until that has ended")]
    Busy,
    /// The kernel cannot.
    #[error("{what} was refused by the kernel: {refusal}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        refusal: Refusal,
    },
    /// It does not get ready.
    #[error("the link to a host outside does not get ready to carry packets")]
    NotReady,
    /// The conversation with the kernel failed.
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
}

impl Link {
    /// Makes the link, from the network namespace of this thread.
    ///
    /// # Errors
    /// It cannot or may not be made. Nothing is left of it then.
    pub fn make(ends: &[Ends]) -> Result<Self, LinkError> {
        let far = Netns::make().map_err(LinkError::NoNamespace)?;
        let mut route = Route::open()?;
        let mut added = Err(Errno::EEXIST.into());
        // Another probe may be about to end.
        comes_true(|| {
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
        };
        link.bring_up(ends)?;
        Ok(link)
    }

    /// Why the link is of no use in a family, if so.
    pub fn unusable(&self, family: Family) -> Option<&str> {
        let mut unusable = self.unusable.iter();
        unusable
            .find(|(other, _)| *other == family)
            .map(|(_, reason)| reason.as_str())
    }

    /// Removes the link, and returns when it is gone.
    ///
    /// # Errors
    /// The kernel did not do it.
    pub fn remove(mut self) -> Result<(), LinkError> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<(), LinkError> {
        let Some(index) = self.index.take() else {
            return Ok(());
        };
        match self.route.remove_link(index)? {
            // Somebody else was faster.
            Err(refusal) if refusal.errno != Errno::ENODEV => Err(refused("removing the link")(refusal)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn bring_up(&mut self, ends: &[Ends]) -> Result<(), LinkError> {
        let own = self.index.unwrap_or_default();
        let far = self.far.run(|| {
            let (mut route, index) = (Route::open()?, index()?);
            route.set_up(index)?.map_err(refused("setting the link up"))?;
            Ok::<_, LinkError>((route, index))
        });
        let (mut far_route, far_index) = far??;
        self.route.set_up(own)?.map_err(refused("setting the link up"))?;
        if !comes_true(|| Ok(self.route.is_running(own)? && far_route.is_running(far_index)?))? {
            return Err(LinkError::NotReady);
        }
        for ends in ends {
            if let Err(reason) = add_addresses(&mut self.route, own, &mut far_route, far_index, ends) {
                self.unusable.push((ends.family(), reason));
            }
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = self.take_away() {
            tracing::warn!(%error, "the link stays until this process has ended");
        }
    }
}

/// Gives both ends their addresses. What is wrong is for people.
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
                "IPv6 is switched off for new interfaces (net.ipv6.conf.default.disable_ipv6): a link cannot have it ({refusal})"
            ));
        }
        Err(refusal) => return Err(format!("the address {} for a link was refused: {refusal}", ends.near)),
    }
    let added = far.add_ends(far_index, ends.far, ends.near);
    added
        .map_err(|error| error.to_string())?
        .map_err(|refusal| format!("the address {} for a link was refused: {refusal}", ends.far))?;
    // Of IPv6, addresses are in use and routes are there only after a moment (addrconf_dad_work, net/ipv6/addrconf.c).
    for (route, other) in [(near, ends.far), (far, ends.near)] {
        let is_there = || route.destinations().map(|nets| nets.contains(&IpNet::from(other)));
        if !comes_true(is_there).map_err(|error| error.to_string())? {
            return Err(format!("the route to {other} by a link does not get ready"));
        }
    }
    leads_there(ends)
}

/// Waits until something is so.
fn comes_true(mut condition: impl FnMut() -> Result<bool, RouteError>) -> Result<bool, RouteError> {
    let begin = Instant::now();
    while !condition()? {
        if begin.elapsed() > PATIENCE {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// Whether the pod's routing sends packets to the far end by the link: rules of policy routing may not.
fn leads_there(ends: &Ends) -> Result<(), String> {
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
