//! The schemas of `docs/schema`: generated from the tables of options and keys where there is one, complete, and valid by
//! another implementation. [`Run::of`](crate::program::Run::of) validates what the program prints in all tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use serde_json::{Map, Value, json};
use sidetrack::cni::capability::POD_ANNOTATIONS;
use sidetrack::cni::netconf::{KEYS, Key, RESERVED_PREFIX, STANDARD_KEYS};
use sidetrack::cni::nomad;
use sidetrack::mesh::annotations::{PREFIX, REDIRECT};
use sidetrack::mesh::policy::{OnMissing, Select};
use sidetrack::options::sources::from_file;
use sidetrack::options::table::{OPTIONS, OptionSpec, Scope};
use sidetrack::render;
use sidetrack::types::{Choice, LogFormat, LogLevel, NoAccounts};

use crate::plans::plan;
use crate::program::schema::{DIRECTORY, SCHEMAS, SUFFIX, assert_conforms, violations};
use crate::temporary::Temporary;
use crate::{cases, generated, random};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

fn write(name: &str, schema: &Value) {
    generated::file(&format!("{DIRECTORY}/{name}{SUFFIX}"), &format!("{schema:#}\n"));
}

/// The schema of an option's value. A configuration may write numbers and booleans as texts.
fn option(option: &OptionSpec) -> Value {
    let (types, items): (&[&str], Option<Value>) = match option.value_name {
        None => (&["boolean"], None),
        Some("PORT" | "MARK" | "TABLE" | "DURATION") => (&["integer", "string"], None),
        Some("PORTS" | "UIDS" | "GIDS") => {
            let item = json!({ "type": ["integer", "string"] });
            (&["integer", "string", "array"], Some(item))
        }
        Some("CIDRS" | "NAMES" | "SERVERS" | "PROTO:PORTS:UIDS") => {
            (&["string", "array"], Some(json!({ "type": "string" })))
        }
        Some(_) => (&["string"], None),
    };
    let mut schema = json!({ "description": option.help, "default": (option.default)() });
    let values = (option.names)();
    match types {
        ["boolean"] => schema["enum"] = json!([true, false, "true", "false", null]),
        _ if !values.is_empty() => {
            let values = values.into_iter().map(Value::from).chain([Value::Null]);
            schema["enum"] = values.collect();
        }
        types => schema["type"] = types.iter().chain(&["null"]).copied().collect(),
    }
    if let Some(items) = items {
        schema["items"] = items;
    }
    schema
}

/// The spellings of an option in a configuration.
fn spellings(name: &str) -> BTreeSet<String> {
    [name.to_owned(), generated::camel_case(name), name.replace('-', "_")].into()
}

/// Properties that refer to the options in `file`.
fn properties(file: &str, is_included: impl Fn(&OptionSpec) -> bool) -> Map<String, Value> {
    let options = OPTIONS.iter().filter(|option| is_included(option));
    let reference = |name: &str| json!({ "$ref": format!("{file}#/$defs/{name}") });
    options
        .flat_map(|option| {
            spellings(option.name)
                .into_iter()
                .map(move |key| (key, reference(option.name)))
        })
        .collect()
}

#[test]
fn schema_of_the_options_file_is_generated() {
    let options = OPTIONS.iter().map(|of| (of.name.to_owned(), option(of)));
    let schema = json!({
        "$schema": DRAFT,
        "title": "Options",
        "description": "The file of `--config`, in JSON or YAML. Each option once, in any of its spellings.",
        "type": ["object", "null"],
        "properties": properties("", |_| true),
        "additionalProperties": false,
        "$defs": options.collect::<Map<_, _>>(),
    });
    write("options", &schema);
}

/// The schema of the value of a key that sidetrack defines.
fn key(Key { name, default, .. }: &Key) -> Value {
    fn names<C: Choice>() -> Value {
        let names = C::ALL.iter().map(|(_, name)| Value::from(*name));
        json!({ "enum": names.chain([Value::Null]).collect::<Vec<_>>() })
    }
    match *name {
        _ if matches!(*default, "true" | "false") => json!({ "type": ["boolean", "null"] }),
        "select" => names::<Select>(),
        "onMissingAnnotations" => names::<OnMissing>(),
        "logLevel" => names::<LogLevel>(),
        "logFormat" => names::<LogFormat>(),
        "excludeNamespaces" => json!({ "type": ["array", "null"], "items": { "type": "string" } }),
        "installer" | "logFile" | "logSocket" => json!({ "type": ["string", "null"] }),
        "redirect" => json!({
            "type": ["object", "null"],
            "properties": properties(&format!("options{SUFFIX}"), |option| option.scope.is_of_plugin()),
            "additionalProperties": false,
        }),
        unknown => panic!("the key {unknown} has no schema"),
    }
}

/// The schema of a pod's annotations, as the runtime passes them: texts.
fn annotations() -> Value {
    let mut properties = Map::new();
    let redirect = "`true` redirects the pod, `false` does not";
    properties.insert(
        REDIRECT.to_owned(),
        json!({ "description": redirect, "type": "string" }),
    );
    for option in OPTIONS.iter().filter(|option| option.scope == Scope::Pod) {
        let schema = json!({ "description": option.help, "type": "string" });
        properties.insert(format!("{PREFIX}{}", option.name), schema);
    }
    json!({
        "description": "The annotations of the pod; those of meshes are in docs/cni.md",
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": { "type": "string" },
    })
}

/// The schema of the value of a key of the specification, as far as sidetrack reads it.
fn standard_key(name: &str) -> Value {
    match name {
        "cniVersion" | "name" | "type" => json!({ "type": "string" }),
        "prevResult" => json!({ "type": ["object", "null"] }),
        "runtimeConfig" => json!({ "properties": { POD_ANNOTATIONS: annotations() } }),
        _ => json!(true),
    }
}

#[test]
fn schema_of_the_netconf_is_generated() {
    let mut properties = Map::new();
    for name in STANDARD_KEYS {
        properties.insert(name.to_owned(), standard_key(name));
    }
    for known in KEYS {
        let mut schema = key(known);
        schema["description"] = known.help.into();
        if let Ok(default) = serde_json::from_str::<Value>(known.default) {
            schema["default"] = default;
        }
        properties.insert(known.name.to_owned(), schema);
    }
    for name in nomad::KEYS {
        let description = format!("A key of Consul's plugin, only where `type` is `{}`", nomad::PLUGIN);
        properties.insert((*name).to_owned(), json!({ "description": description }));
    }
    let schema = json!({
        "$schema": DRAFT,
        "title": "NetConf",
        "description": "The configuration that a runtime passes to the CNI plugin on standard input.",
        "type": "object",
        "properties": properties,
        "patternProperties": { format!("^{}", RESERVED_PREFIX.replace('.', "\\.")): true },
        "required": ["cniVersion", "name", "type"],
        "additionalProperties": false,
    });
    write("netconf", &schema);
}

/// The commands with `--json`, as names of schemas. Front ends after such a command print the same JSON.
fn with_json(command: &clap::Command, before: &str, names: &mut BTreeSet<String>) {
    for inner in command.get_subcommands() {
        let name = format!("{before}{}", inner.get_name());
        if inner
            .get_arguments()
            .any(|argument| argument.get_long() == Some("json"))
        {
            names.insert(name);
        } else {
            with_json(inner, &format!("{name}-"), names);
        }
    }
}

#[test]
fn each_json_flag_has_a_schema_that_the_reference_links() {
    let mut wanted = BTreeSet::new();
    with_json(&sidetrack::cli::command(), "", &mut wanted);
    assert!(wanted.contains("check") && wanted.contains("node-status"), "{wanted:?}");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md")).expect("the page");
    let missing = wanted.iter().filter(|name| !SCHEMAS.contains_key(*name));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&String>::new());
    for name in SCHEMAS.keys() {
        assert!(
            page.contains(&format!("(schema/{name}{SUFFIX})")),
            "docs/reference.md: no {name}"
        );
    }
    for name in wanted {
        let schema = &SCHEMAS[&name];
        let forms = schema["oneOf"]
            .as_array()
            .map_or(std::slice::from_ref(schema), Vec::as_slice);
        for form in forms {
            let version = &form["properties"]["version"]["const"];
            assert!(version.is_u64(), "{name}: no version");
        }
    }
}

/// Documents that conform to a schema: each member present, each alternative in one of them.
fn samples(name: &str, schema: &Value) -> Vec<Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let name = file.strip_suffix(SUFFIX).unwrap_or(name);
        return samples(name, SCHEMAS[name].pointer(pointer).expect("a schema"));
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        return alternatives.iter().flat_map(|one| samples(name, one)).collect();
    }
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return vec![value.clone()];
    }
    let of = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match of {
        None | Some("null") => vec![json!(null)],
        Some("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let properties: Vec<(&String, Vec<Value>)> =
                properties.map(|(key, schema)| (key, samples(name, schema))).collect();
            let most = properties.iter().map(|(_, values)| values.len()).max().unwrap_or(1);
            let document = |number: usize| -> Value {
                let members = properties.iter();
                let members = members.map(|(key, values)| ((*key).clone(), values[number % values.len()].clone()));
                Value::Object(members.collect())
            };
            (0..most).map(document).collect()
        }
        Some("array") => vec![samples(name, &schema["items"]).into()],
        Some("string") => vec![json!("text")],
        Some("boolean") => vec![json!(true)],
        Some("integer" | "number") => vec![schema.get("minimum").cloned().unwrap_or(json!(1))],
        Some(other) => panic!("{name}: no sample of type {other}"),
    }
}

fn plan_document(options: &[&str]) -> Value {
    serde_json::from_str(&render::json::document(&plan(options))).expect("JSON")
}

/// The documents that differ from this one at one place: a member added, removed or of another type.
fn variations(document: &Value) -> Vec<Value> {
    let mut all = vec![json!(7), json!({})];
    match document {
        Value::Object(members) => {
            let mut with_another = members.clone();
            with_another.insert("undocumented".to_owned(), json!(1));
            all.push(with_another.into());
            for (key, member) in members.iter().take(24) {
                let mut without = members.clone();
                without.remove(key);
                all.push(without.into());
                all.extend(variations(member).into_iter().map(|varied| {
                    let mut members = members.clone();
                    members[key] = varied;
                    members.into()
                }));
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate().take(3) {
                all.extend(variations(item).into_iter().map(|varied| {
                    let mut items = items.clone();
                    items[number] = varied;
                    items.into()
                }));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    all
}

#[test]
fn schemas_are_valid_and_accept_what_another_implementation_accepts() {
    let mut asked: Vec<(&str, Value)> = Vec::new();
    for (name, schema) in &*SCHEMAS {
        for document in samples(name, schema) {
            assert_conforms(name, &document);
            asked.extend(variations(&document).into_iter().map(|varied| (name.as_str(), varied)));
            asked.push((name, document));
        }
    }
    let lines: String = asked
        .iter()
        .map(|(name, value)| format!("{}\n", json!([name, value])))
        .collect();
    let input = Temporary::new("schemas", &lines);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(root.join(".venv/bin/python3"));
    python.args(["tests/common/schema.py", DIRECTORY]).current_dir(root);
    let output = python
        .stdin(fs::File::open(input.path()).expect("the input"))
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let verdicts = String::from_utf8(output.stdout).expect("text");
    let verdicts: Vec<bool> = verdicts.lines().map(|line| line == "true").collect();
    assert_eq!(verdicts.len(), asked.len());
    for ((name, value), accepted) in asked.iter().zip(&verdicts) {
        assert_eq!(violations(name, value).is_empty(), *accepted, "{name}: {value:#}");
    }
    let refused = verdicts.iter().filter(|accepted| !**accepted).count();
    assert!(refused > asked.len() / 2, "{refused} of {} are refused", asked.len());
}

#[test]
fn plans_conform_to_their_schema() {
    for (_, options) in cases::all_options() {
        assert_conforms("plan", &plan_document(options));
    }
    random::each(100, |options| assert_conforms("plan", &plan_document(options)));
}

#[test]
fn options_files_conform_to_their_schema() {
    random::each(200, |options| {
        for spelling in [str::to_owned, generated::camel_case, |name: &str| {
            name.replace('-', "_")
        }] {
            let key = |flag: &str| spelling(flag.trim_start_matches("--"));
            let members = options.chunks(2).map(|words| match words {
                [flag, value] => (key(flag), json!(value)),
                [flag] => (key(flag), json!(true)),
                other => panic!("{other:?}"),
            });
            let document = Value::Object(members.collect());
            assert_conforms("options", &document);
            let read = from_file(Path::new("options.json"), &document.to_string(), &NoAccounts);
            assert_eq!(read.problems, []);
        }
    });
    for unknown in ["proxyUids", "proxy-inbound", "netns"] {
        assert!(!violations("options", &json!({ unknown: "1" })).is_empty(), "{unknown}");
    }
}
