//! Files and directories that do not outlive their test.

use std::fs;
use std::path::{Path, PathBuf};

/// A file that is removed when the test is over.
pub struct Temporary(PathBuf);

impl Temporary {
    pub fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sidetrack-{}-{name}", std::process::id()));
        fs::write(&path, text).expect("a temporary file");
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A directory that is removed with all that is in it when the test is over.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sidetrack-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
