//! The transport of netlink: datagrams to and from the kernel.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::sockopt::{SndBuf, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt, socket,
};

use crate::linux::socket_options;

/// The default size of a socket's send buffer in bytes, on any system (`net.core.wmem_default`).
pub const DEFAULT_SEND_BUFFER: usize = 100 * 1024;

/// A transport of datagrams to and from the kernel.
pub trait Wire: Send {
    /// Sends a datagram.
    ///
    /// # Errors
    /// It was not sent.
    fn send(&mut self, datagram: &[u8]) -> nix::Result<()>;

    /// Receives a datagram and returns its length.
    ///
    /// # Errors
    /// EAGAIN: there is none. With any other error, queued datagrams may be lost.
    fn receive(&mut self, buffer: &mut [u8]) -> nix::Result<usize>;
}

/// A netlink socket of the kernel, in the network namespace of the thread that opens it.
pub struct KernelWire(pub(super) OwnedFd);

impl KernelWire {
    /// Opens a socket for one protocol.
    ///
    /// # Errors
    /// The kernel does not support the protocol, or denies it.
    pub fn open(protocol: SockProtocol) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        /// Extended error reports, without the request in them; strict checking of dump requests.
        /// Since Linux 4.12, 4.3, 4.20.
        const OPTIONS: [libc::c_int; 3] = [
            libc::NETLINK_EXT_ACK,
            libc::NETLINK_CAP_ACK,
            libc::NETLINK_GET_STRICT_CHK,
        ];
        // The last option is for rtnetlink alone.
        let count = if protocol == SockProtocol::NetlinkRoute { 3 } else { 2 };
        for option in &OPTIONS[..count] {
            if let Err(errno) = socket_options::switch_on(&fd, libc::SOL_NETLINK, *option) {
                tracing::debug!(option, %errno, "the kernel does not support this netlink socket option");
            }
        }
        Ok(Self(fd))
    }

    /// Enlarges the send buffer. Exceeding `net.core.wmem_max` needs CAP_NET_ADMIN in the initial user namespace.
    /// If the buffer is still too small, sending fails.
    fn make_room(&self, length: usize) {
        let wanted = length * 2;
        let forced = setsockopt(&self.0, SndBufForce, &wanted).or_else(|_| setsockopt(&self.0, SndBuf, &wanted));
        if let Err(errno) = forced {
            tracing::debug!(wanted, %errno, "cannot enlarge the netlink send buffer");
        }
    }
}

impl Wire for KernelWire {
    fn send(&mut self, datagram: &[u8]) -> nix::Result<()> {
        if datagram.len() > DEFAULT_SEND_BUFFER {
            self.make_room(datagram.len());
        }
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), datagram, &kernel, MsgFlags::empty()).map(drop)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
        loop {
            let (length, sender) = recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), buffer)?;
            if sender.is_none_or(|sender| sender.pid() == 0) {
                return Ok(length);
            }
        }
    }
}
