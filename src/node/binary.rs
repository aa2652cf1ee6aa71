//! The plugin's binary: a copy of this program in the plugin directory of the runtime.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use super::chain::PLUGIN;
use super::layout::Reason;
use crate::linux::files::{self, Access, FileError};

/// This program, even if its file was replaced or removed after it started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The path of the binary in a plugin directory.
pub fn path(directory: &Path) -> PathBuf {
    directory.join(PLUGIN)
}

/// Why the binary at `path` has to be replaced; `None` where it is as wanted.
///
/// # Errors
/// The binary or this program cannot be read.
pub fn check(path: &Path) -> Result<Option<Reason>, FileError> {
    let reading = |path| FileError::system("reading", path);
    // A link is not followed: another process might point it elsewhere.
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(Reason::BinaryMissing)),
        Err(error) => return Err(reading(path)(error)),
    };
    if !metadata.is_file() || !Access::PROGRAM.is_that_of(&metadata) {
        return Ok(Some(Reason::BinaryDifferent));
    }
    let program = File::open(THIS_PROGRAM).map_err(reading(Path::new(THIS_PROGRAM)))?;
    let same = File::open(path).and_then(|installed| same_content(program, installed));
    let same = same.map_err(reading(path))?;
    Ok((!same).then_some(Reason::BinaryDifferent))
}

fn same_content(one: File, other: File) -> io::Result<bool> {
    const CHUNK: usize = 1 << 16;
    let (mut one, mut other) = (
        BufReader::with_capacity(CHUNK, one),
        BufReader::with_capacity(CHUNK, other),
    );
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Installs this program at `path`.
///
/// # Errors
/// A file operation failed; the file at `path` is unchanged.
pub fn put(path: &Path) -> Result<(), FileError> {
    let program = File::open(THIS_PROGRAM).map_err(FileError::system("reading", Path::new(THIS_PROGRAM)));
    files::put(path, &mut program?, Access::PROGRAM)
}
