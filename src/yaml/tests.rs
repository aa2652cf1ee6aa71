use proptest::prelude::*;
use serde_json::json;

use super::*;

fn json(text: &str) -> Value {
    document(text).unwrap().to_json()
}

fn reason(text: &str) -> String {
    documents(text).unwrap_err().to_string()
}

#[test]
fn plain_scalars_are_resolved_and_others_are_strings() {
    let text = "[1, -2.5, true, False, null, ~, '', '1', !!str 2, !!int '3', 0x10, 007, on, 1.2.3, 15m, a b]";
    let value = json!([
        1, -2.5, true, false, null, null, "", "1", "2", 3, "0x10", "007", "on", "1.2.3", "15m", "a b"
    ]);
    assert_eq!(json(text), value);
    assert_eq!(json(""), Value::Null);
}

#[test]
fn json_is_read() {
    let text = "{\"a\": [1, {\"b\": \"\\ud83d\\ude00 \\/ \\u00e9\"}],\n\t\"c\": {}, \"d\": null}";
    assert_eq!(json(text), serde_json::from_str::<Value>(text).unwrap());
}

#[test]
fn concatenated_json_values_are_separate_documents() {
    let text = "{\"a\": [1]}{\"b\":\n  \"ä\"} {\"c\": 2}\n\n{\"d\":\n 3}\n";
    let documents = documents(text).unwrap();
    let values: Vec<Value> = documents.iter().map(Node::to_json).collect();
    assert_eq!(
        values,
        [json!({"a": [1]}), json!({"b": "ä"}), json!({"c": 2}), json!({"d": 3})]
    );
    let at = |document: usize| {
        let value = &documents[document].entries()[0].value;
        (value.at.line, value.at.column)
    };
    assert_eq!([at(0), at(1), at(2), at(3)], [(1, 7), (2, 3), (2, 14), (5, 2)]);
    // Where it is no JSON, it is YAML or nothing.
    assert_eq!(reason("{\"a\": 1}\n{b: 2}"), reason("{a: 1}\n{b: 2}"));
}

/// Tools of Kubernetes take these, and people write them.
#[test]
fn misindented_ends_of_flow_lists_are_accepted() {
    let text = "spec:\n  - args: [\"a\",\n    \"b\"]\n    env: {\n    }\n    cmd: [\n]\n    x:\ty\n";
    assert_eq!(
        json(text),
        json!({"spec": [{"args": ["a", "b"], "env": {}, "cmd": [], "x": "y"}]})
    );
}

#[test]
fn nodes_have_positions() {
    let text = "# first\na:\n  - b: é\n    c: &x \"d\"\n---\n{\"e\":\n  [1, 2]}\n";
    let documents = documents(text).unwrap();
    let at = |node: &Node| (node.at.line, node.at.column);
    let item = &documents[0].get("a").unwrap().items()[0];
    assert_eq!(at(&documents[0]), (2, 1));
    assert_eq!(at(item), (3, 5));
    assert_eq!(at(item.get("b").unwrap()), (3, 8));
    assert_eq!(at(item.get("c").unwrap()), (4, 11));
    assert_eq!((item.entries()[1].at.line, item.entries()[1].at.column), (4, 5));
    assert_eq!(at(&documents[1].get("e").unwrap().items()[1]), (7, 7));
}

#[test]
fn aliases_and_merge_keys_are_expanded() {
    let text = "base: &b {x: 1, y: 2}\nall: [*b]\none:\n  y: 3\n  <<: *b\ntwo:\n  <<: [{z: 0, x: 9}, *b]\n";
    let value = json(text);
    assert_eq!(value["all"], json!([{"x": 1, "y": 2}]));
    assert_eq!(value["one"], json!({"y": 3, "x": 1}));
    assert_eq!(value["two"], json!({"z": 0, "x": 9, "y": 2}));
}

#[test]
fn errors_have_positions() {
    let cases = [
        ("a: 1\nb: 2\na: 3\n", "a is given twice at line 3 column 1"),
        ("{\"a\": 1, \"a\": 2}", "a is given twice at line 1 column 10"),
        (
            "a: b: c",
            "mapping values are not allowed in this context at line 1 column 5",
        ),
        ("? [a]\n: b", "a key must be a string at line 1 column 3"),
        ("a: !secret b", "the tag !secret is not supported at line 1 column 12"),
        ("a: *b", "while parsing node, found unknown anchor at line 1 column 4"),
        (
            "a: &b [*b]",
            "the alias refers to a node that contains it at line 1 column 8",
        ),
        (
            "<<: a",
            "only a mapping, or a list of them, can be merged at line 1 column 5",
        ),
        ("a: [1", "unclosed bracket '[' at line 1 column 4"),
    ];
    for (text, said) in cases {
        assert_eq!(reason(text), said, "{text}");
    }
    assert_eq!(
        document("a: 1\n---\nb: 1\n").unwrap_err().to_string(),
        "there is a second document at line 3 column 1"
    );
}

#[test]
fn alias_expansion_is_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..40 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", "));
    }
    assert!(reason(&bomb).contains("expand to more than"), "{}", reason(&bomb));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(10_000), ["*a"; 1000].join(", "));
    assert!(reason(&long).contains("expand to more than"));
    let anchors = (0..200).map(|number| format!("&a{number} [")).collect::<String>();
    assert!(reason(&format!("{anchors}{}{}", "x".repeat(10_000), "]".repeat(200))).contains("expand to more than"));
}

#[test]
fn nesting_depth_is_bounded_through_aliases() {
    for open in ["[", "{a: ", "- ", "? ", "[a: "] {
        assert!(documents(&open.repeat(100_000)).is_err(), "{open}");
    }
    let mut tower = "a0: &a0 []\n".to_owned();
    for level in 1..10 {
        let (open, close) = ("[".repeat(50), "]".repeat(50));
        tower += &format!("a{level}: &a{level} {open}*a{}{close}\n", level - 1);
    }
    assert!(reason(&tower).contains("nest deeper"), "{}", reason(&tower));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_without_panic(text in "([-?:,\\[\\]{}#&*!|>'\"%@` \\t\\n~<=.0-9a-cé\\\\]|\\*a|&a |- |: |---\n|\n  ){0,60}") {
        if let Ok(documents) = documents(&text) {
            for document in documents {
                let _ = document.to_json();
            }
        }
    }

    #[test]
    fn output_of_serde_json_is_read_back(
        texts in proptest::collection::btree_map("[ -~\u{a0}-\u{2fff}😀]{0,8}", "[\t\n -~\u{a0}-\u{2fff}😀]{0,20}", 0..4)
    ) {
        let texts: BTreeMap<String, String> = texts.into_iter().filter(|(key, _)| key != MERGE).collect();
        let value = json!({ "a": [texts, 0, null] });
        let read = document(&value.to_string());
        prop_assert_eq!(read.map(|node| node.to_json()), Ok(value));
    }
}
