//! What the README says of options, output and dependencies is what the code has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use sidetrack::config::options::{Group, OPTIONS, OptionSpec};
use sidetrack::config::sources;
use sidetrack::config::types::NoAccounts;
use sidetrack::render;

use crate::SIDETRACK;
use crate::cases;
use crate::common::{Netns, output_of};
use crate::golden::plan;
use crate::program::Run;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const BEGIN: &str = "<!-- options -->\n";
const END: &str = "<!-- /options -->\n";

fn readme() -> String {
    fs::read_to_string(PATH).expect("README.md")
}

/// The text between two others.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no {begin:?}"));
    let (found, _) = rest
        .split_once(end)
        .unwrap_or_else(|| panic!("no {end:?} after {begin:?}"));
    found
}

/// The options as the README lists them: a line for each, under the heading of its group.
fn table() -> String {
    let mut table = "| Flag | Default | Meaning |\n|---|---|---|\n".to_owned();
    let mut group: Option<Group> = None;
    for option in OPTIONS {
        if group != Some(option.group) {
            table += &format!("| **{}** | | |\n", option.group.heading());
            group = Some(option.group);
        }
        table += &line(option);
    }
    table
}

fn line(option: &OptionSpec) -> String {
    let value = option.value_name.map(|name| format!(" {name}")).unwrap_or_default();
    let default = match option.default {
        "" => String::new(),
        default => format!(" `{default}`"),
    };
    format!("| `--{}{value}` |{default} | {} |\n", option.name, option.help)
}

#[test]
fn the_table_of_options_is_the_one_in_the_code() {
    let readme = readme();
    let (written, table) = (between(&readme, BEGIN, END), table());
    if written == table {
        return;
    }
    if std::env::var_os("UPDATE_README").is_some_and(|value| value == "1") {
        let updated = readme.replace(&format!("{BEGIN}{written}{END}"), &format!("{BEGIN}{table}{END}"));
        return fs::write(PATH, updated).expect("README.md can be written");
    }
    panic!(
        "README.md lists other options than the code has. `UPDATE_README=1 cargo test --test suite table_of_options` \
         writes what it should list:\n\n{table}"
    );
}

#[test]
fn every_flag_is_described() {
    let readme = readme();
    for command in ["apply", "cleanup", "probe"] {
        let help = output_of(Command::new(SIDETRACK).args([command, "--help"]));
        let words = help.lines().flat_map(|line| line.split([' ', ',', '.']));
        let flags: BTreeSet<&str> = words.filter(|word| word.starts_with("--")).collect();
        assert!(flags.contains("--netns"), "{help}");
        for flag in flags.iter().filter(|flag| **flag != "--help") {
            let described = [format!("`{flag}`"), format!("`{flag} ")];
            assert!(
                described.iter().any(|words| readme.contains(words)),
                "README.md says nothing about {flag} of {command}"
            );
        }
    }
}

/// What `cargo metadata` says, as far as it matters here.
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
    let readme = readme();
    let notes = between(&readme, "\n## Design notes\n", "\n## ");
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
            "the design notes of README.md do not say what {name} is for"
        );
    }
}

#[test]
fn every_field_of_the_json_plan_is_described() {
    let readme = readme();
    let schema = between(&readme, "\n## JSON output\n", "\n## ");
    let mut fields = BTreeSet::new();
    for (_, options) in cases::all_options() {
        let document = render::json::document(&plan(options));
        collect_fields(&serde_json::from_str(&document).expect("JSON"), &mut fields);
    }
    assert!(fields.len() > 20, "{fields:?}");
    for field in fields {
        let described = [format!("`{field}`"), format!("\"{field}\":")];
        assert!(
            described.iter().any(|words| schema.contains(words)),
            "README.md says nothing about the field {field}"
        );
    }
}

/// The field names of the report, in `docs/probe.md`.
#[test]
fn every_field_of_the_report_of_probes_is_described() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/probe.md");
    let text = fs::read_to_string(path).expect("docs/probe.md");
    let mut command = Netns::new().command(SIDETRACK);
    let run = Run::of(command.args(["probe", "--json"]));
    let mut fields = BTreeSet::new();
    collect_fields(&serde_json::from_str(&run.stdout).expect("JSON"), &mut fields);
    assert!(fields.len() > 15, "{fields:?}");
    for field in fields {
        let described = [format!("`{field}`"), format!("\"{field}\":")];
        assert!(
            described.iter().any(|words| text.contains(words)),
            "docs/probe.md says nothing about the field {field}"
        );
    }
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    for probe in report["probes"].as_array().expect("probes") {
        let name = probe["name"].as_str().expect("a name");
        assert!(
            text.contains(&format!("`{name}`")),
            "docs/probe.md says nothing about {name}"
        );
    }
}

fn collect_fields(value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            fields.extend(entries.keys().cloned());
            entries.values().for_each(|value| collect_fields(value, fields));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_fields(item, fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_examples_are_true() {
    let readme = readme();
    let file = between(&readme, "```yaml\n# sidetrack.yaml\n", "```");
    let parsed = sources::from_file(Path::new("sidetrack.yaml"), file, &NoAccounts);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);

    let defaults = plan(&[]);
    let script = render::nft::script(&defaults);
    for line in between(&readme, "```nft\n", "```").lines() {
        assert!(script.contains(line), "not a rule: {line}");
    }

    let rule: Value = serde_json::from_str(between(&readme, "```json\n", "```")).expect("JSON");
    let document: Value = serde_json::from_str(&render::json::document(&defaults)).expect("JSON");
    let chains = document["chains"].as_array().expect("chains");
    let mut rules = chains
        .iter()
        .flat_map(|chain| chain["rules"].as_array().expect("rules"));
    assert!(rules.any(|one| *one == rule), "not a rule: {rule}");
}
