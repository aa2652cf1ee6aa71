//! The sockets at which connections may arrive: ports of the proxy, if it does not listen itself, and destinations.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockType, SockaddrStorage, bind, getsockopt, listen, setsockopt, sockopt};

use super::link::Link;
use super::owner::run_as;
use super::socket::{open, reset_on_close};
use crate::linux::route::SELECTED_TOS;
use crate::probe::{Expected, Finding, Original, Probe, Transport, Trial};
use crate::ruleset::Protocol;
use crate::types::Family;

/// The host or program that a listener stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The proxy.
    Proxy {
        /// Whether it gets connections with their addresses unchanged (TPROXY).
        transparent: bool,
    },
    /// The destination of a probe.
    Destination,
}

/// A listening socket.
pub struct Listener<S> {
    /// Its address.
    pub address: SocketAddr,
    /// Its role.
    pub role: Role,
    /// The socket.
    pub socket: S,
}

/// All listening sockets of a run.
#[derive(Default)]
pub struct Listeners {
    /// Listeners for connections.
    pub tcp: Vec<Listener<TcpListener>>,
    /// Receivers of name lookups.
    pub udp: Vec<Listener<UdpSocket>>,
    /// The addresses on which the proxy listens itself.
    pub proxy_listens: Vec<(Protocol, SocketAddr)>,
    /// The addresses on which listening failed.
    pub failed: Vec<(SocketAddr, io::Error)>,
}

impl Listeners {
    /// Listens in place of the proxy, on every address that connections may be redirected to.
    pub fn of_proxy(trial: &Trial, link: Option<&Link>) -> Self {
        let mut listeners = Self::default();
        for family in Family::BOTH {
            if !trial.probes.iter().any(|probe| probe.family() == family) {
                continue;
            }
            let usable = link.filter(|link| link.unusable(family).is_none());
            let near = usable.and(trial.ends(family)).map(|ends| ends.near);
            let entered = || trial.entries.iter().filter(|entry| Family::of(entry.source) == family);
            let entries = usable
                .into_iter()
                .flat_map(|_| entered())
                .flat_map(|entry| entry.own.iter().copied());
            for address in [loopback(family)].into_iter().chain(near).chain(entries) {
                for port in &trial.ports {
                    let transparent = near == Some(address) && trial.transparent == Some(*port);
                    let at = SocketAddr::new(address, port.get());
                    listeners.add_tcp(at, Role::Proxy { transparent }, None);
                }
            }
        }
        listeners
    }

    /// Listens at the destinations of probes, too.
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
        let is_far = |link: &Link| {
            let stand_in = || matches!(link.stand_in(probe.destination.ip()), Some(Ok(_)));
            is(|ends| ends.far) || !probe.subject.calls_pod() && stand_in()
        };
        match (probe.protocol, usable) {
            // The kernel answers echo requests.
            (Transport::Icmp, _) => {}
            // It has no address there.
            _ if probe.destination_behind().is_some() => {}
            (protocol, Some(link)) if probe.bound_to.is_none() && is_far(link) => {
                self.add_far(protocol, probe.destination, link)
            }
            (Transport::Udp, Some(_)) if is(|ends| ends.near) => {
                self.keep_udp(probe.destination, Role::Destination, bound_udp(probe.destination));
            }
            (Transport::Tcp, Some(_)) if is(|ends| ends.near) => {
                self.add_tcp(probe.destination, Role::Destination, None);
            }
            (Transport::Tcp, _) if probe.subject.calls_pod() && !is(|ends| ends.near) => {
                self.add_tcp(probe.destination, Role::Destination, None);
            }
            _ => {}
        }
        if let (Transport::Udp, Expected::Captured(port)) = (probe.protocol, probe.expected) {
            let at = SocketAddr::new(loopback(family), port.get());
            // The proxy's user must own the socket: the rules recognise the proxy's answers by their owner.
            let receiver = run_as(trial.proxy, || bound_udp(at))
                .map_err(io::Error::from)
                .and_then(|bound| bound);
            self.keep_udp(at, Role::Proxy { transparent: false }, receiver);
        }
    }

    fn add_far(&mut self, protocol: Transport, at: SocketAddr, link: &Link) {
        match protocol {
            Transport::Icmp => {}
            Transport::Tcp => self.add_tcp(at, Role::Destination, Some(link)),
            Transport::Udp => {
                let receiver = link
                    .far
                    .run(|| bound_udp(at))
                    .map_err(io::Error::other)
                    .and_then(|bound| bound);
                self.keep_udp(at, Role::Destination, receiver);
            }
        }
    }

    fn add_tcp(&mut self, at: SocketAddr, role: Role, link: Option<&Link>) {
        if self.tcp.iter().any(|listener| listener.address == at) {
            return;
        }
        // Answers from or to an address that the host outside stands in for must take the route for probes.
        let tos = (role == Role::Destination).then_some(SELECTED_TOS);
        let bound = || listening(at, role == Role::Proxy { transparent: true }, tos);
        let listener = match link {
            Some(link) => link.far.run(bound).map_err(io::Error::other).and_then(|bound| bound),
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
            // The receiver of another probe of this run.
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
            // A program of the pod listens there, or the missing address is the fault: the connection shows which.
            (ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable, Role::Destination) => {}
            _ => self.failed.push((at, error)),
        }
    }

    /// Whether one of these listeners has this address.
    pub fn holds(&self, at: SocketAddr) -> bool {
        self.tcp.iter().any(|listener| listener.address == at)
    }

    /// Whether the proxy itself listens on this port, in a family.
    pub fn proxy_listens_on(&self, protocol: Protocol, family: Family, port: u16) -> bool {
        let mut addresses = self.proxy_listens.iter();
        addresses.any(|(other, at)| *other == protocol && family.is_of(at.ip()) && at.port() == port)
    }

    /// The failure to listen where this probe may arrive, if any.
    pub fn failure(&self, probe: &Probe) -> Option<&(SocketAddr, io::Error)> {
        let captured = |at: &SocketAddr| {
            let port = probe.expected.proxy_port();
            port.is_some_and(|port| probe.family().is_of(at.ip()) && at.port() == port.get())
        };
        let mut failed = self.failed.iter();
        failed.find(|(at, _)| *at == probe.destination || captured(at))
    }

    /// The sockets to wait for.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let tcp = self.tcp.iter().map(|listener| listener.socket.as_fd());
        tcp.chain(self.udp.iter().map(|listener| listener.socket.as_fd()))
    }
}

impl Listener<TcpListener> {
    /// The next connection that waits, with its client's address.
    ///
    /// # Errors
    /// The system lacks a resource.
    pub fn next(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        loop {
            match self.socket.accept() {
                Ok((stream, client)) => {
                    reset_on_close(&stream)?;
                    return Ok(Some((stream, client)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // The client has closed it.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The finding about a connection that arrived here.
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

fn listening(at: SocketAddr, transparent: bool, tos: Option<u8>) -> io::Result<TcpListener> {
    let socket = open(at, SockType::Stream)?;
    if let (Some(tos), true) = (tos, at.is_ipv4()) {
        setsockopt(&socket, sockopt::Ipv4Tos, &tos.into())?;
    }
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

/// The original destination, as the proxy asks the kernel for it: `SO_ORIGINAL_DST` (linux/netfilter_ipv4.h), and
/// `IP6T_SO_ORIGINAL_DST` (linux/netfilter_ipv6/ip6_tables.h).
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
