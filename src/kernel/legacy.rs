//! What legacy iptables holds, read without any program and without a side effect.
//!
//! Looking at a table in the usual way makes the kernel create it, and that empty table then misleads other tools. So
//! the list of tables that exist is looked at first (`/proc/net/ip_tables_names`), and only one of those is read.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use thiserror::Error;

use super::netlink::attempts;
use crate::facts::InstalledChain;
use crate::ruleset::Family;

/// The tables that rules like ours could be in.
const TABLES: [&str; 3] = ["nat", "mangle", "raw"];

/// How much space a table's name takes (`XT_TABLE_MAXNAMELEN`, linux/netfilter/x_tables.h).
const NAME_LENGTH: usize = 32;

/// Where things are in `struct ipt_entry` or `struct ip6t_entry` (linux/netfilter_ipv4/ip_tables.h and its twin), as
/// the compilers of 64-bit and 32-bit systems lay them out alike.
struct Layout {
    level: libc::c_int,
    domain: AddressFamily,
    names: &'static str,
    /// Offset of `__u16 target_offset`, directly followed by `__u16 next_offset`.
    target_offset: usize,
}

const IPV4: Layout = Layout {
    level: libc::IPPROTO_IP,
    domain: AddressFamily::Inet,
    names: "/proc/thread-self/net/ip_tables_names",
    target_offset: 88,
};

const IPV6: Layout = Layout {
    level: libc::IPPROTO_IPV6,
    domain: AddressFamily::Inet6,
    names: "/proc/thread-self/net/ip6_tables_names",
    target_offset: 140,
};

/// A look at legacy iptables that failed, though it is there and may be looked at.
#[derive(Debug, Error)]
#[error(
    "reading the {what}: {error}. Rules of ours could be there and be overlooked, so nothing was changed: try again"
)]
pub struct LegacyError {
    what: String,
    error: io::Error,
}

/// The chains that users of legacy iptables made, in both families; `None` where they cannot be seen: without `/proc`,
/// or for a user who may not read there.
///
/// # Errors
/// They could be seen, but not now.
pub fn chains() -> Result<Option<Vec<InstalledChain>>, LegacyError> {
    let mut chains = Vec::new();
    for family in Family::BOTH {
        match chains_of(family)? {
            Some(more) => chains.extend(more),
            None => return Ok(None),
        }
    }
    Ok(Some(chains))
}

fn chains_of(family: Family) -> Result<Option<Vec<InstalledChain>>, LegacyError> {
    let (layout, program) = match family {
        Family::V4 => (&IPV4, "iptables"),
        Family::V6 => (&IPV6, "ip6tables"),
    };
    let names = match names(layout.names) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // Where the rest is there, the module is not loaded, so there are no tables.
            return Ok(Path::new("/proc/thread-self/net").is_dir().then(Vec::new));
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            tracing::debug!(%family, %error, "may not see whether legacy iptables has tables");
            return Ok(None);
        }
        Err(error) => {
            let what = format!("names of the tables of legacy {program}");
            return Err(LegacyError { what, error });
        }
    };
    let mut chains = Vec::new();
    for table in names.lines().filter(|name| TABLES.contains(name)) {
        match read_undisturbed(layout, table) {
            Ok(names) => chains.extend(names.into_iter().map(|chain| InstalledChain {
                table: format!("{table} (legacy {program})"),
                chain,
            })),
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
                tracing::debug!(%family, table, %errno, "may not read a table of legacy iptables");
                return Ok(None);
            }
            Err(errno) => {
                return Err(LegacyError {
                    what: format!("table {table} of legacy {program}"),
                    error: errno.into(),
                });
            }
        }
    }
    Ok(Some(chains))
}

/// The text of a list of names. The file does not tell its size, so it is not asked.
fn names(path: &str) -> io::Result<String> {
    let mut names = String::new();
    File::open(path)?.take(u64::MAX).read_to_string(&mut names)?;
    Ok(names)
}

/// The chains of a table, whose size others may change between asking for it and reading.
fn read_undisturbed(layout: &Layout, table: &str) -> Result<Vec<String>, Errno> {
    let mut result = Err(Errno::EAGAIN);
    for _ in attempts() {
        result = read(layout, table);
        if result != Err(Errno::EAGAIN) {
            break;
        }
    }
    result
}

fn read(layout: &Layout, table: &str) -> Result<Vec<String>, Errno> {
    /// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; those of IPv6 have the same numbers.
    const GET_INFO: libc::c_int = 64;
    const GET_ENTRIES: libc::c_int = 65;
    /// `struct ipt_getinfo`: the name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
    const INFO_LENGTH: usize = NAME_LENGTH + 13 * 4;
    /// `struct ipt_get_entries`: the name, size, then the entries, aligned to 8.
    const ENTRIES_START: usize = NAME_LENGTH + 8;

    let socket = socket(layout.domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = vec![0; INFO_LENGTH];
    info[..table.len()].copy_from_slice(table.as_bytes());
    get_option(&socket, layout.level, GET_INFO, &mut info)?;
    let size = number(&info, INFO_LENGTH - 4).ok_or(Errno::EBADMSG)?;

    let mut entries = vec![0; ENTRIES_START + size];
    entries[..table.len()].copy_from_slice(table.as_bytes());
    entries[NAME_LENGTH..NAME_LENGTH + 4].copy_from_slice(&(size as u32).to_ne_bytes());
    get_option(&socket, layout.level, GET_ENTRIES, &mut entries)?;
    Ok(user_chains(layout, &entries[ENTRIES_START..]))
}

/// A chain that a user made begins with an entry whose target is called ERROR and holds the chain's name.
fn user_chains(layout: &Layout, entries: &[u8]) -> Vec<String> {
    const TARGET_NAME: usize = 2;
    const TARGET_DATA: usize = 32;
    const END_OF_TABLE: &str = "ERROR";
    let mut chains = Vec::new();
    let mut rest = entries;
    while let (Some(target), Some(next)) = (short(rest, layout.target_offset), short(rest, layout.target_offset + 2)) {
        let target = rest.get(target..).unwrap_or_default();
        if text(target, TARGET_NAME) == Some("ERROR") {
            chains.extend(
                text(target, TARGET_DATA)
                    .filter(|name| *name != END_OF_TABLE)
                    .map(str::to_owned),
            );
        }
        rest = match rest.get(next..) {
            Some(rest) if next > 0 => rest,
            _ => break,
        };
    }
    chains
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u16::from_ne_bytes(*bytes).into())
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_ne_bytes(*bytes) as usize)
}

fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let bytes = bytes.get(at..)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

#[expect(unsafe_code, reason = "these socket options have no safe binding")]
fn get_option(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &mut [u8]) -> Result<(), Errno> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of a slice that lives through the call; the kernel writes at most
    // `length` bytes, and any bytes are valid in it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(drop)
}
