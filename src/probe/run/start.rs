//! The start of a probe: the client's socket, with the owner, source and interface that the probe asks for.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockType, SockaddrStorage, bind, connect, setsockopt, sockopt};

use super::attempt::{Circumstances, Client};
use super::invalid::InvalidPacket;
use super::link::Link;
use super::lookup;
use super::owner::run_as;
use super::socket::{open, reset_on_close};
use crate::linux::route::SELECTED_TOS;
use crate::linux::socket_options;
use crate::probe::{Caller, Expected, Finding, Needs, Outcome, Probe};
use crate::ruleset::Protocol;
use crate::types::Family;

/// Opens the socket of the client, and connects it or sends the query. The error is the outcome if that fails.
pub fn start(probe: &Probe, circumstances: &Circumstances) -> Result<(Client, Option<SocketAddr>), Outcome> {
    let link = link_for(probe, circumstances)?;
    if let Some((at, error)) = circumstances.listeners.failure(probe) {
        return Err(Outcome::NotMade(format!(
            "listening on {at}, in place of the proxy or of the destination, failed: {error}"
        )));
    }
    if let (Expected::Dropped, Some(link)) = (probe.expected, link) {
        let packet = InvalidPacket::send(link, probe.destination, circumstances.trial.ends(probe.family()));
        return packet.map(|packet| (Client::Packet(packet), None));
    }
    let kind = match probe.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let opened = match (probe.caller, link) {
        (Caller::Neighbour, Some(link)) => {
            let opened = link.far.run(|| open(probe.destination, kind));
            opened.map_err(|error| Outcome::NotMade(error.to_string()))?
        }
        (Caller::Neighbour, None) => return Err(Outcome::NotMade("there is no link".to_owned())),
        (Caller::Process(owner), _) => run_as(owner, || open(probe.destination, kind)).map_err(|errno| {
            Outcome::NotMade(match errno {
                Errno::EPERM => {
                    format!("acting as {owner} takes CAP_SETUID and CAP_SETGID: run as root, or as that user")
                }
                errno => format!("acting as {owner}: {errno}; maybe the user namespace has no such IDs"),
            })
        })?,
    };
    let socket = opened.map_err(|errno| Outcome::NotMade(format!("opening a socket: {errno}")))?;
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
    let stand_in_source = stand_in.filter(IpAddr::is_ipv6).unwrap_or(any);
    let address = probe.source.map_or(stand_in_source, |source| source.address);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0)))
        .map_err(|errno| Outcome::Found(Finding::NoSource(format!("{address}: {errno}"))))?;
    let connected = match connect(socket.as_raw_fd(), &SockaddrStorage::from(probe.destination)) {
        Ok(()) | Err(Errno::EINPROGRESS) => client(socket, probe.protocol),
        Err(errno) => Err(errno),
    };
    let connected = connected.map(|(client, local)| (client, Some(local)));
    connected.map_err(|errno| match errno {
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

/// The link, if the probe can use it.
fn link_for<'a>(probe: &Probe, circumstances: &Circumstances<'a>) -> Result<Option<&'a Link>, Outcome> {
    let stand_in = |link: &'a Link| match probe.other_host().and_then(|address| link.stand_in(address)) {
        Some(Err(reason)) => Err(reason),
        Some(Ok(_)) | None => Ok(link),
    };
    let usable = circumstances.link.and_then(|link| match link.unusable(probe.family()) {
        Some(reason) => Err(reason),
        None => stand_in(link),
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
        Protocol::Tcp => reset_on_close(socket)?,
        Protocol::Udp => socket_options::empty_datagrams_from_other_hosts(socket)?,
    }
    if let Some(name) = &probe.bound_to {
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

/// The client of a connected socket, and its address. A UDP client sends its query.
fn client(socket: OwnedFd, protocol: Protocol) -> Result<(Client, SocketAddr), Errno> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    match protocol {
        Protocol::Tcp => {
            let stream = TcpStream::from(socket);
            let local = stream.local_addr().map_err(errno)?;
            Ok((Client::Tcp(stream), local))
        }
        Protocol::Udp => {
            let socket = UdpSocket::from(socket);
            let local = socket.local_addr().map_err(errno)?;
            socket.send(&lookup::query()).map_err(errno)?;
            Ok((Client::Udp(socket), local))
        }
    }
}
