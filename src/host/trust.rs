//! Whether a program may run as root at every boot: only root may be able to replace it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::HostError;

/// The path of this program, for a unit.
///
/// # Errors
/// Another user than root can replace the program, or its path cannot be written into a unit.
pub fn program() -> Result<String, HostError> {
    let path = std::env::current_exe().map_err(HostError::file("reading", "/proc/self/exe"))?;
    let text = path
        .to_str()
        .filter(|text| text.chars().all(is_plain))
        .map(str::to_owned);
    let reason = match text {
        None => "and its path has characters that mean something else in units".to_owned(),
        Some(text) => match replaceable(&path) {
            Ok(None) => return Ok(text),
            Ok(Some(part)) => format!("but others than root can write to {}", part.display()),
            Err(error) => format!("and it cannot be read ({error})"),
        },
    };
    Err(HostError::Program { path, reason })
}

/// Quotes, `$`, `%` and spaces are not (systemd.service(5), "Command lines").
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+')
}

/// The part of a path that other users than root can write to: the program, or one of its directories.
fn replaceable(path: &Path) -> std::io::Result<Option<PathBuf>> {
    for part in path.ancestors() {
        let metadata = fs::metadata(part)?;
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return Ok(Some(part.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_write_to_is_told_from_what_root_alone_can() {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(replaceable(&shell).unwrap(), None);
        let elsewhere = std::env::temp_dir().join(format!("sidetrack-trust-{}", std::process::id()));
        fs::write(&elsewhere, "").unwrap();
        let found = replaceable(&elsewhere).unwrap();
        fs::remove_file(&elsewhere).unwrap();
        // A file of root's is safe, the directory that it is in is not.
        let is_root = nix::unistd::geteuid().is_root();
        let expected = if is_root { std::env::temp_dir() } else { elsewhere };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn a_path_that_a_unit_would_read_otherwise_is_not_plain() {
        assert!("/usr/local/bin/sidetrack-1.0+x_y".chars().all(is_plain));
        for text in ["/a b", "/a%b", "/a$b", "/a'b", "/a\"b", "/a\\b", "/a;b", "/a\nb", "/ä"] {
            assert!(!text.chars().all(is_plain), "{text:?}");
        }
    }
}
