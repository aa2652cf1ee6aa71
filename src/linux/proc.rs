//! Short files of the proc file system.

use std::fs::File;
use std::io::{self, Read as _};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

/// Reads a file whose text is shorter than a page. It takes three system calls; those of the standard library are five,
/// and an apply that changes nothing else reads some such files.
///
/// # Errors
/// It cannot be opened or read.
pub fn read_short(path: &str) -> io::Result<String> {
    const PAGE: usize = 4096;
    let mut buffer = [0; PAGE];
    let mut file = File::from(openat(
        AT_FDCWD,
        path,
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?);
    // The kernel returns as much at once as the buffer holds.
    let length = file.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
