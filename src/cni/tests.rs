//! The plugin as a function, without a kernel; arbitrary input; and its documentation.

use std::ffi::OsString;
use std::io;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::attach::verdict;
use super::capability::POD_ANNOTATIONS;
use super::error::Code;
use super::netconf::KEYS;
use super::*;
use crate::facts::Facts;
use crate::mesh::MESHES;
use crate::mesh::annotations::PREFIX;
use crate::mesh::annotations::table::all;
use crate::mesh::pod::PodName;
use crate::mesh::verdict::Verdict;
use crate::options::table::{OPTIONS, Scope};
use crate::plan::Plan;
use crate::render;

/// Runs the plugin with these variables. Its log is discarded.
fn run_with(variables: &[(&str, &str)], stdin: &[u8]) -> Answer {
    let _whoever_is_first = tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default());
    let find = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| OsString::from(value))
    };
    run(&find, stdin).answer
}

/// A request about an attachment to the test's own network namespace, which the plugin refuses once it gets that far.
fn ask(verb: &str, stdin: &str) -> Answer {
    run_with(
        &[
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "c"),
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_IFNAME", "eth0"),
        ],
        stdin.as_bytes(),
    )
}

#[track_caller]
fn code(answer: &Answer) -> u64 {
    assert_eq!(answer.code, 1, "{answer:?}");
    let error: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let known = |key: &String| ["cniVersion", "code", "msg", "details"].contains(&key.as_str());
    assert!(error.as_object().unwrap().keys().all(known), "{error}");
    assert!(
        Version::parse(error["cniVersion"].as_str().unwrap()).is_some(),
        "{error}"
    );
    assert!(!error["msg"].as_str().unwrap().is_empty());
    error["code"].as_u64().unwrap()
}

const NETCONF: &str = r#"{"cniVersion": "1.1.0", "name": "net", "type": "sidetrack"}"#;

#[test]
fn version_repeats_the_version_of_the_request_and_lists_all() {
    for (stdin, version) in [(r#"{"cniVersion": "0.4.0"}"#, "0.4.0"), ("", "1.1.0"), ("{", "1.1.0")] {
        let answer = run_with(&[("CNI_COMMAND", "VERSION")], stdin.as_bytes());
        let expected = json!({
            "cniVersion": version,
            "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        });
        assert_eq!(serde_json::from_slice::<Value>(&answer.stdout).unwrap(), expected);
        assert_eq!(answer.code, 0);
    }
}

#[test]
fn del_succeeds_on_any_input() {
    for stdin in ["", "{", "[]", NETCONF, r#"{"cniVersion": "9.9.9", "select": 3}"#] {
        assert_eq!(run_with(&[("CNI_COMMAND", "DEL")], stdin.as_bytes()), Answer::nothing());
        assert_eq!(ask("DEL", stdin), Answer::nothing());
    }
    let del = |name: &str| (name == "CNI_COMMAND").then(|| OsString::from("DEL"));
    assert_eq!(run(&del, Broken).answer, Answer::nothing());
}

/// Standard input that cannot be read.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

#[test]
fn each_error_has_the_code_of_the_specification() {
    let with = |members: &str| NETCONF.replacen('{', &format!("{{{members}, "), 1);
    let cases = [
        ("ADD", String::new(), 6),
        ("ADD", "[]".to_owned(), 6),
        ("ADD", "{\"a\":".to_owned(), 6),
        ("ADD", "{}".to_owned(), 1),
        ("ADD", NETCONF.replace("1.1.0", "0.2.0"), 1),
        ("ADD", NETCONF.replace("1.1.0", "2.0.0"), 1),
        ("ADD", NETCONF.replace("\"1.1.0\"", "1"), 6),
        ("CHECK", NETCONF.replace("1.1.0", "0.3.1"), 1),
        ("GC", NETCONF.replace("1.1.0", "1.0.0"), 1),
        ("STATUS", NETCONF.replace("1.1.0", "1.0.0"), 1),
        ("GC", NETCONF.replace("\"net\"", "\"a b\""), 7),
        ("GC", with(r#""selekt": "always""#), 2),
        ("GC", with(r#""select": "sometimes""#), 7),
        ("GC", with(r#""redirect": {"proxyInboundPort": 0}"#), 7),
        ("ADD", with(r#""prevResult": 3"#), 7),
        ("ADD", NETCONF.to_owned(), 4), // Our own network namespace.
        ("CHECK", NETCONF.to_owned(), 4),
        ("NOTHING", NETCONF.to_owned(), 4),
        ("add", NETCONF.to_owned(), 4),
        ("", NETCONF.to_owned(), 4),
        ("STATUS", NETCONF.to_owned(), 50), // Without the capability no pod could start.
    ];
    for (verb, stdin, expected) in cases {
        assert_eq!(code(&ask(verb, &stdin)), expected, "{verb} {stdin}");
    }
    let add = |name: &str| (name == "CNI_COMMAND").then(|| OsString::from("ADD"));
    assert_eq!(code(&run(&add, Broken).answer), 5);
    assert_eq!(ask("GC", NETCONF), Answer::nothing());
}

fn parsed(members: &Value) -> NetConf {
    let mut object: Value = serde_json::from_str(NETCONF).unwrap();
    object
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    NetConf::parse(object.to_string().as_bytes()).unwrap()
}

#[test]
fn without_annotations_the_error_says_how_to_get_them() {
    let netconf = |capabilities: Value| parsed(&json!({ "capabilities": capabilities }));
    let error = verdict(&netconf(json!({})), &PodName::default()).unwrap_err();
    assert_eq!(error.code(), Code::NoAnnotations);
    let details = error.details().unwrap();
    assert!(
        details.contains(r#"add "capabilities": {"io.kubernetes.cri.pod-annotations": true}"#),
        "{details}"
    );
    let error = verdict(&netconf(json!({ POD_ANNOTATIONS: true })), &PodName::default()).unwrap_err();
    assert!(
        error.details().unwrap().contains("containerd 1.5, CRI-O 1.28"),
        "{error:?}"
    );
}

#[test]
fn invalid_annotations_and_netconf_are_reported_together() {
    let pod = |annotations: Value, redirect: Value| {
        let netconf = parsed(&json!({
            "select": "always", "redirect": redirect, "runtimeConfig": { POD_ANNOTATIONS: annotations },
        }));
        verdict(&netconf, &PodName::default())
    };
    let error = pod(
        json!({ "traffic.sidecar.istio.io/excludeInboundPorts": "x" }),
        json!({}),
    )
    .unwrap_err();
    assert_eq!(error.code(), Code::Annotations);
    // Each is valid alone.
    let port = format!("{PREFIX}proxy-inbound-port");
    let error = pod(json!({ port: "15101" }), json!({ "proxy-outbound-port": 15101 })).unwrap_err();
    assert_eq!(error.code(), Code::Annotations);
    let error = pod(json!({ crate::mesh::annotations::REDIRECT: "maybe" }), json!({})).unwrap_err();
    assert_eq!(error.code(), Code::Annotations);
}

#[test]
fn invalid_netconf_does_not_stop_system_pods() {
    let netconf = parsed(
        &json!({ "selekt": 1, "redirect": { "proxy-inbound-port": 0 }, "runtimeConfig": { POD_ANNOTATIONS: 3 } }),
    );
    let pod = |namespace: &str| PodName {
        namespace: Some(namespace.to_owned()),
        name: None,
    };
    assert!(matches!(
        verdict(&netconf, &pod("kube-system")),
        Ok(Verdict::Skipped(_))
    ));
    assert_eq!(
        verdict(&netconf, &pod("shop")).unwrap_err().code(),
        Code::UnsupportedField
    );
    assert_eq!(attach::status(&netconf).unwrap_err().code(), Code::UnsupportedField);
}

/// Text that must not reach any output, beside meaningful text.
const HOSTILE: &str = "E;VIL";

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(HOSTILE.to_owned()),
        Just("\" accept; drop table\n".to_owned()),
        Just("-A OUTPUT -j ACCEPT".to_owned()),
        "[0-9]{1,5}",
        "[0-9a-f.:/,*-]{0,12}",
        prop_oneof![
            Just("true"),
            Just("eth0"),
            Just("TPROXY"),
            Just("injected"),
            Just("always"),
            Just("80,443")
        ]
        .prop_map(str::to_owned),
        ".{0,8}",
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![name(), text()];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(key, inner, 0..4).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// A name with a meaning in some source of options.
fn name() -> impl Strategy<Value = String> {
    let options = OPTIONS
        .iter()
        .flat_map(|option| [option.name.to_owned(), format!("{PREFIX}{}", option.name)]);
    let names = KEYS
        .iter()
        .map(|key| key.name)
        .chain(all().map(|annotation| annotation.name));
    let marks = MESHES.iter().flat_map(|mesh| mesh.mark).map(|(name, _)| *name);
    let others = [
        "cniVersion",
        "name",
        "prevResult",
        "runtimeConfig",
        "capabilities",
        POD_ANNOTATIONS,
        "dns",
    ];
    let all: Vec<String> = names
        .chain(marks)
        .chain(others)
        .map(str::to_owned)
        .chain(options)
        .collect();
    prop::sample::select(all)
}

/// The rules of a verdict, as a script; none if no plan can be built.
fn script(netconf: &NetConf) -> Option<String> {
    match verdict(netconf, &PodName::default()) {
        Ok(Verdict::Redirected(redirected)) => {
            let plan = Plan::new(&redirected.settings.config, &Facts::default()).ok()?;
            Some(render::nft::script(&plan) + &crate::backend::iptables::script(&plan).unwrap())
        }
        Ok(Verdict::Skipped(_)) | Err(_) => None,
    }
}

/// All lists at their bounds, including those that multiply on iptables.
#[test]
fn longest_lists_of_a_pod_fit_iptables() {
    let numbers = |count: u32| {
        (0..count)
            .map(|at| (2 * at + 1).to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let address = |at: u32| std::net::Ipv4Addr::from_bits(2 * at + 1).to_string();
    let addresses = |count: u32| (0..count).map(address).collect::<Vec<_>>().join(",");
    let names = |prefix: &str| (0..64).map(|at| format!("{prefix}{at}")).collect::<Vec<_>>().join(",");
    let mut annotations = serde_json::Map::new();
    for option in OPTIONS.iter().filter(|option| option.scope == Scope::Pod) {
        let text = match option.name {
            "exclude-outbound-ports-for-uids" => format!("{}:{}", numbers(128), numbers(128)),
            "exclude-interfaces" => names("a"),
            "bound-interfaces" => names("c"),
            "reroute-interfaces" => names("b"),
            "dns-servers" => addresses(64),
            "redirect-dns" | "drop-invalid" => "true".to_owned(),
            name if name.ends_with("-cidrs") => addresses(4096),
            name if name.ends_with("-ports")
                || name.ends_with("ids")
                || name.ends_with("-uid")
                || name.ends_with("-gid") =>
            {
                numbers(1024)
            }
            _ => continue,
        };
        annotations.insert(format!("{PREFIX}{}", option.name), text.into());
    }
    let netconf = json!({
        "cniVersion": "1.1.0", "name": "pods", "type": "sidetrack", "select": "always",
        "runtimeConfig": { POD_ANNOTATIONS: annotations },
    });
    let netconf = NetConf::parse(netconf.to_string().as_bytes()).unwrap();
    let text = script(&netconf).unwrap();
    let rules = text.lines().filter(|line| line.contains("-A ")).count();
    assert!(
        (20_000..crate::backend::iptables::MAX_RULES).contains(&rules),
        "{rules}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_an_answer_of_the_specification(
        stdin in prop_oneof![vec(any::<u8>(), 0..200), any_json().prop_map(|value| value.to_string().into_bytes())],
        verb in prop_oneof![Just("ADD"), Just("CHECK"), Just("DEL"), Just("GC"), Just("VERSION"), Just("X")],
        args in text(),
    ) {
        let args = args.replace('\0', "");
        let variables = [
            ("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_IFNAME", "eth0"), ("CNI_ARGS", args.as_str()),
        ];
        let answer = run_with(&variables, &stdin);
        if answer.code != 0 {
            code(&answer);
        } else if verb == "VERSION" {
            prop_assert!(serde_json::from_slice::<Value>(&answer.stdout).is_ok());
        } else {
            prop_assert_eq!(answer, Answer::nothing());
        }
    }

    #[test]
    fn any_netconf_is_refused_or_leads_to_rules_of_parsed_values_alone(
        members in btree_map(name(), any_json(), 0..6),
        redirect in btree_map(name(), any_json(), 0..3),
    ) {
        let mut object: Value = serde_json::from_str(NETCONF).unwrap();
        let entries = object.as_object_mut().unwrap();
        entries.insert("select".to_owned(), "always".into());
        entries.insert("redirect".to_owned(), redirect.into_iter().collect());
        for (name, value) in members {
            entries.entry(name).or_insert(value);
        }
        match NetConf::parse(object.to_string().as_bytes()) {
            Ok(netconf) => prop_assert!(script(&netconf).is_none_or(|script| !script.contains(HOSTILE))),
            Err(error) => { code(&Answer::error(Version::NEWEST, &error)); }
        }
    }

    #[test]
    fn any_annotations_are_refused_or_lead_to_rules_of_parsed_values_alone(
        annotations in btree_map(name(), prop_oneof![text(), any_json().prop_map(|value| value.to_string())], 0..6),
    ) {
        let annotations: Value = annotations.into_iter().collect();
        let netconf = parsed(&json!({ "select": "always", "runtimeConfig": { POD_ANNOTATIONS: annotations } }));
        prop_assert!(script(&netconf).is_none_or(|script| !script.contains(HOSTILE)));
    }

    #[test]
    fn any_previous_result_is_passed_on_unchanged(previous in any_json(), spaces in "[ \t\r\n]{0,4}") {
        let previous = format!("{{\"cniVersion\":{spaces}\"1.1.0\",\"x\" :{previous}{spaces}}}");
        let stdin = NETCONF.replacen('{', &format!("{{{spaces}\"prevResult\":{spaces}{previous}{spaces}, "), 1);
        let netconf = NetConf::parse(stdin.as_bytes()).unwrap();
        prop_assert_eq!(netconf.previous, Some(previous));
    }
}

/// A document of a few hundred bytes that would be gigabytes if it were written out.
#[test]
fn yaml_aliases_are_not_expanded() {
    let mut yaml = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..20 {
        let repeated = vec![format!("*a{}", level - 1); 9].join(",");
        yaml += &format!("a{level}: &a{level} [{repeated}]\n");
    }
    let annotations = json!({ "proxy.istio.io/config": yaml });
    let netconf = parsed(&json!({ "select": "always", "runtimeConfig": { POD_ANNOTATIONS: annotations } }));
    assert_eq!(
        verdict(&netconf, &PodName::default()).unwrap_err().code(),
        Code::Annotations
    );
}

/// Nesting deeper than the stack.
#[test]
fn deeply_nested_input_is_refused() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(
        code(&ask("ADD", &NETCONF.replacen('{', &format!("{{\"args\": {deep}"), 1))),
        6
    );
    for annotation in ["proxy.istio.io/config", "traffic.kuma.io/transparent-proxy-config"] {
        let annotations = json!({ annotation: deep[..50_000], "sidecar.istio.io/status": deep });
        let netconf = parsed(&json!({ "runtimeConfig": { POD_ANNOTATIONS: annotations } }));
        assert_eq!(
            verdict(&netconf, &PodName::default()).unwrap_err().code(),
            Code::Annotations
        );
    }
}

#[test]
fn documentation_matches_the_code() {
    let document = include_str!("../../docs/cni.md");
    let keys = KEYS
        .iter()
        .map(|key| format!("| `{}` | `{}` | {} |\n", key.name, key.default, key.help));
    let marks = MESHES.iter().map(|mesh| {
        let annotations = mesh.mark.iter().map(|(name, value)| match value {
            Some(value) => format!("`{name}: {value}`"),
            None => format!("`{name}`"),
        });
        format!(
            "| {} | {} |\n",
            mesh.name,
            annotations.collect::<Vec<_>>().join(" and ")
        )
    });
    let annotations = all().map(|annotation| {
        let implied = annotation
            .implies
            .iter()
            .map(|(option, text)| format!("; alone it implies `{option}: {text}`"));
        format!(
            "| `{}` | {}{} |\n",
            annotation.name,
            annotation.meaning,
            implied.collect::<String>()
        )
    });
    let codes = Code::ALL
        .iter()
        .map(|code| format!("| {} | {} |\n", code.number(), code.meaning()));
    for rows in [
        keys.collect::<String>(),
        marks.collect(),
        annotations.collect(),
        codes.collect(),
    ] {
        assert!(document.contains(&rows), "docs/cni.md should hold these rows:\n{rows}");
    }
}
