//! Files that do not outlive their test.

use std::fs;

/// A file that is removed when the test is over.
pub struct Temporary(std::path::PathBuf);

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
