//! Findings in SARIF 2.1.0, the format that code review reads: OASIS Standard,
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::code::{Code, Explanation};
use super::render::{Linted, findings, sentence};
use super::{Finding, render};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The findings as a log of one run.
pub fn sarif(files: &[Linted]) -> String {
    let rules: Vec<Value> = Code::ALL.iter().map(|code| rule(code.explanation())).collect();
    let results: Vec<Value> = findings(files).map(result).collect();
    let driver = json!({
        "name": "sidetrack",
        "version": env!("CARGO_PKG_VERSION"),
        "rules": rules,
    });
    let run = json!({
        "tool": { "driver": driver },
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": { "pods": render::pods(files), "skipped": render::skipped(files) },
    });
    let log = json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] });
    format!("{log:#}\n")
}

fn rule(explanation: &Explanation) -> Value {
    let Explanation {
        id,
        level,
        title,
        why,
        fix,
    } = explanation;
    json!({
        "id": id,
        "shortDescription": { "text": title },
        "fullDescription": { "text": why },
        "help": { "text": fix },
        "defaultConfiguration": { "level": level.name() },
    })
}

fn result((file, finding, explanation): (&str, &Finding, &Explanation)) -> Value {
    json!({
        "ruleId": explanation.id,
        "ruleIndex": Code::ALL.iter().position(|code| *code == finding.code),
        "level": explanation.level.name(),
        "message": { "text": sentence(finding, explanation) },
        "locations": [{
            "physicalLocation": {
                "artifactLocation": { "uri": uri(file) },
                "region": { "startLine": finding.at.line, "startColumn": finding.at.column },
            },
            "logicalLocations": [{ "fullyQualifiedName": finding.object, "kind": "resource" }],
        }],
    })
}

/// A file as a reference of a URI (RFC 3986, sections 2.3 and 4.2).
fn uri(file: &str) -> String {
    let mut uri = match file {
        "-" => return "stdin".to_owned(),
        absolute if absolute.starts_with('/') => "file://".to_owned(),
        _ => String::new(),
    };
    for byte in file.strip_prefix("./").unwrap_or(file).bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            byte => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}
