//! The sources of options: the command line, the environment, a file. Each becomes a [`Layer`].

use std::path::Path;

use serde_json::Value;

use super::problem::{Problem, Source, environment_name};
use super::table::{self, Layer, OPTIONS, OptionSpec};
use crate::types::{Accounts, Invalid};
use crate::yaml;

/// The options of one source, and all its errors.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The valid options.
    pub layer: Layer,
    /// The errors.
    pub problems: Vec<Problem>,
    /// Ignored settings that are not necessarily errors.
    pub notes: Vec<String>,
}

impl Parsed {
    fn read(&mut self, source: &Source, option: &OptionSpec, texts: &[String], accounts: &dyn Accounts) {
        if let Err(invalid) = (option.read)(&mut self.layer, texts, accounts) {
            self.problems.extend(invalid.into_iter().map(|invalid| Problem::Value {
                source: source.clone(),
                option: option.name.to_owned(),
                invalid,
            }));
        }
    }
}

/// Reads the flags; `values` returns the texts of an option, or `None` if the flag is absent.
pub fn from_flags(values: impl Fn(&OptionSpec) -> Option<Vec<String>>, accounts: &dyn Accounts) -> Parsed {
    let mut parsed = Parsed::default();
    for option in OPTIONS {
        if let Some(texts) = values(option) {
            parsed.read(&Source::Flag, option, &texts, accounts);
        }
    }
    parsed
}

/// Reads the variables `SIDETRACK_…` of an environment.
///
/// An unknown variable is only reported: Kubernetes sets such variables for a Service named sidetrack.
pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>, accounts: &dyn Accounts) -> Parsed {
    let mut parsed = Parsed::default();
    for (name, text) in variables {
        if !name.starts_with("SIDETRACK_") || VARIABLES_OF_THE_COMMAND_LINE.contains(&name.as_str()) {
            continue;
        }
        match OPTIONS.iter().find(|option| environment_name(option.name) == name) {
            Some(option) => parsed.read(&Source::Environment, option, &[text], accounts),
            None => parsed.notes.push(format!("{name} is not an option and is ignored")),
        }
    }
    parsed
}

/// Variables that select files rather than options: the command line reads them itself.
const VARIABLES_OF_THE_COMMAND_LINE: [&str; 2] = ["SIDETRACK_CONFIG", "SIDETRACK_NETNS"];

/// Reads the text of a configuration file, JSON or YAML: one object, its keys the options' names.
pub fn from_file(path: &Path, text: &str, accounts: &dyn Accounts) -> Parsed {
    let source = Source::File(path.to_owned());
    match yaml::document(text) {
        Ok(document) => from_value(source, document.to_json(), accounts),
        Err(error) => Parsed {
            problems: vec![Problem::Source {
                source,
                reason: error.to_string(),
            }],
            ..Parsed::default()
        },
    }
}

/// Reads an object whose keys are the options' names: a file, or the `redirect` object of a NetConf.
pub fn from_value(source: Source, value: Value, accounts: &dyn Accounts) -> Parsed {
    let mut parsed = Parsed::default();
    let entries = match value {
        Value::Object(entries) => entries,
        Value::Null => return parsed,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let reason = "not an object with the options' names as keys".to_owned();
            parsed.problems.push(Problem::Source { source, reason });
            return parsed;
        }
    };
    let mut seen: Vec<&str> = Vec::new();
    for (key, value) in &entries {
        let Some(option) = table::find(key) else {
            let reason = format!("{key} is not an option; the keys are the names of the flags");
            parsed.problems.push(Problem::Source {
                source: source.clone(),
                reason,
            });
            continue;
        };
        if seen.contains(&option.name) {
            let reason = format!("{} is given twice", option.name);
            parsed.problems.push(Problem::Source {
                source: source.clone(),
                reason,
            });
            continue;
        }
        seen.push(option.name);
        match texts(value) {
            Ok(Some(texts)) => parsed.read(&source, option, &texts, accounts),
            Ok(None) => {}
            Err(invalid) => parsed.problems.push(Problem::Value {
                source: source.clone(),
                option: option.name.to_owned(),
                invalid,
            }),
        }
    }
    parsed
}

/// Converts a value to texts: one for a scalar, several for a list of scalars, `None` for null.
fn texts(value: &Value) -> Result<Option<Vec<String>>, Invalid> {
    let unusable =
        |value: &Value| Invalid::new(value.to_string(), "a string, a number, true, false, or a list of these");
    let scalar = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(unusable(value)),
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(items) if items.is_empty() => Ok(Some(vec![String::new()])),
        Value::Array(items) => items.iter().map(scalar).collect::<Result<_, _>>().map(Some),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Object(_) => Ok(Some(vec![scalar(value)?])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NoAccounts, Port};

    fn file(text: &str) -> Parsed {
        from_file(Path::new("c.yaml"), text, &NoAccounts)
    }

    fn messages(parsed: &Parsed) -> Vec<String> {
        parsed.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn yaml_and_json_are_equivalent() {
        let yaml = "proxy-inbound-port: 15106\nexcludeInboundPorts: [22, \"8000-8080\"]\ndry_run: true\n";
        let json = r#"{"proxy-inbound-port": "15106", "exclude-inbound-ports": "22,8000-8080", "dryRun": true}"#;
        let (yaml, json) = (file(yaml), file(json));
        assert_eq!(messages(&yaml), Vec::<String>::new());
        assert_eq!(yaml.layer, json.layer);
        assert_eq!(yaml.layer.proxy_inbound_port, Port::new(15106));
    }

    #[test]
    fn empty_files_set_no_options() {
        assert_eq!(file("# nothing yet\n").layer, Layer::default());
        assert_eq!(file("{}").layer, Layer::default());
        assert_eq!(file("proxy-uid:\n").layer, Layer::default());
    }

    #[test]
    fn empty_lists_are_kept() {
        assert!(
            file("include-inbound-ports: []")
                .layer
                .include_inbound_ports
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn all_errors_of_a_file_are_reported() {
        let parsed = file(
            "proxy-inbound-port: 0\nproxy-uids: 3\nexclude-uids: {a: 1}\nproxyOutboundPort: 1\nproxy-outbound-port: 2\n",
        );
        assert_eq!(
            messages(&parsed),
            [
                "c.yaml: proxy-inbound-port: \"0\" is not a port from 1 to 65535",
                "c.yaml: proxy-uids is not an option; the keys are the names of the flags",
                "c.yaml: exclude-uids: \"{\\\"a\\\":1}\" is not a string, a number, true, false, or a list of these",
                "c.yaml: proxy-outbound-port is given twice",
            ]
        );
    }

    #[test]
    fn files_that_are_not_objects_are_rejected() {
        for text in ["- a\n", "3", "{\"a\": ", "a: b: c"] {
            assert_eq!(file(text).problems.len(), 1, "{text}");
        }
    }

    #[test]
    fn invalid_variables_are_errors_and_unknown_ones_notes() {
        let variables = [
            ("SIDETRACK_PROXY_INBOUND_PORT", "http"),
            ("SIDETRACK_EXCLUDE_UIDS", "1-x"),
            ("SIDETRACK_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("SIDETRACK_NETNS", "pod"),
            ("PROXY_UID", "x"),
        ];
        let parsed = from_environment(
            variables.map(|(name, text)| (name.to_owned(), text.to_owned())),
            &NoAccounts,
        );
        assert_eq!(parsed.problems.len(), 2);
        assert!(messages(&parsed)[0].starts_with("SIDETRACK_PROXY_INBOUND_PORT: \"http\" is not a port"));
        assert_eq!(
            parsed.notes,
            ["SIDETRACK_PORT_80_TCP_ADDR is not an option and is ignored"]
        );
    }
}
