//! How long connection tracking remembers a captured TCP connection that is being closed.
//!
//! With an entry of conntrack goes the translation of the connection's addresses, and the connection with it.

use crate::types::Timeout;

/// The name of the object that holds the timeouts in our table.
pub const TIMEOUTS: &str = "half_closed";

/// A state of a TCP connection, as conntrack tells them apart (`enum tcp_conntrack`,
/// linux/netfilter/nf_conntrack_tcp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// One side has closed its half, and the other may send for as long as it wants.
    CloseWait,
    /// Both sides have closed their halves, and the end of the second is not acknowledged.
    LastAck,
}

impl TcpState {
    /// Each of those that have a timeout of ours.
    pub const ALL: [Self; 2] = [Self::CloseWait, Self::LastAck];

    /// Its name in nft(8).
    pub fn name(self) -> &'static str {
        match self {
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
        }
    }

    /// The kernel's setting of its timeout (Documentation/networking/nf_conntrack-sysctl.rst).
    pub fn setting(self) -> String {
        format!("net.netfilter.nf_conntrack_tcp_timeout_{}", self.name())
    }
}

/// The timeouts of captured connections. What they do not name is as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// In the state [`TcpState::CloseWait`].
    pub close_wait: Timeout,
    /// In the state [`TcpState::LastAck`].
    pub last_ack: Timeout,
}

impl Timeouts {
    /// The timeout in a state.
    pub fn of(&self, state: TcpState) -> Timeout {
        match state {
            TcpState::CloseWait => self.close_wait,
            TcpState::LastAck => self.last_ack,
        }
    }
}
