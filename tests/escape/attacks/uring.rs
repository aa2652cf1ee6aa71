//! A packet that no system call of the application sends: the kernel does, from a ring in shared memory.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::lab::{MARKER, PORT, Stage};
use crate::sys::{connect, internet, succeeded};

/// linux/io_uring.h.
const OFF_SUBMISSIONS: i64 = 0;
const OFF_ENTRIES: i64 = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;
const OP_SEND: u8 = 26;
/// `struct io_uring_params`: what the kernel fills in, by words of 4 bytes.
const PARAMETERS: usize = 120 / 4;
/// Where `sq_off` begins, and its fields for the tail, the ring's array and the mask.
const SUBMISSION_OFFSETS: usize = 40 / 4;
const TAIL: usize = SUBMISSION_OFFSETS + 1;
const ARRAY: usize = SUBMISSION_OFFSETS + 6;
/// Where `cq_off` begins, and its field for the entries.
const COMPLETION_ENTRIES: usize = 80 / 4 + 5;
/// A page, which holds a ring and its entries.
const LENGTH: usize = 4096;

/// UDP by io_uring.
#[expect(unsafe_code, reason = "a ring is memory that is shared with the kernel")]
pub fn udp(stage: &Stage) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_DGRAM, 0)?;
    connect(&socket, stage.far(PORT))?;
    let mut parameters = [0u32; PARAMETERS];
    // SAFETY: the parameters live through the call, which writes 120 bytes. The descriptor is new, with no other owner.
    let ring = unsafe {
        let descriptor = libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr());
        succeeded(descriptor as i32)?;
        OwnedFd::from_raw_fd(descriptor as i32)
    };
    let map = |offset| {
        // SAFETY: the kernel chooses the address of new memory.
        let memory = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            libc::mmap(ptr::null_mut(), LENGTH, protection, flags, ring.as_raw_fd(), offset)
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(memory.cast::<u8>())
    };
    let (queue, entries) = (map(OFF_SUBMISSIONS)?, map(OFF_ENTRIES)?);
    let at = |offset: u32| queue.wrapping_add(offset as usize);
    // SAFETY: both mappings last until the end of the process, and the kernel says where in them the fields are. It reads
    // the entry and the marker, which is static, before the call returns.
    unsafe {
        let entry = entries;
        ptr::write_bytes(entry, 0, 64);
        entry.write(OP_SEND);
        entry.add(4).cast::<i32>().write(socket.as_raw_fd());
        entry.add(16).cast::<u64>().write(MARKER.as_ptr() as u64);
        entry.add(24).cast::<u32>().write(MARKER.len() as u32);
        at(parameters[ARRAY]).cast::<u32>().write(0);
        AtomicU32::from_ptr(at(parameters[TAIL]).cast()).store(1, Ordering::Release);
        let entered = libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            1,
            1,
            ENTER_GETEVENTS,
            ptr::null::<u8>(),
            0,
        );
        succeeded(entered as i32)?;
        // `struct io_uring_cqe`: user data, then the result.
        let result = at(parameters[COMPLETION_ENTRIES]).add(8).cast::<i32>().read();
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
    }
    Ok(())
}
