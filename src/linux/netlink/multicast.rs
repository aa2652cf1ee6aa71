//! Messages that the kernel sends to a multicast group by itself, such as those about traced packets.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{NetlinkAddr, SockProtocol, bind, setsockopt};

use super::{Answer, BUFFER_LENGTH, KernelWire, NetlinkError, Wire as _, answers, retry};

/// A socket in a multicast group, in the network namespace of the thread that opened it.
pub struct Multicast {
    wire: KernelWire,
}

/// The result of reading a datagram.
#[derive(Debug)]
pub enum Received {
    /// Messages: their types and payloads.
    Messages(Vec<(u16, Vec<u8>)>),
    /// No datagram is queued.
    Nothing,
    /// The buffer was full, and the kernel discarded messages after those that are queued.
    Discarded,
}

impl Multicast {
    /// Joins group `group`, a number up to 32. Exceeding `net.core.rmem_max` needs CAP_NET_ADMIN in the initial user
    /// namespace; else the buffer is smaller.
    ///
    /// # Errors
    /// The kernel does not support the protocol, or does not permit joining the group.
    pub fn join(protocol: SockProtocol, group: u32, buffer_length: usize) -> Result<Self, NetlinkError> {
        let wire = KernelWire::open(protocol).map_err(NetlinkError::Open)?;
        let forced =
            setsockopt(&wire.0, RcvBufForce, &buffer_length).or_else(|_| setsockopt(&wire.0, RcvBuf, &buffer_length));
        if let Err(errno) = forced {
            tracing::debug!(buffer_length, %errno, "cannot enlarge the netlink receive buffer");
        }
        let groups = 1_u32 << group.saturating_sub(1);
        bind(wire.0.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(NetlinkError::Open)?;
        Ok(Self { wire })
    }

    /// Reads the next datagram.
    ///
    /// # Errors
    /// Receiving failed, or the datagram is malformed.
    pub fn receive(&mut self) -> Result<Received, NetlinkError> {
        let mut buffer = [0; BUFFER_LENGTH];
        let length = match retry(|| self.wire.receive(&mut buffer)) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(Errno::ENOBUFS) => return Ok(Received::Discarded),
            Err(errno) => return Err(NetlinkError::Receive(errno)),
        };
        let messages = answers(&buffer[..length])?
            .into_iter()
            .filter_map(|answer| match answer {
                Answer::Message { kind, payload, .. } => Some((kind, payload)),
                Answer::Interrupted { .. } | Answer::Status { .. } => None,
            });
        Ok(Received::Messages(messages.collect()))
    }
}

impl AsFd for Multicast {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.0.as_fd()
    }
}
