//! What legacy iptables holds, read without any program and without a side effect.
//!
//! Looking at a table in the usual way makes the kernel create it, and that empty table then misleads other tools. So
//! the list of tables that exist is looked at first (`/proc/net/ip_tables_names`), and only one of those is read.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

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

/// The chains that users of legacy iptables made, in both families; `None` where they cannot be seen: without `/proc`,
/// or for a user who may not read there.
pub fn chains() -> Option<Vec<InstalledChain>> {
    let mut chains = Vec::new();
    for family in Family::BOTH {
        chains.extend(chains_of(family)?);
    }
    Some(chains)
}

fn chains_of(family: Family) -> Option<Vec<InstalledChain>> {
    let (layout, program) = match family {
        Family::V4 => (&IPV4, "iptables"),
        Family::V6 => (&IPV6, "ip6tables"),
    };
    let names = match fs::read_to_string(layout.names) {
        Ok(names) => names,
        // The module is not loaded, so there are no tables.
        Err(error) if error.kind() == ErrorKind::NotFound && Path::new("/proc/thread-self/net").is_dir() => {
            return Some(Vec::new());
        }
        Err(error) => {
            tracing::debug!(%family, %error, "cannot see whether legacy iptables has tables");
            return None;
        }
    };
    let mut chains = Vec::new();
    for table in names.lines().filter(|name| TABLES.contains(name)) {
        match read(layout, table) {
            Ok(names) => chains.extend(names.into_iter().map(|chain| InstalledChain {
                table: format!("{table} (legacy {program})"),
                chain,
            })),
            Err(errno) => {
                tracing::debug!(%family, table, %errno, "cannot read a table of legacy iptables");
                return None;
            }
        }
    }
    Some(chains)
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
