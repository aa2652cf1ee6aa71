//! The manifests of `cni-conf`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cni-conf").join(name)
}

/// One of them.
pub fn manifest(name: &str) -> Value {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let document = sidetrack::yaml::document(&text);
    document
        .unwrap_or_else(|error| panic!("{name}: {}", error.reason))
        .to_json()
}
