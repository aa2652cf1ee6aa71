//! docs/stats.md describes every flag, and every field and word of the JSON.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use sidetrack::ruleset::Hook;
use sidetrack::stats::{Key, Row, Stats, Unit, Verdict, document};
use sidetrack::types::Port;

use crate::reference::{COMMON_FLAGS, assert_are_described, assert_flags_are_described, collect_fields, help};

const PAGE: &str = "docs/stats.md";

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).expect("the page")
}

#[test]
fn every_flag_is_described() {
    assert_flags_are_described(&help("stats"), &COMMON_FLAGS, PAGE, &page());
}

#[test]
fn every_field_and_word_of_the_json_is_described() {
    let port = Port::new(15001).expect("a port");
    let verdicts = [
        Verdict::Redirect(port),
        Verdict::Tproxy(port),
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Reject,
    ];
    let row = |verdict| Row {
        key: Key {
            hook: if verdict == Verdict::Drop {
                Hook::Prerouting
            } else {
                Hook::Output
            },
            unit: if verdict == Verdict::Drop {
                Unit::Packets
            } else {
                Unit::Connections
            },
            verdict,
            reason: "a reason".to_owned(),
        },
        count: 1,
    };
    let stats = Stats {
        rows: verdicts.into_iter().map(row).collect(),
    };
    let document: Value = serde_json::from_str(&document(&stats, "nftables")).expect("JSON");
    let page = page();
    let (_, schema) = page.split_once("\n## JSON\n").expect("the schema");
    let mut fields = BTreeSet::new();
    collect_fields(&document, &mut fields);
    assert_are_described(&fields, PAGE, schema);
    for row in document["counters"].as_array().expect("a list") {
        for word in [&row["direction"], &row["unit"], &row["verdict"]] {
            assert!(
                schema.contains(&format!("`{word}`")),
                "{PAGE} says nothing about {word}"
            );
        }
    }
}
