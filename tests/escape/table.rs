//! Every attack: by whom, over what, and which way to lock it in it escapes.

use std::io;

use caps::Capability;
use sidetrack::types::Family;

use crate::attacks::{admin, earlier, plain, processes, raw, uring};
use crate::column::Column;
use crate::common::Owner;
use crate::lab::Stage;

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A user without capabilities.
    Nobody,
    /// Root without capabilities.
    Root,
    /// A user with NET_RAW.
    NetRaw,
    /// Root with every capability, NET_ADMIN among them.
    NetAdmin,
    /// The proxy's user.
    Proxy,
}

impl Who {
    pub fn assume(self) -> io::Result<()> {
        match self {
            Self::Nobody => Owner::APP.assume(),
            Self::Root => {
                for set in [caps::CapSet::Effective, caps::CapSet::Permitted] {
                    caps::clear(None, set).map_err(io::Error::other)?;
                }
                Ok(())
            }
            Self::NetRaw => Owner::APP.assume_with(Capability::CAP_NET_RAW),
            Self::NetAdmin => Ok(()),
            Self::Proxy => Owner::PROXY.assume(),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "no capability",
            Self::Root => "root without capabilities",
            Self::NetRaw => "`NET_RAW`",
            Self::NetAdmin => "root with `NET_ADMIN`",
            Self::Proxy => "the proxy's user",
        }
    }
}

/// Which frames get out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    Yes,
    /// Over IPv6 alone.
    V6,
    No,
}

use Escapes::{No, V6, Yes};

impl Escapes {
    pub fn by(self, family: Family) -> bool {
        match self {
            Yes => true,
            V6 => family == Family::V6,
            No => false,
        }
    }
}

/// Whether the rules are there when the attack begins, or it asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    Before,
    OnRequest,
}

/// An attack.
pub struct Attack {
    pub name: &'static str,
    pub who: Who,
    pub families: &'static [Family],
    pub run: fn(&Stage) -> io::Result<()>,
    pub rules: Rules,
    /// Without rules, with the redirection alone, with a match of the owner for IPv4, for both families, locked.
    escapes: [Escapes; 5],
    /// It is taken for the proxy by its user.
    is_of_proxy: bool,
    /// It answers what comes from outside.
    is_answer: bool,
    /// The kernel may not have what it needs.
    pub is_optional: bool,
}

impl Attack {
    /// Which frames get out of what is put around the application.
    pub fn escapes(&self, column: Column) -> Escapes {
        let column = match column {
            Column::Variable => 0,
            Column::Redirect => 1,
            Column::OwnerMatch => 2,
            Column::OwnerMatchOfBoth => 3,
            Column::Locked(..) if self.is_answer && column.rejects_inbound() => return No,
            Column::Locked(..) if self.is_of_proxy && column.requires_more_than_the_user() => return No,
            Column::Locked(..) => 4,
        };
        self.escapes[column]
    }

    const fn of_proxy(mut self) -> Self {
        self.is_of_proxy = true;
        self
    }

    const fn answering(mut self) -> Self {
        self.is_answer = true;
        self
    }

    const fn optional(mut self) -> Self {
        self.is_optional = true;
        self
    }

    const fn with_rules_on_request(mut self) -> Self {
        self.rules = Rules::OnRequest;
        self
    }

    const fn of(mut self, families: &'static [Family]) -> Self {
        self.families = families;
        self
    }

    const fn by(mut self, who: Who) -> Self {
        self.who = who;
        self
    }
}

const fn attack(name: &'static str, run: fn(&Stage) -> io::Result<()>, escapes: [Escapes; 5]) -> Attack {
    Attack {
        name,
        who: Who::Nobody,
        families: &Family::BOTH,
        run,
        rules: Rules::Before,
        escapes,
        is_of_proxy: false,
        is_answer: false,
        is_optional: false,
    }
}

/// What the redirection holds.
const TCP: [Escapes; 5] = [Yes, No, V6, No, No];
/// What the redirection does not see.
const OTHERS: [Escapes; 5] = [Yes, Yes, V6, No, No];
/// What ip6tables must let through for IPv6 to work.
const ICMP: [Escapes; 5] = [Yes, Yes, V6, V6, No];
/// The same, and what switches must see of IPv6.
const LISTENER: [Escapes; 5] = [Yes, Yes, V6, V6, V6];
/// What needs a capability that nothing in the pod resists.
const ALL: [Escapes; 5] = [Yes; 5];
const NONE: [Escapes; 5] = [No; 5];

const IPV4: &[Family] = &[Family::V4];
const IPV6: &[Family] = &[Family::V6];

pub const ATTACKS: &[Attack] = &[
    attack("TCP", plain::tcp, TCP),
    attack("TCP, data in the first segment", plain::tcp_fast_open, TCP),
    // Redirected to a loopback address, but sent by the interface.
    attack("TCP, bound to an interface", plain::tcp_bound_to_interface, OTHERS),
    attack("Multipath TCP", plain::mptcp, TCP).optional(),
    attack("UDP", plain::udp, OTHERS),
    attack("QUIC (UDP to port 443)", plain::quic, OTHERS),
    attack("UDP-Lite", plain::udp_lite, OTHERS).optional(),
    attack("UDP by io_uring", uring::udp, OTHERS).optional(),
    attack("UDP in fragments", plain::fragments, OTHERS),
    attack("UDP, bound to an interface", plain::udp_bound_to_interface, OTHERS),
    attack("UDP by the second interface", plain::second_interface, OTHERS),
    attack(
        "UDP to a loopback address, bound to an interface",
        plain::loopback_address_by_interface,
        OTHERS,
    ),
    attack(
        "UDP to the pod's address, bound to an interface",
        plain::own_address_by_interface,
        OTHERS,
    ),
    attack(
        "UDP and TCP from 127.0.0.6 or ::6",
        plain::source_of_passthrough,
        [V6, V6, V6, No, No],
    ),
    attack("UDP from a foreign address", plain::foreign_source, OTHERS).of(IPV6),
    attack("UDP to an IPv4-mapped address", plain::mapped, OTHERS).of(IPV4),
    attack("UDP to a link-local address", plain::link_local, OTHERS).of(IPV6),
    attack("UDP to broadcast addresses", plain::broadcast, OTHERS).of(IPV4),
    attack("UDP to a multicast group", plain::multicast, OTHERS),
    attack(
        "membership of a multicast group (IGMP, MLD)",
        plain::join_group,
        LISTENER,
    ),
    attack("UDP by a routing header", plain::source_route, OTHERS).of(IPV6),
    attack(
        "UDP by a routing header through loopback",
        plain::source_route_by_loopback,
        NONE,
    )
    .of(IPV6),
    attack("DNS over UDP", plain::dns_over_udp, OTHERS),
    attack("DNS over TCP", plain::dns_over_tcp, TCP),
    attack("SCTP", plain::sctp, OTHERS).optional(),
    attack("DCCP", plain::dccp, OTHERS).optional(),
    attack("ICMP echo by a socket for it", plain::ping, ICMP),
    attack("sockets of other families", plain::other_families, NONE).of(IPV4),
    attack(
        "a TCP connection from before the rules",
        earlier::tcp_connection,
        OTHERS,
    )
    .with_rules_on_request(),
    attack(
        "the rest of a closed TCP connection from before the rules",
        earlier::closed_connection,
        ALL,
    )
    .with_rules_on_request(),
    attack(
        "a UDP exchange from before the rules",
        earlier::udp_exchange,
        [Yes, Yes, Yes, Yes, No],
    )
    .with_rules_on_request(),
    attack(
        "a TCP connection that connection tracking forgot",
        earlier::forgotten_connection,
        [Yes, Yes, V6, No, No],
    ),
    attack("an answer to a UDP packet from outside", earlier::answer, ALL).answering(),
    attack(
        "UDP as root of an own user namespace",
        processes::own_user_namespace,
        OTHERS,
    ),
    attack(
        "a raw socket in an own user namespace",
        processes::raw_in_own_user_namespace,
        NONE,
    ),
    attack(
        "UDP in an own network namespace",
        processes::own_network_namespace,
        NONE,
    ),
    attack(
        "UDP by a set-user-ID program of the proxy's user",
        processes::set_user_id,
        ALL,
    )
    .of_proxy(),
    attack("UDP", plain::udp, OTHERS).by(Who::Root),
    attack("TCP", plain::tcp, TCP).by(Who::Root),
    attack("ICMP echo by a raw socket", raw::icmp_tunnel, ICMP).by(Who::NetRaw),
    attack("forged neighbour and router discovery", raw::forged_discovery, ICMP)
        .by(Who::NetRaw)
        .of(IPV6),
    attack("UDP with an own IP header", raw::own_header, OTHERS).by(Who::NetRaw),
    attack("a TCP segment with an own IP header", raw::tcp_syn, TCP).by(Who::NetRaw),
    attack(
        "TCP from a foreign address, own IP header",
        raw::tcp_from_foreign_source,
        [Yes, V6, V6, No, No],
    )
    .by(Who::NetRaw),
    attack(
        "the pod's own port from a foreign address",
        raw::own_port_from_foreign_source,
        [Yes, Yes, Yes, Yes, No],
    )
    .by(Who::NetRaw),
    attack("UDP from a foreign address, own IP header", raw::foreign_source, OTHERS).by(Who::NetRaw),
    attack(
        "UDP from a foreign address, IP_TRANSPARENT",
        raw::transparent_source,
        OTHERS,
    )
    .by(Who::NetRaw),
    attack("UDP by a source route", plain::source_route, OTHERS)
        .by(Who::NetRaw)
        .of(IPV4),
    attack(
        "UDP by a source route through loopback",
        plain::source_route_by_loopback,
        NONE,
    )
    .by(Who::NetRaw)
    .of(IPV4),
    attack("own fragments", raw::own_fragments, OTHERS).by(Who::NetRaw),
    attack("extension headers, routing header 0", raw::extension_headers, OTHERS)
        .by(Who::NetRaw)
        .of(IPV6),
    attack("IP in IP", raw::ip_in_ip, OTHERS).by(Who::NetRaw),
    attack("GRE", raw::gre, OTHERS).by(Who::NetRaw),
    attack("ESP", raw::esp, OTHERS).by(Who::NetRaw),
    attack("SCTP by a raw socket", raw::raw_sctp, OTHERS).by(Who::NetRaw),
    attack("an unknown protocol", raw::unknown_protocol, OTHERS).by(Who::NetRaw),
    attack("UDP and TCP with the proxy's mark (SO_MARK)", raw::marked, OTHERS).by(Who::NetRaw),
    attack(
        "a forged segment of the proxy's connection",
        raw::forged_segment,
        [Yes, Yes, Yes, Yes, No],
    )
    .by(Who::NetRaw),
    attack(
        "a forged ICMP error about the proxy's connection",
        raw::forged_error,
        [Yes, Yes, Yes, Yes, No],
    )
    .by(Who::NetRaw),
    attack("a packet socket", raw::packet_socket, ALL).by(Who::NetRaw),
    attack("UDP by an own device", admin::own_device, OTHERS).by(Who::NetAdmin),
    attack("removed rules", admin::remove_rules, ALL).by(Who::NetAdmin),
    attack("UDP", plain::udp, ALL).by(Who::Proxy).of_proxy(),
    attack("TCP", plain::tcp, ALL).by(Who::Proxy).of_proxy(),
];
