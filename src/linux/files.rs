//! Files that are never half there: each change is a new file, synced to the disk and then renamed into place.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink,
};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use crate::node::layout;
use crate::node::layout::{Snapshot, Step};

/// What the names of unfinished files begin with. No runtime takes them for configurations or plugins.
const UNFINISHED: &str = ".sidetrack-unfinished-";

/// A network configuration is a few kilobytes; what is larger than this is none.
const MAX_CONFIGURATION: u64 = 1 << 20;

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

    fn of(path: &Path) -> io::Result<Self> {
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
    let mut unfinished = Unfinished::beside(path)?;
    unfinished
        .fill(content, access)
        .map_err(FileError::system("writing", path))?;
    unfinished.put(path)
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

fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, FileError> {
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

/// Reads the configurations in a directory, and the originals that we keep there.
///
/// # Errors
/// The directory cannot be read, or is none.
pub fn snapshot(directory: &Path) -> Result<Snapshot, FileError> {
    let mut snapshot = Snapshot::new();
    for entry in entries(directory)? {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if layout::concerns_us(&name)
            && let Some(text) = read_configuration(&entry.path())?
        {
            snapshot.insert(name, text);
        }
    }
    Ok(snapshot)
}

/// The text of a configuration; `None` where there is no file, or nothing that could be a text.
fn read_configuration(path: &Path) -> Result<Option<String>, FileError> {
    // Only files are opened: opening a pipe would wait for a writer.
    let text = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_CONFIGURATION => fs::read_to_string(path),
        Ok(_) => return Ok(None),
        Err(error) => Err(error),
    };
    match text {
        Ok(text) => Ok(Some(text)),
        // Gone since the directory was read, a link to nowhere, or no text.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(FileError::system("reading", path)(error)),
    }
}

/// Does one step in a directory.
///
/// # Errors
/// The system did not do it, or the file is no longer as the step expects it.
pub fn take(directory: &Path, step: &Step) -> Result<(), FileError> {
    match step {
        Step::Write { name, was, text, like } => write(directory, name, was.as_deref(), text, like),
        Step::Rename { from, to } => {
            let (from, to) = (directory.join(from), directory.join(to));
            fs::rename(&from, &to).map_err(FileError::system("renaming", &from))?;
            sync_directory_of(&to)
        }
        Step::Remove { name } => remove(&directory.join(name)).map(drop),
    }
}

fn write(directory: &Path, name: &str, was: Option<&str>, text: &str, like: &str) -> Result<(), FileError> {
    let path = directory.join(name);
    // A link stays a link: the file that it leads to is replaced.
    let path = match fs::canonicalize(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => path,
        Err(error) => return Err(FileError::system("reading", &path)(error)),
    };
    let access = match Access::of(&directory.join(like)) {
        Ok(access) => access,
        Err(error) if error.kind() == ErrorKind::NotFound => Access::CONFIGURATION,
        Err(error) => return Err(FileError::system("reading", &path)(error)),
    };
    let mut unfinished = Unfinished::beside(&path)?;
    unfinished
        .fill(&mut text.as_bytes(), access)
        .map_err(FileError::system("writing", &path))?;
    // Late, so that little time is left in which a change by somebody else would be lost.
    if read_configuration(&path)?.as_deref() != was {
        return Err(FileError::Changed(path));
    }
    unfinished.put(&path)
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

    #[test]
    fn a_file_that_somebody_changed_meanwhile_stays_theirs() {
        let directory = std::env::temp_dir().join(format!("sidetrack-files-{}", std::process::id()));
        make_directory(&directory).unwrap();
        fs::write(directory.join("a.conflist"), "theirs").unwrap();
        for was in [None, Some("another".to_owned())] {
            let step = Step::Write {
                name: "a.conflist".to_owned(),
                was,
                text: "ours".to_owned(),
                like: "a.conflist".to_owned(),
            };
            assert!(matches!(take(&directory, &step), Err(FileError::Changed(_))));
        }
        assert_eq!(
            snapshot(&directory).unwrap(),
            Snapshot::from([("a.conflist".to_owned(), "theirs".to_owned())])
        );
        assert_eq!(entries(&directory).unwrap().len(), 1, "nothing unfinished stays");
        fs::remove_dir_all(directory).unwrap();
    }
}
