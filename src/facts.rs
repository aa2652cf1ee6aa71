//! What was observed of the network namespace: plain data, which a test can write down.

/// Everything that a plan depends on besides the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the namespace can do with IPv6.
    pub ipv6: Ipv6,
}

/// The facts of an ordinary pod; what a dry run assumes where it can observe nothing.
impl Default for Facts {
    fn default() -> Self {
        Self { ipv6: Ipv6::Usable }
    }
}

/// What a network namespace can do with IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// The loopback interface takes IPv6 addresses.
    Usable,
    /// Switched off on the loopback interface (`net.ipv6.conf.lo.disable_ipv6`).
    OffOnLoopback {
        /// Whether another interface has an IPv6 address all the same.
        used_elsewhere: bool,
    },
    /// The kernel has no IPv6 (`ipv6.disable=1`, or not built in).
    Absent,
}
