//! Files that one process sees and others do not.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Makes `command` find this text in a file, which must exist. Nothing of that is left once it has ended.
#[expect(unsafe_code, reason = "file systems are mounted between fork and exec")]
pub fn with_file(command: &mut Command, path: &'static str, text: &str) {
    /// Covered by a file system in memory.
    const DIRECTORY: &str = "/mnt";
    let text = text.to_owned();
    let cover = move || {
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        mount(nothing, DIRECTORY, Some("tmpfs"), MsFlags::empty(), nothing)?;
        let source = format!("{DIRECTORY}/file");
        fs::write(&source, &text)?;
        Ok(mount(Some(source.as_str()), path, nothing, MsFlags::MS_BIND, nothing)?)
    };
    // SAFETY: the closure makes system calls; it allocates, which glibc allows in the child since its allocator takes
    // care of forks.
    unsafe { command.pre_exec(cover) };
}
