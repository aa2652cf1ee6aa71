use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::node::entry::{Installer, entry};

const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "big": 123456789012345678901234567890, "float": 1.50, "escaped": "\u00e9",
  "plugins": [
    {
      "type": "flannel",
      "delegate": { "hairpinMode": true }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"#;

fn ours() -> Value {
    entry(json!({"select": "injected"}), &Installer::default()).unwrap()
}

fn chain(text: &str) -> Chain<'_> {
    Chain::list(text).unwrap()
}

fn types(text: &str) -> Vec<String> {
    let plugins = chain(text).plugins;
    plugins
        .iter()
        .map(|plugin| plugin.value["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn inserted_entry_is_removed_byte_for_byte() {
    let compact = r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"}]}"#;
    let odd = "{\"name\":\"a\",\"plugins\" : [ {\"type\":\"x\"} ,\t{\"type\":\"y\"}\n\n ] , \"z\":1}";
    let tabs = "{\n\t\"name\": \"a\",\n\t\"plugins\": [\n\t\t{\n\t\t\t\"type\": \"x\"\n\t\t}\n\t]\n}";
    for text in [FLANNEL, compact, odd, tabs] {
        let with = chain(text).with(&ours());
        assert_eq!(chain(&with).find(&ours()), Found::AsWanted, "{with}");
        assert_eq!(chain(&with).with(&ours()), with, "again");
        assert_eq!(chain(&with).without_managed(), text);
    }
}

proptest! {
    #[test]
    fn whatever_the_layout_what_is_put_in_is_taken_out_to_the_byte(
        types in vec("[a-z]{1,8}", 1..6),
        spaces in vec("[ \t\r\n]{0,6}", 24),
        before: bool,
    ) {
        let types: Vec<String> = types.iter().map(|name| format!("{{ \"type\" : \"{name}\" }}")).collect();
        let plugins = format!("\"plugins\" : [ {} ]", types.join(" , "));
        let name = "\"name\" : \"a\"";
        let members = if before { [&plugins, name] } else { [name, &plugins] };
        let words = format!("{{ {} }} ", members.join(" , "));
        let text: String = words.split(' ').zip(spaces.iter().cycle()).flat_map(|(word, space)| [word, space]).collect();
        let with = chain(&text).with(&ours());
        prop_assert_eq!(chain(&with).find(&ours()), Found::AsWanted, "{}", with);
        prop_assert_eq!(chain(&with).without_managed(), text);
    }
}

#[test]
fn entry_is_formatted_like_the_others() {
    let with = chain(FLANNEL).with(&json!({"type": "sidetrack", "a": 1}));
    let end = "{\"portMappings\": true}},\n    {\n      \"type\": \"sidetrack\",\n      \"a\": 1\n    }\n  ]\n}\n";
    assert!(with.ends_with(end), "{with}");
    let compact = chain(r#"{"name":"a","plugins":[{"type":"x"}]}"#).with(&json!({"type": "sidetrack"}));
    assert_eq!(compact, r#"{"name":"a","plugins":[{"type":"x"},{"type":"sidetrack"}]}"#);
}

#[test]
fn changed_entry_is_reported_and_repaired() {
    let other = json!({"type": "sidetrack", "select": "never"}).to_string();
    let wanted = ours().to_string();
    for (plugins, found) in [
        (format!("{{\"type\":\"x\"}},{other}"), Found::Different),
        (format!("{{\"type\":\"x\"}},{wanted},{wanted}"), Found::Different),
        (format!("{other},{{\"type\":\"x\"}},{wanted}"), Found::Different),
        (format!("{wanted},{{\"type\":\"x\"}}"), Found::NotLast),
        (
            format!("{wanted} , {other},{{\"type\":\"x\"}},{other}"),
            Found::Different,
        ),
        ("{\"type\":\"x\"}".to_owned(), Found::Missing),
    ] {
        let text = format!("{{\"name\":\"a\",\"plugins\":[{plugins}]}}");
        assert_eq!(chain(&text).find(&ours()), found, "{text}");
        let with = chain(&text).with(&ours());
        assert_eq!(chain(&with).find(&ours()), Found::AsWanted, "{text}");
        assert_eq!(types(&with), ["x", "sidetrack"]);
        assert_eq!(
            chain(&with).without_managed(),
            r#"{"name":"a","plugins":[{"type":"x"}]}"#
        );
    }
}

/// Consul's installer puts its plugin last again, whatever comes behind it.
#[test]
fn installer_of_consul_does_not_fight_with_ours() {
    let before = r#"{"name":"a","plugins":[{"type":"x"},{"type":"consul-cni"}]}"#;
    assert_eq!(chain(before).find(&ours()), Found::Missing);
    let with = chain(before).with(&ours());
    assert_eq!(types(&with), ["x", "sidetrack", "consul-cni"]);
    assert_eq!(chain(&with).find(&ours()), Found::AsWanted);
    assert_eq!(chain(&with).without_managed(), before);
    let behind = with.replace("consul-cni", "y");
    assert_eq!(chain(&behind).find(&ours()), Found::NotLast);
    assert_eq!(types(&chain(&behind).with(&ours())), ["x", "y", "sidetrack"]);
}

#[test]
fn order_of_keys_in_the_entry_is_ignored() {
    let text = r#"{"name":"a","plugins":[{"type":"x"},{"b":1,"type":"sidetrack"}]}"#;
    assert_eq!(chain(text).find(&json!({"type": "sidetrack", "b": 1})), Found::AsWanted);
}

#[test]
fn entry_written_by_hand_is_kept() {
    let text = r#"{"name":"a","plugins":[{"type":"x"},{"type":"sidetrack"}]}"#;
    assert!(chain(text).is_written_by_hand() && !chain(text).is_managed());
    assert_eq!(chain(text).without_managed(), text);
}

#[test]
fn list_of_our_entries_alone_becomes_empty() {
    let text = format!("{{\"name\":\"a\",\"plugins\":[{},{}]}}", ours(), ours());
    assert!(chain(&text).is_ours_alone());
    assert_eq!(chain(&text).without_managed(), "{\"name\":\"a\",\"plugins\":[]}");
}

#[test]
fn configuration_that_runtimes_refuse_is_no_chain() {
    let json = |text| matches!(Chain::list(text), Err(NotAChain::Json(_)));
    assert!(json("") && json("{") && json("[]") && json("{\"name\":\"a\"} trailing"));
    assert_eq!(Chain::list("{}").unwrap_err(), NotAChain::NoName);
    for plugins in ["3", "[]"] {
        let text = format!("{{\"name\":\"a\",\"plugins\":{plugins}}}");
        assert_eq!(Chain::list(&text).unwrap_err(), NotAChain::NoPlugins, "{text}");
    }
    for plugin in ["{}", "{\"type\":\"\"}", "null"] {
        let text = format!("{{\"name\":\"a\",\"plugins\":[{plugin}]}}");
        assert_eq!(Chain::list(&text).unwrap_err(), NotAChain::NoType, "{text}");
    }
    assert_eq!(
        Chain::single("{\"name\":\"a\",\"plugins\":[]}").unwrap_err(),
        NotAChain::NoType
    );
}

#[test]
fn version_without_chains_is_reported() {
    let version = |fields: &str| {
        let text = format!("{{\"name\":\"a\",{fields}\"plugins\":[{{\"type\":\"x\"}}]}}");
        chain(&text).unsupported_version()
    };
    assert_eq!(version(""), Some("0.1.0".to_owned()));
    assert_eq!(version("\"cniVersion\":\"0.2.0\","), Some("0.2.0".to_owned()));
    assert_eq!(version("\"cniVersion\":\"9.0.0\","), Some("9.0.0".to_owned()));
    assert_eq!(version("\"cniVersion\":\"0.3.1\","), None);
    assert_eq!(version("\"cniVersions\":[\"0.1.0\",\"1.1.0\"],"), None);
}

#[test]
fn single_plugin_becomes_the_list_that_runtimes_build() {
    let text = "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"a\",\n  \"type\": \"x\",\n  \"mtu\": 1.50\n}\n";
    let list = list_of(&Chain::single(text).unwrap(), "a.conf");
    let value: Value = serde_json::from_str(&list).unwrap();
    let single: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        value,
        json!({"cniVersion": "0.3.1", "name": "a", "loadOnlyInlinedPlugins": true, "plugins": [single]})
    );
    assert!(list.contains("1.50"), "{list}");
    let no_version = list_of(&Chain::single("{\"type\":\"x\"}").unwrap(), "a.conf");
    assert_eq!(types(&no_version), ["x"]);
    assert_eq!(chain(&no_version).name(), Some("a.conf"));
}

#[test]
fn our_entry_in_a_delegate_is_removed() {
    let delegates = |ours: &str| {
        format!(
            "{{\"type\":\"multus\",\"delegates\":[ {{\"name\":\"d\",\"plugins\": [{{\"type\":\"flannel\"}}, {{\"type\":\"tuning\"}}{ours}]}} ]}}"
        )
    };
    let ours = ours();
    let (bare, with) = (delegates(""), delegates(&format!(",\n {ours}")));
    let list = |multus: &str, after: &str| {
        format!("{{\"cniVersion\":\"0.3.1\",\"name\":\"m\",\"plugins\":[{multus}{after}]}}")
    };
    let installed = list(&with, &format!(",{ours}"));
    assert_eq!(chain(&installed).find(&ours), Found::Delegated);
    let wanted = list(&bare, &format!(",{ours}"));
    assert_eq!(chain(&installed).with(&ours), wanted);
    assert_eq!(chain(&wanted).find(&ours), Found::AsWanted);
    assert_eq!(chain(&installed).without_managed(), list(&bare, ""));
    let single = format!("{{\"name\":\"m\",{}", &with[1..]);
    let single = Chain::single(&single).unwrap();
    assert!(single.is_managed() && !single.is_ours_alone());
    assert_eq!(single.without_managed(), format!("{{\"name\":\"m\",{}", &bare[1..]));
    assert!(!list_of(&single, "m.conf").contains("sidetrack"));
    // A list of our entries alone was not joined by the installer.
    let alone = delegates("")
        .replace("flannel", "sidetrack")
        .replace("tuning", "sidetrack");
    assert_eq!(chain(&list(&alone, "")).without_managed(), list(&alone, ""));
}
