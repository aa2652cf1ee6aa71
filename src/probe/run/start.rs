//! The start of a probe: the client's socket, with the owner, source and interface that the probe asks for.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockType, SockaddrStorage, bind, connect, setsockopt, sockopt};

use super::attempt::{Circumstances, Client};
use super::echo::{self, Echo};
use super::invalid::InvalidPacket;
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
}

/// Opens the socket of the client, and connects it or sends the query. The error is the outcome if that fails.
pub fn start(probe: &Probe, circumstances: &Circumstances) -> Result<Started, Outcome> {
    let link = link_for(probe, circumstances)?;
    if let Some((at, error)) = circumstances.listeners.failure(probe) {
        return Err(Outcome::NotMade(format!(
            "listening on {at}, in place of the proxy or of the destination, failed: {error}"
        )));
    }
    if let (Expected::Dropped, Some(link)) = (probe.expected, link) {
        let packet = InvalidPacket::send(link, probe.destination, circumstances.trial.ends(probe.family()));
        return packet.map(|packet| Started {
            client: Client::Packet(packet),
            local: None,
            is_rejected: false,
        });
    }
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
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0)))
        .map_err(|errno| Outcome::Found(Finding::NoSource(format!("{address}: {errno}"))))?;
    let connected = match connect(socket.as_raw_fd(), &SockaddrStorage::from(probe.destination)) {
        Ok(()) | Err(Errno::EINPROGRESS) => client(socket, probe),
        Err(errno) => Err(errno),
    };
    connected.map_err(|errno| match errno {
        Errno::ECONNREFUSED if probe.expected == Expected::Rejected => Outcome::Found(Finding::Rejected),
        Errno::ECONNREFUSED => Outcome::Found(Finding::Refused),
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL if probe.bound_to.is_some() => {
            let interface = probe.bound_to.as_ref().map_or("", |name| name.as_str());
            let destination = probe.destination.ip();
            Outcome::NotMade(format!("{interface} has no route to {destination} ({errno})"))
        }
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL
            if link.is_none() && !probe.subject.calls_pod() =>
        {
            let destination = probe.destination.ip();
            let why = circumstances.link.err().unwrap_or_default();
            Outcome::NotMade(
                format!("the pod has no route to {destination} ({errno}). {why}")
                    .trim_end()
                    .to_owned(),
            )
        }
        errno => Outcome::Found(Finding::Unreachable(errno.to_string())),
    })
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
    let entry = |link: &'a Link| match (probe.caller, probe.source) {
        (Caller::Behind, Some(source)) => link.entry(source.address).map(|()| link),
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

/// Sets the options of a client's socket. The TTL of 1 keeps its packets from other hosts if a rule is missing.
fn prepare(socket: &OwnedFd, probe: &Probe) -> Result<(), Errno> {
    const HOPS: libc::c_int = 1;
    match probe.family() {
        Family::V4 => setsockopt(socket, sockopt::Ipv4Ttl, &HOPS)?,
        Family::V6 => setsockopt(socket, sockopt::Ipv6Ttl, &HOPS)?,
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
fn client(socket: OwnedFd, probe: &Probe) -> Result<Started, Errno> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let started = |client, local, sent: Result<(), Errno>| match sent {
        Ok(()) | Err(Errno::EPERM) => Ok(Started {
            client,
            local,
            is_rejected: sent.is_err(),
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
            let sent = socket.send(&lookup::query()).map(drop).map_err(errno);
            started(Client::Udp(socket), Some(local), sent)
        }
        Transport::Icmp => {
            let echo = Echo::new(socket, probe.destination.ip());
            let sent = echo.send();
            started(Client::Echo(echo), None, sent)
        }
    }
}
