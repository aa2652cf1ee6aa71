//! What a release would break on, without making one: versions that differ, and the workflow that makes it on a tag.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn text(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Value {
    sidetrack::yaml::document(&text(name)).expect("YAML").to_json()
}

/// The files below a directory.
fn below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    let files = entries.flat_map(|path| match path.is_dir() {
        true => below(&path),
        false => vec![path.to_str().expect("a path").to_owned()],
    });
    files.collect()
}

/// The words after each occurrence of `begin`: up to what cannot be part of a version.
fn after<'t>(text: &'t str, begin: &'t str) -> impl Iterator<Item = &'t str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    text.split(begin)
        .skip(1)
        .filter_map(move |rest| rest.split(|c| !is_part(c)).next())
}

#[test]
fn chart_images_and_examples_have_the_version_of_the_program() {
    let chart = yaml("cni-conf/helm/sidetrack/Chart.yaml");
    assert_eq!([&chart["version"], &chart["appVersion"]], [VERSION, VERSION]);
    let mut found = BTreeSet::new();
    let files = ["cni-conf", "docs"]
        .into_iter()
        .flat_map(|directory| below(&Path::new(ROOT).join(directory)));
    for file in files.chain([format!("{ROOT}/README.md")]) {
        // Pictures are not text.
        let text = String::from_utf8(fs::read(&file).expect("a file")).unwrap_or_default();
        let of_images = after(&text, "sidetrack:").filter(|tag| tag.starts_with(|c: char| c.is_ascii_digit()));
        for version in of_images.chain(after(&text, "newTag: \"")) {
            assert_eq!(version.trim_end_matches('.'), VERSION, "{file}");
            found.insert(file.clone());
        }
    }
    for file in ["cni-conf/kubernetes/base/kustomization.yaml", "docs/quickstart.md"] {
        assert!(found.contains(&format!("{ROOT}/{file}")), "{file}: {found:?}");
    }
}

fn steps(job: &Value) -> impl Iterator<Item = &Value> {
    job["steps"].as_array().expect("steps").iter()
}

/// The commands of a job, in order.
fn commands(job: &Value) -> String {
    steps(job)
        .filter_map(|step| step["run"].as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The tag of an action can be moved to another commit, so the workflow names commits.
#[test]
fn workflow_pins_actions_and_may_write_only_the_draft() {
    let workflow = yaml(".github/workflows/ci.yaml");
    assert_eq!(workflow["permissions"], json!({ "contents": "read" }));
    let jobs = workflow["jobs"].as_object().expect("jobs");
    for (name, job) in jobs {
        let writes = name == "release";
        let permissions = if writes {
            json!({ "contents": "write" })
        } else {
            Value::Null
        };
        assert_eq!(job["permissions"], permissions, "{name}");
        for step in steps(job).filter(|step| step["uses"].is_string()) {
            let action = step["uses"].as_str().expect("an action");
            let (_, version) = action.split_once('@').expect("a version");
            let is_commit = version.len() == 40 && version.chars().all(|c| c.is_ascii_hexdigit());
            assert!(is_commit, "{name}: {action} is not a commit");
            // What the job runs later cannot read the token from the configuration of git.
            assert_eq!(step["with"]["persist-credentials"], json!(false), "{name}: {action}");
        }
    }
    assert!(commands(&jobs["test"]).ends_with(".ci/run"));
    assert_eq!(jobs["release"]["needs"], "test");
    let release = commands(&jobs["release"]);
    assert!(release.contains("scripts/release --verify"), "{release}");
}
