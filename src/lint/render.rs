//! Findings as lines for people, and as JSON for machines. The schema is described in `docs/lint.md`; [`VERSION`]
//! changes when it does.

use std::fmt::Write as _;

use serde_json::{Value, json as value};

use super::{Finding, Report};

/// The version of the schema.
pub const VERSION: u32 = 1;

/// A file, and what was found in it.
pub struct Linted {
    /// What it is called: a path, or `-` for standard input.
    pub file: String,
    /// What was found.
    pub report: Report,
}

/// The findings for people: what and where, why it matters, and what to do.
pub fn text(files: &[Linted]) -> String {
    let mut text = String::new();
    for (file, finding) in findings(files) {
        let Finding {
            code,
            at,
            object,
            message,
        } = finding;
        let explanation = code.explanation();
        let _ = writeln!(
            text,
            "{file}:{}:{}: {}: {object}: {message}\n    why: {}\n    fix: {}",
            at.line, at.column, explanation.id, explanation.why, explanation.fix
        );
    }
    text
}

/// The findings for machines.
pub fn json(files: &[Linted]) -> String {
    let findings: Vec<Value> = findings(files)
        .map(|(file, finding)| {
            let explanation = finding.code.explanation();
            value!({
                "code": explanation.id,
                "file": file,
                "line": finding.at.line,
                "column": finding.at.column,
                "object": finding.object,
                "message": finding.message,
                "title": explanation.title,
                "why": explanation.why,
                "fix": explanation.fix,
            })
        })
        .collect();
    let document = value!({ "version": VERSION, "pods": pods(files), "findings": findings });
    format!("{document:#}\n")
}

/// How many pods were looked at.
pub fn pods(files: &[Linted]) -> usize {
    files.iter().map(|linted| linted.report.pods).sum()
}

/// What was found, and in which file.
pub fn findings(files: &[Linted]) -> impl Iterator<Item = (&str, &Finding)> {
    files.iter().flat_map(|linted| {
        let file = linted.file.as_str();
        linted.report.findings.iter().map(move |finding| (file, finding))
    })
}
