//! The priorities at which netfilter calls its own hooks and the tables of iptables (`enum nf_ip_hook_priorities`,
//! linux/netfilter_ipv4.h; the same for IPv6).

use super::{ChainType, Hook};

/// `NF_IP_PRI_RAW`.
pub const RAW: i32 = -300;
/// Of our chain of type filter that packets meet first: what it drops changes no connection.
pub const EARLY_FILTER: i32 = RAW - 1;
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
pub fn in_iptables(kind: ChainType, hook: Hook) -> i32 {
    match (kind, hook) {
        (ChainType::Raw, _) | (ChainType::Filter, Hook::Prerouting) => RAW,
        (ChainType::Mangle, _) | (ChainType::Filter, Hook::Postrouting) => MANGLE,
        (ChainType::Nat, _) => NAT,
        (ChainType::Filter, _) => FILTER,
    }
}
