//! Reads the rules of legacy iptables without any program and without side effects.
//!
//! Reading a table in the usual way makes the kernel create it, and the empty table then misleads other tools. So the
//! list of existing tables (`/proc/net/ip_tables_names`) is read first, and only tables in it are read.

mod entries;
mod input;

use std::io::{self, ErrorKind};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use thiserror::Error;

use self::entries::{BuiltIn, Layout, Table};
use crate::backend::arrival::Arrival;
use crate::backend::published::Ports;
use crate::drift::BaseChain;
use crate::facts::InstalledChain;
use crate::linux::netlink::attempts;
use crate::linux::proc;
use crate::linux::socket_options;
use crate::ruleset::{Hook, priority};
use crate::types::Family;

/// The tables that can hold rules like sidetrack's, and their priorities.
const TABLES: [(&str, i32); 3] = [
    ("nat", priority::NAT),
    ("mangle", priority::MANGLE),
    ("raw", priority::RAW),
];

/// `enum nf_inet_hooks`.
const PREROUTING: usize = 0;
const INPUT: usize = 1;
const OUTPUT: usize = 3;

/// Size of a table's name in bytes (`XT_TABLE_MAXNAMELEN`, linux/netfilter/x_tables.h).
const NAME_LENGTH: usize = 32;

/// The programs, files and socket options of a family.
struct Protocol {
    program: &'static str,
    level: libc::c_int,
    domain: AddressFamily,
    names: &'static str,
    layout: &'static Layout,
}

const IPV4: Protocol = Protocol {
    program: "iptables",
    level: libc::IPPROTO_IP,
    domain: AddressFamily::Inet,
    names: "/proc/thread-self/net/ip_tables_names",
    layout: &entries::IPV4,
};

const IPV6: Protocol = Protocol {
    program: "ip6tables",
    level: libc::IPPROTO_IPV6,
    domain: AddressFamily::Inet6,
    names: "/proc/thread-self/net/ip6_tables_names",
    layout: &entries::IPV6,
};

impl Protocol {
    fn of(family: Family) -> &'static Self {
        match family {
            Family::V4 => &IPV4,
            Family::V6 => &IPV6,
        }
    }

    fn title(&self, table: &str) -> String {
        format!("{table} (legacy {})", self.program)
    }

    fn error(&self, table: &str, errno: Errno) -> LegacyError {
        LegacyError {
            what: format!("table {table} of legacy {}", self.program),
            error: errno.into(),
        }
    }
}

/// Reading legacy iptables failed, although it exists and permits reading.
#[derive(Debug, Error)]
#[error(
    "reading the {what}: {error}. Rules of sidetrack may be there and be missed, so nothing was changed: try again"
)]
pub struct LegacyError {
    what: String,
    error: io::Error,
}

/// The user-defined chains of legacy iptables in both families; `None` if they cannot be read: without `/proc`,
/// or without permission.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn chains() -> Result<Option<Vec<InstalledChain>>, LegacyError> {
    Ok(tables()?.map(|tables| {
        let chains = tables.iter().flat_map(|(title, _, table)| {
            table.user_chains().into_iter().map(|chain| InstalledChain {
                table: title.clone(),
                chain,
            })
        });
        chains.collect()
    }))
}

/// The built-in chains at the hooks that sidetrack uses, except those that jump to our chains; `None` if they
/// cannot be read.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn base_chains() -> Result<Option<Vec<BaseChain>>, LegacyError> {
    Ok(tables()?.map(|tables| {
        let chains = tables
            .iter()
            .flat_map(|(title, family, table)| table.base_chains(title, *family));
        chains.collect()
    }))
}

/// The built-in chains INPUT of the tables `filter` that drop a redirected connection; none if they cannot be read.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn blocking(arrival: Arrival) -> Result<Vec<InstalledChain>, LegacyError> {
    let find = |layout: &Layout, table: &Blob| {
        input::drops(layout, table.entries(), table.hooks[INPUT], arrival).then_some(())
    };
    let found = in_each_family("filter", find)?.into_iter();
    Ok(found.map(|(table, ())| InstalledChain::new(table, "INPUT")).collect())
}

/// The built-in chains PREROUTING of the tables `nat` that publish ports; none if they cannot be read.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn publishing() -> Result<Vec<(InstalledChain, Vec<Ports>)>, LegacyError> {
    let find = |layout: &Layout, table: &Blob| {
        let ports = input::published_ports(layout, table.entries(), table.hooks[PREROUTING]);
        (!ports.is_empty()).then_some(ports)
    };
    let found = in_each_family("nat", find)?.into_iter();
    Ok(found
        .map(|(table, ports)| (InstalledChain::new(table, "PREROUTING"), ports))
        .collect())
}

/// What `find` finds in the table of this name of each family, with its title.
fn in_each_family<T>(name: &str, find: impl Fn(&Layout, &Blob) -> Option<T>) -> Result<Vec<(String, T)>, LegacyError> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let protocol = Protocol::of(family);
        if !existing(protocol, family)?.is_some_and(|names| names.lines().any(|existing| existing == name)) {
            continue;
        }
        if let Some(table) = readable(protocol, name)? {
            found.extend(find(protocol.layout, &table).map(|part| (protocol.title(name), part)));
        }
    }
    Ok(found)
}

/// A table, with its title and family.
type Titled = (String, Family, Table);

/// The existing [`TABLES`], each with its title and family; `None` if they cannot be read.
fn tables() -> Result<Option<Vec<Titled>>, LegacyError> {
    let mut tables = Vec::new();
    for family in Family::BOTH {
        let protocol = Protocol::of(family);
        let Some(names) = existing(protocol, family)? else {
            return Ok(None);
        };
        let exists = |(table, _): &(&str, i32)| names.lines().any(|name| name == *table);
        for (name, priority) in TABLES.into_iter().filter(exists) {
            let Some(table) = readable(protocol, name)? else {
                return Ok(None);
            };
            let nat = name == "nat";
            let table = Table::new(protocol.layout, table.entries(), table.built_in().into(), priority, nat);
            tables.push((protocol.title(name), family, table));
        }
    }
    Ok(Some(tables))
}

/// The names of the existing tables, one a line; `None` if they cannot be read.
fn existing(protocol: &Protocol, family: Family) -> Result<Option<String>, LegacyError> {
    match proc::read_short(protocol.names) {
        Ok(names) => Ok(Some(names)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // If the directory exists, the module is not loaded, so there are no tables.
            Ok(Path::new("/proc/thread-self/net").is_dir().then(String::new))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            tracing::debug!(%family, %error, "cannot read whether legacy iptables has tables");
            Ok(None)
        }
        Err(error) => Err(LegacyError {
            what: format!("names of the tables of legacy {}", protocol.program),
            error,
        }),
    }
}

/// Reads a table, again while other processes change its size between the two requests; `None` without permission.
fn readable(protocol: &Protocol, table: &str) -> Result<Option<Blob>, LegacyError> {
    for _ in attempts() {
        match read(protocol, table) {
            Err(Errno::EAGAIN) => {}
            Ok(blob) => return Ok(Some(blob)),
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
                tracing::debug!(table, program = protocol.program, %errno, "no permission to read a table of legacy iptables");
                return Ok(None);
            }
            Err(errno) => return Err(protocol.error(table, errno)),
        }
    }
    Err(protocol.error(table, Errno::EAGAIN))
}

/// A table as the kernel returns it.
struct Blob {
    bytes: Vec<u8>,
    /// By hook (`enum nf_inet_hooks`): the offsets of its first entry and of its policy.
    hooks: [(usize, usize); 5],
}

impl Blob {
    /// `struct ipt_get_entries`: the name, size, then the entries, which hold 64-bit counters.
    const ENTRIES_START: usize = (NAME_LENGTH + 4).next_multiple_of(align_of::<u64>());

    fn entries(&self) -> &[u8] {
        self.bytes.get(Self::ENTRIES_START..).unwrap_or_default()
    }

    /// Where the built-in chains at the hooks that ours use begin and end.
    fn built_in(&self) -> [BuiltIn; 2] {
        [
            (Hook::Prerouting, self.hooks[PREROUTING]),
            (Hook::Output, self.hooks[OUTPUT]),
        ]
        .map(|(hook, (first, policy))| BuiltIn { hook, first, policy })
    }
}

fn read(protocol: &Protocol, table: &str) -> Result<Blob, Errno> {
    /// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; those of IPv6 have the same numbers.
    const GET_INFO: libc::c_int = 64;
    const GET_ENTRIES: libc::c_int = 65;
    /// `struct ipt_getinfo`: the name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
    const HOOK_ENTRIES: usize = NAME_LENGTH + 4;
    const UNDERFLOWS: usize = HOOK_ENTRIES + 5 * 4;
    const INFO_LENGTH: usize = NAME_LENGTH + 13 * 4;

    let socket = socket(protocol.domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = vec![0; INFO_LENGTH];
    info[..table.len()].copy_from_slice(table.as_bytes());
    socket_options::get(&socket, protocol.level, GET_INFO, &mut info)?;
    let number = |at| {
        entries::number(&info, at)
            .map(|number| number as usize)
            .ok_or(Errno::EBADMSG)
    };
    let size = number(INFO_LENGTH - 4)?;
    let mut hooks = [(0, 0); 5];
    for (at, hook) in (0..).step_by(4).zip(&mut hooks) {
        *hook = (number(HOOK_ENTRIES + at)?, number(UNDERFLOWS + at)?);
    }

    let mut bytes = vec![0; Blob::ENTRIES_START + size];
    bytes[..table.len()].copy_from_slice(table.as_bytes());
    bytes[NAME_LENGTH..NAME_LENGTH + 4].copy_from_slice(&(size as u32).to_ne_bytes());
    socket_options::get(&socket, protocol.level, GET_ENTRIES, &mut bytes)?;
    Ok(Blob { bytes, hooks })
}
