//! Saved plans: they are read back, and invalid ones are refused with a reason.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use sidetrack::plan::Plan;
use sidetrack::render::json::{ReadError, document, read};
use sidetrack::ruleset::Unsound;
use sidetrack::simulate::packet_args::{self, PacketArgs};
use sidetrack::simulate::{Pod, simulate};

use crate::cases;
use crate::plans::plan;
use crate::random;

#[test]
fn each_case_is_read_back() {
    for (name, options) in cases::all_options() {
        let plan = plan(options);
        assert_eq!(read(&document(&plan)), Ok(plan), "{name}");
    }
}

#[test]
fn any_options_are_read_back() {
    random::each(500, |options| {
        let plan = plan(options);
        assert_eq!(read(&document(&plan)), Ok(plan));
    });
}

fn value(options: &[&str]) -> Value {
    serde_json::from_str(&document(&plan(options))).expect("JSON")
}

/// The errors of the default plan with this value at `path`.
fn with(path: &str, replacement: Value) -> String {
    let mut document = value(&[
        "--exclude-outbound-ports",
        "80,443",
        "--exclude-outbound-cidrs",
        "10.0.0.0/8,11.1.0.0/16",
    ]);
    match document.pointer_mut(path) {
        Some(value) => *value = replacement,
        None => document[path.trim_start_matches('/')] = replacement,
    }
    read(&document.to_string()).expect_err("a mistake").to_string()
}

#[test]
fn invalid_plan_is_reported_with_position() {
    for (path, replacement, said) in [
        ("/version", json!(1), "not a plan of version 2"),
        (
            "/timeouts/closeWait",
            json!(0),
            "timeouts.closeWait: not seconds, 1 or more",
        ),
        ("/timeouts", json!(null), "chain prerouting: no timeouts"),
        (
            "/families",
            json!(["ipv6", "ipv4"]),
            "families: not a list of ipv4, ipv6 or both",
        ),
        ("/table", json!("other"), "table: not the table name of sidetrack"),
        (
            "/loopbackAddresses/0",
            json!("::6/64"),
            "loopbackAddresses[0]: not an IPv6 address with the prefix length 128",
        ),
        (
            "/loopbackRoutes",
            json!([{"family": "ipv4", "interface": "eth0 "}]),
            "loopbackRoutes[0].interface: not the name of an interface",
        ),
        (
            "/policyRouting",
            json!({"mark": 0, "table": 255, "families": []}),
            "policyRouting.mark: not a mark",
        ),
        (
            "/sets/0/elements/0",
            json!("443-80"),
            "sets[0].elements[0]: not a number or a range",
        ),
        (
            "/sets/0/elements/0",
            json!("+80"),
            "sets[0].elements[0]: not a number or a range",
        ),
        ("/sets/0/elements", json!(["80", "81"]), "none of which can be merged"),
        ("/sets/0/type", json!("colours"), "sets[0].type: not a type of set"),
        (
            "/chains/0/hook/priority",
            json!(1_u64 << 40),
            "chains[0].hook.priority: not a priority",
        ),
        (
            "/chains/0/hook",
            json!({"type": "nat"}),
            "chains[0].hook.hook: not there",
        ),
        (
            "/chains/0/rules/0/comment",
            json!("\u{1b}[2J"),
            "not a text without control characters",
        ),
        (
            "/chains/0/rules/0/matches/0",
            json!({"colour": "red"}),
            "chains[0].rules[0].matches[0]: not a match",
        ),
        (
            "/chains/0/rules/0/matches/0",
            json!({"protocol": "tcp", "uid": 7}),
            "not a match that the schema knows",
        ),
        (
            "/chains/0/rules/0/matches/0",
            json!({"inInterface": "eth0 "}),
            "not the name of an interface",
        ),
        (
            "/chains/0/rules/0/action",
            json!({"jump": "a", "redirect": 1}),
            "chains[0].rules[0].action: not an action",
        ),
        (
            "/chains/0/rules/0/action",
            json!({"redirect": 65536}),
            "action.redirect: not a port from 1 to 65535",
        ),
        (
            "/chains/0/rules/0/action",
            json!({"jump": "nowhere"}),
            "no chain nowhere to jump to",
        ),
        (
            "/chains/0/rules/0/matches/0",
            json!({"uid": {"set": "nobodies"}}),
            "no set nobodies",
        ),
    ] {
        let error = with(path, replacement.clone());
        assert!(error.contains(said), "{path}: {replacement}: {error}");
    }
    assert!(matches!(read("{"), Err(ReadError::Syntax(_))));
    assert!(matches!(read("[]"), Err(ReadError::Version)));
}

#[test]
fn number_of_reported_errors_is_bounded() {
    let mut document = value(&[]);
    document["extra"] = json!(1);
    document["chains"][0]["name"] = json!(7);
    document["chains"][1]["rules"][0]["action"] = json!("fly");
    let error = read(&document.to_string()).expect_err("mistakes").to_string();
    for said in [
        "extra: not a member",
        "chains[0].name: not a text",
        "chains[1].rules[0].action: not an action",
    ] {
        assert!(error.contains(said), "{error}");
    }
    let one = document["chains"][0].clone();
    document["chains"] = Value::Array(vec![one; 1000]);
    match read(&document.to_string()) {
        Err(ReadError::Wrong(wrong)) => assert_eq!(wrong.len(), 20),
        other => panic!("{other:?}"),
    }
}

/// A plan of chains each of which jumps to the next one so often.
fn ladder(length: usize, jumps: usize) -> Value {
    let mut document = value(&[]);
    let jump = |to: usize| json!({"comment": "on", "matches": [], "action": {"jump": format!("c{to}")}, "nft": ""});
    let chain = |number: usize| {
        let rules = if number + 1 < length {
            vec![jump(number + 1); jumps]
        } else {
            Vec::new()
        };
        let hook = json!({"type": "mangle", "hook": "output", "priority": -150});
        json!({"name": format!("c{number}"), "hook": if number == 0 { hook } else { Value::Null }, "rules": rules})
    };
    document["chains"] = (0..length).map(chain).collect();
    document["sets"] = json!([]);
    document
}

#[test]
fn jumps_deeper_than_the_kernels_limit_are_refused() {
    let depth = |length| read(&ladder(length, 2).to_string());
    assert!(depth(16).is_ok());
    assert!(
        matches!(depth(17), Err(ReadError::Unsound(Unsound::TooDeep(_)))),
        "{:?}",
        depth(17)
    );
    assert!(matches!(depth(20_000), Err(ReadError::Unsound(Unsound::TooDeep(_)))));

    let mut cycle = ladder(3, 1);
    cycle["chains"][2]["rules"] = json!([{"comment": "", "matches": [], "action": {"jump": "c1"}, "nft": ""}]);
    let error = read(&cycle.to_string()).expect_err("a cycle").to_string();
    assert!(error.contains("jumps back to itself"), "{error}");
}

#[test]
fn simulation_with_too_many_jumps_is_aborted() {
    let plan = read(&ladder(16, 4).to_string()).expect("a plan");
    let error = follow(&plan).expect_err("4 to the power of 15 rules");
    assert!(error.contains("more than 100000 rules"), "{error}");
}

/// Sends a packet through a plan.
fn follow(plan: &Plan) -> Result<(), String> {
    let args = PacketArgs {
        direction: "outbound".to_owned(),
        protocol: "tcp".to_owned(),
        destination: "10.0.0.5:443".to_owned(),
        source: Some("10.0.0.1".to_owned()),
        ..PacketArgs::default()
    };
    let packet = packet_args::parse(&args, &sidetrack::types::NoAccounts).expect("words");
    let packet = packet.packet(&Pod::default()).expect("a packet");
    let rules = plan.ruleset.clone().into();
    simulate(&rules, &Pod::default(), &packet)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Changes the part of a document that the numbers lead to.
fn mutate(value: &mut Value, way: &[usize], replacement: &Value) {
    match (way, value) {
        ([first, rest @ ..], Value::Array(items)) if !items.is_empty() => {
            let index = first % items.len();
            mutate(&mut items[index], rest, replacement);
        }
        ([first, rest @ ..], Value::Object(members)) if !members.is_empty() => {
            let key = members.keys().nth(first % members.len()).expect("a member").clone();
            match first % 7 {
                0 => drop(members.remove(&key)),
                _ => mutate(members.get_mut(&key).expect("a member"), rest, replacement),
            }
        }
        (_, value) => *value = replacement.clone(),
    }
}

/// A plan with most kinds of objects.
static EVERYTHING: LazyLock<Value> = LazyLock::new(|| {
    value(&[
        "--redirect-dns",
        "--dns-servers",
        "all",
        "--inbound-mode",
        "tproxy",
        "--exclude-uids",
        "1,3-5",
    ])
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_given_nothing_breaks(way in prop::collection::vec(0_usize..100, 1..9), kind in 0_usize..12, number in any::<i64>()) {
        let replacements = [
            Value::Null, json!(number), json!(u64::MAX), json!(1e300), json!(""), json!("\u{0}"), json!("raw_output"),
            json!([]), json!({}), json!({"set": "x"}), json!("return"), json!({"jump": "outbound"}),
        ];
        let mut document = EVERYTHING.clone();
        mutate(&mut document, &way, &replacements[kind]);
        if let Ok(plan) = read(&document.to_string()) {
            let _ = follow(&plan);
        }
    }

    #[test]
    fn whatever_text_is_given_nothing_breaks(text in "\\PC*", cut in 0_usize..20_000) {
        let _ = read(&text);
        let whole = EVERYTHING.to_string();
        let end = whole.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(0);
        assert!(read(&whole[..end]).is_err());
    }
}
