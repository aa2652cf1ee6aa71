//! The repository is complete: no file of it refers to a path outside of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::output_of;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Relative paths that are data, such as invalid names in tests, or that are relative to something else than a file
/// here: a compiler's folder, a file system that a script builds.
const NOT_IN_REPOSITORY: &[&str] = &[
    "../../etc",
    "../a.conf",
    "../bin/busybox",
    "../metrics.txt",
    "../real/net.json",
    "../x",
];

/// Files of the repository, tracked by git or about to be: paths from its root.
fn files() -> BTreeSet<String> {
    let mut git = Command::new("git");
    // The checkout may belong to another user than the one who runs tests.
    git.args([
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let listed = output_of(git.current_dir(ROOT));
    let there = listed
        .split_terminator('\0')
        .filter(|file| Path::new(ROOT).join(file).is_symlink() || Path::new(ROOT).join(file).exists());
    there.map(str::to_owned).collect()
}

/// The path that `relative` leads to from the folder `base`; none if it leaves the repository.
fn resolve(base: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Parts of a text that may be paths through a parent folder.
fn paths_through_parents(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "._-/".contains(c)));
    // Absolute paths are of the machine; what begins with `/..` follows an expression for a folder.
    let is_relative = |word: &&str| !word.starts_with('/') || word.starts_with("/..");
    words
        .filter(is_relative)
        .filter(|word| word.len() > 2 && word.split('/').any(|part| part == ".."))
}

/// Whether a path that is written in `file` leads to a file or folder of the repository. It is relative to the folder
/// of the file or, in what runs there, to the root.
fn leads_inside(files: &BTreeSet<String>, file: &str, path: &str) -> bool {
    let (folder, _) = file.rsplit_once('/').unwrap_or_default();
    [folder, ""]
        .iter()
        .filter_map(|base| resolve(base, path))
        .any(|target| {
            let below = format!("{target}/");
            target.is_empty()
                || files.contains(&target)
                || files
                    .range(below.clone()..)
                    .next()
                    .is_some_and(|file| file.starts_with(&below))
        })
}

#[test]
fn no_file_refers_to_a_path_outside_the_repository() {
    let files = files();
    assert!(files.contains("Cargo.toml"), "{files:?}");
    let mut outside = Vec::new();
    for file in &files {
        let path = Path::new(ROOT).join(file);
        let text = match fs::read_link(&path) {
            Ok(target) if target.is_absolute() => {
                outside.push(format!("{file}: a link to {}", target.display()));
                continue;
            }
            Ok(target) => target.display().to_string(),
            // What is not text names no paths.
            Err(_) => String::from_utf8(fs::read(&path).expect("a file")).unwrap_or_default(),
        };
        let paths = paths_through_parents(&text).filter(|path| !NOT_IN_REPOSITORY.contains(path));
        outside.extend(
            paths
                .filter(|path| !leads_inside(&files, file, path))
                .map(|path| format!("{file}: {path}")),
        );
    }
    assert!(
        outside.is_empty(),
        "not in the repository (what is no path of a file here belongs to NOT_IN_REPOSITORY):\n{}",
        outside.join("\n")
    );
}

#[test]
fn paths_that_leave_the_repository_are_found() {
    let files = ["Cargo.toml", "tests/common/mod.rs"].map(str::to_owned).into();
    let up = |levels: usize, rest: &str| "../".repeat(levels) + rest;
    for (file, path, inside) in [
        ("tests/kernel/main.rs", up(1, "common/mod.rs"), true),
        ("tests/kernel/main.rs", up(2, "Cargo.toml"), true),
        ("tests/kernel/main.rs", up(2, ""), true),
        ("tests/kernel/main.rs", up(3, "Cargo.toml"), false),
        ("tests/kernel/main.rs", up(1, "shared/oracle"), false),
        ("scripts/oracle", up(1, "shared/oracle"), false),
        ("scripts/oracle", "/".to_owned() + &up(1, "Cargo.toml"), true),
        ("README.md", up(1, "common"), false),
        (
            "tests/kernel/main.rs",
            "common/".to_owned() + &up(4, "Cargo.toml"),
            false,
        ),
    ] {
        assert_eq!(
            paths_through_parents(&format!("(\"{path}\")")).collect::<Vec<_>>(),
            [&path],
            "{path}"
        );
        assert_eq!(leads_inside(&files, file, &path), inside, "{file}: {path}");
    }
    assert_eq!(
        paths_through_parents("[..] 1..2 {a, ..} a...b /run/.. ../").collect::<Vec<_>>(),
        ["../"]
    );
}
