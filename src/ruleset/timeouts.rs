//! Conntrack timeouts of captured TCP connections that are being closed.
//!
//! When a conntrack entry expires, the NAT of its connection is lost, and the connection breaks.

use crate::types::Timeout;

/// The name of the object that holds the timeouts in our table.
pub const TIMEOUTS: &str = "half_closed";

/// A conntrack state of a TCP connection (`enum tcp_conntrack`,
/// linux/netfilter/nf_conntrack_tcp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// One side has closed its half, and the other may send for as long as it wants.
    CloseWait,
    /// Both sides have closed their halves, and the end of the second is not acknowledged.
    LastAck,
}

impl TcpState {
    /// The states whose timeouts sidetrack sets.
    pub const ALL: [Self; 2] = [Self::CloseWait, Self::LastAck];

    /// The state's name in nft(8).
    pub fn name(self) -> &'static str {
        match self {
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
        }
    }

    /// The sysctl of the state's timeout (Documentation/networking/nf_conntrack-sysctl.rst).
    pub fn setting(self) -> String {
        format!("net.netfilter.nf_conntrack_tcp_timeout_{}", self.name())
    }
}

/// The timeouts of captured connections. Other states keep the kernel's timeouts.
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
