//! Validation by the schemas of `docs/schema`: JSON Schema, draft 2020-12, as far as they use it. The tests of `command`
//! compare it with Python's `jsonschema`. It runs in the test's own process: the machines of `scripts/test-kernels` have no
//! Python.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use serde_json::Value;

/// The directory of the schemas, in the repository.
pub const DIRECTORY: &str = "docs/schema";
/// The end of their file names.
pub const SUFFIX: &str = ".schema.json";

/// All schemas by name.
pub static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIRECTORY);
    let files = fs::read_dir(directory).expect("the schemas");
    let files = files.map(|file| file.expect("a file").path());
    let schema = |path: std::path::PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.to_owned();
        let text = fs::read_to_string(&path).expect("a schema");
        let schema = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        Some((name, schema))
    };
    files.filter_map(schema).collect()
});

/// Asserts that a document conforms to the schema of this name.
#[track_caller]
pub fn assert_conforms(name: &str, document: &Value) {
    let found = violations(name, document);
    assert!(
        found.is_empty(),
        "{name}{SUFFIX}: {}\nin {document:#}",
        found.join("\n")
    );
}

/// The violations of the schema of this name.
pub fn violations(name: &str, document: &Value) -> Vec<String> {
    let schema = SCHEMAS
        .get(name)
        .unwrap_or_else(|| panic!("{DIRECTORY} has no {name}{SUFFIX}"));
    let mut found = Vec::new();
    Place { name, at: "" }.check(schema, document, &mut found);
    found
}

/// The schema that is applied, and the position in the document.
#[derive(Clone, Copy)]
struct Place<'a> {
    name: &'a str,
    at: &'a str,
}

impl Place<'_> {
    fn check(self, schema: &Value, value: &Value, found: &mut Vec<String>) {
        let Value::Object(keywords) = schema else {
            assert_eq!(*schema, true, "{}: not a schema", self.name);
            return;
        };
        for (keyword, argument) in keywords {
            let reason = match keyword.as_str() {
                "const" => (value != argument).then(|| format!("not {argument}")),
                "enum" => (!items(argument).contains(value)).then(|| format!("none of {argument}")),
                "type" => (!is_of_type(value, argument)).then(|| format!("not of type {argument}")),
                "minimum" => is_ordered(value, argument).then(|| format!("below {argument}")),
                "maximum" => is_ordered(argument, value).then(|| format!("above {argument}")),
                "required" => {
                    let mut keys = items(argument).iter().filter_map(Value::as_str);
                    let missing = keys.find(|key| value.is_object() && value.get(key).is_none());
                    missing.map(|key| format!("no {key}"))
                }
                "oneOf" => {
                    let matching = items(argument).iter().filter(|schema| self.accepts(schema, value));
                    let number = matching.count();
                    (number != 1).then(|| format!("{number} of oneOf match"))
                }
                "$ref" => {
                    self.follow(argument, value, found);
                    None
                }
                "items" => {
                    self.check_items(argument, value, found);
                    None
                }
                // Annotations, and what `check_members` reads.
                "$schema" | "$defs" | "title" | "description" | "default" => None,
                "properties" | "patternProperties" | "additionalProperties" => None,
                unknown => panic!("{}: the keyword {unknown} is not supported here", self.name),
            };
            found.extend(reason.map(|reason| format!("{}: {reason}: {value}", self.at)));
        }
        self.check_members(schema, value, found);
    }

    fn accepts(self, schema: &Value, value: &Value) -> bool {
        let mut found = Vec::new();
        self.check(schema, value, &mut found);
        found.is_empty()
    }

    fn follow(self, reference: &Value, value: &Value, found: &mut Vec<String>) {
        let reference = reference.as_str().expect("a reference");
        let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let name = file.strip_suffix(SUFFIX).unwrap_or(self.name);
        let schema = SCHEMAS.get(name).and_then(|schema| schema.pointer(pointer));
        let schema = schema.unwrap_or_else(|| panic!("{}: no {reference}", self.name));
        Place { name, at: self.at }.check(schema, value, found);
    }

    fn check_items(self, schema: &Value, value: &Value, found: &mut Vec<String>) {
        for (number, item) in value.as_array().into_iter().flatten().enumerate() {
            let at = format!("{}/{number}", self.at);
            Place { at: &at, ..self }.check(schema, item, found);
        }
    }

    fn check_members(self, schema: &Value, value: &Value, found: &mut Vec<String>) {
        let patterns = schema["patternProperties"].as_object();
        for (key, member) in value.as_object().into_iter().flatten() {
            let at = format!("{}/{key}", self.at);
            let place = Place { at: &at, ..self };
            let property = schema["properties"].get(key);
            let mut patterns = patterns.into_iter().flatten();
            let pattern = patterns.find(|(pattern, _)| key.starts_with(&prefix(pattern)));
            match property
                .or(pattern.map(|(_, schema)| schema))
                .or(schema.get("additionalProperties"))
            {
                None => {}
                Some(Value::Bool(false)) => found.push(format!("{at}: not in the schema")),
                Some(schema) => place.check(schema, member, found),
            }
        }
    }
}

/// Whether both are numbers, and the first is less.
fn is_ordered(less: &Value, more: &Value) -> bool {
    matches!((less.as_f64(), more.as_f64()), (Some(less), Some(more)) if less < more)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// The text that a pattern `^TEXT` demands at the beginning.
fn prefix(pattern: &str) -> String {
    let text = pattern.strip_prefix('^').map(|text| text.replace("\\.", "."));
    let is_literal = |text: &String| !text.contains(['\\', '*', '+', '[', '(', '$', '|', '?']);
    text.filter(is_literal)
        .unwrap_or_else(|| panic!("the pattern {pattern} is not supported here"))
}

fn is_of_type(value: &Value, wanted: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("the name of a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        name => panic!("no type {name}"),
    };
    match wanted {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

/// Validates the JSON that a run of the program printed, one document or several, if its arguments request some.
#[track_caller]
pub fn check_output(command: &Command, stdout: &str) {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let is_program = |word: &OsStr| Path::new(word).file_name() == Some(OsStr::new("sidetrack"));
    let arguments = words.skip_while(|word| !is_program(word)).skip(1);
    let arguments: Vec<&str> = arguments.filter_map(OsStr::to_str).collect();
    let Some(schema) = schema_of(&arguments).filter(|_| stdout.starts_with('{')) else {
        return;
    };
    for document in serde_json::Deserializer::from_str(stdout).into_iter() {
        let document = document.unwrap_or_else(|error| panic!("{error}: {command:?}: {stdout}"));
        assert_conforms(&schema, &document);
    }
}

/// The name of the schema of the JSON that these arguments request.
fn schema_of(arguments: &[&str]) -> Option<String> {
    let has = |flag: &str, value: &str| arguments.windows(2).any(|pair| pair == [flag, value]);
    let is_json = arguments.contains(&"--json") || has("--format", "json");
    match arguments {
        ["apply", ..] => has("--output", "json").then(|| "plan".to_owned()),
        ["node", "repair", ..] => Some("node-repair".to_owned()),
        ["node", command, ..] => is_json.then(|| format!("node-{command}")),
        [command, ..] if !command.starts_with('-') => is_json.then(|| (*command).to_owned()),
        _ => None,
    }
}
