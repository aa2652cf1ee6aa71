//! Arrows point one way: nothing that is pure knows anything that has effects, or anything above it.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the bottom up. Each may take from those before it, and from itself.
const ROOMS: [&str; 6] = ["yaml", "config", "facts", "ruleset", "plan", "render"];

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries
        .flat_map(|entry| sources(&entry.expect("an entry").path()))
        .collect()
}

fn room(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let file = source.join(format!("{name}.rs"));
    if file.exists() { file } else { source.join(name) }
}

#[test]
fn no_room_takes_anything_from_one_above_it() {
    for (floor, name) in ROOMS.iter().enumerate() {
        let files = sources(&room(name));
        assert!(!files.is_empty(), "{name}");
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            for word in text.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c))) {
                let Some(taken) = word.strip_prefix("crate::").and_then(|rest| rest.split(':').next()) else {
                    continue;
                };
                let below = ROOMS[..=floor].contains(&taken);
                assert!(below || taken.is_empty(), "{}: takes from {taken}", file.display());
            }
        }
    }
}

#[test]
fn looking_at_manifests_has_no_effects() {
    for file in sources(&room("lint")) {
        let text = fs::read_to_string(&file).expect("a source file");
        for taken in [
            "crate::kernel",
            "crate::cli",
            "std::fs",
            "std::process",
            "std::net::Tcp",
        ] {
            assert!(!text.contains(taken), "{}: takes {taken}", file.display());
        }
    }
}

#[test]
fn unsafe_code_is_in_the_kernel_room_alone() {
    let kernel = room("kernel");
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&file).expect("a source file");
        assert!(
            file.starts_with(&kernel) || !text.contains("unsafe {"),
            "{}",
            file.display()
        );
    }
}
