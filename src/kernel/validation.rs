//! A proof that the rules redirect, from inside the pod and before its proxy starts: a connection that the proxy's user
//! opens to the address that the proxy passes traffic on from must arrive at a port of the proxy.
//!
//! It needs no privilege. It proves the rules of loopback alone, and the kernel's ability to redirect.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, socket, sockopt,
};
use nix::unistd::{Gid, Uid, getegid, geteuid};
use thiserror::Error;

use crate::config::types::{LoopbackCidr, Port};
use crate::plan::{PASSTHROUGH_V4, PASSTHROUGH_V6};
use crate::ruleset::{Families, Family};

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
         redirect only what the proxy's user or group sends, and this is user {uid} in group {gid}. \
         See what installs the rules, and run this as the proxy's user"
    )]
    NothingArrived {
        /// What was called.
        destination: SocketAddr,
        /// For how long.
        timeout: Duration,
        /// What became of the last call.
        last: String,
        /// Who called.
        uid: Uid,
        /// In which group.
        gid: Gid,
    },
    /// A call arrived, and the kernel does not know where it was meant to go.
    #[error(
        "a connection to {destination} arrived at {listener} without its original destination ({errno}): something \
         other than these rules has redirected it, and the proxy could not tell where to pass it on to. \
         Remove the other redirection"
    )]
    NoOriginalDestination {
        /// What was called.
        destination: SocketAddr,
        /// Where it arrived.
        listener: SocketAddr,
        /// How the kernel said so.
        errno: Errno,
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
    /// Somebody else listens there, most likely the proxy.
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
    /// A system call failed that never should.
    #[error("waiting for redirected connections: {0}")]
    Wait(#[source] io::Error),
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
        let mut unproved = Vec::new();
        for family in self.families.iter() {
            unproved.push(Probe::new(self, family)?);
        }
        let mut next_call = Instant::now();
        loop {
            if Instant::now() >= next_call {
                unproved.iter_mut().for_each(Probe::call);
                next_call = Instant::now() + INTERVAL;
            }
            wait(&unproved, next_call.min(deadline)).map_err(ValidationError::Wait)?;
            let mut still_unproved = Vec::new();
            for probe in unproved {
                if !probe.arrived()? {
                    still_unproved.push(probe);
                }
            }
            unproved = still_unproved;
            match unproved.first() {
                None => return Ok(()),
                Some(probe) if Instant::now() >= deadline => return Err(probe.nothing_arrived(self.timeout)),
                Some(_) => {}
            }
        }
    }
}

/// The probe of one family.
struct Probe {
    source: IpAddr,
    destination: SocketAddr,
    listeners: Vec<TcpListener>,
    /// The last call. The one before ends with it.
    call: Result<TcpStream, Errno>,
}

impl Probe {
    /// Listens on the proxy's ports, where redirected connections arrive: on loopback.
    fn new(validation: &Validation, family: Family) -> Result<Self, ValidationError> {
        let (source, destination): (IpAddr, IpAddr) = match family {
            Family::V4 => (Ipv4Addr::LOCALHOST.into(), validation.v4_destination.into()),
            Family::V6 => (Ipv6Addr::LOCALHOST.into(), PASSTHROUGH_V6.into()),
        };
        let mut ports = vec![validation.inbound_port, validation.outbound_port];
        ports.dedup();
        let listen = |port: &Port| {
            let address = SocketAddr::new(source, port.get());
            listen(address).map_err(|reason| match reason.kind() {
                ErrorKind::AddrInUse => ValidationError::Taken(address),
                _ => ValidationError::Listen { address, reason },
            })
        };
        Ok(Self {
            source,
            destination: SocketAddr::new(destination, validation.probe_port.get()),
            listeners: ports.iter().map(listen).collect::<Result<_, _>>()?,
            call: Err(Errno::ENOTCONN),
        })
    }

    fn call(&mut self) {
        self.call = call(self.source, self.destination);
    }

    /// Whether a call has arrived as it should. Connections of others are dropped: the ports are the proxy's.
    fn arrived(&self) -> Result<bool, ValidationError> {
        for listener in &self.listeners {
            loop {
                let (stream, client) = match listener.accept() {
                    Ok(accepted) => accepted,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The client has gone.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                    Err(error) => return Err(ValidationError::Wait(error)),
                };
                let original = original_destination(&stream);
                if original == Ok(self.destination) {
                    return Ok(true);
                }
                if self.is_caller(client) {
                    let listener = listener.local_addr().map_err(ValidationError::Wait)?;
                    return Err(self.misdirected(listener, original));
                }
            }
        }
        Ok(false)
    }

    fn is_caller(&self, client: SocketAddr) -> bool {
        let own = self.call.as_ref().ok().and_then(|call| call.local_addr().ok());
        own == Some(client)
    }

    fn misdirected(&self, listener: SocketAddr, original: Result<SocketAddr, Errno>) -> ValidationError {
        let destination = self.destination;
        match original {
            Ok(found) => ValidationError::WrongOriginalDestination {
                destination,
                listener,
                found,
            },
            Err(errno) => ValidationError::NoOriginalDestination {
                destination,
                listener,
                errno,
            },
        }
    }

    fn nothing_arrived(&self, timeout: Duration) -> ValidationError {
        let last = match &self.call {
            Err(errno) => errno.to_string(),
            Ok(call) => match call.take_error() {
                Ok(Some(error)) => error.to_string(),
                _ if call.peer_addr().is_ok() => "something else listens there and took it".to_owned(),
                _ => "no answer".to_owned(),
            },
        };
        ValidationError::NothingArrived {
            destination: self.destination,
            timeout,
            last,
            uid: geteuid(),
            gid: getegid(),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Begins a connection. The source is said, as the kernel would take ::6 to call ::6 from, which nobody redirects.
fn call(source: IpAddr, destination: SocketAddr) -> Result<TcpStream, Errno> {
    let domain = match source {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(domain, SockType::Stream, flags, None)?;
    let any_port = SocketAddr::new(source, 0);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(any_port))?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(destination)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket.into()),
        Err(errno) => Err(errno),
    }
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

/// Waits until a connection arrives, or until the time comes.
fn wait(probes: &[Probe], until: Instant) -> io::Result<()> {
    let listeners = probes.iter().flat_map(|probe| &probe.listeners);
    let mut waiting: Vec<PollFd> = listeners
        .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
        .collect();
    // Rounded up, as a wait that ends too early would be one more.
    let left = until.saturating_duration_since(Instant::now());
    let milliseconds = left.as_micros().div_ceil(1000);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    match poll(&mut waiting, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
