//! The priorities at which netfilter calls its own hooks and the tables of iptables (`enum nf_ip_hook_priorities`,
//! linux/netfilter_ipv4.h; the same for IPv6).

use super::ChainType;

/// `NF_IP_PRI_RAW`.
pub const RAW: i32 = -300;
/// `NF_IP_PRI_CONNTRACK`: connection tracking sees the packet.
pub const CONNTRACK: i32 = -200;
/// `NF_IP_PRI_MANGLE`.
pub const MANGLE: i32 = -150;
/// `NF_IP_PRI_NAT_DST`: destinations are translated. All NAT happens here; the priorities of NAT chains of nf_tables are
/// an order among themselves.
pub const NAT: i32 = -100;
/// `NF_IP_PRI_FILTER`.
pub const FILTER: i32 = 0;
/// `NF_IP_PRI_SECURITY`.
pub const SECURITY: i32 = 50;
/// `NF_IP_PRI_NAT_SRC`: sources are translated.
pub const NAT_SOURCE: i32 = 100;

/// The priority of the table of iptables for this purpose.
pub fn in_iptables(kind: ChainType) -> i32 {
    match kind {
        ChainType::Raw => RAW,
        ChainType::Mangle => MANGLE,
        ChainType::Nat => NAT,
        ChainType::Filter => FILTER,
    }
}
