//! Targets: `struct xt_…_target_info` of linux/netfilter, and the ranges of linux/netfilter/nf_nat.h.

use std::net::{IpAddr, Ipv4Addr};

use super::matches::printable;
use super::{Extension, chosen_address, chosen_port};
use crate::ruleset::netfilter::{Action, Choice, MarkChange};
use crate::ruleset::{self, Zone};
use crate::types::{Family, Port};

/// Targets without effect on the path of a packet.
const WITHOUT_EFFECT: [&str; 15] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNSECMARK",
    "DSCP",
    "HL",
    "LED",
    "LOG",
    "NFLOG",
    "SECMARK",
    "TCPMSS",
    "TOS",
    "TRACE",
    "TTL",
    "ULOG",
];

/// Decodes a target.
pub fn decode(extension: &Extension) -> Action {
    let name = printable(extension.name);
    if WITHOUT_EFFECT.contains(&extension.name) {
        return Action::Nothing(name);
    }
    let action = match (extension.name, extension.revision) {
        ("REJECT", 0) => Some(Action::Reject),
        ("NFQUEUE", _) => Some(Action::Queue),
        ("NOTRACK", _) => Some(Action::Untrack),
        ("MARK", 2) => mark(extension),
        ("CONNMARK", 1 | 2) => connection_mark(extension),
        ("CT", 0..=2) => conntrack(extension),
        ("TPROXY", 0 | 1) => tproxy(extension),
        ("REDIRECT", 0) => range(extension, 0).map(|range| redirect(range.port)),
        ("DNAT", revision) => range(extension, revision).map(|range| Action::Dnat(range.address, range.port)),
        ("SNAT", revision) => range(extension, revision).map(|range| Action::Snat(range.address, range.port)),
        ("MASQUERADE", 0) => range(extension, 0).map(|range| Action::Snat(Choice::Any, range.port)),
        _ => None,
    };
    action.unwrap_or_else(|| Action::Unreadable(format!("target {name}")))
}

/// A redirect to this port.
pub fn redirect(port: Choice<Port>) -> Action {
    match port {
        Choice::One(port) => Action::Planned(ruleset::Action::Redirect(port)),
        port => Action::Redirect(port),
    }
}

/// `struct xt_mark_tginfo2`: `(mark & ~mask) ^ value`.
fn mark(extension: &Extension) -> Option<Action> {
    let (xor, mask) = (extension.number(0)?, extension.number(4)?);
    Some(Action::Mark(MarkChange {
        of_connection: false,
        keep: !mask,
        copy: 0,
        xor,
    }))
}

/// `struct xt_connmark_tginfo1` and `2` (`connmark_tg_shift`, net/netfilter/xt_connmark.c).
fn connection_mark(extension: &Extension) -> Option<Action> {
    const SET: u8 = 0;
    const SAVE: u8 = 1;
    const RESTORE: u8 = 2;
    let (value, connection_mask, packet_mask) = (extension.number(0)?, extension.number(4)?, extension.number(8)?);
    let (shift, mode) = match extension.revision {
        2 => (extension.byte(13)?, extension.byte(14)?),
        _ => (0, extension.byte(12)?),
    };
    if shift != 0 {
        return None;
    }
    Some(Action::Mark(match mode {
        SET => MarkChange {
            of_connection: true,
            keep: !connection_mask,
            copy: 0,
            xor: value,
        },
        SAVE => MarkChange {
            of_connection: true,
            keep: !connection_mask,
            copy: packet_mask,
            xor: 0,
        },
        RESTORE => MarkChange {
            of_connection: false,
            keep: !packet_mask,
            copy: connection_mask,
            xor: 0,
        },
        _ => return None,
    }))
}

/// `struct xt_ct_target_info` and `struct xt_ct_target_info_v1`.
fn conntrack(extension: &Extension) -> Option<Action> {
    const NOTRACK: u16 = 1;
    let (flags, zone) = (extension.short(0)?, extension.short(2)?);
    Some(match (flags, zone) {
        (flags, _) if flags & NOTRACK != 0 => Action::Untrack,
        // It sets a helper or events.
        (0, 0) => Action::Nothing("CT".to_owned()),
        (0, zone) => Action::Planned(ruleset::Action::SetZone(Zone(zone))),
        // A zone for one direction, or by mark.
        _ => Action::Nothing("CT --zone".to_owned()),
    })
}

/// `struct xt_tproxy_target_info` and `struct xt_tproxy_target_info_v1`: `(mark & ~mask) ^ value`.
fn tproxy(extension: &Extension) -> Option<Action> {
    const IPV4_PORT: usize = 12;
    const PORT: usize = 24;
    let (mask, xor) = (extension.number(0)?, extension.number(4)?);
    let port = extension.network_short(if extension.revision == 0 { IPV4_PORT } else { PORT })?;
    Some(Action::Tproxy {
        port: Port::new(port).map_or(Choice::Keep, Choice::One),
        mark: MarkChange {
            of_connection: false,
            keep: !mask,
            copy: 0,
            xor,
        },
        is_final: true,
    })
}

/// A translation's range.
struct Range {
    address: Choice<IpAddr>,
    port: Choice<Port>,
}

/// `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED` and others.
const MAPS_ADDRESSES: u32 = 1;
const MAPS_PORTS: u32 = 2;
const RANDOM_PORTS: u32 = 4 | 16;
const OFFSET_OR_NETMAP: u32 = 32 | 64;

/// `struct nf_nat_ipv4_multi_range_compat` for targets of IPv4 in revision 0; `struct nf_nat_range` or
/// `struct nf_nat_range2` otherwise.
fn range(extension: &Extension, revision: u32) -> Option<Range> {
    let is_compat = revision == 0 && extension.family == Family::V4;
    let (flags, addresses, ports) = if is_compat {
        let address = |at: usize| {
            Some(IpAddr::from(Ipv4Addr::from(
                *extension.data.get(at..)?.first_chunk::<4>()?,
            )))
        };
        let ports = (extension.network_short(16)?, extension.network_short(18)?);
        (extension.number(4)?, (address(8)?, address(12)?), ports)
    } else {
        let ports = (extension.network_short(36)?, extension.network_short(38)?);
        (
            extension.number(0)?,
            (extension.address(4)?, extension.address(20)?),
            ports,
        )
    };
    if flags & OFFSET_OR_NETMAP != 0 || is_compat && extension.number(0)? != 1 {
        return None;
    }
    Some(Range {
        address: chosen_address((flags & MAPS_ADDRESSES != 0).then_some(addresses)),
        port: match flags & RANDOM_PORTS {
            0 => chosen_port((flags & MAPS_PORTS != 0).then_some(ports)),
            _ => Choice::Any,
        },
    })
}
