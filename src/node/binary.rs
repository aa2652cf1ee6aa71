//! The plugin's binary: this very program, at the place where runtimes look for plugins.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use super::chain::PLUGIN;
use super::layout::Reason;
use crate::linux::files::{self, Access, FileError};

/// This program, also where its file was replaced or removed since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Where the binary is in a directory of plugins.
pub fn path(directory: &Path) -> PathBuf {
    directory.join(PLUGIN)
}

/// What is wrong with the binary at `path`, if anything is.
///
/// # Errors
/// It cannot be read, or this program cannot.
pub fn look(path: &Path) -> Result<Option<Reason>, FileError> {
    let reading = |path| FileError::system("reading", path);
    // Not through a link, which somebody might point elsewhere.
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(Reason::BinaryMissing)),
        Err(error) => return Err(reading(path)(error)),
    };
    if !metadata.is_file() || !Access::PROGRAM.is_that_of(&metadata) {
        return Ok(Some(Reason::BinaryDifferent));
    }
    let ours = File::open(THIS_PROGRAM).map_err(reading(Path::new(THIS_PROGRAM)))?;
    let same = File::open(path).and_then(|theirs| same_content(ours, theirs));
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

/// Puts this program at `path`.
///
/// # Errors
/// The system did not do it; what was there stays.
pub fn put(path: &Path) -> Result<(), FileError> {
    let program = File::open(THIS_PROGRAM).map_err(FileError::system("reading", Path::new(THIS_PROGRAM)));
    files::put(path, &mut program?, Access::PROGRAM)
}
