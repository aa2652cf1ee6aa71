//! The properties of the packet that matches see.

use super::{At, Run};
use crate::ruleset::netfilter::{state, status};
use crate::ruleset::{TCP_SYN, Tracking, Value, View};
use crate::types::{InterfaceName, IpProtocol, Port};

/// The types of the packets of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

/// What matches on a port see, which read the first bytes of any header.
pub(super) fn port(port: Option<Port>) -> Value<Port> {
    port.map_or(Value::Unknown, Value::Is)
}

impl Run<'_, '_> {
    /// The properties of the packet that matches see at a hook.
    pub(super) fn view<'v>(&'v self, at: &'v At) -> View<'v> {
        fn interface(of: &Value<InterfaceName>) -> Value<&InterfaceName> {
            match of {
                Value::Is(name) => Value::Is(name),
                Value::IsNot(name) => Value::IsNot(name),
                Value::Missing => Value::Missing,
                Value::Unknown => Value::Unknown,
            }
        }
        let protocol = self.packet.protocol;
        let is_tracked = self.has_connection() && self.is_tracked;
        View {
            family: Value::Is(self.family()),
            protocol: Value::Is(protocol),
            icmp_type: match protocol {
                IpProtocol::ICMP => Value::Is(ECHO_REQUEST),
                IpProtocol::ICMPV6 => Value::Is(ECHO_REQUEST_V6),
                _ => Value::Missing,
            },
            in_interface: interface(&at.in_interface),
            out_interface: interface(&at.out_interface),
            source: self.source,
            destination: Value::Is(self.destination),
            source_port: self.source_port,
            destination_port: port(self.port),
            uid: at.owner.map(|(uid, _)| uid),
            gid: at.owner.map(|(_, gid)| gid),
            cgroup: at.owner.map(|_| self.packet.origin.cgroup()),
            mark: Value::Is(self.mark),
            conntrack_mark: match is_tracked {
                true => Value::Is(self.connection.mark),
                false => Value::Missing,
            },
            tracking: match self.is_excluded {
                true => Value::Missing,
                false => Value::Is(self.packet.tracking),
            },
            tcp_flags: match self.packet.tracking {
                _ if protocol != IpProtocol::TCP => Value::Missing,
                Tracking::New => Value::Is(TCP_SYN),
                Tracking::Established | Tracking::Related | Tracking::Invalid => Value::Unknown,
            },
            conntrack_state: Value::Is(self.conntrack_state()),
            conntrack_status: match self.packet.tracking {
                _ if !is_tracked => Value::Missing,
                Tracking::New => Value::Is(self.conntrack_status()),
                Tracking::Established | Tracking::Related | Tracking::Invalid => Value::Unknown,
            },
            conntrack_direction: match is_tracked {
                true => Value::Is(0),
                false => Value::Missing,
            },
            source_type: match self.source {
                Value::Is(source) => self.pod.address_type(source),
                Value::IsNot(_) | Value::Missing | Value::Unknown => Value::Unknown,
            },
            destination_type: self.pod.address_type(self.destination),
            // The packets of a simulation have no forged sources.
            reverse_path: Value::Is(1),
        }
    }

    fn conntrack_state(&self) -> u32 {
        if self.is_excluded {
            return state::UNTRACKED;
        }
        if !self.is_tracked {
            return state::INVALID;
        }
        let of_packet = match self.packet.tracking {
            Tracking::New => state::NEW,
            Tracking::Established => state::ESTABLISHED,
            Tracking::Related => state::RELATED,
            Tracking::Invalid => return state::INVALID,
        };
        let destination = match self.is_destination_changed() {
            true => state::DNAT,
            false => 0,
        };
        let source = self.connection.source_translation.map_or(0, |_| state::SNAT);
        of_packet | destination | source
    }

    /// Whether a translation leads elsewhere. One to where the packet goes anyway leaves no trace in the connection
    /// (`nf_nat_setup_info`, net/netfilter/nf_nat_core.c).
    fn is_destination_changed(&self) -> bool {
        let original = (self.packet.destination, self.packet.destination_port);
        let translation = self.connection.translation;
        translation.is_some_and(|(_, destination, port)| (destination, port) != original)
    }

    fn conntrack_status(&self) -> u32 {
        let connection = &self.connection;
        let bits = [
            (self.is_destination_changed(), status::DST_NAT),
            (connection.source_translation.is_some(), status::SRC_NAT),
            (connection.is_decided, status::DST_NAT_DONE),
            (connection.is_source_decided, status::SRC_NAT_DONE),
            (connection.is_confirmed, status::CONFIRMED),
        ];
        bits.into_iter()
            .filter(|(is_set, _)| *is_set)
            .fold(0, |all, (_, bit)| all | bit)
    }
}
