//! Probes: connections whose course proves that a redirection is in force. Which are made, what each should come to,
//! and what it means where one comes to something else; [`run`] makes them.

mod beside;
mod choice;
mod judge;
mod link;
mod owners;
mod plan;
mod report;
pub mod run;
#[cfg(test)]
mod tests;
pub mod validation;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::mesh::istio::PROBE_PORT;
use crate::ruleset::Protocol;
use crate::types::{Family, Gid, Mark, Port, Uid};

pub use judge::{Verdict, judge};
pub use link::Ends;
pub use plan::trial;
pub use report::{Report, Tally};

/// The port that is called where any will do. Nothing is known to listen there: it is the one that Istio's own validation
/// calls.
pub const PORT: Port = match Port::new(PROBE_PORT) {
    Some(port) => port,
    None => unreachable!(),
};

/// What was observed of a namespace for probing it, besides the facts that the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The destinations of all routes, of all tables.
    pub routes: Vec<IpNet>,
    /// The addresses of its interfaces that other hosts could reach.
    pub addresses: Vec<IpAddr>,
    /// As whom this process acts.
    pub caller: Owner,
    /// Whether this process may act as others.
    pub may_switch: bool,
}

/// Who a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}, group {}", self.uid, self.gid)
    }
}

/// Everything that is to be proved, and what that takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The connections to make.
    pub probes: Vec<Probe>,
    /// The ends of the link to a host outside, by family.
    pub ends: Vec<Ends>,
    /// As whom the proxy runs.
    pub proxy: Owner,
    /// The ports that the proxy listens on, or that are listened on in its place.
    pub ports: Vec<Port>,
    /// The port that gets connections with their addresses unchanged (TPROXY), if there is one.
    pub transparent: Option<Port>,
}

impl Trial {
    /// The ends of the link in a family.
    pub fn ends(&self, family: Family) -> Option<&Ends> {
        self.ends.iter().find(|ends| ends.family() == family)
    }
}

/// One connection, or one name lookup, and what should become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it proves.
    pub subject: Subject,
    /// By which protocol.
    pub protocol: Protocol,
    /// As whom.
    pub caller: Caller,
    /// From where, unless the kernel shall choose.
    pub source: Option<Source>,
    /// To where.
    pub destination: SocketAddr,
    /// What should become of it.
    pub expected: Expected,
    /// What it takes.
    pub needs: Needs,
}

impl Probe {
    /// The address family.
    pub fn family(&self) -> Family {
        family_of(self.destination.ip())
    }
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// What a probe proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The application's connections to other hosts are captured.
    Outbound,
    /// The proxy's own are not.
    Exempt,
    /// Connections to excluded ports are not.
    ExcludedOutboundPort,
    /// Those of excluded users are not.
    ExcludedUser,
    /// Those of excluded groups are not.
    ExcludedGroup,
    /// The application's name lookups are captured.
    Lookup,
    /// Connections from other hosts are captured.
    Inbound,
    /// Those to ports that the mesh serves itself are not.
    MeshPort,
    /// Those to excluded ports are not.
    ExcludedInboundPort,
    /// What the proxy sends to the pod's own address is captured as if it came from another host.
    SelfCall,
    /// What the proxy passes on to the application is not.
    Passthrough,
}

impl Subject {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Exempt => "exempt",
            Self::ExcludedOutboundPort => "excluded-outbound-port",
            Self::ExcludedUser => "excluded-user",
            Self::ExcludedGroup => "excluded-group",
            Self::Lookup => "lookup",
            Self::Inbound => "inbound",
            Self::MeshPort => "mesh-port",
            Self::ExcludedInboundPort => "excluded-inbound-port",
            Self::SelfCall => "self-call",
            Self::Passthrough => "passthrough",
        }
    }

    /// Whether what is called is the pod itself.
    pub fn calls_pod(self) -> bool {
        match self {
            Self::Inbound | Self::MeshPort | Self::ExcludedInboundPort | Self::SelfCall | Self::Passthrough => true,
            Self::Outbound
            | Self::Exempt
            | Self::ExcludedOutboundPort
            | Self::ExcludedUser
            | Self::ExcludedGroup
            | Self::Lookup => false,
        }
    }
}

/// Who makes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process in the pod.
    Process(Owner),
    /// The host at the other end of the link.
    Neighbour,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(owner) => owner.fmt(f),
            Self::Neighbour => f.write_str("a neighbour"),
        }
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its address.
    pub address: IpAddr,
    /// The mark of its packets, where the address is a client's and not the pod's (TPROXY).
    pub mark: Option<Mark>,
}

/// What should become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It goes to this port of the proxy.
    Captured(Port),
    /// It goes where it was meant to.
    Untouched,
}

/// What a probe takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but a route, which the link would have.
    Route,
    /// The link to a host outside.
    Link,
    /// What there is not, in words.
    Impossible(&'static str),
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was made.
    Found(Finding),
    /// It could not be made: why not, and what to do.
    NotMade(String),
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It arrived where it was meant to go.
    Direct,
    /// It arrived at another socket of the pod.
    Redirected {
        /// The address of that socket.
        at: SocketAddr,
        /// What the kernel tells there of where it was meant to go.
        original: Original,
    },
    /// Another socket of the pod has it, with its addresses as they were.
    HandedOver,
    /// A name server answered from within the pod.
    AnsweredInPod,
    /// Somebody outside of the pod answered.
    AnsweredOutside,
    /// Somebody took it and closed it before it could be seen who; whether a proxy listens where it should arrive.
    Closed {
        /// Whether a proxy listens there.
        proxy_listens: bool,
    },
    /// A name lookup arrived here, and the answer to it did not arrive.
    Unanswered {
        /// The address of the socket that answered.
        at: SocketAddr,
    },
    /// Nobody listens where it arrived, or it was rejected.
    Refused,
    /// No answer came in time.
    Lost,
    /// The kernel refused to send it, or a router did: why.
    Unreachable(String),
    /// The address that it should come from cannot be used: why.
    NoSource(String),
}

/// What the kernel tells of the original destination (`SO_ORIGINAL_DST`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Original {
    /// This.
    Known(SocketAddr),
    /// Nothing: why.
    Unknown(String),
    /// Only the proxy, whose connection it is, could ask; or it is not a TCP connection.
    NotAsked,
}
