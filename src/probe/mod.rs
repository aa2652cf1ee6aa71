//! Probes: connections that test an installed redirection. This module plans them, with the expected result of each,
//! and evaluates the results; [`run`] makes them.

mod behind;
mod beside;
mod choice;
pub mod derive;
mod exclusions;
mod interfaces;
mod judge;
mod link;
mod locked;
mod lookups;
#[cfg(test)]
mod outcome_tests;
mod owners;
mod plan;
mod report;
pub mod run;
#[cfg(test)]
mod tests;
pub mod validation;
mod ways_in;
mod ways_out;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::mesh::istio::PROBE_PORT;
use crate::ruleset::Protocol;
use crate::types::{Family, Gid, InterfaceName, Mark, Port, Uid};

pub use behind::Entry;
pub use judge::{Verdict, judge};
pub use link::Ends;
pub use plan::trial;
pub use report::{Report, Tally};

/// The default destination port. No program is known to listen there: Istio's own validation uses it.
pub const PORT: Port = match Port::new(PROBE_PORT) {
    Some(port) => port,
    None => unreachable!(),
};

/// The facts about a namespace that probes need, besides those that the rules need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The destinations of all routes, of all tables.
    pub routes: Vec<IpNet>,
    /// The addresses of its interfaces that other hosts could reach.
    pub addresses: Vec<IpAddr>,
    /// Its interfaces that are up, and the networks of their addresses.
    pub interfaces: Vec<(InterfaceName, Vec<IpNet>)>,
    /// Those of them from which packets of a family are forwarded.
    pub forwarding: Vec<(InterfaceName, Family)>,
    /// The families of which packets are forwarded that arrive on a new interface, such as the link.
    pub forwarding_links: Vec<Family>,
    /// The user and group of this process.
    pub caller: Owner,
    /// Whether this process may change its user and group.
    pub may_switch: bool,
}

/// The owner of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
    /// The mark of its sockets, if that is how the rules recognise the proxy.
    pub mark: Option<Mark>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}, group {}", self.uid, self.gid)?;
        match self.mark {
            Some(mark) => write!(f, ", mark {mark}"),
            None => Ok(()),
        }
    }
}

/// All probes, and the sockets and links that they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The connections to make.
    pub probes: Vec<Probe>,
    /// The ends of the link to a host outside, by family.
    pub ends: Vec<Ends>,
    /// Addresses of other hosts for which the host outside stands in.
    pub stand_ins: Vec<IpAddr>,
    /// The interfaces that packets of the host outside arrive on, besides that of the link.
    pub entries: Vec<Entry>,
    /// The user and group of the proxy.
    pub proxy: Owner,
    /// The proxy's ports. Probes listen there where no proxy does.
    pub ports: Vec<Port>,
    /// The port of the transparent socket (TPROXY), if there is one.
    pub transparent: Option<Port>,
    /// The families in which the pod has no address that other hosts could reach.
    pub unused: Vec<Family>,
    /// Probes that are left out, and why. Each a sentence.
    pub notes: Vec<String>,
}

impl Trial {
    /// The ends of the link in a family.
    pub fn ends(&self, family: Family) -> Option<&Ends> {
        self.ends.iter().find(|ends| ends.family() == family)
    }

    /// The entry by which the packets of a probe arrive, if it is not the link.
    pub fn entry_of(&self, probe: &Probe) -> Option<&Entry> {
        let source = probe.source.filter(|_| probe.caller == Caller::Behind)?.address;
        self.entries.iter().find(|entry| entry.source == source)
    }
}

/// One connection, name lookup or packet, and its expected result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it proves.
    pub subject: Subject,
    /// What it sends.
    pub protocol: Transport,
    /// The client.
    pub caller: Caller,
    /// The source; `None` lets the kernel choose.
    pub source: Option<Source>,
    /// The interface that the socket of a process is bound to (SO_BINDTODEVICE), that a client is behind, or that the
    /// destination of a neighbour is behind.
    pub bound_to: Option<InterfaceName>,
    /// The destination.
    pub destination: SocketAddr,
    /// The expected result.
    pub expected: Expected,
    /// What the probe needs.
    pub needs: Needs,
}

impl Probe {
    /// The address family.
    pub fn family(&self) -> Family {
        family_of(self.destination.ip())
    }

    /// The mark of the client's socket: that of its source, or else of its owner.
    pub fn mark(&self) -> Option<Mark> {
        let owners = match self.caller {
            Caller::Process(owner) => owner.mark,
            Caller::Neighbour | Caller::Behind => None,
        };
        self.source.and_then(|source| source.mark).or(owners)
    }

    /// The address of the other host, if the probe chooses it.
    pub fn other_host(&self) -> Option<IpAddr> {
        match self.caller {
            Caller::Neighbour if self.bound_to.is_none() => self.source.map(|source| source.address),
            Caller::Neighbour | Caller::Behind => None,
            Caller::Process(_) => (!self.subject.calls_pod()).then_some(self.destination.ip()),
        }
    }
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// What a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An echo request of ICMP, or over IPv6 of ICMPv6. Its destination has no port.
    Icmp,
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

/// What a probe proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The application's connections to other hosts are captured.
    Outbound,
    /// The proxy's own are not.
    Exempt,
    /// Those of the proxy's user and group without its mark, or outside of its cgroup, are captured.
    Impostor,
    /// Connections to excluded ports are not.
    ExcludedOutboundPort,
    /// Those to excluded addresses are not.
    ExcludedOutboundAddress,
    /// Those to addresses that are not included are not.
    NotIncludedOutboundAddress,
    /// Those of a user to ports that are excluded for it are not.
    ExcludedPortForUser,
    /// Those that leave by an excluded interface are not.
    ExcludedInterface,
    /// Those of sockets bound to an interface are captured.
    BoundInterface,
    /// Those of excluded users are not.
    ExcludedUser,
    /// Those of excluded groups are not.
    ExcludedGroup,
    /// The application's name lookups are captured.
    Lookup,
    /// Connections from other hosts are captured.
    Inbound,
    /// Those to the mesh's own ports are not.
    MeshPort,
    /// Those to excluded ports are not.
    ExcludedInboundPort,
    /// Those from excluded addresses are not.
    ExcludedInboundAddress,
    /// Those that arrive on an excluded interface are not.
    ExcludedInboundInterface,
    /// Connections of processes behind a rerouted interface are captured as outbound ones.
    Rerouted,
    /// The proxy's connections to the pod's own address are captured like those of other hosts.
    SelfCall,
    /// The proxy's connections to the application are not.
    Passthrough,
    /// The kernel remembers half-closed connections to other hosts.
    HalfClosedOutbound,
    /// The kernel remembers half-closed connections from other hosts.
    HalfClosedInbound,
    /// Packets that belong to no known connection are dropped.
    InvalidPacket,
    /// The outbound policy rejects TCP that is not captured.
    LockedTcp,
    /// It rejects UDP.
    LockedUdp,
    /// It rejects QUIC.
    LockedQuic,
    /// It rejects DNS queries.
    LockedDns,
    /// It rejects ICMP.
    LockedIcmp,
    /// It leaves DNS queries to the pod's name servers.
    AllowedDns,
    /// The inbound policy rejects TCP that is not captured.
    LockedInboundTcp,
    /// It rejects UDP.
    LockedInboundUdp,
    /// It rejects ICMP.
    LockedInboundIcmp,
}

impl Subject {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Exempt => "exempt",
            Self::Impostor => "impostor",
            Self::ExcludedOutboundPort => "excluded-outbound-port",
            Self::ExcludedOutboundAddress => "excluded-outbound-address",
            Self::NotIncludedOutboundAddress => "not-included-outbound-address",
            Self::ExcludedPortForUser => "excluded-port-for-user",
            Self::ExcludedInterface => "excluded-interface",
            Self::BoundInterface => "bound-interface",
            Self::ExcludedUser => "excluded-user",
            Self::ExcludedGroup => "excluded-group",
            Self::Lookup => "lookup",
            Self::Inbound => "inbound",
            Self::MeshPort => "mesh-port",
            Self::ExcludedInboundPort => "excluded-inbound-port",
            Self::ExcludedInboundAddress => "excluded-inbound-address",
            Self::ExcludedInboundInterface => "excluded-inbound-interface",
            Self::Rerouted => "rerouted-interface",
            Self::SelfCall => "self-call",
            Self::Passthrough => "passthrough",
            Self::HalfClosedOutbound => "half-closed-outbound",
            Self::HalfClosedInbound => "half-closed-inbound",
            Self::InvalidPacket => "invalid-packet",
            Self::LockedTcp => "locked-tcp",
            Self::LockedUdp => "locked-udp",
            Self::LockedQuic => "locked-quic",
            Self::LockedDns => "locked-dns",
            Self::LockedIcmp => "locked-icmp",
            Self::AllowedDns => "allowed-dns",
            Self::LockedInboundTcp => "locked-inbound-tcp",
            Self::LockedInboundUdp => "locked-inbound-udp",
            Self::LockedInboundIcmp => "locked-inbound-icmp",
        }
    }

    /// Whether a policy rejects it.
    pub fn is_locked(self) -> bool {
        matches!(
            self,
            Self::LockedTcp
                | Self::LockedUdp
                | Self::LockedQuic
                | Self::LockedDns
                | Self::LockedIcmp
                | Self::LockedInboundTcp
                | Self::LockedInboundUdp
                | Self::LockedInboundIcmp
        )
    }

    /// Whether the destination is the pod itself.
    pub fn calls_pod(self) -> bool {
        match self {
            Self::Inbound
            | Self::MeshPort
            | Self::ExcludedInboundPort
            | Self::ExcludedInboundAddress
            | Self::ExcludedInboundInterface
            | Self::SelfCall
            | Self::Passthrough
            | Self::HalfClosedInbound
            | Self::InvalidPacket
            | Self::LockedInboundTcp
            | Self::LockedInboundUdp
            | Self::LockedInboundIcmp => true,
            Self::Outbound
            | Self::Exempt
            | Self::Impostor
            | Self::ExcludedOutboundPort
            | Self::ExcludedOutboundAddress
            | Self::NotIncludedOutboundAddress
            | Self::ExcludedPortForUser
            | Self::ExcludedInterface
            | Self::Rerouted
            | Self::BoundInterface
            | Self::HalfClosedOutbound
            | Self::ExcludedUser
            | Self::ExcludedGroup
            | Self::Lookup
            | Self::LockedTcp
            | Self::LockedUdp
            | Self::LockedQuic
            | Self::LockedDns
            | Self::LockedIcmp
            | Self::AllowedDns => false,
        }
    }
}

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process in the pod.
    Process(Owner),
    /// The host at the other end of the link.
    Neighbour,
    /// The same host, whose packets arrive on another interface.
    Behind,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(owner) => owner.fmt(f),
            Self::Neighbour | Self::Behind => f.write_str("a neighbour"),
        }
    }
}

/// The source of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its address.
    pub address: IpAddr,
    /// The mark of its packets, where the address is a client's and not the pod's (TPROXY).
    pub mark: Option<Mark>,
}

/// The expected result of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It arrives at this port of the proxy.
    Captured(Port),
    /// It arrives at its original destination.
    Untouched,
    /// It arrives at this port of the proxy, and conntrack remembers it for this time once it is half-closed.
    Remembered {
        /// The port.
        port: Port,
        /// The seconds.
        seconds: u32,
    },
    /// It does not arrive, or not leave.
    Dropped,
    /// It is rejected at once: its sender gets an error, and it does not arrive.
    Rejected,
}

impl Expected {
    /// The port of the proxy at which it arrives.
    pub fn proxy_port(self) -> Option<Port> {
        match self {
            Self::Captured(port) | Self::Remembered { port, .. } => Some(port),
            Self::Untouched | Self::Dropped | Self::Rejected => None,
        }
    }
}

/// What a probe needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A route; the link to a host outside has one.
    Route,
    /// The link to a host outside.
    Link,
    /// Something that does not exist: a phrase.
    Impossible(&'static str),
}

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran.
    Found(Finding),
    /// It could not run: why, and what to do.
    NotMade(String),
}

/// The observed result of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It arrived at its original destination.
    Direct,
    /// It arrived at another socket of the pod.
    Redirected {
        /// The address of that socket.
        at: SocketAddr,
        /// The original destination that the kernel reports for that socket.
        original: Original,
    },
    /// Another socket of the pod accepted it, with its addresses unchanged.
    HandedOver,
    /// It arrived there, and its client closed its half: for so many seconds conntrack remembers it.
    HalfClosed {
        /// The finding of its arrival.
        arrived: Box<Finding>,
        /// The seconds.
        seconds: u32,
    },
    /// It left by the interface that its socket is bound to, with its addresses unchanged.
    LeftByInterface,
    /// The packet did not arrive or leave, and a valid one that was sent after it did.
    Dropped,
    /// The kernel rejected it: its sender got an error at once, and it did not arrive.
    Rejected,
    /// The pod answered the packet.
    Answered,
    /// A name server answered from within the pod.
    AnsweredInPod,
    /// A host outside of the pod answered.
    AnsweredOutside,
    /// A program accepted it and closed it before it could be identified.
    Closed {
        /// Whether a proxy listens on the expected port.
        proxy_listens: bool,
    },
    /// A name lookup arrived at this socket, and the answer was lost.
    Unanswered {
        /// The address of the socket that answered.
        at: SocketAddr,
    },
    /// Nothing listens there, or a rule rejected it.
    Refused,
    /// No answer came in time.
    Lost,
    /// The kernel refused to send it, or a router did: why.
    Unreachable(String),
    /// The source address cannot be used: why.
    NoSource(String),
}

/// The original destination that the kernel reports (`SO_ORIGINAL_DST`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Original {
    /// The kernel reported this.
    Known(SocketAddr),
    /// The kernel reported an error.
    Unknown(String),
    /// Not asked: the connection belongs to the proxy, or it is not TCP.
    NotAsked,
}
