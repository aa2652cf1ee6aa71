//! The directory of network configurations: read as a whole, and changed a step at a time.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::layout::{self, Snapshot, Step};
use crate::linux::files::{self, Access, FileError};

/// A network configuration is a few kilobytes; what is larger than this is none.
const MAX_CONFIGURATION: u64 = 1 << 20;

/// Reads the configurations in a directory, and the originals that we keep there.
///
/// # Errors
/// The directory cannot be read, or is none.
pub fn snapshot(directory: &Path) -> Result<Snapshot, FileError> {
    let mut snapshot = Snapshot::new();
    for entry in files::entries(directory)? {
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
        Step::Rename { from, to } => files::rename(&directory.join(from), &directory.join(to)),
        Step::Remove { name } => files::remove(&directory.join(name)).map(drop),
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
    let is_unchanged = || Ok(read_configuration(&path)?.as_deref() == was);
    files::replace(&path, &mut text.as_bytes(), access, is_unchanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_changed_meanwhile_stays_theirs() {
        let directory = std::env::temp_dir().join(format!("sidetrack-files-{}", std::process::id()));
        files::make_directory(&directory).unwrap();
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
        assert_eq!(files::entries(&directory).unwrap().len(), 1, "nothing unfinished stays");
        fs::remove_dir_all(directory).unwrap();
    }
}
