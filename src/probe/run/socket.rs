//! Sockets for probes.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

/// Opens a non-blocking socket for the family of an address.
pub fn open(address: SocketAddr, kind: SockType) -> Result<OwnedFd, Errno> {
    let domain = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    socket(domain, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// Makes closing reset a connection, so that no socket remains in TIME_WAIT on a port of the proxy.
pub fn reset_on_close(stream: &impl std::os::fd::AsFd) -> Result<(), Errno> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(stream, sockopt::Linger, &linger)
}
