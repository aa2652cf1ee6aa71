//! Layering: imports point one way, and pure modules have no effects.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library from the bottom up. Each may use those above it in this list, and itself.
const LAYERS: [&str; 20] = [
    "yaml", "types", "facts", "ruleset", "options", "mesh", "plan", "drift", "render", "simulate", "stats", "trace",
    "lint", "linux", "backend", "probe", "host", "cni", "node", "cli",
];

/// Files and directories without effects: no sockets, no files, no programs, no clock.
const PURE: [&str; 45] = [
    "yaml",
    "types",
    "facts.rs",
    "ruleset",
    "options",
    "mesh",
    "plan",
    "drift",
    "render",
    "simulate",
    "stats",
    "trace",
    "lint",
    "backend/arrival.rs",
    "backend/iptables/contents.rs",
    "backend/iptables/legacy",
    "backend/iptables/lower.rs",
    "backend/iptables/lower",
    "backend/iptables/patch.rs",
    "backend/iptables/raise.rs",
    "backend/iptables/removal.rs",
    "backend/iptables/script.rs",
    "backend/iptables/tables.rs",
    "backend/nftables/blocked.rs",
    "backend/nftables/contents.rs",
    "backend/nftables/decode.rs",
    "backend/nftables/decode",
    "backend/nftables/encode.rs",
    "backend/nftables/expression.rs",
    "backend/nftables/foreign.rs",
    "backend/nftables/installed",
    "backend/nftables/listing.rs",
    "probe/behind.rs",
    "probe/exclusions.rs",
    "probe/interfaces.rs",
    "probe/locked.rs",
    "probe/lookups.rs",
    "probe/ways_in.rs",
    "probe/ways_out.rs",
    "backend/nftables/live/decode.rs",
    "backend/nftables/live/encode.rs",
    "backend/nftables/live/rules.rs",
    "backend/xtables",
    "probe/derive.rs",
    "probe/plan.rs",
];

/// Names with effects, or that lead to effects.
const EFFECTS: [&str; 10] = [
    "crate::linux",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::Tcp",
    "std::net::Udp",
    "nix::",
];

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The source files at or below a path, and their texts.
fn sources(path: &Path) -> Vec<(PathBuf, String)> {
    if path.is_file() {
        return vec![(path.to_owned(), fs::read_to_string(path).expect("a source file"))];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries
        .flat_map(|entry| sources(&entry.expect("an entry").path()))
        .collect()
}

fn module(name: &str) -> PathBuf {
    let file = src().join(format!("{name}.rs"));
    if file.exists() { file } else { src().join(name) }
}

#[test]
fn every_module_has_a_layer() {
    for entry in fs::read_dir(src()).expect("sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(LAYERS.contains(&name) || ["lib", "main"].contains(&name), "{name}");
    }
}

#[test]
fn modules_use_only_modules_below_them() {
    for (layer, name) in LAYERS.iter().enumerate() {
        let files = sources(&module(name));
        assert!(!files.is_empty(), "{name}");
        for (file, text) in files {
            let words = text.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
            for used in words.filter_map(|word| word.strip_prefix("crate::")?.split(':').next()) {
                let below = LAYERS[..=layer].contains(&used);
                assert!(below || used.is_empty(), "{}: uses {used}", file.display());
            }
        }
    }
}

#[test]
fn pure_files_have_no_effects() {
    for (file, text) in PURE.iter().flat_map(|path| sources(&src().join(path))) {
        // Tests of these files may read files and take time.
        let is_tests = file.file_name().is_some_and(|name| name == "tests.rs");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for effect in EFFECTS {
            assert!(is_tests || !code.contains(effect), "{}: uses {effect}", file.display());
        }
    }
}

#[test]
fn unsafe_code_is_in_linux_alone() {
    for (file, text) in sources(&src()) {
        let allowed = file.starts_with(module("linux"));
        assert!(allowed || !text.contains("unsafe {"), "{}", file.display());
    }
}
