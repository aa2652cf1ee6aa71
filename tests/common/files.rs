//! Programs that can be executed at once, and files that one process sees and others do not.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::output_of;

/// Writes a script that everybody may execute. By another process: a file that this one has open for writing may be
/// inherited by a child of another thread, and cannot be executed until that child executes its own program (ETXTBSY).
pub fn write_program(path: &Path, text: &str) {
    let mut command = Command::new("install");
    command
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped());
    let mut install = command.spawn().expect("install (coreutils)");
    let mut stdin = install.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("install reads");
    drop(stdin);
    assert!(install.wait().expect("its end").success(), "{}", path.display());
}

/// Copies a program, in the same way.
pub fn copy_program(from: &Path, to: &Path) {
    output_of(Command::new("install").args(["-m", "755"]).args([from, to]));
}

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
