//! docs/trace.md describes every flag, and every field and word of the JSON.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sidetrack::ruleset::Protocol;
use sidetrack::trace::{Action, Connection, Direction, Doubt, End, Headers, Losses, Owner, json};
use sidetrack::types::{Id as _, Uid};

use crate::reference::{COMMON_FLAGS, assert_are_described, assert_flags_are_described, collect_fields, help};

const PAGE: &str = "docs/trace.md";

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).expect("the page")
}

#[test]
fn every_flag_is_described() {
    assert_flags_are_described(&help("trace"), &COMMON_FLAGS, PAGE, &page());
}

#[test]
fn every_field_and_word_of_the_json_is_described() {
    let address: SocketAddr = ([10, 0, 0, 2], 80).into();
    let headers = |protocol| Headers {
        protocol,
        source: address,
        destination: address,
        sequence: 1,
    };
    let owner = Owner {
        uid: Uid::new(1).expect("a user"),
        process: Some((1, "name".to_owned())),
    };
    let ends = [
        End::Delivered(address),
        End::Sent(address),
        End::PassedThrough(address),
        End::Dropped,
        End::Unknown,
    ];
    let actions = [
        Action::Redirect(address),
        Action::Translate(address),
        Action::Tproxy(1),
        Action::Accept,
        Action::Drop,
    ];
    let doubts = [
        None,
        Some(Doubt::Discarded),
        Some(Doubt::NotFirst),
        Some(Doubt::Untraced),
        Some(Doubt::NoEnd),
    ];
    let protocols = [Protocol::Tcp, Protocol::Udp].into_iter().cycle();
    let directions = Direction::BOTH.into_iter().cycle();
    let page = page();
    let (_, schema) = page.split_once("\n## JSON\n").expect("the schema");
    let mut fields = BTreeSet::new();
    for ((((end, action), doubt), protocol), direction) in
        ends.into_iter().zip(actions).zip(doubts).zip(protocols).zip(directions)
    {
        let connection = Connection {
            at: Duration::ZERO,
            direction,
            headers: headers(protocol),
            action,
            decision: Some(decision()),
            end,
            doubt,
        };
        let line: Value = serde_json::from_str(&json::line(&connection, Some(&owner))).expect("JSON");
        collect_fields(&line, &mut fields);
        for word in [
            &line["packet"]["direction"],
            &line["packet"]["protocol"],
            &line["verdict"]["action"],
            &line["end"]["what"],
            &line["doubt"],
        ] {
            assert!(
                word.is_null() || schema.contains(&format!("`{word}`")),
                "{PAGE} says nothing about {word}"
            );
        }
    }
    let losses = json::losses(Losses::default(), Duration::ZERO);
    collect_fields(&serde_json::from_str(&losses).expect("JSON"), &mut fields);
    assert!(fields.len() > 20, "{fields:?}");
    assert_are_described(&fields, PAGE, schema);
}

fn decision() -> sidetrack::trace::Decision {
    sidetrack::trace::Decision {
        chain: sidetrack::trace::ChainId {
            table: "inet t".to_owned(),
            chain: "c".to_owned(),
        },
        rule: None,
    }
}
