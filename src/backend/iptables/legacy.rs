//! Reads the rules of legacy iptables without any program and without side effects.
//!
//! Reading a table in the usual way makes the kernel create it, and the empty table then misleads other tools. So the
//! list of existing tables (`/proc/net/ip_tables_names`) is read first, and only tables in it are read.

mod entries;

use std::io::{self, ErrorKind};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use thiserror::Error;

use self::entries::{BuiltIn, Layout, Table};
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

/// A table, with its title and family.
type Titled = (String, Family, Table);

/// The existing tables, each with its title and family; `None` if they cannot be read.
fn tables() -> Result<Option<Vec<Titled>>, LegacyError> {
    let mut tables = Vec::new();
    for family in Family::BOTH {
        let protocol = match family {
            Family::V4 => &IPV4,
            Family::V6 => &IPV6,
        };
        let Some(existing) = existing(protocol, family)? else {
            return Ok(None);
        };
        for (name, priority) in existing {
            match read_consistent(protocol, name, priority) {
                Ok(table) => tables.push((format!("{name} (legacy {})", protocol.program), family, table)),
                Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
                    tracing::debug!(%family, table = name, %errno, "no permission to read a table of legacy iptables");
                    return Ok(None);
                }
                Err(errno) => {
                    return Err(LegacyError {
                        what: format!("table {name} of legacy {}", protocol.program),
                        error: errno.into(),
                    });
                }
            }
        }
    }
    Ok(Some(tables))
}

/// The [`TABLES`] that exist; `None` if that cannot be read.
fn existing(protocol: &Protocol, family: Family) -> Result<Option<Vec<(&'static str, i32)>>, LegacyError> {
    match proc::read_short(protocol.names) {
        Ok(names) => {
            let exists = |(table, _): &(&str, i32)| names.lines().any(|name| name == *table);
            Ok(Some(TABLES.into_iter().filter(exists).collect()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // If the directory exists, the module is not loaded, so there are no tables.
            Ok(Path::new("/proc/thread-self/net").is_dir().then(Vec::new))
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

/// Reads a table again while other processes change its size between the two requests.
fn read_consistent(protocol: &Protocol, table: &str, priority: i32) -> Result<Table, Errno> {
    for _ in attempts() {
        match read(protocol, table, priority) {
            Err(Errno::EAGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::EAGAIN)
}

fn read(protocol: &Protocol, table: &str, priority: i32) -> Result<Table, Errno> {
    /// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; those of IPv6 have the same numbers.
    const GET_INFO: libc::c_int = 64;
    const GET_ENTRIES: libc::c_int = 65;
    /// `struct ipt_getinfo`: the name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
    const HOOK_ENTRIES: usize = NAME_LENGTH + 4;
    const UNDERFLOWS: usize = HOOK_ENTRIES + 5 * 4;
    const INFO_LENGTH: usize = NAME_LENGTH + 13 * 4;
    /// `struct ipt_get_entries`: the name, size, then the entries, aligned to 8.
    const ENTRIES_START: usize = NAME_LENGTH + 8;

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
    let hooks = [Hook::Prerouting, Hook::Output].map(|hook| {
        // `enum nf_inet_hooks`.
        let at = match hook {
            Hook::Prerouting => 0,
            Hook::Output => 3 * 4,
        };
        let (first, policy) = (number(HOOK_ENTRIES + at)?, number(UNDERFLOWS + at)?);
        Ok(BuiltIn { hook, first, policy })
    });

    let mut entries = vec![0; ENTRIES_START + size];
    entries[..table.len()].copy_from_slice(table.as_bytes());
    entries[NAME_LENGTH..NAME_LENGTH + 4].copy_from_slice(&(size as u32).to_ne_bytes());
    socket_options::get(&socket, protocol.level, GET_ENTRIES, &mut entries)?;
    let built_in = hooks.into_iter().collect::<Result<_, Errno>>()?;
    let entries = entries.get(ENTRIES_START..).unwrap_or_default();
    let nat = table == "nat";
    Ok(Table::new(protocol.layout, entries, built_in, priority, nat))
}
