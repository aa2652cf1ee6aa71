//! Atomic changes of files: each writes a new file, syncs it to the disk and renames it into place.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink,
};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

/// Name prefix of temporary files. No runtime reads them as configurations or plugins.
const TEMPORARY_PREFIX: &str = ".sidetrack-unfinished-";

/// A failed operation on a file.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system call failed.
    #[error("{doing} {}: {reason}{}", path.display(), advice(reason))]
    System {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: io::Error,
    },
    /// Another process changed the file between reading and replacing it; its change stays.
    #[error("{} was changed by another process meanwhile; try again", .0.display())]
    Changed(PathBuf),
}

impl FileError {
    /// An error of the system.
    pub fn system(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::System { doing, path, reason }
    }
}

fn advice(reason: &io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            ". The file system is read-only: mount the node's directory into the container, without readOnly"
        }
        ErrorKind::PermissionDenied => {
            ". Run as root; where SELinux is enforced, run the container as spc_t (seLinuxOptions)"
        }
        ErrorKind::NotFound => ". Mount the node's directory there (hostPath), or name another one",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            ". Make room on that file system; what was there before is still in place"
        }
        _ => "",
    }
}

/// Owner and mode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl Access {
    /// For a program: executable by all users.
    pub const PROGRAM: Self = Self {
        mode: 0o755,
        owner: None,
    };

    /// For a configuration: readable by all users.
    pub const CONFIGURATION: Self = Self {
        mode: 0o644,
        owner: None,
    };

    /// Whether a file has this owner and mode.
    pub fn is_that_of(self, metadata: &fs::Metadata) -> bool {
        metadata.mode() & 0o7777 == self.mode
            && self.owner.is_none_or(|owner| owner == (metadata.uid(), metadata.gid()))
    }

    /// Owner and mode of an existing file.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            mode: metadata.mode() & 0o7777,
            owner: Some((metadata.uid(), metadata.gid())),
        })
    }

    fn give(self, file: &File) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            let is = file.metadata()?;
            if (is.uid(), is.gid()) != (uid, gid) {
                fchown(file, Some(uid), Some(gid))?;
            }
        }
        // After the owner, since changing the owner clears special mode bits.
        file.set_permissions(Permissions::from_mode(self.mode))
    }
}

/// The path of the temporary file for `target`.
fn unfinished(target: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unique = now.map_or(0, |now| now.as_nanos());
    target.with_file_name(format!("{TEMPORARY_PREFIX}{}-{unique}", std::process::id()))
}

/// A temporary file. It is removed unless it is renamed into place.
struct Unfinished {
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Unfinished {
    fn beside(target: &Path) -> Result<Self, FileError> {
        let path = unfinished(target);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(FileError::system("writing", target))?;
        let finished = false;
        Ok(Self { path, file, finished })
    }

    fn fill(&mut self, content: &mut impl Read, access: Access) -> io::Result<()> {
        io::copy(content, &mut self.file)?;
        self.file.flush()?;
        access.give(&self.file)?;
        self.file.sync_all()
    }

    fn put(mut self, target: &Path) -> Result<(), FileError> {
        fs::rename(&self.path, target).map_err(FileError::system("replacing", target))?;
        self.finished = true;
        sync_directory_of(target)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file could not be removed");
        }
    }
}

fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(FileError::system("syncing the directory", directory))
}

/// Writes a file atomically; if that fails, the previous file stays.
///
/// # Errors
/// The system call failed.
pub fn put(path: &Path, content: &mut impl Read, access: Access) -> Result<(), FileError> {
    replace(path, content, access, || Ok(true))
}

/// The same if the file is unchanged: `is_unchanged` is called late, so little time is left in which a
/// change by another process would be lost.
///
/// # Errors
/// The system call failed, or the file has changed.
pub fn replace(
    path: &Path,
    content: &mut impl Read,
    access: Access,
    is_unchanged: impl FnOnce() -> Result<bool, FileError>,
) -> Result<(), FileError> {
    let mut unfinished = Unfinished::beside(path)?;
    unfinished
        .fill(content, access)
        .map_err(FileError::system("writing", path))?;
    if !is_unchanged()? {
        return Err(FileError::Changed(path.to_owned()));
    }
    unfinished.put(path)
}

/// Renames a file, replacing an existing one.
///
/// # Errors
/// The system call failed.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::system("renaming", from))?;
    sync_directory_of(to)
}

/// Creates or replaces a symbolic link atomically.
///
/// # Errors
/// The system call failed.
pub fn link(path: &Path, target: &Path) -> Result<(), FileError> {
    let new = unfinished(path);
    symlink(target, &new).map_err(FileError::system("writing", path))?;
    if let Err(error) = fs::rename(&new, path) {
        remove(&new)?;
        return Err(FileError::system("replacing", path)(error));
    }
    sync_directory_of(path)
}

/// Removes a file; returns whether there was one.
///
/// # Errors
/// The system call failed.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::system("removing", path)(error)),
    }
}

/// Removes temporary files that a killed installer left in a directory.
///
/// # Errors
/// It cannot be read, or is not a directory.
pub fn remove_unfinished(directory: &Path) -> Result<(), FileError> {
    for entry in entries(directory)? {
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            continue;
        }
        let path = entry.path();
        match remove(&path) {
            Ok(_) => tracing::info!(path = %path.display(), "removed a temporary file of a killed installer"),
            Err(error) => tracing::warn!(%error, "a temporary file could not be removed"),
        }
    }
    Ok(())
}

/// The entries of a directory.
///
/// # Errors
/// It cannot be read, or is not a directory.
pub fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, FileError> {
    fs::read_dir(directory)
        .and_then(Iterator::collect)
        .map_err(FileError::system("reading the directory", directory))
}

/// Creates a directory if it is missing, accessible by its owner alone.
///
/// # Errors
/// The system call failed.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::system("making the directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice_of(errno: i32) -> String {
        let error = FileError::system("writing", Path::new("/x"))(io::Error::from_raw_os_error(errno));
        error.to_string()
    }

    #[test]
    fn errors_include_advice() {
        assert!(advice_of(libc::EROFS).contains("without readOnly"));
        assert!(advice_of(libc::EACCES).contains("spc_t"));
        assert!(advice_of(libc::ENOSPC).contains("Make room"));
        assert!(advice_of(libc::EFBIG).contains("still in place"));
        assert!(advice_of(libc::EIO).ends_with("(os error 5)"));
    }
}
