//! The prerequisites of redirection besides rules, over rtnetlink(7): a loopback address, and policy routing by mark.
//!
//! The messages are those of the crate below rtnetlink; these few requests need no asynchronous runtime.

mod address;
mod ingress;
mod link;
mod loopback;
mod neighbour;
mod policy;
mod shared;

use std::net::UdpSocket;

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use thiserror::Error;

use super::marks::Discards;
use super::netlink::{Answer, NetlinkError, Refusal, Socket, attempts};
use crate::plan::{LoopbackRoute, Prerequisite};
use crate::types::{Family, RouteTable};

pub use address::Loopback;
pub use link::{SELECTED_TOS, Selected};
pub use loopback::Unusable;
pub use neighbour::Neighbour;
pub use shared::{ForeignRule, Sharing};

/// Index of the loopback interface, the first of any network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
pub const LOOPBACK_INDEX: u32 = 1;

/// A failed operation on addresses, policy routing rules or routes.
#[derive(Debug, Error)]
pub enum RouteError {
    /// Permission denied.
    #[error("the kernel does not allow changes to addresses and routing here ({0})")]
    NotPermitted(Refusal),
    /// IPv6 is disabled.
    #[error(
        "{what} cannot be added: IPv6 is disabled on that interface. \
         Set net.ipv6.conf.lo.disable_ipv6 to 0, or pass --ip-family ipv4 to skip IPv6"
    )]
    Ipv6Off {
        /// The prerequisite to add.
        what: Prerequisite,
    },
    /// The loopback interface is down, and routes need it.
    #[error("{what} cannot be added: the loopback interface is down. Set it up (`ip link set lo up`)")]
    LoopbackDown {
        /// The prerequisite to add.
        what: Prerequisite,
    },
    /// The interface cannot have a route to the loopback address now.
    #[error("{route} cannot be added: {why}")]
    Unusable {
        /// The route.
        route: LoopbackRoute,
        /// Why not.
        why: Unusable,
    },
    /// The kernel has no policy routing.
    #[error(
        "this kernel has no policy routing for {family} ({refusal}), and tproxy needs it to deliver packets to the proxy. \
         Use a kernel with {option}, or --inbound-mode redirect"
    )]
    Unsupported {
        /// The family.
        family: Family,
        /// The kernel configuration option that enables it.
        option: &'static str,
        /// The kernel's refusal.
        refusal: Refusal,
    },
    /// The routing table has a foreign default route.
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
    /// A foreign rule or route uses the routing table.
    #[error("{0}. Choose an unused table with --tproxy-route-table; `ip rule` shows the used ones")]
    TableShared(Sharing),
    /// The kernel would drop marked packets.
    #[error(
        "{0}: with tproxy no inbound IPv4 connection would reach the proxy. Set it to 0 in this network namespace (a VPN \
         client has set it, and new namespaces inherit it), or pass --inbound-mode redirect"
    )]
    Discards(Discards),
    /// The kernel refused.
    #[error("{what} was refused by the kernel: {refusal}")]
    Refused {
        /// The request.
        what: String,
        /// The kernel's refusal.
        refusal: Refusal,
    },
    /// The netlink exchange failed.
    #[error("rtnetlink request failed: {0}")]
    Netlink(#[from] NetlinkError),
}

/// An rtnetlink socket, in the network namespace of the thread that opened it.
pub struct Route {
    socket: Socket,
}

impl Route {
    /// Opens the socket.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn open() -> Result<Self, RouteError> {
        Ok(Self::over(Socket::open(SockProtocol::NetlinkRoute)?))
    }

    /// Uses this socket.
    pub fn over(socket: Socket) -> Self {
        Self { socket }
    }

    /// Adds a prerequisite, marked as owned. Returns whether it was missing: neither owned nor foreign.
    ///
    /// # Errors
    /// Adding failed or is not permitted; or another route conflicts.
    pub fn add(&mut self, what: &Prerequisite) -> Result<bool, RouteError> {
        use Prerequisite::{Address, LoopbackRoute, Route, Rule};
        if let Route { family, table } = *what
            && self.has_foreign_routes(family, table)?
        {
            return Err(RouteError::TableShared(Sharing::Route { family, table }));
        }
        // Never NLM_F_REPLACE: for rules it adds a second one.
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let result = match *what {
            Address(address) => self.change(libc::RTM_NEWADDR, flags, &address::message(address)),
            Rule { family, mark, table } => self.change(libc::RTM_NEWRULE, flags, &policy::rule(family, mark, table)),
            Route { family, table } => self.change(libc::RTM_NEWROUTE, flags, &policy::route(family, table)),
            LoopbackRoute(ref route) => return self.add_loopback_route(route),
        };
        let Err(refusal) = result? else {
            return Ok(true);
        };
        match (refusal.errno, what) {
            (Errno::EEXIST, &Route { family, table }) if !self.is_local(family, table)? => {
                Err(RouteError::TableInUse { table, family })
            }
            (Errno::EEXIST, _) => Ok(false),
            (Errno::EPERM, _) => Err(RouteError::NotPermitted(refusal)),
            // IPv4 cannot be disabled.
            (Errno::EACCES, _) => Err(RouteError::Ipv6Off { what: what.clone() }),
            (Errno::ENETDOWN, Route { .. }) => Err(RouteError::LoopbackDown { what: what.clone() }),
            (Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, Rule { family, .. }) => {
                Err(policy::unsupported(*family, refusal))
            }
            _ => Err(RouteError::Refused {
                what: format!("adding {what}"),
                refusal,
            }),
        }
    }

    /// Removes a prerequisite; rules and routes only if marked as owned. Returns whether it existed.
    ///
    /// # Errors
    /// Removing failed or is not permitted.
    pub fn remove(&mut self, what: &Prerequisite) -> Result<bool, RouteError> {
        use Prerequisite::{Address, LoopbackRoute, Route, Rule};
        let result = match *what {
            Address(address) => self.change(libc::RTM_DELADDR, 0, &address::message(address)),
            Rule { family, mark, table } => self.change(libc::RTM_DELRULE, 0, &policy::rule(family, mark, table)),
            Route { family, table } => self.change(libc::RTM_DELROUTE, 0, &policy::route(family, table)),
            LoopbackRoute(ref route) => self.remove_loopback_route(route),
        };
        let Err(refusal) = result? else {
            return Ok(true);
        };
        match refusal.errno {
            // For an address, a rule, a route.
            Errno::EADDRNOTAVAIL | Errno::ENOENT | Errno::ESRCH => Ok(false),
            Errno::EPERM => Err(RouteError::NotPermitted(refusal)),
            _ => Err(RouteError::Refused {
                what: format!("removing {what}"),
                refusal,
            }),
        }
    }

    /// Whether a foreign one exists, so that adding one would change nothing.
    ///
    /// # Errors
    /// The kernel did not answer as it should.
    pub fn is_foreign(&mut self, what: &Prerequisite) -> Result<bool, RouteError> {
        match *what {
            // Binding succeeds only for an address of this host.
            Prerequisite::Address(address) => Ok(UdpSocket::bind((address, 0)).is_ok()),
            // The kernel accepts our rule in addition to a foreign one.
            Prerequisite::Rule { .. } => Ok(false),
            Prerequisite::Route { family, table } => self.is_local(family, table),
            Prerequisite::LoopbackRoute(ref route) => self.has_loopback_route(route),
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

    /// The answers to a dump request; repeats it until no change interrupts the dump.
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
