//! docs/usage.md on rules, docs/design.md on dependencies and docs/probe.md on reports match the code; the README is
//! short.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use sidetrack::options::sources;
use sidetrack::render;
use sidetrack::types::NoAccounts;

use crate::SIDETRACK;
use crate::common::{Netns, output_of};
use crate::plans::plan;
use crate::program::Run;
use crate::reference::{assert_are_described, collect_fields};

/// The size of two screens, in bytes.
const README_LENGTH: usize = 8192;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_readme_fits_two_screens() {
    let length = read("README.md").len();
    assert!(
        length <= README_LENGTH,
        "README.md has {length} bytes: move what not everybody needs to docs"
    );
}

/// The text between two others.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no {begin:?}"));
    let (found, _) = rest
        .split_once(end)
        .unwrap_or_else(|| panic!("no {end:?} after {begin:?}"));
    found
}

/// The part of `cargo metadata` that is read.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
}

#[test]
fn every_dependency_has_its_reason() {
    let notes = read("docs/design.md");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new(env!("CARGO"));
    command
        .args([
            "metadata",
            "--offline",
            "--no-deps",
            "--format-version=1",
            "--manifest-path",
        ])
        .arg(manifest);
    let metadata: Metadata = serde_json::from_str(&output_of(&mut command)).expect("JSON from cargo");
    let dependencies: Vec<_> = metadata
        .packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .collect();
    assert!(!dependencies.is_empty());
    for Dependency { name } in dependencies {
        assert!(
            notes.contains(&format!("`{name}`")),
            "docs/design.md does not say what {name} is for"
        );
    }
}

/// The field names of the report, in `docs/probe.md`.
#[test]
fn every_field_of_the_report_of_probes_is_described() {
    let text = read("docs/probe.md");
    let mut command = Netns::new().command(SIDETRACK);
    let run = Run::of(command.args(["probe", "--json"]));
    let mut fields = BTreeSet::new();
    collect_fields(&serde_json::from_str(&run.stdout).expect("JSON"), &mut fields);
    assert!(fields.len() > 15, "{fields:?}");
    assert_are_described(&fields, "docs/probe.md", &text);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    for probe in report["probes"].as_array().expect("probes") {
        let name = probe["name"].as_str().expect("a name");
        assert!(
            text.contains(&format!("`{name}`")),
            "docs/probe.md says nothing about {name}"
        );
    }
}

#[test]
fn examples_match_the_code() {
    let usage = read("docs/usage.md");
    let file = between(&usage, "```yaml\n# sidetrack.yaml\n", "```");
    let parsed = sources::from_file(Path::new("sidetrack.yaml"), file, &NoAccounts);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);

    let defaults = plan(&[]);
    let script = render::nft::script(&defaults);
    for line in between(&usage, "```nft\n", "```").lines() {
        assert!(script.contains(line), "not a rule: {line}");
    }
}
