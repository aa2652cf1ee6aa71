//! docs/explain.md is complete; its shown output is tested with all pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::Netns;
use crate::questions::{REVIEWED, json};
use crate::reference::{COMMON_FLAGS, assert_flags_are_described, help};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_flag_of_the_help_is_described() {
    let help = help("explain");
    let (own, _) = help.split_once("\nProxy: ").expect("the options of apply follow");
    assert_flags_are_described(own, &COMMON_FLAGS, "docs/explain.md", &read("docs/explain.md"));
}

#[test]
fn every_field_and_outcome_of_the_json_is_described() {
    let documentation = read("docs/explain.md");
    let (_, schema) = documentation.split_once("\n## JSON\n").expect("the schema");
    let netns = Netns::new();
    let (mut fields, mut outcomes) = (BTreeSet::new(), BTreeSet::new());
    for (_, question) in REVIEWED {
        let answer = json(&netns, question);
        collect(&answer, &mut fields);
        let trace = answer["trace"].as_array().expect("a list");
        outcomes.extend(
            trace
                .iter()
                .map(|entry| entry["outcome"].as_str().expect("a word").to_owned()),
        );
        for word in [&answer["verdict"]["action"], &answer["end"]["what"]] {
            outcomes.insert(word.as_str().expect("a word").to_owned());
        }
    }
    assert!(fields.len() > 25 && outcomes.len() > 12, "{fields:?} {outcomes:?}");
    for field in fields {
        assert!(
            schema.contains(&format!("`{field}`")),
            "docs/explain.md says nothing about {field}"
        );
    }
    for outcome in outcomes {
        assert!(
            schema.contains(&format!("`\"{outcome}\"`")),
            "docs/explain.md says nothing about {outcome}"
        );
    }
}

fn collect(value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            fields.extend(members.keys().cloned());
            members.values().for_each(|value| collect(value, fields));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
