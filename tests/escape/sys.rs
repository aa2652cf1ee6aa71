//! Sockets as an attacker makes them: any family, type, protocol and option.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockaddrStorage};
use sidetrack::types::Family;

/// A socket that never blocks.
#[expect(unsafe_code, reason = "nix does not know every protocol")]
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer; the descriptor is new, with no other owner.
    unsafe {
        let descriptor = libc::socket(domain, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// A socket of an IP family.
pub fn internet(family: Family, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    socket(domain(family), kind, protocol)
}

pub fn domain(family: Family) -> i32 {
    match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    }
}

/// Sets an option whose value is a number.
pub fn set(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(socket, level, name, &value.to_ne_bytes())
}

/// Sets an option.
#[expect(unsafe_code, reason = "nix does not know every option")]
pub fn set_bytes(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the value lives through the call, which reads as much of it as its length says.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    succeeded(result)
}

/// Binds a socket to an interface: this needs no privilege.
pub fn bind_to_device(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    set_bytes(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface.as_bytes())
}

pub fn bind(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(to))?)
}

pub fn connect(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    Ok(nix::sys::socket::connect(
        socket.as_raw_fd(),
        &SockaddrStorage::from(to),
    )?)
}

pub fn send_to(socket: &OwnedFd, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
    send_with(socket, bytes, to, MsgFlags::empty())
}

pub fn send_with(socket: &OwnedFd, bytes: &[u8], to: SocketAddr, flags: MsgFlags) -> io::Result<()> {
    let to = SockaddrStorage::from(to);
    nix::sys::socket::sendto(socket.as_raw_fd(), bytes, &to, flags | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Sends by a connected socket.
pub fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    nix::sys::socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Connects a stream. A connection that is not answered soon is given up: its first packet has been sent.
pub fn connect_stream(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    connect_within(socket, to, ANSWER_TIMEOUT)
}

/// Connects a stream where more depends on the answer than the first packet.
pub fn connect_patiently(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    connect_within(socket, to, PATIENCE)
}

fn connect_within(socket: &OwnedFd, to: SocketAddr, timeout: Duration) -> io::Result<()> {
    match connect(socket, to) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        result => return result,
    }
    wait_within(socket, PollFlags::POLLOUT, timeout)?;
    let error = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::SocketError)?;
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// How long an answer may take; on the links of the tests it is there at once.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);
/// How long it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// Waits until a socket is ready.
pub fn wait(socket: &OwnedFd, flags: PollFlags) -> io::Result<()> {
    wait_within(socket, flags, PATIENCE)
}

fn wait_within(socket: &OwnedFd, flags: PollFlags, timeout: Duration) -> io::Result<()> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut waiting = [PollFd::new(std::os::fd::AsFd::as_fd(socket), flags)];
    match poll(&mut waiting, timeout)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Sends a frame by an interface, past the IP stack: needs CAP_NET_RAW.
#[expect(unsafe_code, reason = "nix makes no address of a link from parts")]
pub fn send_frame(interface: u32, frame: &[u8]) -> io::Result<()> {
    let packets = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    // SAFETY: all bytes zero are a valid address. It lives through the call, which reads as much of it and of the frame
    // as their lengths say.
    let sent = unsafe {
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = interface as i32;
        to.sll_halen = 6;
        libc::sendto(
            packets.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub fn succeeded(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
