use super::*;
use crate::cni::error::Code;
use serde_json::json;

/// A NetConf with these members besides those that it must have.
fn parse(members: &Value) -> Result<NetConf, Error> {
    let mut object = json!({ "cniVersion": "1.0.0", "name": "net", "type": "sidetrack" });
    object
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    let netconf = NetConf::parse(object.to_string().as_bytes())?;
    netconf.usable().map(|()| netconf)
}

#[test]
fn the_defaults_that_are_documented_are_the_defaults() {
    let plain = parse(&json!({})).unwrap();
    for key in KEYS.iter().filter(|key| key.name != "logFile") {
        let default: Value = serde_json::from_str(key.default).unwrap();
        let mut given = NetConf::new(Version::V1_0_0);
        (key.read)(&mut given, &default).unwrap();
        assert_eq!(given, plain, "{}", key.name);
    }
}

#[test]
fn every_key_is_read_and_every_bad_value_refused_with_the_key() {
    for key in KEYS {
        for value in [json!(7), json!("nonsense"), json!({"x": 1}), json!([1])] {
            let mut members = Map::new();
            members.insert(key.name.to_owned(), value.clone());
            let error = parse(&Value::Object(members)).unwrap_err();
            assert_eq!(error.code(), Code::NetConf, "{} {value}: {error}", key.name);
            let named = error.message().contains(key.name) || key.name == "redirect";
            assert!(named, "{}: {}", key.name, error.message());
        }
    }
}

#[test]
fn unknown_keys_are_refused_with_their_value_and_those_of_the_specification_passed_over() {
    let error = parse(&json!({"selekt": "always"})).unwrap_err();
    assert_eq!(error.code(), Code::UnsupportedField);
    assert!(error.message().contains(r#""selekt": "always""#), "{}", error.message());
    let known = json!({"args": {"x": 1}, "ipam": {}, "dns": {}, "ipMasq": true, "cniVersions": [], "cni.dev/x": 1});
    assert!(parse(&known).is_ok());
}

#[test]
fn annotations_are_told_apart_from_none_handed_over() {
    let annotations = |config: Value| parse(&json!({ "runtimeConfig": config })).unwrap().annotations;
    assert_eq!(annotations(json!({})), None);
    assert_eq!(
        annotations(json!({ POD_ANNOTATIONS: null })),
        Some(Annotations::default())
    );
    assert!(annotations(json!({ POD_ANNOTATIONS: {"a": "b"} })).is_some());
    let error = parse(&json!({ "runtimeConfig": { POD_ANNOTATIONS: {"a": 1} } })).unwrap_err();
    assert_eq!(error.code(), Code::NetConf);
}

#[test]
fn name_servers_are_the_runtimes_or_else_those_of_the_plugin_before() {
    let previous = json!({ "dns": { "nameservers": ["10.0.0.1", "x"] } });
    let resolvers = |members: Value| parse(&members).unwrap().resolvers;
    assert_eq!(
        resolvers(json!({ "prevResult": previous })),
        [IpAddr::from([10, 0, 0, 1])]
    );
    let runtime = json!({ "dns": { "servers": ["10.96.0.10"] } });
    let both = json!({ "prevResult": previous, "runtimeConfig": runtime });
    assert_eq!(resolvers(both), [IpAddr::from([10, 96, 0, 10])]);
    assert!(resolvers(json!({})).is_empty());
}

#[test]
fn name_servers_are_found_where_containerd_writes_them_with_a_capital() {
    let dns = json!({ "Servers": ["10.96.0.10"], "Searches": null, "Options": null });
    let netconf = parse(&json!({ "runtimeConfig": { "dns": dns } })).unwrap();
    assert_eq!(netconf.resolvers, [IpAddr::from([10, 96, 0, 10])]);
}

#[test]
fn options_of_the_command_line_and_names_of_users_are_refused() {
    for (redirect, said) in [
        (json!({ "dry-run": true }), "dry-run"),
        (json!({ "logLevel": "debug" }), "logLevel"),
        (json!({ "proxy-uid": "envoy" }), "envoy"),
        (
            json!({ "proxyCgroup": "system.slice" }),
            "recognise the proxy by proxy-mark",
        ),
        (json!({ "proxy-uid": "", "proxyGid": "" }), "both are empty"),
    ] {
        let error = parse(&json!({ "redirect": redirect })).unwrap_err();
        assert_eq!(error.code(), Code::NetConf);
        assert!(error.message().contains(said), "{}", error.message());
    }
    assert!(parse(&json!({ "redirect": { "backend": "iptables-nft", "excludeUids": [1, 2] } })).is_ok());
}
