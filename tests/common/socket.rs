//! Sockets that the standard library cannot make: bound before they connect, or for IPv6 alone.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, listen, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use sidetrack::types::Family;

/// How long anything may take; nothing here waits for longer than a moment unless it is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A TCP listener; on an IPv6 address, for IPv6 alone.
pub fn listener(on: SocketAddr) -> io::Result<TcpListener> {
    let socket = new(family(on), SockType::Stream)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    claim(&socket, on)?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

/// A UDP socket that anybody may send to.
pub fn receiver(on: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new(family(on), SockType::Datagram)?;
    claim(&socket, on)?;
    Ok(socket.into())
}

/// A port on every address of one family.
pub fn any(family: Family, port: u16) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    (address, port).into()
}

/// A TCP connection, from `source` if there is one.
pub fn stream(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::from(connected(SockType::Stream, source, to)?);
    patient(&stream)?;
    Ok(stream)
}

/// Makes reads that get no answer fail.
pub fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))
}

/// A connected UDP socket, from `source` if there is one: it takes answers from `to` alone.
pub fn sender(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<UdpSocket> {
    let sender = UdpSocket::from(connected(SockType::Datagram, source, to)?);
    sender.set_read_timeout(Some(PATIENCE))?;
    Ok(sender)
}

/// A UDP socket with an address that may belong to another host.
pub fn foreign_sender(from: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new(family(from), SockType::Datagram)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    claim(&socket, from)?;
    Ok(socket.into())
}

/// A connected UDP socket that is bound to an interface.
pub fn bound_sender(interface: &str, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new(family(to), SockType::Datagram)?;
    setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

/// A TCP connection of a socket that is bound to an interface.
pub fn bound_stream(interface: &str, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = new(family(to), SockType::Stream)?;
    setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
    let timeout = TimeVal::milliseconds(timeout.as_millis() as i64);
    setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

/// Where the client of an accepted connection wanted to go, before any rule changed it.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    let original = match local {
        SocketAddr::V4(_) => getsockopt(stream, sockopt::OriginalDst).map(|address| {
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            SocketAddr::from((ip, u16::from_be(address.sin_port)))
        }),
        SocketAddr::V6(_) => getsockopt(stream, sockopt::Ip6tOriginalDst).map(|address| {
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            SocketAddr::from((ip, u16::from_be(address.sin6_port)))
        }),
    };
    match original {
        // No rule at all in this namespace, so connections are not tracked.
        Err(Errno::ENOENT | Errno::ENOPROTOOPT) => Ok(local),
        original => Ok(original?),
    }
}

thread_local! {
    static MARK: Cell<u32> = const { Cell::new(0) };
}

/// Marks the sockets with which this thread connects from now on, unless the mark is 0. Those that it listens on stay as
/// they are, as with a proxy that marks its upstream connections.
pub fn mark_those_of_this_thread(mark: u32) {
    MARK.set(mark);
}

fn new(family: Family, kind: SockType) -> io::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let socket = socket(domain, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if family == Family::V6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(socket)
}

/// Binds a socket. The same address may have been in use a moment ago: a process that another thread forked meanwhile
/// has a copy of the socket that was closed here, until it executes its program. No event reports that.
fn claim(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match bind(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
            Err(Errno::EADDRINUSE) if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(1)),
            result => return Ok(result?),
        }
    }
}

fn family(address: SocketAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn connected(kind: SockType, source: Option<SocketAddr>, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new(family(to), kind)?;
    if MARK.get() != 0 {
        setsockopt(&socket, sockopt::Mark, &MARK.get())?;
    }
    // This limits connect() too.
    setsockopt(
        &socket,
        sockopt::SendTimeout,
        &TimeVal::seconds(PATIENCE.as_secs() as i64),
    )?;
    if let Some(source) = source {
        claim(&socket, source)?;
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket)
}
