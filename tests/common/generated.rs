//! Files, or parts of them, that are written from the code: they are what the code says now.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Compares a file of the repository with what it should be. With `UPDATE_README=1` it is written instead.
#[track_caller]
pub fn file(path: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let written = fs::read_to_string(&path).unwrap_or_default();
    if written == wanted {
        return;
    }
    if std::env::var_os("UPDATE_README").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, wanted).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    panic!(
        "{} is not what the code says. `UPDATE_README=1 cargo test --test command --test docs` writes what it should be.",
        path.display()
    );
}

/// The same for the part of a file between `<!-- name -->` and `<!-- /name -->`.
#[track_caller]
pub fn part(path: &str, name: &str, wanted: &str) {
    // A file may have several parts, and be written by several tests at once.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{path}: no {begin:?}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path}: no {end:?}"));
    file(path, &format!("{before}{begin}{wanted}{end}{after}"));
}

/// The name of an option as a key in camel case: `proxyInboundPort`.
pub fn camel_case(name: &str) -> String {
    let (first, rest) = name.split_once('-').unwrap_or((name, ""));
    let capital = |word: &str| word.get(..1).unwrap_or_default().to_uppercase() + word.get(1..).unwrap_or_default();
    first.to_owned() + &rest.split('-').map(capital).collect::<String>()
}
