//! The start of a probe: the client's socket, with the owner, source and interface that the probe asks for.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockType, SockaddrStorage, bind, connect, setsockopt, sockopt};

use super::attempt::{Circumstances, Client};
use super::bound;
use super::echo::{self, Echo};
use super::invalid::{InvalidPacket, reserve};
use super::link::Link;
use super::lookup;
use super::owner::{run_as, run_capable_as};
use super::socket::{open, reset_on_close};
use crate::linux::route::SELECTED_TOS;
use crate::linux::socket_options;
use crate::probe::{Caller, Expected, Finding, Needs, Outcome, Owner, Probe, Transport};
use crate::types::Family;

/// A probe that has started.
pub struct Started {
    /// Its client.
    pub client: Client,
    /// The client's address, which no other probe has, if others could see it.
    pub local: Option<SocketAddr>,
    /// Whether the kernel refused to send its packet (EPERM): a rule rejected or dropped it.
    pub is_rejected: bool,
    /// Keeps its port from connections of the host whose address it has.
    pub reserved: Option<OwnedFd>,
}

/// A probe that has not started.
pub enum NotStarted {
    /// It has an outcome already.
    Ended(Outcome),
    /// It proves nothing here, so it has no place in the report: a note.
    LeftOut(String),
}

impl From<Outcome> for NotStarted {
    fn from(outcome: Outcome) -> Self {
        Self::Ended(outcome)
    }
}

/// Opens the socket of the client, and connects it or sends the query with this ID.
///
/// # Errors
/// It has an outcome without that, or it proves nothing here.
pub fn start(probe: &Probe, id: u16, circumstances: &Circumstances) -> Result<Started, NotStarted> {
    let link = link_for(probe, circumstances).map_err(|outcome| without_family(probe, circumstances, outcome))?;
    if let Some((at, error)) = circumstances.listeners.failure(probe) {
        let reason = format!("listening on {at}, in place of the proxy or of the destination, failed: {error}");
        return Err(Outcome::NotMade(reason).into());
    }
    match (probe.expected, probe.caller, link) {
        (Expected::Dropped, Caller::Process(_), _) => {
            let connect = |probe: &Probe| connected(probe, id, circumstances, link);
            Err(bound::outcome(probe, circumstances.trial.proxy, connect)?.into())
        }
        (Expected::Dropped, _, Some(link)) => {
            let packet = InvalidPacket::send(link, probe.destination, circumstances.trial.ends(probe.family()));
            Ok(Started {
                client: Client::Packet(packet?),
                local: None,
                is_rejected: false,
                reserved: None,
            })
        }
        // No host is known to answer there. Whatever is sent has passed all rules.
        (Expected::Rejected, Caller::Process(_), _) if probe.bound_to.is_some() => {
            match connected(probe, id, circumstances, link)? {
                started if started.is_rejected => Ok(started),
                _ => Err(Outcome::Found(Finding::LeftByInterface).into()),
            }
        }
        _ => connected(probe, id, circumstances, link),
    }
}

/// Opens the socket of the client, and connects it. One that is not TCP sends its query or request.
fn connected(
    probe: &Probe,
    id: u16,
    circumstances: &Circumstances,
    link: Option<&Link>,
) -> Result<Started, NotStarted> {
    let socket = opened(probe, link)?;
    prepare(&socket, probe).map_err(|errno| {
        Outcome::NotMade(match errno {
            Errno::EPERM if probe.bound_to.is_some() => {
                "binding a socket to an interface takes CAP_NET_RAW before Linux 5.7: run as root".to_owned()
            }
            Errno::EPERM if probe.source.is_none_or(|source| source.mark.is_none()) => {
                "marking a socket takes CAP_NET_ADMIN, or CAP_NET_RAW since Linux 5.17: run as root".to_owned()
            }
            Errno::EPERM => {
                "a client's own address as the source takes CAP_NET_ADMIN: run as root on the node, with --netns"
                    .to_owned()
            }
            errno => format!("setting a socket up: {errno}"),
        })
    })?;
    let stand_in = link
        .filter(|_| probe.bound_to.is_none())
        .and_then(|link| link.stand_in(probe.other_host()?)?.ok());
    if stand_in.is_some() && probe.family() == Family::V4 {
        setsockopt(&socket, sockopt::Ipv4Tos, &SELECTED_TOS.into())
            .map_err(|errno| Outcome::NotMade(format!("setting a socket's type of service: {errno}")))?;
    }
    // A port that is bound before connecting belongs to this probe alone, and identifies its connection.
    let any: IpAddr = match probe.family() {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let own = match probe.caller {
        // The host outside has more addresses, and packets from these arrive elsewhere.
        Caller::Neighbour => circumstances.trial.ends(probe.family()).map(|ends| ends.far),
        Caller::Process(_) | Caller::Behind => stand_in.filter(IpAddr::is_ipv6),
    };
    let address = probe.source.map_or(own.unwrap_or(any), |source| source.address);
    let host = link.filter(|_| probe.source.is_some_and(|source| source.mark.is_some()));
    let reserved = bind_client(&socket, address, host)
        .map_err(|errno| Outcome::Found(Finding::NoSource(format!("{address}: {errno}"))))?;
    let connected = match connect(socket.as_raw_fd(), &SockaddrStorage::from(probe.destination)) {
        Ok(()) | Err(Errno::EINPROGRESS) => client(socket, probe, id),
        Err(errno) => Err(errno),
    };
    let started = connected.map_err(|errno| unconnected(probe, circumstances, link, errno))?;
    Ok(Started { reserved, ..started })
}

/// Binds the socket of a client to a port of this address. The host outside with the same address chooses ports of its own,
/// and the same one would be the same connection: it is reserved there while the returned socket is open.
fn bind_client(socket: &OwnedFd, address: IpAddr, host: Option<&Link>) -> Result<Option<OwnedFd>, Errno> {
    const MAX_ATTEMPTS: usize = 16;
    let bind_to = |port| {
        bind(
            socket.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(address, port)),
        )
    };
    let Some(host) = host else {
        return bind_to(0).map(|()| None);
    };
    // Other ports come next while these stay reserved.
    let mut refused = Vec::new();
    loop {
        let reserved = host.far.run(|| reserve(address)).map_err(|_| Errno::EAGAIN)?;
        let (reservation, port) = reserved?;
        match bind_to(port) {
            Ok(()) => return Ok(Some(reservation)),
            Err(Errno::EADDRINUSE) if refused.len() < MAX_ATTEMPTS => refused.push(reservation),
            Err(errno) => return Err(errno),
        }
    }
}

/// What it means that the client cannot connect or send.
fn unconnected(probe: &Probe, circumstances: &Circumstances, link: Option<&Link>, errno: Errno) -> NotStarted {
    let is_unroutable = matches!(errno, Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL);
    let destination = probe.destination.ip();
    match errno {
        Errno::ECONNREFUSED if probe.expected == Expected::Rejected => Outcome::Found(Finding::Rejected).into(),
        Errno::ECONNREFUSED => Outcome::Found(Finding::Refused).into(),
        _ if is_unroutable && let Some(interface) = &probe.bound_to => {
            let reason = format!("{interface} has no route to {destination} ({errno})");
            match probe.expected {
                Expected::Rejected | Expected::Dropped => NotStarted::LeftOut(format!(
                    "what sockets bound to {interface} send over {} is not probed: {reason}, so nothing leaves",
                    probe.family()
                )),
                _ => Outcome::NotMade(reason).into(),
            }
        }
        _ if is_unroutable && link.is_none() && !probe.subject.calls_pod() => {
            let why = circumstances.link.err().unwrap_or_default();
            let reason = format!("the pod has no route to {destination} ({errno}). {why}");
            without_family(probe, circumstances, Outcome::NotMade(reason.trim_end().to_owned()))
        }
        errno => Outcome::Found(Finding::Unreachable(errno.to_string())).into(),
    }
}

/// What it means that a probe cannot be made over a family. Where the pod has no address of it, a policy holds without one.
fn without_family(probe: &Probe, circumstances: &Circumstances, outcome: Outcome) -> NotStarted {
    let family = probe.family();
    match outcome {
        Outcome::NotMade(reason) if probe.subject.is_locked() && circumstances.trial.unused.contains(&family) => {
            NotStarted::LeftOut(format!(
                "what the policies reject over {family} is not probed: the pod has no {family} address, so nothing leaves or \
                 arrives. {reason}"
            ))
        }
        outcome => outcome.into(),
    }
}

/// The socket of the client, with its owner.
fn opened(probe: &Probe, link: Option<&Link>) -> Result<OwnedFd, Outcome> {
    let open = || match probe.protocol {
        Transport::Tcp => open(probe.destination, SockType::Stream),
        Transport::Udp => open(probe.destination, SockType::Datagram),
        Transport::Icmp => echo::open_unprivileged(probe.family()),
    };
    let opened = match (probe.caller, link) {
        (Caller::Neighbour | Caller::Behind, Some(link)) => {
            let opened = link.far.run(open);
            opened.map_err(|error| Outcome::NotMade(error.to_string()))?
        }
        (Caller::Neighbour | Caller::Behind, None) => return Err(Outcome::NotMade("there is no link".to_owned())),
        (Caller::Process(owner), _) => run_as(owner, open).map_err(not_made(owner))?,
    };
    // A group that may not send echo requests.
    let opened = match (opened, probe.protocol, probe.caller, link) {
        (Err(_), Transport::Icmp, Caller::Process(owner), _) => {
            run_capable_as(owner, || echo::open_raw(probe.family())).map_err(not_made(owner))?
        }
        (Err(_), Transport::Icmp, _, Some(link)) => {
            let opened = link.far.run(|| echo::open_raw(probe.family()));
            opened.map_err(|error| Outcome::NotMade(error.to_string()))?
        }
        (opened, ..) => opened,
    };
    opened.map_err(|errno| {
        Outcome::NotMade(match (probe.protocol, errno) {
            (Transport::Icmp, Errno::EPERM) => {
                "sending an echo request takes CAP_NET_RAW, or a group within net.ipv4.ping_group_range: run as root"
                    .to_owned()
            }
            (_, errno) => format!("opening a socket: {errno}"),
        })
    })
}

/// Why nothing can be sent as this owner.
fn not_made(owner: Owner) -> impl FnOnce(Errno) -> Outcome {
    move |errno| {
        Outcome::NotMade(match errno {
            Errno::EPERM => {
                format!("acting as {owner} takes CAP_SETUID and CAP_SETGID: run as root, or as that user")
            }
            errno => format!("acting as {owner}: {errno}; maybe the user namespace has no such IDs"),
        })
    }
}

/// The link, if the probe can use it.
fn link_for<'a>(probe: &Probe, circumstances: &Circumstances<'a>) -> Result<Option<&'a Link>, Outcome> {
    let stand_in = |link: &'a Link| match probe.other_host().and_then(|address| link.stand_in(address)) {
        Some(Err(reason)) => Err(reason),
        Some(Ok(_)) | None => Ok(link),
    };
    let entry = |link: &'a Link| match (probe.caller, probe.source, probe.destination_behind()) {
        (Caller::Behind, Some(source), _) => link.entry(source.address).map(|()| link),
        (_, _, Some((_, address))) => link.entry(address).map(|()| link),
        _ => stand_in(link),
    };
    let usable = circumstances.link.and_then(|link| match link.unusable(probe.family()) {
        Some(reason) => Err(reason),
        None => entry(link),
    });
    match (probe.needs, usable) {
        (Needs::Impossible(reason), _) => Err(Outcome::NotMade(reason.to_owned())),
        (Needs::Link, Err(reason)) => Err(Outcome::NotMade(reason.to_owned())),
        (Needs::Route, Err(_)) => Ok(None),
        (Needs::Route | Needs::Link, Ok(link)) => Ok(Some(link)),
    }
}

/// Sets the options of a client's socket. The TTL keeps its packets from other hosts if a rule is missing: no router after
/// the pod forwards them.
fn prepare(socket: &OwnedFd, probe: &Probe) -> Result<(), Errno> {
    let hops: libc::c_int = match probe.caller {
        Caller::Behind => 2,
        Caller::Neighbour if probe.destination_behind().is_some() => 2,
        Caller::Process(_) | Caller::Neighbour => 1,
    };
    match probe.family() {
        Family::V4 => setsockopt(socket, sockopt::Ipv4Ttl, &hops)?,
        Family::V6 => setsockopt(socket, sockopt::Ipv6Ttl, &hops)?,
    }
    match probe.protocol {
        Transport::Tcp => reset_on_close(socket)?,
        Transport::Udp => socket_options::empty_datagrams_from_other_hosts(socket)?,
        Transport::Icmp => {}
    }
    if let (Caller::Process(_), Some(name)) = (probe.caller, &probe.bound_to) {
        setsockopt(socket, sockopt::BindToDevice, &OsString::from(name.as_str()))?;
    }
    if let Some(mark) = probe.mark() {
        setsockopt(socket, sockopt::Mark, &mark.get())?;
    }
    if probe.source.is_some_and(|source| source.mark.is_some()) {
        setsockopt(socket, sockopt::IpTransparent, &true)?;
    }
    Ok(())
}

/// The client of a connected socket. One that is not TCP sends its query or request.
fn client(socket: OwnedFd, probe: &Probe, id: u16) -> Result<Started, Errno> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let started = |client, local, sent: Result<(), Errno>| match sent {
        Ok(()) | Err(Errno::EPERM) => Ok(Started {
            client,
            local,
            is_rejected: sent.is_err(),
            reserved: None,
        }),
        Err(errno) => Err(errno),
    };
    match probe.protocol {
        Transport::Tcp => {
            let stream = TcpStream::from(socket);
            let local = stream.local_addr().map_err(errno)?;
            started(Client::Tcp(stream), Some(local), Ok(()))
        }
        Transport::Udp => {
            let socket = UdpSocket::from(socket);
            let local = socket.local_addr().map_err(errno)?;
            let sent = socket.send(&lookup::query(id)).map(drop).map_err(errno);
            started(Client::Udp(socket), Some(local), sent)
        }
        Transport::Icmp => {
            let echo = Echo::new(socket, probe.destination.ip());
            let sent = echo.send();
            started(Client::Echo(echo), None, sent)
        }
    }
}
