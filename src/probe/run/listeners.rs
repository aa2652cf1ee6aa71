//! Where connections may arrive: the ports of the proxy, if it does not listen itself, and the destinations.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockType, SockaddrStorage, bind, getsockopt, listen, setsockopt, sockopt};

use super::link::Link;
use super::owner::made_as;
use super::socket::{open, reset_on_close};
use crate::probe::{Expected, Finding, Original, Probe, Trial};
use crate::ruleset::Protocol;
use crate::types::Family;

/// In whose place it is listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// That of the proxy; whether connections are handed over with their addresses unchanged.
    Proxy {
        /// As TPROXY does.
        transparent: bool,
    },
    /// That of whoever is called.
    Destination,
}

/// Something that listens.
pub struct Listener<S> {
    /// Where.
    pub address: SocketAddr,
    /// As whom.
    pub role: Role,
    /// The socket.
    pub socket: S,
}

/// All that listens.
#[derive(Default)]
pub struct Listeners {
    /// For connections.
    pub tcp: Vec<Listener<TcpListener>>,
    /// For name lookups.
    pub udp: Vec<Listener<UdpSocket>>,
    /// Where the proxy listens itself.
    pub proxy_listens: Vec<(Protocol, SocketAddr)>,
    /// Where it cannot be listened, and why.
    pub failed: Vec<(SocketAddr, io::Error)>,
}

impl Listeners {
    /// Listens in the place of the proxy, on every address that the families of the probes may be redirected to.
    pub fn of_proxy(trial: &Trial, link: Option<&Link>) -> Self {
        let mut listeners = Self::default();
        for family in Family::BOTH {
            if !trial.probes.iter().any(|probe| probe.family() == family) {
                continue;
            }
            let usable = link.filter(|link| link.unusable(family).is_none());
            let near = usable.and(trial.ends(family)).map(|ends| ends.near);
            for address in [loopback(family)].into_iter().chain(near) {
                for port in &trial.ports {
                    let transparent = near == Some(address) && trial.transparent == Some(*port);
                    let at = SocketAddr::new(address, port.get());
                    listeners.add_tcp(at, Role::Proxy { transparent }, None);
                }
            }
        }
        listeners
    }

    /// Listens where probes are meant to go, too.
    pub fn add_destinations(&mut self, trial: &Trial, link: Option<&Link>) {
        for probe in &trial.probes {
            self.for_probe(trial, probe, link);
        }
    }

    fn for_probe(&mut self, trial: &Trial, probe: &Probe, link: Option<&Link>) {
        let family = probe.family();
        let usable = link.filter(|link| link.unusable(family).is_none());
        let is = |address: fn(&crate::probe::Ends) -> IpAddr| {
            trial
                .ends(family)
                .is_some_and(|ends| address(ends) == probe.destination.ip())
        };
        match (probe.protocol, usable) {
            (protocol, Some(link)) if is(|ends| ends.far) => self.add_far(protocol, probe.destination, link),
            (Protocol::Tcp, Some(_)) if is(|ends| ends.near) => {
                self.add_tcp(probe.destination, Role::Destination, None);
            }
            (Protocol::Tcp, _) if probe.subject.calls_pod() && !is(|ends| ends.near) => {
                self.add_tcp(probe.destination, Role::Destination, None);
            }
            _ => {}
        }
        if let (Protocol::Udp, Expected::Captured(port)) = (probe.protocol, probe.expected) {
            let at = SocketAddr::new(loopback(family), port.get());
            // Its answers must be the proxy's: the rules tell them by their owner.
            let receiver = made_as(trial.proxy, || bound_udp(at))
                .map_err(io::Error::from)
                .and_then(|made| made);
            self.keep_udp(at, Role::Proxy { transparent: false }, receiver);
        }
    }

    fn add_far(&mut self, protocol: Protocol, at: SocketAddr, link: &Link) {
        match protocol {
            Protocol::Tcp => self.add_tcp(at, Role::Destination, Some(link)),
            Protocol::Udp => {
                let receiver = link
                    .far
                    .run(|| bound_udp(at))
                    .map_err(io::Error::other)
                    .and_then(|made| made);
                self.keep_udp(at, Role::Destination, receiver);
            }
        }
    }

    fn add_tcp(&mut self, at: SocketAddr, role: Role, link: Option<&Link>) {
        if self.tcp.iter().any(|listener| listener.address == at) {
            return;
        }
        let bound = || listening(at, role == Role::Proxy { transparent: true });
        let listener = match link {
            Some(link) => link.far.run(bound).map_err(io::Error::other).and_then(|made| made),
            None => bound(),
        };
        match listener {
            Ok(socket) => self.tcp.push(Listener {
                address: at,
                role,
                socket,
            }),
            Err(error) => self.keep_failure(Protocol::Tcp, at, role, error),
        }
    }

    fn keep_udp(&mut self, at: SocketAddr, role: Role, socket: io::Result<UdpSocket>) {
        match socket {
            Ok(socket) => self.udp.push(Listener {
                address: at,
                role,
                socket,
            }),
            // Another probe may have bound it.
            Err(_) if self.udp.iter().any(|listener| listener.address == at) => {}
            Err(error) => self.keep_failure(Protocol::Udp, at, role, error),
        }
    }

    fn keep_failure(&mut self, protocol: Protocol, at: SocketAddr, role: Role, error: io::Error) {
        match (error.kind(), role) {
            (ErrorKind::AddrInUse, Role::Proxy { .. }) => {
                if !self.proxy_listens.contains(&(protocol, at)) {
                    self.proxy_listens.push((protocol, at));
                }
            }
            // An application of the pod listens there, or the address is what is missing: connecting will tell.
            (ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable, Role::Destination) => {}
            _ => self.failed.push((at, error)),
        }
    }

    /// Whether it is listened there.
    pub fn holds(&self, at: SocketAddr) -> bool {
        self.tcp.iter().any(|listener| listener.address == at)
    }

    /// Whether the proxy itself listens on this port, in a family.
    pub fn proxy_listens_on(&self, protocol: Protocol, family: Family, port: u16) -> bool {
        let mut addresses = self.proxy_listens.iter();
        addresses.any(|(other, at)| *other == protocol && family.is_of(at.ip()) && at.port() == port)
    }

    /// Why it cannot be listened where this probe may arrive, if so.
    pub fn failure(&self, probe: &Probe) -> Option<&(SocketAddr, io::Error)> {
        let captured = |at: &SocketAddr| match probe.expected {
            Expected::Captured(port) => probe.family().is_of(at.ip()) && at.port() == port.get(),
            Expected::Untouched => false,
        };
        let mut failed = self.failed.iter();
        failed.find(|(at, _)| *at == probe.destination || captured(at))
    }

    /// What to wait for.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let tcp = self.tcp.iter().map(|listener| listener.socket.as_fd());
        tcp.chain(self.udp.iter().map(|listener| listener.socket.as_fd()))
    }
}

impl Listener<TcpListener> {
    /// The next connection, if there is one, and who makes it.
    ///
    /// # Errors
    /// The system lacks something.
    pub fn next(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        loop {
            match self.socket.accept() {
                Ok((stream, client)) => {
                    reset_on_close(&stream)?;
                    return Ok(Some((stream, client)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // The client has gone.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What it means that a connection arrived here.
    pub fn finding(&self, stream: &TcpStream) -> Finding {
        let original = match self.role {
            Role::Destination => return Finding::Direct,
            Role::Proxy { transparent: true } => stream.local_addr().map_err(|error| error.to_string()),
            Role::Proxy { transparent: false } => original_destination(stream).map_err(|errno| errno.to_string()),
        };
        Finding::Redirected {
            at: self.address,
            original: original.map_or_else(Original::Unknown, Original::Known),
        }
    }
}

/// The address that connections of local processes are redirected to.
fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

fn listening(at: SocketAddr, transparent: bool) -> io::Result<TcpListener> {
    let socket = open(at, SockType::Stream)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if transparent {
        setsockopt(&socket, sockopt::IpTransparent, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

fn bound_udp(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(at, SockType::Datagram)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(socket.into())
}

/// Where the client wanted to go, as the proxy asks for it: `SO_ORIGINAL_DST` (linux/netfilter_ipv4.h, and
/// `IP6T_SO_ORIGINAL_DST` in linux/netfilter_ipv6/ip6_tables.h).
fn original_destination(stream: &TcpStream) -> Result<SocketAddr, Errno> {
    if stream.local_addr().is_ok_and(|local| local.is_ipv6()) {
        let address = getsockopt(stream, sockopt::Ip6tOriginalDst)?;
        let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
        return Ok((ip, u16::from_be(address.sin6_port)).into());
    }
    let address = getsockopt(stream, sockopt::OriginalDst)?;
    let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
    Ok((ip, u16::from_be(address.sin_port)).into())
}
