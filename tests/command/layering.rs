//! Arrows point one way: nothing that is pure knows anything that has effects, or anything above it.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the bottom up. Each may take from those before it, and from itself.
const ROOMS: [&str; 9] = [
    "yaml", "config", "facts", "ruleset", "plan", "drift", "probe", "render", "simulate",
];

/// Those above them, from the bottom up: the kernel knows none of its users, the plugin nothing of its installer.
const USERS: [&str; 5] = ["kernel", "cni", "node", "host", "cli"];

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

/// What the files of a room take from: which file, and from which room.
fn taken(name: &str) -> Vec<(PathBuf, String)> {
    let files = sources(&room(name));
    assert!(!files.is_empty(), "{name}");
    let mut all = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        let words = text.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
        let taken = words.filter_map(|word| word.strip_prefix("crate::")?.split(':').next());
        all.extend(taken.map(|taken| (file.clone(), taken.to_owned())));
    }
    all
}

#[test]
fn no_room_takes_anything_from_one_above_it() {
    for (floor, name) in ROOMS.iter().enumerate() {
        for (file, taken) in taken(name) {
            let below = ROOMS[..=floor].contains(&taken.as_str());
            assert!(below || taken.is_empty(), "{}: takes from {taken}", file.display());
        }
    }
}

#[test]
fn no_user_of_them_takes_anything_from_one_above_it() {
    for (floor, name) in USERS.iter().enumerate() {
        for (file, taken) in taken(name) {
            let above = USERS[floor + 1..].contains(&taken.as_str());
            assert!(!above, "{}: takes from {taken}", file.display());
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
