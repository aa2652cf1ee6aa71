//! What redirected packets need besides the rules, over rtnetlink(7): an address, and routing by mark.
//!
//! The messages are those of the crate below rtnetlink; a handful of requests needs no asynchronous runtime.

mod address;
mod link;
mod policy;

use std::net::UdpSocket;

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use thiserror::Error;

use super::netlink::{Answer, NetlinkError, Refusal, Socket, attempts};
use crate::plan::Prerequisite;
use crate::types::{Family, RouteTable};

pub use address::Loopback;

/// The loopback interface is the first of any network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
pub const LOOPBACK_INDEX: u32 = 1;

/// What could not be done about addresses, rules of policy routing and routes.
#[derive(Debug, Error)]
pub enum RouteError {
    /// We may not.
    #[error("the kernel does not allow changes to addresses and routing here ({0})")]
    NotPermitted(Refusal),
    /// IPv6 is switched off.
    #[error(
        "{what} cannot be added: IPv6 is switched off on that interface. \
         Set net.ipv6.conf.lo.disable_ipv6 to 0, or pass --ip-family ipv4 to leave IPv6 alone"
    )]
    Ipv6Off {
        /// What was to be added.
        what: Prerequisite,
    },
    /// The loopback interface is down, and routes need it.
    #[error("{what} cannot be added: the loopback interface is down. Set it up (`ip link set lo up`)")]
    LoopbackDown {
        /// What was to be added.
        what: Prerequisite,
    },
    /// The kernel has no policy routing.
    #[error(
        "this kernel has no policy routing for {family} ({refusal}), and tproxy needs it to deliver packets to the proxy. \
         Use a kernel with {option}, or --inbound-mode redirect"
    )]
    Unsupported {
        /// The family.
        family: Family,
        /// The option of the kernel's configuration that has it.
        option: &'static str,
        /// How the kernel said so.
        refusal: Refusal,
    },
    /// Somebody else routes by the table that was to be ours.
    #[error(
        "the routing table {table} has another default route for {family} already. \
         Remove that, or choose an unused table with --tproxy-route-table"
    )]
    TableInUse {
        /// The table.
        table: RouteTable,
        /// The family of the route.
        family: Family,
    },
    /// The kernel refused.
    #[error("{what} was refused by the kernel: {refusal}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Why.
        refusal: Refusal,
    },
    /// The conversation itself failed.
    #[error("speaking to rtnetlink: {0}")]
    Netlink(#[from] NetlinkError),
}

/// A conversation about the network namespace that the thread was in when it was opened.
pub struct Route {
    socket: Socket,
}

impl Route {
    /// Opens the conversation.
    ///
    /// # Errors
    /// No netlink socket could be had.
    pub fn open() -> Result<Self, RouteError> {
        Ok(Self::over(Socket::open(SockProtocol::NetlinkRoute)?))
    }

    /// The conversation over this socket.
    pub fn over(socket: Socket) -> Self {
        Self { socket }
    }

    /// Adds it, marked as ours. Returns whether it was not there yet, be it ours or somebody else's.
    ///
    /// # Errors
    /// The kernel cannot or may not; or another route stands in the way.
    pub fn add(&mut self, what: Prerequisite) -> Result<bool, RouteError> {
        use Prerequisite::{Address, Route, Rule};
        // Never NLM_F_REPLACE: for rules it means one more.
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let result = match what {
            Address(address) => self.change(libc::RTM_NEWADDR, flags, &address::message(address)),
            Rule { family, mark, table } => self.change(libc::RTM_NEWRULE, flags, &policy::rule(family, mark, table)),
            Route { family, table } => self.change(libc::RTM_NEWROUTE, flags, &policy::route(family, table)),
        };
        let Err(refusal) = result? else {
            return Ok(true);
        };
        match (refusal.errno, what) {
            (Errno::EEXIST, Route { family, table }) if !self.is_local(family, table)? => {
                Err(RouteError::TableInUse { table, family })
            }
            (Errno::EEXIST, _) => Ok(false),
            (Errno::EPERM, _) => Err(RouteError::NotPermitted(refusal)),
            // IPv4 has no such switch.
            (Errno::EACCES, _) => Err(RouteError::Ipv6Off { what }),
            (Errno::ENETDOWN, Route { .. }) => Err(RouteError::LoopbackDown { what }),
            (Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, Rule { family, .. }) => Err(policy::unsupported(family, refusal)),
            _ => Err(RouteError::Refused {
                what: format!("adding {what}"),
                refusal,
            }),
        }
    }

    /// Removes it. Rules and routes are removed only where they bear our mark. Returns whether it was there.
    ///
    /// # Errors
    /// The kernel cannot or may not.
    pub fn remove(&mut self, what: Prerequisite) -> Result<bool, RouteError> {
        use Prerequisite::{Address, Route, Rule};
        let result = match what {
            Address(address) => self.change(libc::RTM_DELADDR, 0, &address::message(address)),
            Rule { family, mark, table } => self.change(libc::RTM_DELRULE, 0, &policy::rule(family, mark, table)),
            Route { family, table } => self.change(libc::RTM_DELROUTE, 0, &policy::route(family, table)),
        };
        let Err(refusal) = result? else {
            return Ok(true);
        };
        match refusal.errno {
            // Of an address, a rule, a route.
            Errno::EADDRNOTAVAIL | Errno::ENOENT | Errno::ESRCH => Ok(false),
            Errno::EPERM => Err(RouteError::NotPermitted(refusal)),
            _ => Err(RouteError::Refused {
                what: format!("removing {what}"),
                refusal,
            }),
        }
    }

    /// Whether somebody else has added it, so that adding it would change nothing.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn is_of_others(&mut self, what: Prerequisite) -> Result<bool, RouteError> {
        match what {
            // Only an address of this host can be bound to.
            Prerequisite::Address(address) => Ok(UdpSocket::bind((address, 0)).is_ok()),
            // The kernel takes ours besides.
            Prerequisite::Rule { .. } => Ok(false),
            Prerequisite::Route { family, table } => self.is_local(family, table),
        }
    }

    fn change(&mut self, kind: u16, flags: u16, message: &impl Emitable) -> Result<Result<(), Refusal>, RouteError> {
        self.socket.send(request(kind, flags | NLM_F_ACK, message)?)?;
        for answer in self.socket.receive()? {
            if let Answer::Status { result, .. } = answer {
                return Ok(result);
            }
        }
        Err(NetlinkError::Malformed("no answer to a change".to_owned()).into())
    }

    /// All objects of a kind, as the payloads of their messages.
    fn list(&mut self, kind: u16, message: &impl Emitable) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let messages = self.dump(&request(kind, NLM_F_DUMP, message)?)?;
        Ok(messages.into_iter().map(|(_, payload)| payload).collect())
    }

    /// The messages that answer a request for a list, once nobody disturbs it.
    fn dump(&mut self, request: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, NetlinkError> {
        for _ in attempts() {
            match self.socket.dump(request) {
                Err(NetlinkError::Interrupted) => {}
                messages => return messages,
            }
        }
        Err(NetlinkError::Interrupted)
    }
}

fn malformed(error: DecodeError) -> NetlinkError {
    NetlinkError::Malformed(error.to_string())
}

/// A request of one message.
///
/// # Errors
/// It has more bytes than its length can say.
fn request(kind: u16, flags: u16, message: &impl Emitable) -> Result<Vec<u8>, NetlinkError> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | flags;
    let length = header.buffer_len() + message.buffer_len();
    header.length = length.try_into().map_err(|_| NetlinkError::TooLong("a message"))?;
    let mut bytes = vec![0; length];
    header.emit(&mut bytes);
    message.emit(&mut bytes[header.buffer_len()..]);
    Ok(bytes)
}
