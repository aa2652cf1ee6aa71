//! Socket options that no library wraps (getsockopt(2), socket(7)).

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;

use super::route::LOOPBACK_INDEX;

/// Empties datagrams that reach the socket from another host, which distinguishes answers of this host from those of
/// others (`SO_ATTACH_FILTER`).
///
/// # Errors
/// The kernel refuses the filter.
#[expect(unsafe_code, reason = "there is no safe wrapper for this socket option")]
pub fn empty_datagrams_from_other_hosts(socket: &OwnedFd) -> Result<(), Errno> {
    let filter = filter();
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program and the filter that it points to live through the call, which copies and does not change
    // them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// A filter that keeps a whole packet, or only its UDP header.
fn filter() -> [libc::sock_filter; 4] {
    const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
    const ALL: u32 = u32::MAX;
    const HEADER: u32 = 8;
    let instruction = |code: u32, k, unless_equal| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: unless_equal,
        k,
    };
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, INTERFACE, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, LOOPBACK_INDEX, 1),
        instruction(libc::BPF_RET | libc::BPF_K, ALL, 0),
        instruction(libc::BPF_RET | libc::BPF_K, HEADER, 0),
    ]
}

/// Reads a socket option into `value`, of which the kernel fills as much as it has.
///
/// # Errors
/// The kernel does not know the option, or the value is too short for it.
#[expect(unsafe_code, reason = "there is no safe wrapper for any socket option")]
pub fn get(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &mut [u8]) -> Result<(), Errno> {
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

/// Enables a socket option whose value is a number.
///
/// # Errors
/// The kernel does not know the option.
#[expect(unsafe_code, reason = "there is no safe wrapper for any socket option")]
pub fn switch_on(socket: &OwnedFd, level: libc::c_int, name: libc::c_int) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of a number that lives through the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}
