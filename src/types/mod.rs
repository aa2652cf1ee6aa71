//! Types whose values are always valid. Each type parses its text, and reports what would be valid.

mod cgroup;
mod choice;
mod cidr;
mod dns;
mod duration;
mod family;
mod id;
mod interface;
mod ip_protocol;
mod port;
mod ports_for_uids;
mod ranges;
mod routing;
mod timestamp;

pub use cgroup::CgroupPath;
pub use choice::{Backend, Choice, InboundMode, IpFamily, LogFormat, LogLevel, MeshName, Output, Policy};
pub use cidr::{Cidrs, LoopbackCidr, parse_cidrs};
pub use dns::DnsServers;
pub use duration::{Timeout, parse_duration};
pub use family::{Families, Family};
pub use id::{Accounts, AccountsError, Gid, Gids, Id, NoAccounts, Uid, Uids, parse_ids};
pub use interface::InterfaceName;
pub use ip_protocol::IpProtocol;
pub use port::{Port, Ports, parse_ports};
pub use ports_for_uids::{PortsForUids, parse_ports_for_uids};
pub use ranges::{Number, Range, Ranges};
pub use routing::{Mark, RouteTable};
pub use timestamp::timestamp;

/// A value that is not valid for its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The given value.
    pub value: String,
    /// The valid values.
    pub expected: String,
}

impl Invalid {
    /// The error that `value` is not `expected`.
    pub fn new(value: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            expected: expected.into(),
        }
    }
}

/// Reads a comma-separated list, blank items left out; an item `*` makes it `everything`.
///
/// # Errors
/// Every item that is not valid.
fn list<T, C, E>(text: &str, everything: E, mut item: impl FnMut(&str) -> Result<T, Invalid>) -> Result<C, Vec<Invalid>>
where
    C: FromIterator<T>,
    E: FnOnce() -> C,
{
    let (mut values, mut errors, mut all) = (Vec::new(), Vec::new(), false);
    for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match text {
            "*" => all = true,
            text => match item(text) {
                Ok(value) => values.push(value),
                Err(error) => errors.push(error),
            },
        }
    }
    match (errors.is_empty(), all) {
        (false, _) => Err(errors),
        (true, true) => Ok(everything()),
        (true, false) => Ok(values.into_iter().collect()),
    }
}
