//! Telling answers that come from this host, over the loopback interface, from those of other hosts (socket(7),
//! `SO_ATTACH_FILTER`).

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;

/// The loopback interface is the first of any network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK_INDEX: u32 = 1;

/// Makes datagrams that reach the socket from another host empty.
#[expect(unsafe_code, reason = "there is no safe wrapper for this socket option")]
pub fn empty_what_comes_from_outside(socket: &OwnedFd) -> Result<(), Errno> {
    let filter = filter();
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program and the filter that it points to live through the call, which copies and does not change them.
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

/// How much is kept of a packet that begins with the header of UDP, which is always kept: all, or nothing else.
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
