//! Reads the rules of legacy iptables without any program and without side effects.
//!
//! Reading a table in the usual way makes the kernel create it, and the empty table then misleads other tools. So the
//! list of existing tables (`/proc/net/ip_tables_names`) is read first, and only tables in it are read.

pub mod decode;
mod entries;
mod input;

use std::io::{self, ErrorKind};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use thiserror::Error;

use self::decode::EntryPoint;
use self::entries::{BuiltIn, Layout, Table};
use crate::backend::arrival::Arrival;
use crate::backend::published::Ports;
use crate::drift::BaseChain;
use crate::facts::InstalledChain;
use crate::linux::netlink::attempts;
use crate::linux::proc;
use crate::linux::socket_options;
use crate::ruleset::{Hook, netfilter, priority};
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
    observe().map(|observed| observed.chains)
}

/// The observed state of legacy iptables.
pub struct Observation {
    /// The user-defined chains in both families; `None` if they cannot be read.
    pub chains: Option<Vec<InstalledChain>>,
    /// Whether there may be any table.
    pub may_have_tables: bool,
}

/// The chains and whether there are tables, by one read of each list.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn observe() -> Result<Observation, LegacyError> {
    let mut may_have_tables = false;
    let tables = tables(&mut may_have_tables)?;
    let chains = tables.map(|tables| {
        let chains = tables.iter().flat_map(|(title, _, table)| {
            table.user_chains().into_iter().map(|chain| InstalledChain {
                table: title.clone(),
                chain,
            })
        });
        chains.collect()
    });
    Ok(Observation {
        may_have_tables: may_have_tables || chains.is_none(),
        chains,
    })
}

/// The built-in chains at the hooks that sidetrack uses, except those that jump to our chains; `None` if they
/// cannot be read.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn base_chains() -> Result<Option<Vec<BaseChain>>, LegacyError> {
    Ok(tables(&mut false)?.map(|tables| {
        let chains = tables
            .iter()
            .flat_map(|(title, family, table)| table.base_chains(title, *family));
        chains.collect()
    }))
}

/// All tables, decoded; `None` if they cannot be read.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn decoded_tables() -> Result<Option<Vec<netfilter::Table>>, LegacyError> {
    let mut tables = Vec::new();
    for family in Family::BOTH {
        let protocol = Protocol::of(family);
        let Some(existing) = existing(protocol, family, &decode::TABLES.map(|kinds| kinds.name))? else {
            return Ok(None);
        };
        for name in existing {
            let Some(raw) = protocol.read(name, family)? else {
                return Ok(None);
            };
            let kinds = decode::TABLES.into_iter().filter(|kinds| kinds.name == name);
            tables.extend(
                kinds.map(|kinds| decode::table(&protocol.title(name), kinds, family, &raw.entries, &raw.entry_points)),
            );
        }
    }
    Ok(Some(tables))
}

/// The built-in chains INPUT of the tables `filter` that drop a redirected connection; none if they cannot be read.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn blocking(arrival: Arrival) -> Result<Vec<InstalledChain>, LegacyError> {
    let find = |layout: &Layout, table: &Raw| {
        input::drops(layout, &table.entries, table.bounds(Hook::Input)?, arrival).then_some(())
    };
    let found = in_each_family("filter", find)?.into_iter();
    Ok(found.map(|(table, ())| InstalledChain::new(table, "INPUT")).collect())
}

/// The built-in chains PREROUTING of the tables `nat` that publish ports; none if they cannot be read.
///
/// # Errors
/// Reading is possible, but failed now.
pub fn publishing() -> Result<Vec<(InstalledChain, Vec<Ports>)>, LegacyError> {
    let find = |layout: &Layout, table: &Raw| {
        let ports = input::published_ports(layout, &table.entries, table.bounds(Hook::Prerouting)?);
        (!ports.is_empty()).then_some(ports)
    };
    let found = in_each_family("nat", find)?.into_iter();
    Ok(found
        .map(|(table, ports)| (InstalledChain::new(table, "PREROUTING"), ports))
        .collect())
}

/// What `find` finds in the table of this name of each family, with its title.
fn in_each_family<T>(
    name: &'static str,
    find: impl Fn(&Layout, &Raw) -> Option<T>,
) -> Result<Vec<(String, T)>, LegacyError> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let protocol = Protocol::of(family);
        if existing(protocol, family, &[name])?.is_none_or(|names| names.is_empty()) {
            continue;
        }
        if let Some(table) = protocol.read(name, family)? {
            found.extend(find(protocol.layout, &table).map(|part| (protocol.title(name), part)));
        }
    }
    Ok(found)
}

/// A table, with its title and family.
type Titled = (String, Family, Table);

/// The existing [`TABLES`], each with its title and family; `None` if they cannot be read. Sets whether there are any tables,
/// those at other hooks included.
fn tables(has_any: &mut bool) -> Result<Option<Vec<Titled>>, LegacyError> {
    let mut tables = Vec::new();
    for family in Family::BOTH {
        let protocol = Protocol::of(family);
        let Some(existing) = existing(protocol, family, &decode::TABLES.map(|kinds| kinds.name))? else {
            return Ok(None);
        };
        *has_any |= !existing.is_empty();
        for (name, priority) in TABLES.into_iter().filter(|(name, _)| existing.contains(name)) {
            let Some(raw) = protocol.read(name, family)? else {
                return Ok(None);
            };
            let built_in = raw.entry_points.iter().filter_map(|point| {
                let EntryPoint { hook, first, policy } = *point;
                matches!(hook, Hook::Prerouting | Hook::Output).then_some(BuiltIn { hook, first, policy })
            });
            let table = Table::new(
                protocol.layout,
                &raw.entries,
                built_in.collect(),
                priority,
                name == "nat",
            );
            tables.push((protocol.title(name), family, table));
        }
    }
    Ok(Some(tables))
}

/// Those of these tables that exist; `None` if that cannot be read.
fn existing(
    protocol: &Protocol,
    family: Family,
    tables: &[&'static str],
) -> Result<Option<Vec<&'static str>>, LegacyError> {
    match proc::read_short(protocol.names) {
        Ok(names) => {
            let exists = |table: &&&str| names.lines().any(|name| name == **table);
            Ok(Some(tables.iter().filter(exists).copied().collect()))
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

/// A table as the kernel lists it.
struct Raw {
    entries: Vec<u8>,
    entry_points: Vec<EntryPoint>,
}

impl Protocol {
    /// Reads a table again while other processes change its size between the two requests. `None`: not permitted.
    fn read(&self, table: &str, family: Family) -> Result<Option<Raw>, LegacyError> {
        let mut result = Err(Errno::EAGAIN);
        for _ in attempts() {
            result = read(self, table);
            if !matches!(result, Err(Errno::EAGAIN)) {
                break;
            }
        }
        match result {
            Ok(raw) => Ok(Some(raw)),
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
                tracing::debug!(%family, table, %errno, "no permission to read a table of legacy iptables");
                Ok(None)
            }
            Err(errno) => Err(self.error(table, errno)),
        }
    }
}

impl Raw {
    /// Where the built-in chain of a hook begins, and where its policy is.
    fn bounds(&self, hook: Hook) -> Option<(usize, usize)> {
        let point = self.entry_points.iter().find(|point| point.hook == hook)?;
        Some((point.first, point.policy))
    }
}

fn read(protocol: &Protocol, table: &str) -> Result<Raw, Errno> {
    /// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; those of IPv6 have the same numbers.
    const GET_INFO: libc::c_int = 64;
    const GET_ENTRIES: libc::c_int = 65;
    /// `struct ipt_getinfo`: the name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
    const HOOK_ENTRIES: usize = NAME_LENGTH + 4;
    const UNDERFLOWS: usize = HOOK_ENTRIES + HOOKS as usize * 4;
    const INFO_LENGTH: usize = NAME_LENGTH + 13 * 4;
    /// `struct ipt_get_entries`: the name, size, then the entries, which hold 64-bit counters.
    const ENTRIES_START: usize = (NAME_LENGTH + 4).next_multiple_of(align_of::<u64>());
    /// The number of hooks (`NF_INET_NUMHOOKS`).
    const HOOKS: u32 = 5;

    let socket = socket(protocol.domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = vec![0; INFO_LENGTH];
    info[..table.len()].copy_from_slice(table.as_bytes());
    socket_options::get(&socket, protocol.level, GET_INFO, &mut info)?;
    let number = |at| entries::number(&info, at).ok_or(Errno::EBADMSG);
    let (size, valid_hooks) = (number(INFO_LENGTH - 4)? as usize, number(NAME_LENGTH)?);
    let mut entry_points = Vec::new();
    for index in (0..HOOKS).filter(|index| valid_hooks & 1 << index != 0) {
        let at = index as usize * 4;
        let (first, policy) = (number(HOOK_ENTRIES + at)? as usize, number(UNDERFLOWS + at)? as usize);
        let hook = Hook::of_number(index);
        entry_points.extend(hook.map(|hook| EntryPoint { hook, first, policy }));
    }

    let mut entries = vec![0; ENTRIES_START + size];
    entries[..table.len()].copy_from_slice(table.as_bytes());
    entries[NAME_LENGTH..NAME_LENGTH + 4].copy_from_slice(&(size as u32).to_ne_bytes());
    socket_options::get(&socket, protocol.level, GET_ENTRIES, &mut entries)?;
    entries.drain(..ENTRIES_START);
    Ok(Raw { entries, entry_points })
}
