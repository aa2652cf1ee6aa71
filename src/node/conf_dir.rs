//! The directory of network configurations: read as a whole, changed step by step.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::layout::{self, Content, Folder, Snapshot, Step};
use crate::linux::files::{self, Access, FileError};

/// The largest configuration that is read, in bytes. A network configuration has a few kilobytes.
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;

/// Reads the configurations in a directory, the originals that sidetrack keeps there, and the plugin folders.
///
/// # Errors
/// The directory cannot be read, or is not a directory.
pub fn snapshot(directory: &Path) -> Result<Snapshot, FileError> {
    let mut snapshot = Snapshot::default();
    for entry in files::entries(directory)? {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match entry.file_name().into_string() {
            Ok(name) if is_directory => snapshot.insert_folder(name, folder(&entry.path())),
            Ok(name) if layout::is_relevant(&name) => {
                if let Some(content) = content(&entry.path(), &name) {
                    if let Some(target) = link_target(directory, &entry.path()) {
                        snapshot.insert_link(name.clone(), target);
                    }
                    snapshot.insert(name, content);
                }
            }
            // A symbolic link may lead to a folder.
            Ok(name) => match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => snapshot.insert_folder(name, folder(&entry.path())),
                Ok(_) => snapshot.insert_other(name),
                Err(error) => snapshot.insert_folder(name, Folder::Unreadable(why(&entry.path(), &error))),
            },
            Err(name) => {
                let why = "its name is not UTF-8: give it another one".to_owned();
                snapshot.insert(name.to_string_lossy().into_owned(), Content::Unreadable(why));
            }
        }
    }
    Ok(snapshot)
}

/// The target of a link: a name in the directory, or a path elsewhere.
fn link_target(directory: &Path, path: &Path) -> Option<PathBuf> {
    fs::read_link(path).ok()?;
    let target = fs::canonicalize(path).ok()?;
    let directory = fs::canonicalize(directory).ok()?;
    Some(target.strip_prefix(directory).map(Path::to_owned).unwrap_or(target))
}

fn folder(path: &Path) -> Folder {
    let entries = match fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(error) => return Folder::Unreadable(why(path, &error)),
    };
    let mut plugins = BTreeMap::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory
            && layout::is_folder_plugin(&name)
            && let Some(content) = content(&entry.path(), &name)
        {
            plugins.insert(name, content);
        }
    }
    Folder::Files(plugins)
}

/// The content of a file; `None` where it was removed after the directory was read.
fn content(path: &Path, name: &str) -> Option<Content> {
    let bytes = match fs::metadata(path) {
        // Only regular files are opened: opening a pipe would wait for a writer.
        Ok(metadata) if !metadata.is_file() => return Some(Content::NotAFile),
        Ok(metadata) if metadata.len() > MAX_CONFIGURATION_BYTES => {
            let why = format!("it is larger than {MAX_CONFIGURATION_BYTES} bytes");
            return Some(Content::Unreadable(why));
        }
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    match bytes.map(String::from_utf8) {
        Ok(Ok(text)) => Some(Content::Text(text)),
        // libcni accepts such bytes in strings.
        Ok(Err(error)) => match String::from_utf8_lossy(error.as_bytes()) {
            text if layout::is_valid(name, &text) => {
                Some(Content::Unreadable("it is not UTF-8: write it as UTF-8".to_owned()))
            }
            text => Some(Content::Text(text.into_owned())),
        },
        Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => None,
        Err(error) => Some(Content::Unreadable(why(path, &error))),
    }
}

/// Why a file cannot be read, and what to do.
fn why(path: &Path, error: &io::Error) -> String {
    match fs::read_link(path) {
        Ok(target) => format!(
            "it is a link to {}, which cannot be read from here: {error}. A container has another root than the node: \
             mount the directory that it leads to at the same path in the installer's container, or make it a file",
            target.display()
        ),
        Err(_) => format!("it cannot be read: {error}. Run as root; where SELinux is enforced, as spc_t"),
    }
}

/// Applies one step in a directory.
///
/// # Errors
/// A file operation failed, or the file does not have the content that the step expects.
pub fn apply(directory: &Path, step: &Step) -> Result<(), FileError> {
    match step {
        Step::Write { name, was, text, like } => write(directory, name, was.as_deref(), text, like),
        Step::Rename { from, to, was } => {
            check(directory, from, Some(was))?;
            if !layout::is_original(to) {
                // What is restored must not replace what its owner has written again.
                check(directory, to, None)?;
            }
            files::rename(&directory.join(from), &directory.join(to))
        }
        Step::Remove { name, was } => {
            check(directory, name, Some(was))?;
            files::remove(&directory.join(name)).map(drop)
        }
    }
}

/// Checks that a file still has this content, or that there is none: called late, so little time is left in which a change
/// by another process would be lost.
fn check(directory: &Path, name: &str, was: Option<&str>) -> Result<(), FileError> {
    let path = directory.join(name);
    match has_content(&path, name, was) {
        true => Ok(()),
        false => Err(FileError::Changed(path)),
    }
}

/// Whether a file has this content; `None`: there is no such file.
fn has_content(path: &Path, name: &str, was: Option<&str>) -> bool {
    match content(path, name) {
        None => was.is_none(),
        Some(Content::Text(text)) => Some(text.as_str()) == was,
        Some(Content::NotAFile | Content::Unreadable(_)) => false,
    }
}

fn write(directory: &Path, name: &str, was: Option<&str>, text: &str, like: &str) -> Result<(), FileError> {
    let path = directory.join(name);
    // A link stays a link: its target is replaced.
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
    files::replace(&path, &mut text.as_bytes(), access, || {
        Ok(has_content(&path, name, was))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_changed_by_another_process_is_neither_removed_nor_renamed_nor_replaced() {
        let directory = std::env::temp_dir().join(format!("sidetrack-removal-{}", std::process::id()));
        files::make_directory(&directory).unwrap();
        fs::write(directory.join("a.conflist"), "changed").unwrap();
        fs::write(directory.join("a.conf.sidetrack"), "original").unwrap();
        fs::write(directory.join("a.conf"), "written again").unwrap();
        let (from, to) = ("a.conf.sidetrack".to_owned(), "a.conf".to_owned());
        let was = |text: &str| text.to_owned();
        for step in [
            Step::Remove {
                name: was("a.conflist"),
                was: was("ours"),
            },
            Step::Rename {
                from: from.clone(),
                to: was("b.conf"),
                was: was("another"),
            },
            Step::Rename {
                from: from.clone(),
                to: to.clone(),
                was: was("original"),
            },
        ] {
            assert!(
                matches!(apply(&directory, &step), Err(FileError::Changed(_))),
                "{step:?}"
            );
        }
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(
            [read("a.conflist"), read(&from), read(&to)],
            ["changed", "original", "written again"]
        );
        apply(
            &directory,
            &Step::Remove {
                name: to.clone(),
                was: was("written again"),
            },
        )
        .unwrap();
        apply(
            &directory,
            &Step::Rename {
                from,
                to: to.clone(),
                was: was("original"),
            },
        )
        .unwrap();
        assert_eq!(read(&to), "original");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn file_changed_by_another_process_is_not_overwritten() {
        let directory = std::env::temp_dir().join(format!("sidetrack-files-{}", std::process::id()));
        files::make_directory(&directory).unwrap();
        fs::write(directory.join("a.conflist"), "foreign").unwrap();
        for was in [None, Some("another".to_owned())] {
            let step = Step::Write {
                name: "a.conflist".to_owned(),
                was,
                text: "ours".to_owned(),
                like: "a.conflist".to_owned(),
            };
            assert!(matches!(apply(&directory, &step), Err(FileError::Changed(_))));
        }
        assert_eq!(snapshot(&directory).unwrap(), {
            let mut foreign = Snapshot::default();
            foreign.insert("a.conflist".to_owned(), Content::Text("foreign".to_owned()));
            foreign
        });
        assert_eq!(files::entries(&directory).unwrap().len(), 1, "nothing unfinished stays");
        fs::remove_dir_all(directory).unwrap();
    }
}
