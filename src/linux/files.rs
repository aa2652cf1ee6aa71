//! Files that are never half there: each change is a new file, synced to the disk and then renamed into place.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink,
};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

/// What the names of unfinished files begin with. No runtime takes them for configurations or plugins.
const UNFINISHED: &str = ".sidetrack-unfinished-";

/// Something that could not be done with a file.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system did not do it.
    #[error("{doing} {}: {reason}{}", path.display(), advice(reason))]
    System {
        /// What was to be done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it was not.
        reason: io::Error,
    },
    /// Somebody changed it between our look and our change; theirs stays.
    #[error("{} was changed by somebody in this moment; look again", .0.display())]
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

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl Access {
    /// That of a program: for everybody to execute.
    pub const PROGRAM: Self = Self {
        mode: 0o755,
        owner: None,
    };

    /// That of a configuration: for everybody to read.
    pub const CONFIGURATION: Self = Self {
        mode: 0o644,
        owner: None,
    };

    /// Whether a file has it.
    pub fn is_that_of(self, metadata: &fs::Metadata) -> bool {
        metadata.mode() & 0o7777 == self.mode
            && self.owner.is_none_or(|owner| owner == (metadata.uid(), metadata.gid()))
    }

    /// That of a file.
    ///
    /// # Errors
    /// It cannot be seen.
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
        // After the owner, whose change takes special bits away.
        file.set_permissions(Permissions::from_mode(self.mode))
    }
}

/// Where what is to replace `target` is made.
fn unfinished(target: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unique = now.map_or(0, |now| now.as_nanos());
    target.with_file_name(format!("{UNFINISHED}{}-{unique}", std::process::id()))
}

/// A new file that is not in its place yet. Unless it is put there, nothing of it stays.
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
            tracing::warn!(path = %self.path.display(), %error, "an unfinished file could not be removed");
        }
    }
}

fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(FileError::system("syncing the directory", directory))
}

/// Puts a file with this content in place, whole; where that fails, what was there stays.
///
/// # Errors
/// The system did not do it.
pub fn put(path: &Path, content: &mut impl Read, access: Access) -> Result<(), FileError> {
    replace(path, content, access, || Ok(true))
}

/// The same where the file is still as it was: `is_unchanged` is asked late, so that little time is left in which a
/// change by another process would be lost.
///
/// # Errors
/// The system did not do it, or the file has changed.
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

/// Renames a file, over another one of the new name.
///
/// # Errors
/// The system did not do it.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::system("renaming", from))?;
    sync_directory_of(to)
}

/// Puts a symbolic link in place, at one instant.
///
/// # Errors
/// The system did not do it.
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
/// The system did not do it.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::system("removing", path)(error)),
    }
}

/// Removes the unfinished files that a killed installer left in a directory.
///
/// # Errors
/// The directory cannot be read, or is none.
pub fn remove_unfinished(directory: &Path) -> Result<(), FileError> {
    for entry in entries(directory)? {
        if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            continue;
        }
        let path = entry.path();
        match remove(&path) {
            Ok(_) => tracing::info!(path = %path.display(), "removed what an installer left unfinished"),
            Err(error) => tracing::warn!(%error, "an unfinished file stays"),
        }
    }
    Ok(())
}

/// What is in a directory.
///
/// # Errors
/// It cannot be read, or is none.
pub fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, FileError> {
    fs::read_dir(directory)
        .and_then(Iterator::collect)
        .map_err(FileError::system("reading the directory", directory))
}

/// Makes a directory, where it is missing, for its owner alone.
///
/// # Errors
/// The system did not do it.
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
    fn what_failed_is_told_with_what_to_do() {
        assert!(advice_of(libc::EROFS).contains("without readOnly"));
        assert!(advice_of(libc::EACCES).contains("spc_t"));
        assert!(advice_of(libc::ENOSPC).contains("Make room"));
        assert!(advice_of(libc::EFBIG).contains("still in place"));
        assert!(advice_of(libc::EIO).ends_with("(os error 5)"));
    }
}
